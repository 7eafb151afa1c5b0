"Notebooks opened and run as a reader does: every cell works, and what they show can be seen."
import re
import shlex
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from browser.lab import STOP_SECONDS, Lab
from browser.reader import open_without_kernel, run_all, things, unseen
from optima.report.figures import Figure
from tools.project import ROOT, copy_project

SHOWN = {  # notebook -> what it must show, and there may be more
    "nbs/index.ipynb": ("picture",),
    "nbs/tutorials/first_dialogue.ipynb": ("dialogue", "table"),
    "nbs/artefacts/experiment.ipynb": ("dialogue", "table"),  # its default preset is smoke: some ten seconds
}
TRAINED = ("dialogue", "figure", "table")  # what the notebook of README's command must show
FIVE_MINUTES = 300  # from nothing running to a trained team in view, once everything is installed


def without_outputs(path: Path):
    "Empty a notebook's outputs, so that all that is seen was made in this run."
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


@pytest.mark.parametrize("path", SHOWN)
def test_a_notebook_runs_and_shows(path, lab, page, tmp_path):
    without_outputs(lab.root / path)
    assert run_all(page, lab, path) == [], lab.last_words()
    assert [kind for kind in SHOWN[path] if not things(page)[kind]] == []
    assert unseen(page, tmp_path) == []


def first_notebook() -> str:
    "The notebook that README's own command opens in JupyterLab, started in the project's folder."
    (command,) = re.findall(r"jupyter lab [^`]+", (ROOT / "README.md").read_text(encoding="utf-8"))
    options = shlex.split(command)[2:]
    assert options[:-1] == ["--notebook-dir=."]  # the folder that the tests' JupyterLab shows, of its copy
    return options[-1]


def test_from_the_command_to_a_trained_team_takes_less_than_five_minutes(page, tmp_path):
    path, start = first_notebook(), time.monotonic()
    fresh = Lab(tmp_path, copy_project(tmp_path / "project"))
    try:
        without_outputs(fresh.root / path)
        assert run_all(page, fresh, path) == [], fresh.last_words()
        seconds = time.monotonic() - start
        assert [kind for kind in TRAINED if not things(page)[kind]] == []
        assert unseen(page, tmp_path) == []
    finally:
        fresh.stop()
    print(f"from the command to a trained team: {seconds:.0f} seconds")
    assert seconds < FIVE_MINUTES


def write_code(lab, name: str, *sources: str) -> str:
    "Write a notebook of code cells."
    return lab.write_notebook(name, *map(nbformat.v4.new_code_cell, sources))


def test_a_cell_that_fails_is_noticed_and_what_did_not_run(lab, page):
    path = write_code(lab, "fails.ipynb", "1", "import sys; print('warned', file=sys.stderr)", "2 + None", "3")
    failed = run_all(page, lab, path)
    assert len(failed) == 2 and failed[0].startswith("2 + None: TypeError") and failed[1] == "3: did not run"


def test_a_kernel_that_dies_is_noticed(lab, page):
    path = write_code(lab, "dies.ipynb", "1", "import os; os._exit(1)", "3")
    failed = run_all(page, lab, path)
    assert any("appears to have died" in said for said in failed), failed


SVG = ('<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90"><rect width="60" height="60" fill="#0072b2"/>'
       '<text x="9" y="80" fill="{ink}">label</text></svg>')
DEFECTS = (  # style of the figure, colour of its text, what is said of it
    ("", "black", ""),
    ("display:none", "black", "it is not displayed"),
    ("visibility:hidden", "black", "it is not displayed"),
    ("opacity:0", "black", "0.00% of it differs from its background"),
    ("filter:brightness(0) invert(1)", "black", "0.00% of it differs from its background"),
    ("position:fixed;left:-500px", "black", "it lies outside the window"),
    ("", "#eeeeee", "label: rgb(238, 238, 238) on (255, 255, 255)"),
)


def test_a_figure_that_cannot_be_seen_is_noticed(lab, page, tmp_path):
    shown = (Figure(SVG.format(ink=ink), "")._repr_html_().replace("margin:0", style) for style, ink, _ in DEFECTS)
    path = write_code(lab, "defects.ipynb", *(f"from IPython.display import HTML\nHTML({html!r})" for html in shown))
    assert run_all(page, lab, path) == []
    assert unseen(page, tmp_path) == [f"figure {number}: {said}" for number, (*_, said) in enumerate(DEFECTS, 1) if said]


def test_a_stored_figure_is_seen_before_anything_has_run(lab, page, tmp_path):
    output = nbformat.v4.new_output("display_data", {"text/html": Figure(SVG.format(ink="black"), "stored")._repr_html_()})
    path = lab.write_notebook("stored-figure.ipynb", nbformat.v4.new_code_cell("shown", outputs=[output]), kernel="none-here")
    open_without_kernel(page, lab, path)
    assert len(things(page)["figure"]) == 1 and unseen(page, tmp_path) == []


def test_a_missing_picture_is_noticed(lab, page, tmp_path):
    path = lab.write_notebook("picture.ipynb", nbformat.v4.new_markdown_cell("![a picture](none.svg)"))
    assert run_all(page, lab, path) == []
    assert unseen(page, tmp_path) == ["picture 1: the image is missing"]


def test_a_server_that_crashed_is_told_of_and_leaves_no_process(lab, page, tmp_path):
    crashed = Lab(tmp_path, lab.root)
    assert run_all(page, crashed, write_code(lab, "runs.ipynb", "1")) == []
    started = crashed.server.children(recursive=True)
    crashed.server.kill()
    crashed.server.wait(STOP_SECONDS)
    with pytest.raises(AssertionError, match=r"(?s)ended with code -9; its log ends:.*Kernel started"):
        run_all(page, crashed, "runs.ipynb")
    crashed.stop()
    assert started and psutil.wait_procs(started, STOP_SECONDS)[1] == []
