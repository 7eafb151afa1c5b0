"The pages of nbs/explain: links between notebooks lead somewhere, those that cells print included."
import re
from pathlib import Path

import nbformat
import pytest

from tools.project import ROOT, notebooks

LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def dead_links(notebook: nbformat.NotebookNode, folder: Path) -> list[str]:
    "Relative links of prose and of Markdown outputs that lead to no file."
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    texts += [output.data["text/markdown"] for cell in notebook.cells if cell.cell_type == "code"
              for output in cell.outputs if "text/markdown" in output.get("data", {})]
    return [link for text in texts for link in LINK.findall(text) if not (folder / link).is_file()]


@pytest.mark.parametrize("path", notebooks("explain"), ids=lambda path: path.stem)
def test_links(path):
    assert dead_links(nbformat.read(ROOT / path, as_version=4), (ROOT / path).parent) == []


def test_a_dead_link_is_found():
    v4 = nbformat.v4
    output = v4.new_output("execute_result", data={"text/markdown": "[gone](../run/99_gone.ipynb), [there](index.ipynb)"})
    planted = v4.new_notebook(cells=[v4.new_markdown_cell("[a](nowhere.ipynb) [b](https://x.org)"), v4.new_code_cell("1", outputs=[output])])
    assert dead_links(planted, ROOT / "nbs") == ["nowhere.ipynb", "../run/99_gone.ipynb"]
