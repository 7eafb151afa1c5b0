"Files: written aside and whole or not at all, locked, digested; errors of a full or forbidden disk in one line."
import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from optima.base.errors import OptimaError

REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder",
    errno.EPERM: "permission denied; choose another folder",
    errno.ENOTDIR: "it is not a folder; choose another folder",
    errno.EIO: "the disk failed; check it, or choose another folder",
}


def canonical_json(
    value,  # plain values: dict with text keys, list, str, int, float, bool, None
) -> str:  # one line
    "The one JSON text of a value: sorted keys, no spaces, Unicode as it is, no NaN."
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def digest(value) -> str:
    "16 hexadecimal digits that stand for a JSON value."
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


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
    write_text(path, canonical_json(value) + "\n")


def read_lines(
    path: str | Path,  # JSON, one value a line
    make: Callable[[dict], object],  # such as `Trajectory.from_dict`
    what: str,  # how to call one in an error
) -> list:
    "What was written one a line; a line of another kind is an error that names it."
    found = []
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                found.append(make(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise OptimaError(f"{path}, line {number}: not a {what} ({error}); make the file again") from error
    return found


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


def take(
    lock: FileLock,
    busy: str,  # the line for the one who finds it taken
    wait: bool,  # until it is free, or refuse
):
    "Take a lock; say who holds one that is taken."
    try:
        lock.acquire(blocking=False)
    except Timeout:
        line = busy.format(holder=holder(lock.lock_file))
        if not wait:
            raise OptimaError(line) from None
        print(line, file=sys.stderr, flush=True)
        lock.acquire()


@contextmanager
def locked(
    path: Path,  # the lock file; it stays, empty of meaning, when the lock is free
    busy: str,  # the line for the one who finds it taken; "{holder}" is who has it
    wait: bool = True,  # wait until it is free (after one line on stderr), or raise that line as OptimaError
):
    "Hold an exclusive lock, which the system frees when its holder dies, however it dies."
    make_folder(Path(path).parent)
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive its holder
    with storage_errors(path):
        take(lock, busy, wait)
    try:
        with storage_errors(path):
            Path(path).write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()
