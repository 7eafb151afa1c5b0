"Makes README.md from nbs/index.ipynb: `python tools/readme.py`."
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import Preprocessor

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook, then run it. -->\n\n"
LINK = re.compile(r"(!?\[[^\]]*\]\()(?![a-z]+:|#|/)([^)\s]+)")


def from_root(
    link: str,  # relative link as index.ipynb, which lies in nbs/, has it
) -> str:
    "The same link as seen from the root, where README.md lies."
    return link.removeprefix("../") if link.startswith("../") else f"nbs/{link}"


class ForReadme(Preprocessor):
    "Drops hidden cells, and the code of those that show a result only; makes relative links start at the root."

    def preprocess(self, notebook, resources):
        "The notebook without its hidden cells, links rewritten."
        notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("#| hide")]
        for cell in notebook.cells:
            if cell.source.startswith("#| echo: false"):
                cell.metadata["transient"] = {"remove_source": True}
            cell.source = LINK.sub(lambda found: found[1] + from_root(found[2]), cell.source)
        return notebook, resources


def make_readme(
    index: Path = ROOT / "nbs/index.ipynb",  # notebook to read
) -> str:
    "The README's text."
    exporter = MarkdownExporter()
    exporter.register_preprocessor(ForReadme, enabled=True)
    body, _ = exporter.from_notebook_node(nbformat.read(index, as_version=4))
    return NOTE + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(make_readme(), encoding="utf-8")
