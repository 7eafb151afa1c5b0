"What runs an experiment: versions, hardware, the commit, and what froze the settings."
import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FROZEN = ("optima/toy/checkpoints", "optima/config/presets", "optima/config/settings.py", "optima/config/systems.py")  # decided before the published seeds run
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "trl", "pydantic-monty", "numpy")


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
