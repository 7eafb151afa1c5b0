"The report: one page that loads nothing, whatever a model says, and folds what its notebooks fold."
import re

import nbformat
import pytest

from optima.agents.messages import Message, Trajectory
from optima.base.errors import OptimaError
from optima.report.page import outside_references, write_report


@pytest.mark.parametrize("page", [
    "<img src='https://example.org/x.png'>", "<IMG SRC = //example.org/x.png />", "<iframe src=http://x></iframe>",
    "<link rel=stylesheet href='//x/y.css'>", "<script src='https://x/y.js'></script>", "<video poster='//x/y.png'>",
    "<img src='data:,' srcset='data:, 1x, https://x/y.png 2x'>", "<svg><image xlink:href='https://x/y.png'/></svg>",
    "<img src='curve.svg'>", "<img src='../images/curve.svg'>",
    "<p style='background:url(//x/y.png)'>", "<style>@import 'x.css';</style>", "<style>p{background:url( 'http://x')}</style>",
])
def test_what_loads_from_outside(page):
    assert len(outside_references(page)) == 1


@pytest.mark.parametrize("page", [
    "<p>src=//example.org url(http://x) @import &lt;img src='https://x'&gt;</p>", "<pre>href = https://x</pre>",
    "<a href='https://example.org'>the paper</a>", "<svg xmlns:xlink='http://www.w3.org/1999/xlink'><use xlink:href='#p'/></svg>",
    "<svg><metadata><type rdf:resource='http://purl.org/dc/x'/></metadata></svg>", "<img alt='url(//x) @import' src='data:,'>",
    "<style>p{clip-path:url(#p)}</style><p>@import</p>", "<img src='data:,' srcset='data:,a 1x, data:,b 2x'>", "<td data>x</td>",
])
def test_what_does_not(page):
    assert outside_references(page) == []


def notebook(path, **data):
    "A notebook with one shown output."
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", data=data)])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


def test_what_is_folded_stays_folded(tmp_path):
    folded = "<details><summary>The runs</summary>\n\n| run |\n| --- |\n| a1 |\n\n</details>\n\nbehind"
    shown = notebook(tmp_path / "x.ipynb", **{"text/markdown": folded, "text/plain": ""})
    written = nbformat.read(shown, as_version=4)
    nbformat.write(nbformat.v4.new_notebook(cells=[*written.cells, nbformat.v4.new_markdown_cell(folded)]), shown)
    write_report([shown], tmp_path / "x.html")
    inside = re.findall(r"<details>(.*?)</details>", (tmp_path / "x.html").read_text(), re.DOTALL)
    assert ["<td>a1</td>" in text and "behind" not in text for text in inside] == [True, True]


def test_a_models_words_do_not_stop_the_report(tmp_path):
    said = 'look at <img src="https://example.org/x.png"> src=//x url(//x) @import "y"'
    dialogue = Trajectory("t", "debate", "none", 0, [Message("proposer", "proposer", said)], said, {"proposer": said})
    shown = notebook(tmp_path / "x.ipynb", **{"text/html": dialogue._repr_html_(), "text/plain": said})
    write_report([shown, notebook(tmp_path / "y.ipynb", **{"text/plain": said})], tmp_path / "x.html")
    assert "src=//x url(//x)" in (tmp_path / "x.html").read_text()


def test_a_page_that_loads_from_outside_is_refused(tmp_path):
    shown = notebook(tmp_path / "x.ipynb", **{"text/html": "<img src='https://example.org/x.png'>"})
    with pytest.raises(OptimaError, match="loads from outside .*example.org.*; embed it"):
        write_report([shown], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
