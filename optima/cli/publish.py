"Copies finished results into the repository: all tables and figures, from a clean tree and with no seed missing."
import gzip
import json
from pathlib import Path

from optima.base.errors import OptimaError
from optima.base.files import aside, make_folder
from optima.base.machine import git
from optima.cli.reproduce import PUBLISHED, lines_of
from optima.cli.show import unchanged
from optima.config.artefacts import ARTICLE, artefact
from optima.config.systems import MAIN, TRAINED
from optima.run.registry import FILE, PACKED, read_registry, write_registry
from optima.run.stages import is_done, verify

SHOWN = (*MAIN, "paper_untrained", *TRAINED)  # whose dialogues can be read on the pages


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


def seeds_run(runs: Path, names: list[str], preset: str) -> int:
    "How many seeds were run, of any of the artefacts' systems, with the preset's own settings."
    systems, stem = {system for name in names for system in artefact(name)["systems"]}, Path(preset).stem
    found = [line for line in read_registry(runs) if line["system"] in systems and line["preset"] == stem]
    return max((line["seed"] + 1 for line in found if unchanged(line, preset)), default=1)


def published_lines(runs: Path, names: list[str], preset: str) -> list[dict]:
    "The artefacts' lines of all seeds, each once; a missing one is an OptimaError."
    seeds = seeds_run(runs, names, preset)
    lines = [line for name in names for line in lines_of(name, preset, seeds, runs)]
    return list({line["key"]: line for line in lines}.values())


def evaluation_folders(runs: Path, line: dict) -> list[Path]:
    "The finished evaluation stages behind a line, one per benchmark and decoding, all of them."
    folders = [Path(runs) / name for name in stage_names(line, "evaluate-")]
    lacking = [folder.name for folder in folders if not is_done(folder)]
    expected = sum(decoding != "vote" for decodings in line["results"]["evaluation"].values() for decoding in decodings)
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


def write_lines(lines: list[dict], to: Path) -> Path:
    "Put lines in the place of those of the same systems and preset in a packed registry."
    replaced = {(line["system"], line["preset"]) for line in lines}
    others = [line for line in read_registry(to) if (line["system"], line["preset"]) not in replaced]
    write_registry(to / PACKED, others + lines)
    (to / FILE).unlink(missing_ok=True)  # what it held is in the packed one
    return to / PACKED


def remove_old(lines: list[dict], written: list[Path], to: Path):
    "Remove the dialogues that an earlier publication left of these systems and preset."
    for line in lines:
        for path in to.glob(f"dialogues/{line['system']}-{line['preset']}-[0-9]*.jsonl.gz"):
            if path not in written:
                path.unlink()


def publish_runs(
    runs: Path,  # the run folder
    names: list[str] | None = None,  # artefacts; None: the article's
    preset: str = "toy",
    to: Path | None = None,  # None: nbs/results
) -> list[Path]:
    "Copy the lines of all seeds, and the first seed's dialogues of the systems in `SHOWN`; returns what was written."
    to = to or PUBLISHED
    refuse_changes()
    lines = published_lines(runs, names or list(ARTICLE), preset)
    refuse_unclean(runs, lines)
    shown = [line for line in lines if line["seed"] == 0 and line["system"] in SHOWN]
    written = [write_dialogues(runs, line, to) for line in shown]
    remove_old(lines, written, to)
    return [*written, write_lines(lines, to)]
