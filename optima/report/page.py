"One HTML page from executed notebooks that needs nothing beside itself."
import re
from html.parser import HTMLParser
from pathlib import Path

from optima.base.errors import OptimaError
from optima.base.files import write_text

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
LOADING = ("src", "srcset", "href", "xlink:href", "poster", "data", "background")  # attributes that fetch something
INSIDE = re.compile(r"\s*(?:data:|#|$)", re.IGNORECASE)
STYLE = re.compile(r"""url\(\s*["']?\s*(?:https?:)?//|@import""", re.IGNORECASE)
SCRIPTS = re.compile(r"<script\b.*?</script\s*>", re.IGNORECASE | re.DOTALL)
STDERR = "stderr"


class OutsideReferences(HTMLParser):
    "Collects the tags and styles that make a browser fetch something; text, and links to follow, do not."

    def __init__(self):
        super().__init__()
        self.found, self.open = [], ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]):
        self.open = tag
        for name, value in attributes:
            fetched = name in LOADING and (tag, name) not in (("a", "href"), ("a", "xlink:href"))
            several = re.split(r",\s+", value or "") if name == "srcset" else [value or ""]
            if fetched and not all(map(INSIDE.match, several)) or name == "style" and STYLE.search(value or ""):
                self.found.append(self.get_starttag_text())

    def handle_endtag(self, tag: str):
        self.open = ""

    def handle_data(self, data: str):
        if self.open == "style" and STYLE.search(data):
            self.found.append(STYLE.search(data)[0])


def outside_references(page: str) -> list[str]:
    "What a page would load from elsewhere."
    parser = OutsideReferences()
    parser.feed(page)
    parser.close()
    return parser.found


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

    # without embed_images, which would close each <details> at its first blank line and so unfold it
    exporter = HTMLExporter(template_name="basic", exclude_input=True)
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
    found = outside_references(body)
    if found:
        raise OptimaError(f"{path}: a notebook's output loads from outside ({found[0][:100]!r}); embed it")
    write_text(path, PAGE.format(title=title, body=body))
