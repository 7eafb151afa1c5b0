"Tables of named things that a user's file can add to: reward terms, paradigms, prompts, benchmarks and the like."
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from optima.base.errors import OptimaError, suggest
from optima.base.files import file_digest

GROUP = "optima.plugins"  # the entry points of installed packages, ours among them: their modules add things when imported
VARIABLE = "OPTIMA_PLUGINS"  # an environment variable: the files that a command was given, for the processes that it starts


class Kind:
    "One table of named things, and the decorator that adds to it."

    def __init__(
        self,
        what: str,  # one of its things in words, such as "reward term"
        reserved: tuple[str, ...] = (),  # names that mean something else where things of this kind are named
    ):
        self.what, self.reserved, self.things, self.sources = what, reserved, {}, {}

    def __repr__(self):
        return f"Kind({self.what!r}: {', '.join(self.things)})"

    def __call__(self, name: str) -> Callable:
        "Add the function or class that is decorated; it is handed back as it is."
        def add(thing):
            return self.add(name, thing)

        return add

    def add(
        self,
        name: str,
        thing,
        written: Callable | None = None,  # the function or class that was decorated, where the thing is made of one
    ):
        "Add a thing under a name; a user's may take the place of a user's, never of the package's."
        source = source_of(written or thing)
        if not source.packaged:
            load_installed()  # else a user's would be there first
        if name in self.reserved or not source.may_replace(self.sources.get(name)):
            raise OptimaError(f"{name!r} is a {self.what} of the package; choose another name")
        self.things[name], self.sources[name] = thing, source
        return thing

    def get(self, name: str):
        "The thing of a name; an unknown one is an OptimaError with the closest right word."
        if name not in self.things:
            load_installed()
        if name not in self.things:
            raise OptimaError(suggest(self.what, name, sorted(self.things)))
        return self.things[name]

    def names(self) -> list[str]:
        "All names, sorted."
        load_installed()
        return sorted(self.things)

    def __iter__(self):
        "All names, in the order in which they were added."
        load_installed()
        return iter(list(self.things))

    def __contains__(self, name: str) -> bool:
        load_installed()
        return name in self.things

    def __len__(self) -> int:
        load_installed()
        return len(self.things)

    def packaged(self, name: str) -> bool:
        "Whether a name is one of the package's."
        load_installed()
        return name in self.sources and self.sources[name].packaged

    def digest(self, name: str) -> str:
        "What stands for a user's thing in keys: the content of the file it came from; '' where there is none."
        self.get(name)
        return loaded_files.get(self.sources[name].module, "")


@dataclass(frozen=True)
class Source:
    "Where a thing was added: the module, and the name of what was decorated."
    module: str
    name: str

    @property
    def packaged(self) -> bool:
        "Whether the module is one of the package."
        return self.module.partition(".")[0] == "optima"

    def may_replace(self, before: "Source | None") -> bool:
        "A chapter that is run as a notebook defines again what the package has: the same function, by the same name."
        again = before and self.module == "__main__" and self.name and self.name == before.name
        return before is None or not before.packaged or self.packaged or bool(again)


loaded_files: dict[str, str] = {}  # module of a user's file -> sha256 of the file
installed_loaded: list[bool] = []  # filled once the entry points were loaded


def source_of(thing) -> Source:
    "Where a function or a class was defined; of anything else, who is adding it."
    name = getattr(thing, "__qualname__", "")
    return Source(thing.__module__ if name else adding_module(), name)


def adding_module() -> str:
    "The module whose code is adding something, wherever it called from: the first frame outside this file."
    frame = sys._getframe(1)
    while frame and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return frame.f_globals.get("__name__", "") if frame else ""


def load_installed():
    "Import, once, what installed packages add, then what the command was given."
    if installed_loaded:
        return
    installed_loaded.append(True)
    for point in entry_points(group=GROUP):
        point.load()
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        load_file(path)


def place_of(error: BaseException, path: Path) -> str:
    "The file, and the line in it, that an error came from."
    trace, line = error.__traceback__, getattr(error, "lineno", None) or 0
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{path}, line {line}" if line else str(path)


def load_file(
    path: str | Path,  # Python that registers things by their decorators
) -> str:  # its sha256
    "Run a user's file once; what is wrong in it is an OptimaError that names file and line."
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise OptimaError(f"there is no plug-in file {path}; give a Python file that uses the decorators of optima")
    found = file_digest(path)
    name = f"optima_plugin_{found[:16]}"
    if name in loaded_files:
        return found
    load_installed()
    spec = spec_from_file_location(name, path)
    module = module_from_spec(spec)
    loaded_files[name] = found
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name], loaded_files[name]
        raise OptimaError(f"{place_of(error, path)}: {type(error).__name__}: {error}; mend the plug-in and run again") from error
    return found
