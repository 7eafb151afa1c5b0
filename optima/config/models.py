"Where models and data lie, and what stands for them in keys."
import os
import re
from functools import lru_cache
from pathlib import Path

from optima.base.errors import OptimaError
from optima.base.files import folder_digest, folder_files

CHECKPOINTS = Path(__file__).parents[1] / "toy" / "checkpoints"
SHIPPED = {"toy": "toy-base", "toy_paper": "toy-paper-base"}  # what a base may be called -> its checkpoints, one for each seed
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")  # owner/name, or owner/name@revision


def toy_base(seed: int, name: str = "toy-base") -> Path:
    "The shipped toy checkpoint for a seed: seeds go round as many as are shipped."
    shipped = sorted(CHECKPOINTS.glob(f"{name}-[0-9]*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    return shipped[seed % len(shipped)] if shipped else CHECKPOINTS / f"{name}-0"


def model_digest(model: Path | str) -> str:
    "What stands for a model in keys: a folder's content, or the whole of a hub name."
    return digest_at(str(model), times_of(Path(model))) if Path(model).is_dir() else str(model)


def times_of(folder: Path) -> tuple:
    "Every file of a folder with its size and the time of its last change."
    about = {name: path.stat() for name, path in folder_files(folder).items()}
    return tuple((name, one.st_size, one.st_mtime_ns) for name, one in about.items())


@lru_cache
def digest_at(folder: str, times: tuple) -> str:
    "A folder's digest, read once as long as its files stay as they are."
    return folder_digest(Path(folder))


def folder_name(model: str) -> str:
    "A model folder's last part; any other name as it is."
    return Path(model).name if os.path.isabs(model) else model


def find_model(
    where: str,  # what the reader of an error should look at
    name: str,  # "base" or "teacher"
    value: str,
    folder: Path,  # what a relative path starts from
) -> str:  # an absolute path, a hub name, "toy" or nothing
    "Where a model lies; a folder that is not there is an OptimaError."
    if value in ("", "toy") or name == "base" and value in SHIPPED:
        return value
    path = Path(folder, os.path.expanduser(value)).resolve()
    if (path / "config.json").is_file():
        return str(path)
    if path.is_dir():
        raise OptimaError(f"{where}: {name} = {value!r}: {path} is no model folder, it has no config.json")
    if value[0] in "./~" or not HUB_NAME.fullmatch(value):
        raise OptimaError(f"{where}: {name} = {value!r}: there is no folder {path}; "
                          'give a model folder, or a hub name such as "owner/name"')
    return value


def find_data(where: str, value: str, folder: Path) -> str:
    "The absolute path of a data folder, or nothing; one that is not there is an OptimaError."
    path = Path(folder, os.path.expanduser(value)).resolve()
    if value and not path.is_dir():
        raise OptimaError(f"{where}: data = {value!r}: there is no folder {path}; "
                          "give one that has a folder per benchmark")
    return value and str(path)
