"The real benchmarks as tasks: read from the hub or from a local folder, checked row by row, the splits kept apart."
import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

from optima.base.errors import OptimaError, suggest
from optima.base.files import file_digest
from optima.tasks.hub_rows import ANY, SOURCES, UNVERIFIED, BadCell, Source, read_json
from optima.tasks.task import BENCHMARKS, Benchmark, Task

COMMIT = re.compile(r"[0-9a-f]{40}")
DEVELOPMENT_TASKS = 200  # about as many are held out of a training split, and never more than a fifth of it


@dataclass(frozen=True)
class Plan:
    "Which rows a benchmark trains on and which it is evaluated on."

    metric: str
    evaluation: tuple[str, str]  # source and split
    train: tuple[str, str]  # development tasks are held out of it; evaluation tasks are removed from it
    without: tuple[tuple[str, str], ...] = ()  # splits whose items are removed everywhere


PLANS: dict[str, Plan] = {
    "hotpotqa": Plan("f1", ("hotpotqa", "validation"), ("hotpotqa", "train")),
    "2wikimultihopqa": Plan("f1", ("2wikimultihopqa", "dev"), ("2wikimultihopqa", "train")),
    "triviaqa": Plan("f1", ("triviaqa", "validation"), ("triviaqa", "train")),
    "cbt": Plan("f1", ("cbt", "test"), ("cbt", "train")),
    "math": Plan("math", ("math", "test"), ("math", "train")),
    "math_500": Plan("math", ("math_500", "test"), ("math", "train")),
    "gsm8k": Plan("number", ("gsm8k", "test"), ("gsm8k", "train")),
    "arc_challenge": Plan("choice", ("arc_challenge", "test"), ("arc_challenge", "train")),
    "mmlu": Plan("choice", ("mmlu", "test"), ("mmlu", "auxiliary_train"),
                 without=tuple(("arc_challenge", split) for split in ("train", "validation", "test"))),
    "humaneval": Plan("tests", ("humaneval", "test"), ("mbpp", "train")),
    "mbpp": Plan("tests", ("mbpp", "test"), ("mbpp", "train")),
    "mbpp_sanitized": Plan("tests", ("mbpp_sanitized", "test"), ("mbpp_sanitized", "train")),
}


def in_words(kind) -> str:
    "A column's kind for the reader of an error."
    if isinstance(kind, list):
        return f"a list, each of it {in_words(kind[0])}"
    return f"a record of {', '.join(kind)}" if isinstance(kind, dict) else {str: "a text", int: "a whole number"}[kind]


def misfit(value, kind, column: str) -> tuple[str, str] | None:
    "The column and what is wrong with it, where a value is not of its kind."
    if kind is ANY:
        return None
    shape = list if isinstance(kind, list) else dict if isinstance(kind, dict) else kind
    if type(value) is not shape:
        found = "is missing or null" if value is None else f"holds {type(value).__name__}"
        return column, f"{found}, expected {in_words(kind)}"
    parts = []
    if shape is list:
        parts = [(one, kind[0], column) for one in value]
    if shape is dict:
        parts = [(value.get(name), part, f"{column}.{name}".lstrip(".")) for name, part in kind.items()]
    return next((found for part in parts if (found := misfit(*part))), None)


