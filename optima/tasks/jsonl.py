"Questions of one's own: a JSON Lines file in a data folder is a benchmark, checked row by row, split by content."
import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from optima.base.errors import OptimaError, suggest
from optima.tasks.hub import JsonLines, digest_of, misfit, times_of
from optima.tasks.hub_rows import ANY, spaced
from optima.tasks.metrics import score_text
from optima.tasks.task import BENCHMARKS, QUESTIONS, Benchmark, Task

KINDS = {"question": str, "answer": str, "aliases": [str], "passages": [str], "supporting": [int], "metric": str,
         "tests": str, "entry_point": str, "prefix": str, "id": ANY}  # the fields of a Task; an id may be there and is not read
SHARES = {"train": (0, 70), "development": (70, 80), "evaluation": (80, 100)}  # per cent


def asked(task: Task) -> str:
    "What is asked, whatever the case, the spaces and the order of passages."
    return "\n".join([spaced(task.question), *sorted(map(spaced, task.passages))])


def split_of(task: Task) -> str:
    "The split of a question: what is asked decides, so that other rows, another order or another answer change nothing."
    place = int(hashlib.sha256(asked(task).encode("utf-8", "backslashreplace")).hexdigest()[:8], 16) % 100
    return next(name for name, (low, high) in SHARES.items() if low <= place < high)


def check_row(row: dict):
    "Refuse columns that a task does not have, and values of the wrong kind."
    for name in row:
        if name not in KINDS:
            raise OptimaError(suggest("column", name, KINDS))
    found = misfit(row, {name: kind for name, kind in KINDS.items() if name in row or name == "question"}, "")
    if found:
        raise OptimaError(f"column {found[0]!r}: {found[1]}")


def task_of(name: str, number: int, row: dict) -> Task:
    "One row as a task whose id names the row."
    check_row(row)
    task = Task(f"{name}/{number}", name, **{field: value for field, value in row.items() if field != "id"})
    for field in ("question", *["answer"] * (task.metric != "tests")):
        if not getattr(task, field).strip():
            raise OptimaError(f"column {field!r}: is empty or missing")
    if task.metric != "tests":
        score_text(task.answer, [task.answer, *task.aliases], task.metric)  # a right answer that the metric cannot read is refused
    return task


def check_company(task: Task, number: int, seen: dict[str, int], metric: str):
    "Refuse a question that came before, and a metric that is not the file's."
    first = seen.setdefault(asked(task), number)
    if first != number:
        raise OptimaError(f"asks what row {first} asks; another right answer belongs into its 'aliases'")
    if task.metric != metric:
        raise OptimaError(f"column 'metric': {task.metric!r}, where the first row has {metric!r}; give the others a folder of their own")


@lru_cache(maxsize=32)
def read_questions(name: str, path: Path, times: tuple) -> tuple[Task, ...]:
    "Every row of a file as a task, read once as long as the file stays as it is; a row that cannot be used is one clear line."
    rows, tasks, seen = JsonLines(path), [], {}
    for place in range(len(rows)):
        row, number = rows[place], rows.number(place)
        try:
            task = task_of(name, number, row)
            check_company(task, number, seen, tasks[0].metric if tasks else task.metric)
        except OptimaError as error:
            raise OptimaError(f"{path}, row {number}: {error}; correct the row, or remove it") from error
        tasks.append(task)
    if not tasks:
        raise OptimaError(f"{path} has no rows; give one JSON object per line, with a question and an answer")
    return tuple(tasks)


@dataclass(frozen=True)
class Drawn:
    "Draws the tasks of a file; equal ones draw equal tasks."

    name: str
    tasks: tuple[Task, ...]

    def __call__(self, split: str, n: int, seed: int) -> list[Task]:
        "The first n tasks of a split, in an order that the seed draws; fewer, where there are fewer."
        found = [task for task in self.tasks if split_of(task) == split]
        random.Random(f"{self.name} {split} {seed}").shuffle(found)
        return found[:n]


def questions_path(name: str, data: str) -> Path:
    "Where a data folder has a benchmark's questions."
    return Path(data, name, QUESTIONS)


@lru_cache(maxsize=32)
def benchmark_of(name: str, path: Path, times: tuple) -> Benchmark:
    "The benchmark of a file as it is now."
    tasks = read_questions(name, path, times)
    return Benchmark(name, tasks[0].metric, Drawn(name, tasks))


def own_benchmark(name: str, data: str) -> Benchmark:
    "The benchmark that a data folder brings under this name."
    path = questions_path(name, data)
    if BENCHMARKS.packaged(name):
        raise OptimaError(f"{path}: {name!r} is a benchmark of the package; give the folder another name")
    return benchmark_of(name, path, times_of((path,)))


def content_of(name: str, data: str) -> dict:
    "What stands for a file of questions in keys."
    path = questions_path(name, data)
    return {QUESTIONS: digest_of(path, times_of((path,)))}
