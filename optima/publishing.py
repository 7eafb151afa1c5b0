"Copies finished results into the repository, from a clean tree and with no seed missing."
import gzip
from pathlib import Path

from optima.errors import OptimaError
from optima.launcher import artefact, lines_of
from optima.reading import PUBLISHED
from optima.registry import git, read_registry, registry_path, registry_text
from optima.store import aside, make_folder, verify, write_text


def refuse_changes():
    "Stop when the working tree is not what a commit says."
    changes = git("status", "--porcelain")
    if changes is None:
        raise OptimaError("publish works in a git clone only: a result has to name the commit that made it")
    if changes:
        raise OptimaError(f"the working tree has changes ({changes.splitlines()[0].strip()}, ...); commit them first")


def refuse_unclean(lines: list[dict]):
    "Stop when a result was made by code that no commit holds."
    unclean = [f"{line['system']} (seed {line['seed']})" for line in lines if not line["machine"].get("clean")]
    if unclean:
        raise OptimaError(f"made from a tree with changes: {', '.join(unclean)}; run them again from a clean clone")


def published_lines(runs: Path, name: str, preset: str) -> list[dict]:
    "The lines of all seeds that were run; a system that lacks one of them is an OptimaError."
    systems, stem = artefact(name)["systems"], Path(preset).stem
    found = [line["seed"] for line in read_registry(runs) if line["system"] in systems and line["preset"] == stem]
    return lines_of(name, preset, max(found, default=0) + 1, runs)


def evaluation_folders(runs: Path, line: dict) -> list[Path]:
    "The finished evaluation stages behind a line."
    from optima.results import stage_keys

    folders = [Path(runs) / f"evaluate-{key}" for key in stage_keys(line["settings"].get("stages"))]
    found = [folder for folder in folders if folder.is_dir()]
    if not found:
        raise OptimaError(f"{line['system']}: its evaluation's dialogues are not in {runs}; run it again in one folder")
    for folder in found:
        verify(folder)
    return found


def write_dialogues(runs: Path, line: dict, to: Path) -> Path:
    "One experiment's evaluation dialogues, compressed, the same bytes each time."
    path = make_folder(to / "dialogues") / f"{line['system']}-{line['preset']}-{line['seed']}.jsonl.gz"
    shards = [shard for folder in evaluation_folders(runs, line) for shard in sorted(folder.glob("*.jsonl"))]
    with aside(path) as partial:
        partial.write_bytes(gzip.compress(b"".join(shard.read_bytes() for shard in shards), 9, mtime=0))
    return path


def publish_runs(
    runs: Path,  # the run folder
    name: str = "main_results",
    preset: str = "toy",
    to: Path | None = None,  # None: nbs/results
) -> list[Path]:
    "Copy an artefact's registry lines, and the dialogues of its first seed; returns what was written."
    to = to or PUBLISHED
    refuse_changes()
    lines = published_lines(runs, name, preset)
    refuse_unclean(lines)
    written = [write_dialogues(runs, line, to) for line in lines if line["seed"] == 0]
    replaced = {(line["system"], line["preset"]) for line in lines}
    others = [line for line in read_registry(to) if (line["system"], line["preset"]) not in replaced]
    write_text(registry_path(to), registry_text(others + lines))
    return [*written, registry_path(to)]