class JsonLines:
    "The rows of a JSON Lines file, each parsed when it is asked for."

    def __init__(self, path: Path):
        self.path, self.lines = path, []  # number and offset of each line that is not blank
        with open(path, "rb") as file:
            offset = 0
            for number, line in enumerate(file, 1):
                self.lines += [(number, offset)] if line.strip() else []
                offset += len(line)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, place: int) -> dict:
        number, offset = self.lines[place]
        with open(self.path, "rb") as file:
            file.seek(offset)
            line = file.readline()
        try:
            row = read_json(line)
        except ValueError as error:
            raise OptimaError(f"{self.path}, row {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise OptimaError(f"{self.path}, row {number}: expected one JSON object, with the columns as its keys")
        return row

    def number(self, place: int) -> int:
        "The line of a row, counted from 1."
        return self.lines[place][0]

    def part(self, columns: tuple[str, ...]) -> Iterator[dict]:
        "All rows, with at least these columns."
        return iter(self)


class Parquet:
    "The rows of a parquet file, read by `datasets` without loading it whole."

    def __init__(self, path: Path):
        import datasets

        datasets.disable_progress_bars()
        try:
            self.rows = datasets.Dataset.from_parquet(str(path))
        except Exception as error:  # whatever the reader stumbles over, the file is not what it should be
            raise OptimaError(f"{path}: not readable as parquet: {' '.join(str(error).split())[:200]}") from error

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict:
        return self.rows[place]

    def number(self, place: int) -> int:
        "A row's number, counted from 1."
        return place + 1

    def part(self, columns: tuple[str, ...]) -> Iterator[dict]:
        "All rows with these columns only: the others may be long."
        return iter(self.rows.select_columns([name for name in columns if name in self.rows.column_names]))


class Table:
    "The rows of one split, from all of its files."

    def __init__(self, source: Source, files: tuple[Path, ...]):
        self.source, self.files = source, files
        self.readers = [(Parquet if path.suffix == ".parquet" else JsonLines)(path) for path in files]
        self.places = [(number, row) for number, reader in enumerate(self.readers) for row in range(len(reader))]

    def __len__(self) -> int:
        return len(self.places)

    def error(self, place: int, column: str, what: str) -> OptimaError:
        "The line for a row that cannot be used."
        file, row = self.places[place]
        where = f"{self.files[file]}, row {self.readers[file].number(row)}, column {column!r}"
        return OptimaError(f"{where}: {what}; correct the row, or remove it")

    def checked(self, place: int, use, row: dict, columns: dict):
        "What `use` makes of a row, once its columns are of the kinds that they should be."
        if found := misfit(row, columns, ""):
            raise self.error(place, *found)
        try:
            return use(row)
        except BadCell as error:
            raise self.error(place, error.column, error.what) from error

    def fields(self, place: int) -> dict:
        "The fields of one row's task."
        file, row = self.places[place]
        return self.checked(place, self.source.convert, self.readers[file][row], self.source.columns)

    @cached_property
    def marks(self) -> list[tuple[str, ...]]:
        "What tells each row's task from another's."
        columns = {name: self.source.columns[name] for name in self.source.read}
        parts = (row for reader in self.readers for row in reader.part(self.source.read))
        return [self.checked(place, self.source.marks, row, columns) for place, row in enumerate(parts)]


@lru_cache(maxsize=32)
def table(name: str, split: str, files: tuple[Path, ...], times: tuple, whole: bool) -> Table:
    "A split's rows, opened once as long as its files stay as they are; all of them checked, where `whole` asks for it."
    found = Table(SOURCES[name], files)
    for place in range(len(found) if whole else 0):
        found.fields(place)
    return found


def how_to_bring(name: str) -> str:
    "What to type where there is a network, and where the files then go."
    source = SOURCES[name]
    patterns = " ".join(f"'{pattern}'" for pattern in source.files.values())
    return (f"with a network, run: hf download {source.hub} --repo-type dataset --revision {source.revision} "
            f"--include {patterns} --local-dir DIR/{name}; then give --data DIR, whose {name} folder may also hold "
            f"{' and '.join(f'{split}.jsonl' for split in source.files)} (or .parquet)")


@lru_cache
def hub_folder(name: str, benchmark: str) -> Path:
    "The folder of a source's files, fetched from the hub unless they are in its cache."
    source = SOURCES[name]
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.hub, repo_type="dataset", revision=source.revision,
                                      allow_patterns=list(source.files.values())))
    except Exception as error:  # offline, a proxy, no such revision: whatever it is, the files are not here
        raise OptimaError(f"benchmark {benchmark!r} needs {source.hub} at revision {source.revision}, which the hub "
                          f"did not give ({type(error).__name__}); {how_to_bring(name)}") from error


@lru_cache
def commit_of(name: str, benchmark: str) -> str:
    "The commit of a source's files: where the revision is a reference that may move, what the hub gave for it; else the reference."
    revision = SOURCES[name].revision
    if COMMIT.fullmatch(revision):
        return revision
    try:
        found = hub_folder(name, benchmark).name  # the hub's cache names a snapshot's folder by its commit
    except OptimaError:  # said again by whoever needs the files; a table of old results needs none
        return revision
    return found if COMMIT.fullmatch(found) else revision


def files_of(name: str, split: str, data: str, benchmark: str) -> tuple[Path, ...]:
    "The files of one split: SPLIT.jsonl or SPLIT.parquet, or else those of the hub's own names."
    folder = Path(data) / name if data else hub_folder(name, benchmark)
    own = [path for suffix in (".jsonl", ".parquet") if (path := folder / f"{split}{suffix}").is_file()]
    if len(own) > 1:
        raise OptimaError(f"{own[0]} and {own[1].name} both stand for one split; remove one of them")
    found = own or sorted(folder.glob(SOURCES[name].files[split]))
    if not found:
        raise OptimaError(f"benchmark {benchmark!r} needs split {split!r} of {name} at revision "
                          f"{SOURCES[name].revision}: {folder} has no {split}.jsonl, {split}.parquet or "
                          f"{SOURCES[name].files[split]}; {how_to_bring(name)}")
    return tuple(found)


