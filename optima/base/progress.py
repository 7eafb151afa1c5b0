"What it does, how far, how long still: one line in a terminal, sparse lines elsewhere, no widgets."
import os
import sys
import time
from pathlib import Path

FILE = "OPTIMA_PROGRESS"  # names a file that always holds the last line: how the launcher hears of its processes
TERMINAL_SECONDS, SPARSE_SECONDS, FILE_SECONDS = 0.2, 15.0, 0.5


def clock_text(seconds: float) -> str:
    "Seconds as 0:07, 12:30 or 1:02:03."
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def progress_text(
    title: str,
    done: int,
    total: int,
    seconds: float,  # since the start
    note: str = "",
    skipped: int = 0,  # of `done`, what was there already and took no time
) -> str:
    "One line: what, how far, how long it took and how long it still takes at this speed."
    share = f" {done / total:.0%}" if total else ""
    if done >= total:
        times = f"in {clock_text(seconds)}"
    elif done > skipped:
        times = f"{clock_text(seconds)} so far, {clock_text(seconds / (done - skipped) * (total - done))} left"
    else:
        times = f"{clock_text(seconds)} so far"
    return f"{title} {done}/{total}{share}, {times}" + (f", {note}" if note else "")


class TerminalView:
    "One line that is written over itself."

    every = TERMINAL_SECONDS

    def __init__(self, stream):
        self.stream = stream

    def show(self, text: str, last: bool):
        try:
            width = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            width = 80
        print("\r\x1b[K" + text[: width - 1], end="\n" if last else "", file=self.stream, flush=True)

    def say(self, text: str):
        print("\r\x1b[K" + text, file=self.stream, flush=True)


class LinesView:
    "A plain line now and then, for log files and pipes."

    every = SPARSE_SECONDS

    def __init__(self, stream):
        self.stream = stream

    def show(self, text: str, last: bool):
        print(text, file=self.stream, flush=True)

    def say(self, text: str):
        print(text, file=self.stream, flush=True)


class NotebookView:
    "One plain output that is replaced in place: a saved notebook holds its last state only."

    every = 1.0

    def __init__(self, _stream=None):
        self.handle = None

    def show(self, text: str, last: bool):
        from IPython.display import display
        data = {"text/plain": text}
        if self.handle is None:
            self.handle = display(data, raw=True, display_id=True)
        else:
            self.handle.update(data, raw=True)

    def say(self, text: str):
        print(text, file=sys.stderr, flush=True)


class FileView:
    "The last line in a file that another process reads."

    every = FILE_SECONDS

    def __init__(self, path: str):
        self.path = Path(path)

    def show(self, text: str, last: bool):
        try:
            self.path.write_text(text + "\n", encoding="utf-8")
        except OSError:
            pass  # nobody listens any more, or the disk is full: what writes results will say so

    def say(self, text: str):
        "A message is for the reader, not for the file."


def in_notebook() -> bool:
    "Whether a Jupyter kernel runs us."
    return "ipykernel" in sys.modules and hasattr(sys.modules["ipykernel"], "kernelapp") and kernel_runs()


def kernel_runs() -> bool:
    "Whether a kernel was started in this process, and not only imported."
    return sys.modules["ipykernel"].kernelapp.IPKernelApp.initialized()


def views(stream=None) -> list:
    "Where this process shows its progress."
    if stream is None and in_notebook():
        shown = [NotebookView()]
    else:
        stream = stream or sys.stderr
        shown = [TerminalView(stream) if stream.isatty() else LinesView(stream)]
    return shown + ([FileView(os.environ[FILE])] if os.environ.get(FILE) else [])


class Progress:
    "Counts steps and shows how far they are; use it in a `with` statement."

    def __init__(
        self,
        title: str,  # what is done, such as "iteration 1: generate"
        total: int,  # steps
        stream=None,  # None: stderr, or the notebook's output
        clock=time.monotonic,
    ):
        self.title, self.total, self.clock = title, total, clock
        self.views = [(view, [None]) for view in views(stream)]
        self.done, self.skipped, self.note, self.start, self.ended = 0, 0, "", clock(), False

    def __enter__(self):
        self.show()
        return self

    def __exit__(self, kind, *_):
        self.close()

    @property
    def text(self) -> str:
        "The line as it stands."
        return progress_text(self.title, self.done, self.total, self.clock() - self.start, self.note, self.skipped)

    def step(
        self,
        n: int = 1,  # steps done since the last call
        note: str = "",  # what to say beside the count
    ):
        "Count, and show it unless that was done a moment ago."
        self.done, self.note = self.done + n, note
        self.show()

    def skip(
        self,
        n: int,  # steps that an earlier run did
        note: str = "",
    ):
        "Count what was there already: it says nothing about how long the rest takes."
        self.skipped += n
        self.step(n, note)

    def show(self, last: bool = False):
        "Show the line wherever the last showing is long enough ago."
        now = self.clock()
        for view, shown in self.views:
            if last or shown[0] is None or now - shown[0] >= view.every:
                view.show(self.text, last)
                shown[0] = now

    def say(self, text: str):
        "Print a line of its own, above the progress."
        for view, _ in self.views:
            view.say(text)

    def close(self):
        "Show the last state once."
        if not self.ended:
            self.ended = True
            self.show(last=True)
