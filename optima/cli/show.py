"Reads run folders for the command line: which lines a table shows, and what is finished."
import sys
from collections import Counter, defaultdict
from pathlib import Path

from optima.base.errors import OptimaError, suggest
from optima.cli.reproduce import PUBLISHED
from optima.config.artefacts import artefact
from optima.config.settings import DEFAULTS, load_settings
from optima.config.systems import system_of, system_order
from optima.run.registry import read_registry, registry_path
from optima.run.stages import Store, is_done


def choose_registry(runs: str | None) -> Path:
    "The registry that was asked for; else the one in runs/; else the published one."
    places = [Path(runs)] if runs else [Path("runs"), PUBLISHED]
    found = [registry_path(place) for place in places if registry_path(place).is_file()]
    if not found:
        raise OptimaError(f"no registry in {' or '.join(map(str, places))}; make one: optima reproduce")
    return found[0]


def choose_preset(lines: list[dict], preset: str | None) -> str:
    "The preset that was asked for; else toy if it was run; else the only one there."
    names = sorted({line["preset"] for line in lines})
    if preset is None and len(names) > 1 and "toy" not in names:
        raise OptimaError(f"the registry holds several presets; choose one by --preset: {', '.join(names)}")
    return preset or ("toy" if "toy" in names or not names else names[0])


def unchanged(line: dict, preset: str) -> bool:
    "Whether a line ran with its preset's settings, and none set by hand; newer settings count as their defaults."
    settings = load_settings(line["system"], preset, line["seed"])
    stored = {name: value for name, value in line["settings"].items() if name != "stages"}
    return DEFAULTS | stored == DEFAULTS | settings.to_dict() or line["key"] == settings.key


def current(lines: list[dict], preset: str) -> list[dict]:
    "One line per system and seed: of several, the one that would be made today."
    chosen: dict = {}
    for line in lines:
        place = (line["system"], line["seed"])
        today = line["key"] == load_settings(line["system"], preset, line["seed"]).key
        if place not in chosen or today:
            chosen[place] = line
    return list(chosen.values())


def lines_to_show(
    name: str,  # an artefact
    runs: str | None = None,  # run folder or registry; None: runs/, or else the published results
    preset: str | None = None,
) -> list[dict]:
    "The registry lines that an artefact shows; says on stderr where they come from."
    systems = artefact(name)["systems"]
    path = choose_registry(runs)
    lines = [line for line in read_registry(path) if line["system"] in systems]
    preset = choose_preset(lines, preset)
    own = [line for line in lines if line["preset"] == Path(preset).stem and unchanged(line, preset)]
    print(f"registry: {path}, preset {preset}, {len(own)} lines", file=sys.stderr)
    if not own:
        raise OptimaError(f"{path} has no line of {name} with preset {preset}; "
                          f"make them: optima reproduce --only {name} --preset {preset}")
    return current(own, preset)


def seeds_of(lines: list[dict], system: str) -> set[int]:
    "The seeds that a system was run with."
    return {line["seed"] for line in lines if line["system"] == system}


def registry_name(system: str, lines: list[dict]) -> str:
    "The registry's name of a system that is asked for as tables show it."
    known = {line["system"] for line in lines}
    names = [name for name in sorted(known, key=system_order) if system in (name, system_of(name).label)]
    if not names:
        raise OptimaError(suggest("system", system, known))
    return system if system in names else names[0]


def shown_report(lines: list[dict], against: str | None = None) -> list[dict]:
    "The rows of a report, their systems named as tables show them."
    from optima.evaluate.statistics import report_rows
    from optima.report.against_paper import shown_rows

    return shown_rows(report_rows(lines, against))


def shown_comparisons(
    lines: list[dict],
    against: str | None = None,  # a system that all others are set beside; None: each trained team with its controls
) -> list[dict]:
    "The paired comparisons that can be made; says on stderr which cannot, for want of seeds."
    from optima.config.systems import default_pairs
    from optima.evaluate.statistics import comparisons
    from optima.report.against_paper import shown_rows

    systems = sorted({line["system"] for line in lines}, key=system_order)
    pairs = [(name, against) for name in systems if name != against] if against else default_pairs(systems)
    uneven = [pair for pair in pairs if seeds_of(lines, pair[0]) != seeds_of(lines, pair[1])]
    for system, other in uneven:
        print(f"not compared: {system} with {other}, they were run with different seeds", file=sys.stderr)
    return shown_rows(comparisons(lines, [pair for pair in pairs if pair not in uneven]))


def own_tables(name: str, lines: list[dict]) -> list:
    "The tables of an artefact's own, greedy; none where the systems were run with different seeds."
    from optima.report.ablations import ablation_table, cost_table, saving_table
    from optima.report.iterations import course_table, weight_table

    own = {"token_cost": (cost_table, saving_table), "reward_ablation": (ablation_table,), "iterations": (course_table,),
           "reward_weights": (weight_table,)}  # other artefacts are shown by their rows and comparisons
    seeds = {frozenset(seeds_of(lines, line["system"])) for line in lines}
    made = [table(lines) for table in own.get(name, ()) if len(seeds) == 1]
    return [table for table in made if table is not None and table.rows]


def size_of(folder: Path) -> int:
    "The bytes of all files below a folder."
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size_text(size: float) -> str:
    "Bytes for people."
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def stage_lines(folder: Path) -> list[str]:
    "One line per kind of stage: how many are done and partial, and their size."
    counts, sizes = defaultdict(Counter), Counter()
    for stage in Store(folder).stage_folders():
        name = stage.name.rsplit("-", 1)[0]
        counts[name]["done" if is_done(stage) else "partial"] += 1
        sizes[name] += size_of(stage)
    return [f"  {name:<12} {count['done']:>4} done {count['partial']:>4} partial  {size_text(sizes[name]):>9}"
            for name, count in sorted(counts.items())]


def experiment_lines(folder: Path) -> list[str]:
    "One line per finished experiment."
    lines = sorted(read_registry(folder), key=lambda line: (line["preset"], line["system"], line["seed"]))
    return [f"  {line['system']:<28} {line['preset']:<8} seed {line['seed']}  {line['key']}" for line in lines]


def status_lines(folder: Path) -> list[str]:
    "What a run folder holds: stages, finished experiments, size."
    if not folder.is_dir():
        raise OptimaError(f"there is no run folder {folder} yet; make one: optima reproduce")
    experiments = experiment_lines(folder)
    return [f"{folder}: {size_text(size_of(folder))}", "stages:", *(stage_lines(folder) or ["  none"]),
            f"finished experiments: {len(experiments)}", *experiments]
