"One HTML page from executed notebooks that needs nothing beside itself."
import re
from pathlib import Path

from optima.errors import OptimaError
from optima.store import write_text

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .6rem; border-bottom: 1px solid #8884; text-align: left; vertical-align: top; }}
pre {{ overflow-x: auto; font-size: .9rem; }} img, svg {{ max-width: 100%; height: auto; }}
.anchor-link, .jp-InputPrompt, .jp-OutputPrompt, .prompt {{ display: none; }} hr {{ margin: 3rem 0; opacity: .3; }}
</style></head><body>
{body}
</body></html>
"""
OUTSIDE = re.compile(r"""(?:\bsrc|<link[^>]*\bhref)\s*=\s*["']?\s*(?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import""", re.IGNORECASE)
SCRIPTS = re.compile(r"<script\b.*?</script\s*>", re.IGNORECASE | re.DOTALL)
STDERR = "stderr"


def without_noise(notebook):
    "The notebook without progress lines, warnings and empty cells' traces."
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != STDERR]
    return notebook


def body_of(path: Path) -> str:
    "An executed notebook's text and outputs as HTML, without its code and without scripts."
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", exclude_input=True, embed_images=True)
    exporter.exclude_output_prompt = exporter.exclude_anchor_links = True
    html, _ = exporter.from_notebook_node(without_noise(nbformat.read(path, as_version=4)))
    return SCRIPTS.sub("", html)


def write_report(
    notebooks: list[Path],  # executed
    path: Path,  # the page to write
    title: str = "Optima: what was reproduced",
):
    "Write one page that shows all notebooks one after the other and asks for nothing from outside."
    body = "\n<hr>\n".join(body_of(notebook) for notebook in notebooks)
    found = OUTSIDE.search(body)
    if found:
        raise OptimaError(f"{path}: a notebook's output loads from outside ({body[found.start():found.end() + 60]!r}); "
                          "embed it")
    write_text(path, PAGE.format(title=title, body=body))
