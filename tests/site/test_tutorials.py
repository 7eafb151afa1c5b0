"Each tutorial is built as the others are, and runs in its time, with the solutions of its exercises."
import re
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from optima.cli import kernels
from optima.cli.reproduce import Job, ended, environment, launch, stop
from tools.project import ROOT, notebooks

RUN_SECONDS = 300  # of the clock, solutions included; then it is stopped
PAGE_SECONDS = 100  # of a processor, imports left out; 40 are promised, and a busy machine spends two to three times as many
STOPWATCH = "import os; print(sum(os.times()[:4]))"  # processor seconds of the kernel, and of what it started, until here
TUTORIALS = (  # in reading order
    "first_dialogue", "train_a_team", "your_own_reward", "your_own_task", "your_own_paradigm", "consumer_gpu", "teacher_api",
)
ALL = notebooks("tutorials")
FOLDED = re.compile(r"<details>\s*<summary>Solution</summary>(.*?)</details>", re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
NOT_RUN = re.compile(r"(?m)^#\| *eval: *false")


def read(path: Path) -> nbformat.NotebookNode:
    "A notebook by its path from the root."
    return nbformat.read(ROOT / path, as_version=4)


def sections(notebook) -> dict[str, str]:
    "The Markdown under each heading of the second level, in order."
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    parts = re.split(r"(?m)^## +(.+)$", text)
    return dict(zip(parts[1::2], parts[2::2]))


def solutions(notebook) -> list[str]:
    "The folded solutions of its exercises."
    return FOLDED.findall(sections(notebook).get("Exercises", ""))


def code_of(cells) -> list[str]:
    "The source of the code cells among these."
    return [cell.source for cell in cells if cell.cell_type == "code"]


def code_of_solutions(notebook) -> list[str]:
    "The code of its solutions, block by block."
    return [code for text in solutions(notebook) for code in CODE.findall(text)]


def behind_exercises(notebook) -> list:
    "The cells from the one on in which the exercises begin."
    begins = [bool(re.search(r"(?m)^## +Exercises", cell.source)) for cell in notebook.cells]
    return notebook.cells[begins.index(True):] if any(begins) else []


def faults(notebook) -> list[str]:
    "What keeps a notebook from being a tutorial like the others."
    found, folded = sections(notebook), solutions(notebook)
    points = len(re.findall(r"(?m)^[-*] ", found.get("Summary", "")))
    exercises = re.findall(r"(?m)^\d\. ", FOLDED.sub("", found.get("Exercises", "")))
    said = {
        f"{len(notebook.cells)} cells, and fewer than 40 are wanted": len(notebook.cells) < 40,
        "it does not end with Summary and Exercises": list(found)[-2:] == ["Summary", "Exercises"],
        f"{points} points in its summary, and 3 to 5 are wanted": 3 <= points <= 5,
        f"exercises {exercises}, and two are wanted": exercises == ["1. ", "2. "],
        f"{len(folded)} folded solutions, and one for each exercise is wanted": len(folded) == 2,
        "a solution has no Python code": all(CODE.search(text) for text in folded),
        "a solution is not rendered: blank lines inside <details>": all(
            text.startswith("\n\n") and text.endswith("\n\n") for text in folded
        ),
        "a code cell stands behind its exercises": not code_of(behind_exercises(notebook)),
        "code under `#| eval: false`, which nobody runs": not any(
            map(NOT_RUN.search, code_of(notebook.cells) + code_of_solutions(notebook))
        ),
    }
    return [fault for fault, fine in said.items() if not fine]


def with_solutions(notebook) -> nbformat.NotebookNode:
    "The code of a notebook's cells, of a stopwatch, and of its solutions."
    code = [*code_of(notebook.cells), STOPWATCH, *code_of_solutions(notebook)]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in code])


class Run(NamedTuple):
    "How a tutorial ran: the error that ended it, if one did, and the processor seconds of its own cells."

    error: str
    seconds: float


@pytest.fixture(scope="module")
def warmed():
    "A process that has imported what tutorials import, seconds of each otherwise: their kernels are forks of it, where that is safe."
    modules = (*kernels.PAGES, *kernels.MODELS, *kernels.TRAINING)
    with kernels.Warmed(modules, environment()) if kernels.can_fork() else nullcontext() as process:
        yield process


def run(notebook, folder: Path, warmed: kernels.Warmed | None) -> Run:
    "Run a notebook's cells and solutions in a kernel of their own, whose working directory is this folder."
    job = Job("tutorial", folder / "tutorial.ipynb", folder / "ran.ipynb", {})
    nbformat.write(with_solutions(notebook), job.notebook)
    launch(job, folder, warmed)
    end = time.monotonic() + RUN_SECONDS
    while not ended(job) and time.monotonic() < end: time.sleep(0.1)
    stop([job])
    ran = nbformat.read(job.output if job.output.exists() else job.notebook, as_version=4)
    outputs = [(cell.source, output) for cell in ran.cells for output in cell.get("outputs", [])]
    traces = [COLOUR.sub("", "\n".join(output.traceback)) for _, output in outputs if output.output_type == "error"]
    shown = [output.text for source, output in outputs if source == STOPWATCH]
    told = {None: f"not done after {RUN_SECONDS} s", 0: ""}.get(job.code, "\n".join([job.error, *traces]))
    return Run(told, float(*shown))


