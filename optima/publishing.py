"Copies finished results into the repository, from a clean tree and with no seed missing."
import gzip
import json
from pathlib import Path

from optima.errors import OptimaError
from optima.launcher import artefact, lines_of
from optima.reading import PUBLISHED, unchanged
from optima.registry import git, read_registry, registry_path, registry_text
from optima.store import aside, is_done, make_folder, verify, write_text


def refuse_changes():
    "Stop when the working tree is not what a commit says."
    changes = git("status", "--porcelain")
    if changes is None:
        raise OptimaError("publish works in a git clone only: a result has to name the commit that made it")
    if changes:
        raise OptimaError(f"the working tree has changes ({changes.splitlines()[0].strip()}, ...); commit them first")


def refuse_unclean(runs: Path, lines: list[dict]):
    "Stop when a result, or a stage that it was made from, was made by code that no commit holds."
    unclean = [f"{line['system']} (seed {line['seed']})" for line in lines if not line["machine"].get("clean")]
    if unclean:
        raise OptimaError(f"made from a tree with changes: {', '.join(unclean)}; run them again from a clean clone")
    stages = sorted({name for line in lines for name in stage_names(line) if not made_clean(Path(runs) / name)})
    if stages:
        raise OptimaError(f"stages made from a tree with changes: {', '.join(stages)}; delete these folders and the "
                          f"registry in {runs}, and run the same command again from a clean clone")


def stage_names(line: dict, kind: str = "") -> list[str]:
    "The folders of the stages that a line names, such as evaluate-0123456789abcdef."
    return [name for name in line["settings"].get("stages", []) if name.startswith(kind)]


def made_clean(folder: Path) -> bool:
    "Whether no cost file of a stage tells of changes that were not committed when it was written."
    costs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("cost*.json"))]
    return all(cost.get("clean", True) for cost in costs)


def published_lines(runs: Path, name: str, preset: str) -> list[dict]:
    "The lines of all seeds that were run with the preset's own settings; a missing one is an OptimaError."
    systems, stem = artefact(name)["systems"], Path(preset).stem
    found = [line for line in read_registry(runs) if line["system"] in systems and line["preset"] == stem]
    seeds = [line["seed"] for line in found if unchanged(line, preset)]
    return lines_of(name, preset, max(seeds, default=0) + 1, runs)


def evaluation_folders(runs: Path, line: dict) -> list[Path]:
    "The finished evaluation stages behind a line, one per benchmark and decoding, all of them."
    folders = [Path(runs) / name for name in stage_names(line, "evaluate-")]
    lacking = [folder.name for folder in folders if not is_done(folder)]
    expected = sum(len(decodings) for decodings in line["results"]["evaluation"].values())
    if lacking or len(folders) < expected:
        raise OptimaError(f"{line['system']} (seed {line['seed']}): not all of its evaluation's dialogues are in {runs}"
                          f" ({', '.join(lacking) or 'the line does not name them'}); run it again in one folder")
    for folder in folders:
        verify(folder)
    return folders


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
    refuse_unclean(runs, lines)
    written = [write_dialogues(runs, line, to) for line in lines if line["seed"] == 0]
    replaced = {(line["system"], line["preset"]) for line in lines}
    others = [line for line in read_registry(to) if (line["system"], line["preset"]) not in replaced]
    write_text(registry_path(to), registry_text(others + lines))
    return [*written, registry_path(to)]
