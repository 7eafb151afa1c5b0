"Stages as folders named by what went in: written aside, checked when read, continued after a kill."
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from optima.base.errors import OptimaError

# Raise a number by hand when the results of that stage change: experiments made before are then made again.
STAGE_VERSIONS = {"generate": 3, "demonstrate": 1, "rank": 2, "select": 3, "train": 3, "evaluate": 4,
                  "evaluate_iteration": 3, "choose": 3}
PAPER_VERSIONS = {"grow": 1, "pair": 1, "prefer": 2, "sample": 1}  # of stages that only the paper's systems have

SHARDS = "shard-*"
REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder",
    errno.EPERM: "permission denied; choose another folder",
    errno.ENOTDIR: "it is not a folder; choose another folder",
    errno.EIO: "the disk failed; check it, or choose another folder",
}


def canonical(value) -> str:
    "JSON text that is the same for equal values: sorted keys, no spaces, Unicode as it is."
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def digest(value) -> str:
    "16 hexadecimal digits that stand for a JSON value."
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    "The sha256 of a file."
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_files(folder: Path) -> dict[str, Path]:
    "Every file below a folder by its relative name, sorted."
    found = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
    return dict(sorted(found.items()))


def folder_digest(
    folder: Path,
    skip: tuple = ("manifest.json",),  # names that tell of the making (wall time) and not of the content
) -> str:
    "16 hexadecimal digits that stand for a folder's content, such as a checkpoint's."
    files = folder_files(folder).items()
    return digest({name: file_digest(path) for name, path in files if name not in skip})


def stage_key(
    name: str,  # the stage, such as "generate"
    settings: dict,  # the stage's own settings, JSON values
    version: int,  # raised by hand when the stage's results change
    inputs: list[str],  # keys of the stages (and digests of the models) that it reads, in order
) -> str:
    "The 16 hexadecimal digits that name a stage's folder: a hash of all that went in."
    return digest({"stage": name, "settings": settings, "version": version, "inputs": list(inputs)})


def unwritable(path: Path, reason: str) -> OptimaError:
    "The error for a place where nothing can be written."
    return OptimaError(f"cannot write {path}: {reason}; then run the same command again; stages that are finished are kept")


def error_number(error: Exception) -> int | None:
    "The system's number of an error; safetensors and tokenizers tell it in their text."
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


@contextmanager
def storage_errors(path: Path):
    "Tell a full, read-only or forbidden disk in one line; let every other error pass as it is."
    try:
        yield
    except Exception as error:
        number = error_number(error)
        if number not in REASONS:
            raise
        raise unwritable(getattr(error, "filename", None) or path, REASONS[number]) from error