def complaint(ran: Run) -> str:
    "What is wrong with a run: its error, or its time."
    slow = f"{ran.seconds:.0f} s of a processor, and fewer than {PAGE_SECONDS} are wanted"
    return ran.error or (slow if ran.seconds >= PAGE_SECONDS else "")


def test_each_tutorial_is_there_and_in_the_index_in_order():
    index = "\n".join(cell.source for cell in read(Path("nbs/index.ipynb")).cells if cell.cell_type == "markdown")
    listed = re.findall(r"^\| \[.*\]\(tutorials/(\w+)\.ipynb\)", index, flags=re.MULTILINE)
    assert tuple(listed) == TUTORIALS and {path.stem for path in ALL} == set(TUTORIALS)


@pytest.mark.parametrize("path", ALL, ids=str)
def test_runs_with_solutions(path, tmp_path, warmed, capsys):
    beside = shutil.copytree((ROOT / path).parent, tmp_path / "tutorials")  # for the files that it reads
    ran = run(read(path), beside, warmed)
    with capsys.disabled():
        print(f"\n{path.stem}: {ran.seconds:.0f} s of a processor", end=" ")
    assert complaint(ran) == ""


@pytest.mark.parametrize("path", ALL, ids=str)
def test_is_built_like_the_others(path):
    assert faults(read(path)) == []


def a_tutorial(*changes: tuple[str, str]) -> nbformat.NotebookNode:
    "A tutorial in small, with changes to its text."
    text = (
        "# T\n\n> t\n---\n## Summary\n\n- one\n- two\n- three\n---\n## Exercises\n\n"
        + "\n\n".join(
            f"{number}. Do it.\n\n<details><summary>Solution</summary>\n\n```python\nassert told == {number}\n"
            f"told = {number + 1}\n```\n\n</details>"
            for number in (1, 2)
        )
    )
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    cells = [nbformat.v4.new_markdown_cell(part) for part in text.split("\n---\n")]
    return nbformat.v4.new_notebook(cells=[*cells[:1], nbformat.v4.new_code_cell("told = 1"), *cells[1:]])


def test_a_good_tutorial_has_no_faults():
    assert faults(a_tutorial()) == []


@pytest.mark.parametrize(
    "old, new, fault",
    [
        ("## Summary", "### Summary", "end with Summary"),
        ("- three", "", "2 points"),
        ("2. Do it.", "Do it.", "two are wanted"),
        ("<summary>Solution", "<summary>Answer", "1 folded"),
        ("```python\nassert told == 2", "```\nassert told == 2", "no Python code"),
        ("Solution</summary>\n\n", "Solution</summary>\n", "blank lines"),
        ("## Exercises", "x\n---\n" * 40 + "## Exercises", "fewer than 40"),
        ("assert told == 2", "#| eval: false\nassert told == 2", "nobody runs"),
    ],
)
def test_faults_are_noticed(old, new, fault):
    assert [said for said in faults(a_tutorial((old, new))) if fault in said]


def test_code_behind_the_exercises_is_noticed():
    cells = a_tutorial().cells
    assert faults(nbformat.v4.new_notebook(cells=[*cells, cells[1]])) == ["a code cell stands behind its exercises"]


def test_solutions_run_behind_the_cells_and_their_errors_are_noticed(tmp_path, warmed):
    wrong = a_tutorial(("told = 3", "assert told == 5"))
    assert "assert told == 5" in complaint(run(wrong, tmp_path, warmed))


def test_a_tutorial_that_does_not_end_is_stopped_and_noticed(tmp_path, warmed, monkeypatch):
    monkeypatch.setitem(globals(), "RUN_SECONDS", 5)
    assert complaint(run(a_tutorial(("told = 3", "while True: pass")), tmp_path, warmed)) == "not done after 5 s"


def test_a_slow_tutorial_is_noticed_and_its_solutions_take_their_time(tmp_path, warmed, monkeypatch):
    busy = "from time import process_time\nwhile process_time() < {}: pass"
    slow = a_tutorial(("told = 3", busy.format(5)))
    slow.cells[1].source += "\n" + busy.format(2)
    ran = run(slow, tmp_path, warmed)
    monkeypatch.setitem(globals(), "PAGE_SECONDS", 5)  # what the solution alone would take
    assert 1.9 <= ran.seconds < 5 and complaint(ran) == "", ran
    monkeypatch.setitem(globals(), "PAGE_SECONDS", 1)
    assert complaint(ran).endswith("and fewer than 1 are wanted")
