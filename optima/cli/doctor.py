"Whether this machine is fit: versions, room, and one small use of each part that may be missing."
import json
import platform
import shutil
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from optima.base.files import file_digest
from optima.base.machine import cores, cpu_name, memory_gb, package_version
from optima.cli.reproduce import ROOT
from optima.config.models import CHECKPOINTS

LEAST_MEMORY_GB, LEAST_DISK_GB, LEAST_PYTHON = 4, 2, (3, 11)

Finding = tuple[bool, str]


def machine_findings(runs: Path) -> Iterator[Finding]:
    "Python, processor, memory and disk."
    yield sys.version_info[:2] >= LEAST_PYTHON, f"python {platform.python_version()} (3.11 or newer)"
    yield True, f"{cores()} cores, {cpu_name()}"
    yield memory_gb() >= LEAST_MEMORY_GB, f"{memory_gb()} GB memory ({LEAST_MEMORY_GB} or more)"
    place = next(path for path in [runs.resolve(), *runs.resolve().parents] if path.is_dir())
    free = shutil.disk_usage(place).free / 1e9
    yield free >= LEAST_DISK_GB, f"{free:.1f} GB free on the disk of {runs} ({LEAST_DISK_GB} or more)"


def requirements() -> list[str]:
    "What settings.ini asks for; in an installed wheel, what its metadata asks for."
    parser = ConfigParser(delimiters=["="], interpolation=None)
    if parser.read(ROOT / "settings.ini", encoding="utf-8"):
        return [line.strip() for line in parser["DEFAULT"]["requirements"].splitlines() if line.strip()]
    try:
        return [line for line in requires("optima-literate") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return []


def package_findings() -> Iterator[Finding]:
    "Each required package: its version within the bounds."
    from packaging.requirements import Requirement

    for text in requirements():
        wanted = Requirement(text)
        found = package_version(wanted.name)
        fits = bool(found) and wanted.specifier.contains(found, prereleases=True)
        yield fits, f"{wanted.name} {found or 'is not installed'} ({wanted.specifier})"


def torch_finding() -> str:
    "The devices that torch sees."
    import torch

    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    return f"torch runs on {', '.join(devices)}"


def quantization_finding() -> str:
    "bitsandbytes packs numbers into 4 bits and back."
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    from optima.engines.loading import quietly

    weights = torch.linspace(-1, 1, 4096).reshape(64, 64)
    with quietly():
        packed, state = quantize_4bit(weights, quant_type="nf4")
    error = (dequantize_4bit(packed, state) - weights).abs().max().item()
    if error > 0.2:
        raise ValueError(f"off by {error:.2f}")
    return f"bitsandbytes NF4 works (off by {error:.2f} at most)"


def sandbox_finding() -> str:
    "monty runs a candidate and refuses a wrong one."
    from optima.sandbox.judge import run_tests

    tests = "def check(candidate):\n    assert candidate(2) == 4"
    verdicts = [run_tests(f"def double(x):\n    return {body}", tests, "double").status for body in ("x * 2", "x")]
    if verdicts != ["passed", "failed"]:
        raise ValueError(f"gave {verdicts}")
    return "the sandbox (monty) judges programs"


def isolation_finding() -> str:
    "Whether there is a second level for what monty cannot run; information, and what to do where there is none."
    from optima.sandbox.bubblewrap import missing

    if reason := missing():
        return f"no second sandbox level: programs that monty cannot run count as unsupported; {reason}"
    return "the second sandbox level (bubblewrap) judges what monty cannot run"


def tried(part: str, use) -> Finding:
    "A part's finding, or what went wrong with it."
    try:
        return True, use()
    except Exception as error:  # noqa: BLE001 - whatever is broken about a part, the doctor names it and goes on
        return False, f"{part}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def recorded_digests(folder: Path) -> dict[str, str]:
    "The sha256 that a checkpoint's manifest gives, by file name."
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    found = manifest.get("files") or manifest.get("sha256")
    return {"model.safetensors": found} if isinstance(found, str) else dict(found)


def checkpoint_finding(folder: Path) -> str:
    "A checkpoint's files are those of its manifest."
    for name, expected in recorded_digests(folder).items():
        if file_digest(folder / name) != expected:
            raise ValueError(f"{name} is not the file of its manifest")
    return f"checkpoint {folder.name} is whole"


def findings(runs: Path, preset: str | None = None) -> Iterator[Finding]:
    "All that the doctor looks at, in order; with a preset, also what that one needs."
    yield from machine_findings(runs)
    yield from package_findings()
    parts = (("torch", torch_finding), ("bitsandbytes", quantization_finding), ("sandbox", sandbox_finding),
             ("second sandbox", isolation_finding))  # fmt: skip
    for part, use in parts:
        yield tried(part, use)
    folders = sorted(CHECKPOINTS.glob("toy-*"))
    yield bool(folders), f"{len(folders)} toy checkpoints"
    for folder in folders:
        yield tried(f"checkpoint {folder.name}", lambda folder=folder: checkpoint_finding(folder))
    if preset:
        from optima.cli.fitness import preset_findings
        from optima.config.settings import load_settings

        yield from preset_findings(load_settings("optima_debate", preset), runs)


def examine(runs: Path, preset: str | None = None) -> int:
    "Print every finding; 1 when one is bad."
    bad = 0
    for good, text in findings(runs, preset):
        print(f"{'ok ' if good else 'BAD'} {text}", flush=True)
        bad += not good
    print("all well" if not bad else f"{bad} to mend")
    return min(bad, 1)
