"The truth about what was run: one line per finished experiment, sorted by key."
import gzip
import json
import zlib
from pathlib import Path

from optima.base.errors import OptimaError
from optima.base.files import aside, canonical_json, locked, make_folder
from optima.run.stages import Store

FILE = "registry.jsonl"
PACKED = f"{FILE}.gz"  # the same, compressed: a tenth of its size
FIELDS = {"key": str, "system": str, "preset": str, "seed": int,
          "settings": dict, "results": dict, "cost": dict, "machine": dict}


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
    return "".join(canonical_json(by_key[key]) + "\n" for key in sorted(by_key))


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
