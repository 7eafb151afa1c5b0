"Progress: the words, how often they are shown, and no carriage returns outside a terminal."
import io

import nbformat
from nbclient import NotebookClient

from optima.base.progress import Progress, clock_text, progress_text


class Clock:
    "A clock that goes on only when told."

    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def count(stream, seconds, monkeypatch=None):
    clock = Clock()
    with Progress("generate", 100, stream=stream, clock=clock) as progress:
        for _ in range(100):
            clock.now += seconds
            progress.step()
    return stream.getvalue()


def test_words():
    assert clock_text(7.4) == "0:07" and clock_text(3723) == "1:02:03"
    assert progress_text("rank", 0, 4, 1.0) == "rank 0/4 0%, 0:01 so far"
    assert progress_text("rank", 1, 4, 10.0, "x") == "rank 1/4 25%, 0:10 so far, 0:30 left, x"
    assert progress_text("rank", 4, 4, 40.0) == "rank 4/4 100%, in 0:40"
    assert progress_text("rank", 0, 0, 0.0) == "rank 0/0, in 0:00"


def test_what_was_there_already_does_not_count_for_the_speed():
    assert progress_text("rank", 90, 100, 0.0, skipped=90) == "rank 90/100 90%, 0:00 so far"
    assert progress_text("rank", 95, 100, 50.0, skipped=90) == "rank 95/100 95%, 0:50 so far, 0:50 left"
    clock = Clock()
    with Progress("rank", 10, stream=io.StringIO(), clock=clock) as progress:
        progress.skip(6)
        clock.now += 30
        progress.step(2, "x")
        assert progress.text == "rank 8/10 80%, 0:30 so far, 0:30 left, x"


def test_a_log_gets_few_plain_lines():
    text = count(io.StringIO(), 1.0)
    assert "\r" not in text and "\x1b" not in text and 3 <= len(text.splitlines()) <= 10
    assert text.splitlines()[-1] == "generate 100/100 100%, in 1:40"
    assert len(count(io.StringIO(), 0.001).splitlines()) == 2


def test_a_terminal_gets_one_line():
    text = count(Terminal(), 1.0)
    assert text.count("\n") == 1 and text.count("\r") == 102 and text.endswith("100/100 100%, in 1:40\n")


def test_a_file_holds_the_last_line(tmp_path, monkeypatch):
    monkeypatch.setenv("OPTIMA_PROGRESS", str(tmp_path / "progress"))
    count(io.StringIO(), 1.0)
    assert (tmp_path / "progress").read_text() == "generate 100/100 100%, in 1:40\n"
    monkeypatch.setenv("OPTIMA_PROGRESS", str(tmp_path / "no" / "folder"))
    count(io.StringIO(), 1.0)


def test_an_error_inside_is_not_swallowed():
    stream = io.StringIO()
    try:
        with Progress("rank", 2, stream=stream) as progress:
            progress.step()
            raise ValueError
    except ValueError:
        assert "1/2 50%" in stream.getvalue().splitlines()[-1]


def test_a_notebook_keeps_the_last_state_only(tmp_path):
    source = ("from optima.base.progress import Progress\nwith Progress('rank', 3, clock=iter(range(0, 900, 7)).__next__) "
              "as progress:\n    for _ in range(3): progress.step()")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert output["output_type"] == "display_data" and list(output["data"]) == ["text/plain"]
    assert output["data"]["text/plain"].startswith("rank 3/3 100%, in ")
