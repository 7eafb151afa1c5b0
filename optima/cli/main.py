"The command `optima`: what the notebooks do, from a shell."
import argparse
import json
import os
import re
import sys
from pathlib import Path

from optima.base.errors import OptimaError, suggest

RUNS = "runs"


class Parser(argparse.ArgumentParser):
    "A parser whose errors are one line, with the closest right word."

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, allow_abbrev=False, **options)

    def error(self, message: str):
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            names = [name.strip(" '") for name in choice[2].split(",")]
            option = re.match(r"argument (--[a-z-]+):", message)
            raise OptimaError(suggest(f"value of {option[1]}:" if option else "command", choice[1], names))
        if message.endswith("required: command"):
            message = f"name a command: {', '.join(COMMANDS)}"
        raise OptimaError(f"{message}; see {self.prog} --help")


def whole(text: str) -> int:
    "A number of things: 1 or more."
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 1 or more")
    return int(text)


def seed(text: str) -> int:
    "A seed: 0 or more."
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 0 or more")
    return int(text)


def add_runs(parser, default=RUNS):
    parser.add_argument("--runs", metavar="DIR", default=default, help=f"run folder (default {RUNS})")


def add_preset(parser, default="toy"):
    parser.add_argument("--preset", default=default, help="smoke, toy, or a .toml file (default toy)")


def add_run(parser):
    parser.add_argument("system", nargs="?", help="a row of the table (default optima_debate; with --engine server, "
                                                  "which trains nothing, untrained_debate)")
    add_preset(parser)
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--benchmarks", metavar="NAME,...", help="which tasks (default: the preset's)")
    parser.add_argument("--data", metavar="DIR", help="a folder per benchmark: a real one's files (default: the hub), or your own questions.jsonl")
    add_runs(parser)
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[],
                        help="settings that win over the preset")
    add_servers(parser)


def add_servers(parser):
    "Who generates, where it is not the local engine."
    parser.add_argument("--engine", choices=("local", "server"), help="who generates for the team (default local)")
    parser.add_argument("--base-url", metavar="URL,...", help="the team's OpenAI-compatible servers")
    parser.add_argument("--model", metavar="NAME", help="the team's model by its name there (default: the base)")
    parser.add_argument("--teacher", metavar="local|URL,...", help="where the teacher is")
    parser.add_argument("--teacher-model", metavar="NAME", help="the teacher: a folder, or its name at its servers")


def add_reproduce(parser):
    add_preset(parser)
    parser.add_argument("--only", metavar="NAME,...", help="tables and figures to make (default: the article's; the published paper's are named paper_*)")
    parser.add_argument("--seeds", type=whole, default=1, help="how many seeds, from 0 (default 1)")
    parser.add_argument("--workers", type=whole, help="experiments at once (default: one per core)")
    add_runs(parser)


def add_report(parser):
    parser.add_argument("name", help="a table or figure, such as main_results")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    parser.add_argument("--against", metavar="SYSTEM", help="what to compare with (default: the untrained team)")
    add_preset(parser, default=None)
    add_runs(parser, default=None)


def add_doctor(parser):
    add_runs(parser)
    add_preset(parser, default=None)


def add_toy(parser):
    actions = parser.add_subparsers(dest="toy_command", metavar="train", required=True, parser_class=Parser)
    train = actions.add_parser("train", help="train a toy model from scratch")
    which = train.add_mutually_exclusive_group()
    which.add_argument("--seed", type=seed, default=0, help="of the base (default 0)")
    which.add_argument("--teacher", action="store_true", help="the teacher instead of a base")
    train.add_argument("--world", choices=("article", "paper"), default="article", help="what it grows up with (default article)")
    train.add_argument("--out", metavar="DIR", help="where it goes (default toy-base-SEED, toy-paper-base-SEED or toy-teacher)")


def add_bench(parser):
    actions = parser.add_subparsers(dest="bench_command", metavar="toy|gpu|sandbox", required=True, parser_class=Parser)
    for name, what in (("toy", "the engine and the training step on the toy world"),
                       ("gpu", "memory and speed of an 8B model with random weights"),
                       ("sandbox", "programs judged per second")):
        actions.add_parser(name, help=what).add_argument("--json", action="store_true", help="everything measured, as JSON")


def add_publish(parser):
    parser.add_argument("runs", metavar="DIR", help="the run folder to publish")
    add_preset(parser)
    parser.add_argument("--name", metavar="NAME,...", help="tables and figures (default: the article's)")
    parser.add_argument("--to", metavar="DIR", help="where it goes (default nbs/results)")


