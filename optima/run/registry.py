"The truth about what was run: one line per finished experiment, sorted by key."
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from optima.base.errors import OptimaError
from optima.base.store import Store, aside, canonical, locked, make_folder

FILE = "registry.jsonl"
PACKED = f"{FILE}.gz"  # the same, compressed: a tenth of its size
FIELDS = {"key": str, "system": str, "preset": str, "seed": int,
          "settings": dict, "results": dict, "cost": dict, "machine": dict}
FROZEN = ("optima/toy/checkpoints", "optima/config/presets", "optima/config/settings.py", "optima/config/systems.py")  # decided before the published seeds run
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "trl", "pydantic-monty", "numpy")


def registry_path(runs: Path) -> Path:
    "The registry's file of a runs folder, packed where it is kept so, or the file itself when that is named."
    runs = Path(runs)
    if runs.name.endswith((".jsonl", ".jsonl.gz")):
        return runs
    return runs / (PACKED if (runs / PACKED).is_file() else FILE)


def check_line(line, where: str) -> dict:
    "The line, when it has every field in its type."
    if not isinstance(line, dict):
        raise OptimaError(f"{where}: expected a JSON object")
    for name, kind in FIELDS.items():
        if not isinstance(line.get(name), kind):
            raise OptimaError(f"{where}: field {name!r} is missing or is no {kind.__name__}")
    return line


def parse_line(text: str, where: str) -> dict:
    "One line of text as a registry line, or an OptimaError that says where."
    try:
        line = json.loads(text)
    except ValueError as error:
        raise OptimaError(f"{where}: not JSON ({error}); take the line out and run the same command again") from error
    return check_line(line, where)


def read_registry(
    runs: Path,  # a runs folder, a registry.jsonl, or a registry.jsonl.gz
) -> list[dict]:
    "All lines, sorted by key; none when there is no registry yet."
    path = registry_path(runs)
    if not path.is_file():
        return []
    try:
        data = path.read_bytes()
        texts = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", errors="replace").split("\n")
    except (OSError, EOFError, zlib.error) as error:
        raise OptimaError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    numbered = enumerate(texts, start=1)
    lines = [parse_line(text, f"{path}, line {number}") for number, text in numbered if text.strip()]
    return sorted(lines, key=lambda line: line["key"])


def find_line(runs: Path, key: str) -> dict | None:
    "The line of one experiment, or None."
    return next((line for line in read_registry(runs) if line["key"] == key), None)


def registry_text(lines: list[dict]) -> str:
    "Lines as the registry's bytes: canonical, sorted by key, the last of equal keys."
    by_key = {line["key"]: line for line in lines}
    return "".join(canonical(by_key[key]) + "\n" for key in sorted(by_key))


def write_registry(path: Path, lines: list[dict]):
    "Write a registry whole, packed where its name says so; the same bytes for the same lines."
    data = registry_text(lines).encode("utf-8")
    with aside(path) as partial:
        partial.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def add_line(
    runs: Path,  # the runs folder
    line: dict,  # key, system, preset, seed, settings, results, cost, machine
) -> dict:
    "Add the line, or put it in the place of the one with its key; other processes wait meanwhile."
    check_line(line, f"experiment {line.get('key')}")
    make_folder(runs)
    with locked(Store(runs).lock_path("registry"), "waiting for {holder}, which writes the registry"):
        write_registry(registry_path(runs), read_registry(runs) + [line])
    return line


def package_versions(names: tuple = PACKAGES) -> dict[str, str]:
    "The installed versions, without importing anything."
    return {name: package_version(name) for name in names}


def package_version(name: str) -> str:
    "One package's version, or '' when it is not installed."
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def cpu_name() -> str:
    "The processor's name as its maker gives it."
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def cores() -> int:
    "The processor cores that this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    "The machine's memory in gigabytes."
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def git(*arguments: str) -> str | None:
    "What git says in the folder that the package lies in; None without git or without a repository."
    try:
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def commit_day(commit: str) -> str:
    "The day of a commit; '' where git does not know it."
    return git("log", "-1", "--format=%cs", commit) or ""


def dated(
    machine: dict,  # of a registry line
) -> str:
    "A line's commit, with the day of the run; of a line that does not tell it, the commit's own day, where git knows it."
    commit = machine.get("commit") or ""
    day = f"run {machine['day']}" if machine.get("day") else f"of {commit_day(commit)}" if commit and commit_day(commit) else ""
    return f"{commit[:10] or 'unknown'}{day and ', '}{day}"


def gpu_name() -> str:
    "The graphics card that torch sees; '' where there is none, or where nothing has asked for torch."
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else ""


def frozen() -> str | None:
    "The last commit that changed models or settings; None outside a clone."
    return git("log", "-1", "--format=%H", "--", *FROZEN) or None


def machine() -> dict:
    "What ran the experiment, and on what day: versions, hardware, the commit, whether the tree was clean, what froze the settings."
    changes = git("status", "--porcelain")
    return {"python": platform.python_version(), "system": platform.system(), "cpu": cpu_name(), "cores": cores(),
            "gpu": gpu_name(), "memory_gb": memory_gb(), "packages": package_versions(), "commit": git("rev-parse", "HEAD") or "",
            "clean": changes == "", "frozen": frozen(), "day": datetime.now(UTC).date().isoformat()}


def peak_memory_mb() -> int:
    "The most memory that this process has held so far, in megabytes."
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))