def times_of(files: tuple[Path, ...]) -> tuple:
    "Size and time of the last change of each file."
    return tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def splits_of(plan: Plan) -> list[tuple[str, str]]:
    "Every split that a plan reads."
    return list(dict.fromkeys([plan.evaluation, plan.train, *plan.without]))


@dataclass(frozen=True)
class Loader:
    "Draws a benchmark's tasks; equal loaders draw equal tasks."

    name: str
    data: str = ""  # the local folder that stands in for the hub
    times: tuple = ()  # of the local files

    def rows(self, source: str, split: str) -> Table:
        "A split's rows."
        files = files_of(source, split, self.data, self.name)
        return table(source, split, files, times_of(files), bool(self.data))

    def marks(self, splits) -> set[str]:
        "All that is in some splits."
        return {mark for split in splits for marks in self.rows(*split).marks for mark in marks}

    def __call__(self, split: str, n: int, seed: int) -> list[Task]:
        "The first n tasks of a split, in an order that the seed draws; fewer, where there are fewer."
        plan = PLANS[self.name]
        where = plan.evaluation if split == "evaluation" else plan.train
        found = self.rows(*where)
        allowed = self.allowed(plan, found, split)
        order = list(range(len(found)))
        random.Random(f"{self.name} {split} {seed}").shuffle(order)
        return [self.task(found, where, place) for place in [place for place in order if place in allowed][:n]]

    def allowed(self, plan: Plan, found: Table, split: str) -> set[int]:
        "The rows that may be drawn: what is evaluated is not trained on, and development tasks are apart."
        barred = self.marks(plan.without)
        if split == "evaluation":
            return {place for place, marks in enumerate(found.marks) if not barred.intersection(marks)}
        barred |= self.marks([plan.evaluation])
        places = reversed(list(enumerate(found.marks)))
        first = {marks: place for place, marks in places}  # of a task that comes twice
        return {place for marks, place in first.items() if not barred.intersection(marks)
                and held_out(marks, len(found)) == (split == "development")}

    def task(self, found: Table, where: tuple[str, str], place: int) -> Task:
        "One row as a task; its id names the row."
        return Task("/".join([*where, str(place)]), self.name, metric=PLANS[self.name].metric, **found.fields(place))


def held_out(marks: tuple[str, ...], rows: int) -> bool:
    "Whether a task is one for development: its content alone decides, so a shuffled file changes nothing."
    share = max(5, rows // DEVELOPMENT_TASKS)
    return int(hashlib.sha256("\n".join(marks).encode("utf-8", "backslashreplace")).hexdigest()[:12], 16) % share == 0


@lru_cache
def hub_benchmark(name: str, data: str = "", times: tuple = ()) -> Benchmark:
    "A real benchmark, from the hub or from a local folder; nothing is read yet."
    if name not in PLANS:
        raise OptimaError(suggest("benchmark", name, PLANS))
    return Benchmark(name, PLANS[name].metric, Loader(name, data, times), at=partial(local_benchmark, name))


def local_files(name: str, data: str) -> dict[str, tuple[Path, ...]]:
    "The local files of every split that a benchmark reads."
    return {"/".join(split): files_of(*split, data, name) for split in splits_of(PLANS[name])}


def local_benchmark(name: str, data: str) -> Benchmark:
    "A real benchmark whose files lie in a folder, as they are now."
    return hub_benchmark(name, data, tuple(times_of(files) for files in local_files(name, data).values()))


@lru_cache(maxsize=256)
def digest_of(path: Path, times: tuple) -> str:
    "A file's sha256, computed once as long as it stays as it is."
    return file_digest(path)


def split_words(name: str, split: str) -> str:
    "A split with its size."
    doubt = f", {UNVERIFIED}" if SOURCES[name].shown["rows"] == UNVERIFIED else ""
    return f"{name} {split} ({SOURCES[name].rows[split]:,}{doubt})"


def benchmark_rows() -> list[dict[str, str]]:
    "The benchmarks for a page: which splits they take, and how they are judged."
    return [{"benchmark": name, "metric": plan.metric, "evaluated on": split_words(*plan.evaluation),
             "trained on": split_words(*plan.train),
             "without": ", ".join(dict.fromkeys(source for source, _ in plan.without)) or "–"}
            for name, plan in PLANS.items()]


def source_rows() -> list[dict[str, str]]:
    "The sources for a page: where they lie, and where each fact was read."
    return [{"source": name, "hub id": source.hub, "config": source.config or "–", "revision": source.revision,
             "licence": source.licence, "columns": ", ".join(source.columns),
             **{f"{fact} shown by": source.shown[fact] for fact in ("revision", "licence", "rows", "columns", "files")}}
            for name, source in SOURCES.items()]


for planned in PLANS:
    BENCHMARKS.add(planned, hub_benchmark(planned))