def add_export(parser):
    parser.add_argument("experiment", help="a trained system, such as optima_debate, or the key of a registry line")
    add_preset(parser)
    parser.add_argument("--seed", type=seed, default=0)
    add_runs(parser)
    parser.add_argument("--to", metavar="DIR", required=True, help="a new folder for the adapters")


def server_overrides(chosen) -> dict:
    "The settings that the options about servers stand for."
    def listed(text): return [part.strip() for part in text.split(",")]
    given = {"engine": chosen.engine, "model": chosen.model, "teacher": chosen.teacher_model,
             "base_url": chosen.base_url and listed(chosen.base_url),
             "teacher_url": chosen.teacher and ([] if chosen.teacher == "local" else listed(chosen.teacher))}
    return {name: value for name, value in given.items() if value is not None}


def run(chosen) -> int:
    "Run one experiment and print its rows."
    from optima.config.settings import load_settings, parse_override
    from optima.run.stages import Store

    named = [f"{name}={value}" for name in ("benchmarks", "data") if (value := getattr(chosen, name)) is not None]
    overrides = dict(map(parse_override, named + chosen.set)) | server_overrides(chosen)
    system = chosen.system or ("untrained_debate" if overrides.get("engine") == "server" else "optima_debate")
    settings = load_settings(system, chosen.preset, chosen.seed, overrides)
    with Store(chosen.runs).lock():
        from optima.run.experiments import run_experiment
        line = run_experiment(settings, Path(chosen.runs))
    print_tables([line])
    return 0


def artefact_names(only: str | None) -> list[str]:
    "The artefacts that were asked for, each once; where none is named, the article's."
    from optima.config.artefacts import ARTICLE, artefact

    names = list(dict.fromkeys(name.strip() for name in only.split(","))) if only is not None else list(ARTICLE)
    for name in names:
        artefact(name)
    return names


def reproduce(chosen) -> int:
    "Make what is missing, then tables, figures and the page."
    from optima.cli import reproduce as launcher
    from optima.run.stages import Store

    names = artefact_names(chosen.only)
    with Store(chosen.runs).lock():
        failed = launcher.reproduce(names, chosen.preset, chosen.seeds, chosen.runs, chosen.workers)
        for name in names:
            if not launcher.missing(name, chosen.preset, chosen.seeds, chosen.runs):
                print_compact(launcher.lines_of(name, chosen.preset, chosen.seeds, chosen.runs), name)
    if failed:
        print(f"optima: {len(failed)} failed: {', '.join(job.name for job in failed)}; the same command tries them "
              "again, the rest is kept", file=sys.stderr)
        return 2 if any(job.code == 2 for job in failed) else 1
    print(f"\nreport: {Path(chosen.runs) / 'report.html'}\nnotebooks: {Path(chosen.runs) / 'notebooks'}")
    return 0


def print_tables(lines: list[dict], against: str | None = None):
    "Print rows and paired comparisons of some registry lines, a table of each per decoding, greedy first."
    from optima.cli.show import shown_comparisons, shown_report

    rows, compared = shown_report(lines, against), shown_comparisons(lines, against)
    for decoding in sorted({row["decoding"] for row in rows}):
        print_tables_of(rows, compared, decoding)


def print_tables_of(rows: list[dict], compared: list[dict], decoding: str):
    "Print one decoding's rows, how their dialogues ended and, where there are any, comparisons."
    from optima.report.main import comparison_table, main_table, status_table

    print(f"\n{main_table(rows, decoding)}")
    print(f"\n{status_table(rows, decoding)}")
    if any(row["decoding"] == decoding for row in compared):
        print(f"\n{comparison_table(compared, decoding)}")


def print_compact(lines: list[dict], name: str):
    "Print an artefact's own tables, or else the means over the benchmarks, greedy only: its notebook shows the rest."
    from optima.cli.show import own_tables, shown_comparisons, shown_report

    print(f"\n{name} (all rows and decodings: optima report {name})")
    tables = own_tables(name, lines)
    if not tables:
        rows, compared = shown_report(lines), shown_comparisons(lines)
        means = [[row | {"benchmark": "all"} for row in table if row["benchmark"] == "mean"] for table in (rows, compared)]
        print_tables_of(*means, min(row["decoding"] for row in rows))
    for table in tables:
        print(f"\n{table}")


def report(chosen) -> int:
    "Print an artefact's rows from a registry."
    from optima.cli.show import lines_to_show, own_tables, registry_name, shown_report

    lines = lines_to_show(chosen.name, chosen.runs, chosen.preset)
    against = chosen.against and registry_name(chosen.against, lines)
    if chosen.json:
        print(json.dumps(shown_report(lines, against), indent=1, ensure_ascii=False))
        return 0
    for table in own_tables(chosen.name, lines):
        print(f"\n{table}")
    print_tables(lines, against)
    return 0