def flush(path: Path):
    "Make a file or a folder's list of names reach the disk."
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def aside(path: Path):
    "Yields a path to write to; the file appears under its own name whole, or not at all."
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with storage_errors(path):
        try:
            yield partial
            flush(partial)
            os.replace(partial, path)
            flush(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def folder_aside(path: Path):
    "Yields a folder to write to, made at once; it gets its own name when all is there, and replaces nothing."
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with storage_errors(path):
        if path.exists():
            raise OptimaError(f"{path} is there already; remove it, or choose another folder")
        shutil.rmtree(partial, ignore_errors=True)  # a killed run's
        make_folder(partial)
        try:
            yield partial
            for file in folder_files(partial).values():
                flush(file)
            os.rename(partial, path)
            flush(path.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def write_text(path: Path, text: str):
    "Write a text file, whole or not at all."
    with aside(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value):
    "Write canonical JSON, whole or not at all."
    write_text(path, canonical(value) + "\n")


def make_folder(path: Path) -> Path:
    "The folder, made when it was not there."
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise unwritable(path, REASONS[errno.ENOTDIR]) from error
    except OSError as error:
        reason = REASONS.get(error.errno, f"{error.strerror}; choose another folder")
        raise unwritable(error.filename or path, reason) from error
    return path


def holder(path: Path) -> str:
    "Who holds a lock, in words."
    words = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")[0].strip()
    return f"process {words}" if words else "another process"


def take(file, wait: bool) -> bool:
    "Take an open file's lock; False when another holds it and we do not wait."
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def open_lock(path: Path):
    "A lock's file, open and not yet taken."
    with storage_errors(path):
        return Path(path).open("a+", encoding="utf-8")


def sign(file, path: Path):
    "Write who holds the lock."
    with storage_errors(path):
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()


@contextmanager
def locked(
    path: Path,  # the lock file; it stays, empty of meaning, when the lock is free
    busy: str,  # the line for the one who finds it taken; "{holder}" is who has it
    wait: bool = True,  # wait until it is free (after one line on stderr), or raise that line as OptimaError
):
    "Hold an exclusive lock, which the system frees when its holder dies, however it dies."
    make_folder(Path(path).parent)
    with open_lock(path) as file:
        if not take(file, wait=False):
            line = busy.format(holder=holder(path))
            if not wait:
                raise OptimaError(line)
            print(line, file=sys.stderr, flush=True)
            take(file, wait=True)
        try:
            sign(file, path)
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


class Stage:
    "One folder of results: absent, partial or done."

    def __init__(
        self,
        store: "Store",
        name: str,  # such as "generate"
        settings: dict,  # the stage's own settings
        version: int,
        inputs: list[str],  # keys of what it reads
    ):
        self.store, self.name, self.settings, self.version = store, name, settings, version
        self.inputs = list(inputs)
        self.key = stage_key(name, settings, version, self.inputs)
        self.folder = store.folder / f"{name}-{self.key}"
        self.checked = False

    def __repr__(self):
        return f"Stage({self.folder.name}, {'done' if is_done(self.folder) else 'not done'})"

    @property
    def done(self) -> bool:
        "Whether everything is there; a file that was changed or lost since is an OptimaError."
        if not self.checked and is_done(self.folder):
            verify(self.folder)
            self.checked = True
        return self.checked

    def file(self, name: str) -> Path:
        "The path of a file of a finished stage."
        if not self.done:
            raise OptimaError(f"{self.folder} is not finished; run the experiment again, it continues")
        if name not in done_files(self.folder):
            raise KeyError(f"{name} is not a file of {self.folder.name}: {list(done_files(self.folder))}")
        return self.folder / name

    def shard(self, number: int, suffix: str = ".jsonl") -> Path:
        "The path of a shard; write it by `aside`, and it is whole or absent."
        return self.folder / f"shard-{number:05d}{suffix}"

    def shards(self) -> list[Path]:
        "The whole shards that are there, in order."
        return [path for path in sorted(self.folder.glob(SHARDS)) if path.suffix != ".partial"]

    @contextmanager
    def work(self, keep: str = SHARDS):
        "Hold the stage's lock and yield its folder, freed of a killed run's leftovers except whole shards."
        busy = f"waiting for {{holder}}, which is making {self.folder}"
        with locked(self.store.lock_path(self.folder.name), busy):
            if not self.done:
                make_folder(self.folder)
                with storage_errors(self.folder):
                    clear(self.folder, keep)
            with storage_errors(self.folder):
                yield self.folder

    def finish(self):
        "Write settings.json, then, last, done.json with every file's sha256."
        with storage_errors(self.folder):
            write_json(self.folder / "settings.json", self.about())
            files = folder_files(self.folder)
            for path in files.values():
                flush(path)
            for folder in {path.parent for path in files.values()}:
                flush(folder)
            write_json(self.folder / "done.json", {"files": {n: file_digest(p) for n, p in files.items()}})
            flush(self.store.folder)
        self.checked = True

    def about(self) -> dict:
        "What went in, for settings.json."
        return {"stage": self.name, "version": self.version, "inputs": self.inputs, "settings": self.settings}

    def make(
        self,
        build,  # called with the folder when the stage is not done; writes the files
        keep: str = SHARDS,  # files that a killed run left and that `build` goes on from
    ) -> "Stage":
        "Make the stage unless it is done, perhaps by another process while we waited."
        if not self.done:
            with self.work(keep) as folder:
                if not self.done:
                    build(folder)
                    self.finish()
        return self


class Store:
    "A folder of stages, with locks and a registry beside them."

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def stage(
        self,
        name: str,  # such as "generate"
        settings: dict,  # the stage's own settings, JSON values
        version: int | None = None,  # None: the one in STAGE_VERSIONS
        inputs: list[str] = (),  # keys of the stages and digests of the models that it reads
    ) -> Stage:
        "The stage that these settings name; nothing is read or written yet."
        version = STAGE_VERSIONS[name] if version is None else version
        return Stage(self, name, json.loads(canonical(settings)), version, inputs)

    def lock_path(self, name: str) -> Path:
        "Where the lock of a stage, or of the whole folder, lies."
        return self.folder / "locks" / f"{name}.lock"

    def lock(self):
        "Hold the whole folder for one command; a second one gets an OptimaError that names the first."
        busy = (f"{self.folder} is in use by {{holder}}; wait until it ends, stop it, "
                "or choose another folder with --runs")
        return locked(self.lock_path("folder"), busy, wait=False)

    def stage_folders(self) -> list[Path]:
        "The folders of all stages, done or not."
        found = self.folder.glob("*-" + "[0-9a-f]" * 16)
        return sorted(path for path in found if path.is_dir())


def is_done(folder: Path) -> bool:
    "Whether a stage's last file was written."
    return (Path(folder) / "done.json").is_file()


def damaged(folder: Path, what: str) -> OptimaError:
    "The error for a finished stage whose files are not what was written."
    return OptimaError(f"{what}; delete the folder {folder} and run the same command again")


def done_files(folder: Path) -> dict[str, str]:
    "The names and sha256 that a finished stage recorded."
    path = Path(folder) / "done.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder, f"{path} is not readable") from error


def verify(folder: Path):
    "Raise OptimaError when a file of a finished stage is missing or was changed."
    for name, expected in done_files(folder).items():
        path = Path(folder) / name
        if not path.is_file():
            raise damaged(folder, f"{path} is missing")
        if file_digest(path) != expected:
            raise damaged(folder, f"{path} was changed after it was written")


def clear(folder: Path, keep: str):
    "Remove all but the whole files that match `keep`, so that a continued stage holds what a fresh one would."
    for path in Path(folder).iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not fnmatch(path.name, keep) or path.suffix == ".partial":
            path.unlink()
