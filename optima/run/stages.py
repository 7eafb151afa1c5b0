"Stages as folders named by what went in: written aside, checked when read, continued after a kill."
import json
import shutil
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from optima.base.errors import OptimaError
from optima.base.files import (
    canonical_json,
    digest,
    file_digest,
    flush,
    folder_files,
    locked,
    make_folder,
    storage_errors,
    write_json,
)
from optima.config.versions import STAGE_VERSIONS

SHARDS = "shard-*"


def stage_key(
    name: str,  # the stage, such as "generate"
    settings: dict,  # the stage's own settings, JSON values
    version: int,  # raised by hand when the stage's results change
    inputs: list[str],  # keys of the stages (and digests of the models) that it reads, in order
) -> str:
    "The 16 hexadecimal digits that name a stage's folder: a hash of all that went in."
    return digest({"stage": name, "settings": settings, "version": version, "inputs": list(inputs)})


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
        return Stage(self, name, json.loads(canonical_json(settings)), version, inputs)

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