def status(chosen) -> int:
    "Print what a run folder holds."
    from optima.cli.show import status_lines

    print("\n".join(status_lines(Path(chosen.runs))))
    return 0


def doctor(chosen) -> int:
    "Print what of this machine is fit; 1 when something is not."
    from optima.cli.doctor import examine

    return examine(Path(chosen.runs), chosen.preset)


def toy(chosen) -> int:
    "Train a toy model."
    from optima.toy.models import TEACHER, Recipe, train_base

    if chosen.world == "paper":
        from optima.toy.exchange_models import PaperRecipe

        if chosen.teacher: raise OptimaError("the paper's world has no teacher; leave out --teacher or --world")
        name, recipe = f"toy-paper-base-{chosen.seed}", PaperRecipe(seed=chosen.seed)
    elif chosen.teacher: name, recipe = "toy-teacher", TEACHER
    else: name, recipe = f"toy-base-{chosen.seed}", Recipe(seed=chosen.seed)
    out = Path(chosen.out or name)
    train_base(out, recipe)
    print(out)
    return 0


def bench(chosen) -> int:
    "Measure this machine: the toy world's engine and training step, a GPU on an 8B model, or the two sandboxes."
    if chosen.bench_command == "toy":
        from optima.cli import bench as module
    elif chosen.bench_command == "gpu":
        from optima.cli import bench_gpu as module
    else:
        from optima.cli import bench_sandbox as module
    found = module.measure()
    print(json.dumps(found, indent=1) if chosen.json else module.table(found))
    return 0


def publish(chosen) -> int:
    "Copy finished results into the repository."
    from optima.cli.publish import publish_runs

    for path in publish_runs(Path(chosen.runs), chosen.name and artefact_names(chosen.name), chosen.preset, chosen.to and Path(chosen.to)):
        print(path)
    return 0


def export(chosen) -> int:
    "Copy an experiment's trained adapters, each with a model card that tells its scores."
    from optima.cli.export import export_adapters

    for path in export_adapters(Path(chosen.runs), chosen.experiment, Path(chosen.preset).stem, chosen.seed, Path(chosen.to)):
        print(path)
    return 0


COMMANDS = {
    "run": (run, add_run, "run one experiment"),
    "reproduce": (reproduce, add_reproduce, "make tables and figures, and all that they need"),
    "report": (report, add_report, "print a table from a registry"),
    "status": (status, add_runs, "what a run folder holds"),
    "doctor": (doctor, add_doctor, "whether this machine is fit"),
    "toy": (toy, add_toy, "train the toy world's models"),
    "bench": (bench, add_bench, "measure this machine's speed"),
    "publish": (publish, add_publish, "copy results into nbs/results"),
    "export": (export, add_export, "copy trained adapters, with their model cards"),
}


def parser() -> Parser:
    "The parser of all commands."
    from optima import __doc__ as about
    from optima import __version__

    top = Parser(prog="optima", description=about, epilog="optima COMMAND --help says more",
                 formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=20))
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", metavar="command", required=True, parser_class=Parser)
    for name, (action, add, help_text) in COMMANDS.items():
        sub = commands.add_parser(name, help=help_text, description=(action.__doc__ or "").strip())
        add(sub)
        sub.add_argument("--plugins", metavar="FILE", nargs="+", action="extend", default=[],
                         help="Python files that add reward terms, paradigms, benchmarks and the like by optima's decorators")
        sub.set_defaults(action=action, options=sub.format_usage())
    return top


def unknown_word(word: str, chosen: argparse.Namespace) -> str:
    "What to say of a word that the command does not know."
    if word.startswith("-"):
        return suggest("option", word.split("=")[0], set(re.findall(r"--[a-z-]+", chosen.options)) | {"--help"})
    return f"{word!r} is one word too many; see optima {chosen.command} --help"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    "The command line as values; an unknown option is named with the closest one."
    chosen, unknown = parser().parse_known_args(arguments)
    if unknown:
        raise OptimaError(unknown_word(unknown[0], chosen))
    return chosen


def load_plugins(files: list[str]):
    "Load plug-in files, here and in every process that this one starts."
    if not files:
        return
    from optima.base.plugins import VARIABLE, load_file

    for path in files:
        load_file(path)
    os.environ[VARIABLE] = os.pathsep.join(str(Path(path).resolve()) for path in files)


def main(argv: list[str] | None = None) -> int:
    "Run a command; errors that the user can mend are one line and exit code 2."
    try:
        chosen = parse(argv)
        load_plugins(chosen.plugins)
        return chosen.action(chosen)
    except OptimaError as error:
        print(f"optima: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("optima: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
