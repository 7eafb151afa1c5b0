"Takes trained adapters out of a run folder: copies, each with a card that tells its scores."
import json
import shutil
from pathlib import Path

from optima.base.errors import OptimaError, suggest
from optima.base.files import folder_aside
from optima.run.registry import read_registry
from optima.run.stages import Store, is_done, verify


def line_to_export(runs: Path, name: str, preset: str, seed: int) -> dict:
    "The registry line of a system, or the one whose key was given; an OptimaError where that is none or several."
    lines = read_registry(runs)
    found = [line for line in lines if line["key"] == name] or [
        line for line in lines if (line["system"], line["preset"], line["seed"]) == (name, preset, seed)]
    if len(found) > 1:
        raise OptimaError(f"{runs} holds {name} with preset {preset} and seed {seed} under several settings; name one by its key: "
                          f"{', '.join(line['key'] for line in found)}")
    if not found:
        have = {f"{line['system']} --preset {line['preset']} --seed {line['seed']}" for line in lines}
        raise OptimaError(f"{runs}: {suggest('experiment', f'{name} --preset {preset} --seed {seed}', have)}")
    return found[0]


def evaluated_team(runs: Path, line: dict, benchmark: str) -> str:
    "The key of what a benchmark's evaluation was made with: the team's last training stage, or its model."
    (columns, *_) = line["results"]["evaluation"][benchmark].values()
    for name in line["settings"]["stages"]:
        file = {"evaluate": "columns.json", "sample": "samples.json"}.get(name.partition("-")[0])
        path = Path(runs, name, file or "")
        if file and path.is_file() and json.loads(path.read_text(encoding="utf-8"))["task"] == columns["task"]:
            return json.loads(path.with_name("settings.json").read_text(encoding="utf-8"))["inputs"][0]
    raise OptimaError(f"{runs} no longer holds the evaluation of {line['system']} on {benchmark}; run the experiment again, it continues")


def adapters_of(runs: Path, line: dict, benchmark: str) -> list[Path]:
    "The folders of a benchmark's trained adapters: one, or one for each role."
    from optima.run.team import adapters_in

    key = evaluated_team(runs, line, benchmark)
    stages = [folder for folder in Store(runs).stage_folders() if folder.name.endswith(f"-{key}") and is_done(folder)]
    if not stages:
        raise OptimaError(f"{line['system']} has no trained adapter for {benchmark}: its team is the model as it came")
    verify(stages[0])
    folders = list(adapters_in(stages[0]).values())
    if not all(Path(folder, "README.md").is_file() for folder in folders):
        raise OptimaError(f"{stages[0]} was trained before adapters had cards; remove that folder and run the experiment again, it continues")
    return folders


def export_adapters(
    runs: Path,
    name: str,  # a system, or the key of a registry line
    preset: str,
    seed: int,
    to: Path,  # a folder that is not there yet
) -> list[Path]:  # a folder for each adapter
    "Copy an experiment's adapters, a folder for each benchmark, with their scores in their cards."
    from optima.evaluate.statistics import report_rows
    from optima.train.card import add_scores

    line = line_to_export(runs, name, preset, seed)
    found = {benchmark: adapters_of(runs, line, benchmark) for benchmark in line["results"]["evaluation"]}
    rows, copies = report_rows([line]), []
    source = (f"From line {line['key']} of the registry, {line['system']} with preset {line['preset']} and seed {line['seed']}, commit "
              f"{line['machine']['commit'][:12] or 'unknown'}{'' if line['machine']['clean'] else ' with changes'}. In brackets, 95 % intervals over the tasks; one seed.")
    with folder_aside(to) as partial:
        for benchmark, folders in found.items():
            for folder in folders:
                copy = Path(shutil.copytree(folder, partial / benchmark / folder.name))
                add_scores(copy, [row for row in rows if row["benchmark"] == benchmark], source)
                copies.append(Path(to, copy.relative_to(partial)))
    return copies
