"What an experiment is made of: a system, a preset, a seed, and every setting by name."
import math
import os
import re
import tomllib
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

from optima.endpoints import checked_url
from optima.errors import OptimaError, suggest
from optima.store import STAGE_VERSIONS, digest, folder_digest, folder_files

PRESETS = Path(__file__).parent / "presets"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
NOT_IN_PRESETS = ("system", "preset", "seed")
MODELS = ("base", "teacher")
FOLDERS = (*MODELS, "model", "data")  # settings that may hold a path of one machine
ASKING = ("engine", "base_url", "model", "teacher_url", "concurrency", "key_variable", "budget_tokens", "budget_money",
          "price_in", "price_out")  # what only a server needs: of these, whom it asks decides results, and not where
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")  # owner/name, or owner/name@revision

SYSTEMS: dict[str, dict] = {
    "single": {"paradigm": "single", "iterations": 0},
    "untrained_debate": {"paradigm": "debate", "iterations": 0},
    "untrained_multi_step": {"paradigm": "multi_step", "iterations": 0},
    "terse_debate": {"paradigm": "debate", "iterations": 0, "evaluation_strategy": "best"},
    "terse_multi_step": {"paradigm": "multi_step", "iterations": 0, "evaluation_strategy": "best"},
    "teacher_single": {"paradigm": "single", "iterations": 0, "team": "teacher"},
    "teacher_debate": {"paradigm": "debate", "iterations": 0, "team": "teacher"},
    "optima_debate": {"paradigm": "debate"},
    "optima_multi_step": {"paradigm": "multi_step"},
    "random_selection_debate": {"paradigm": "debate", "selection": "random"},
    "random_selection_multi_step": {"paradigm": "multi_step", "selection": "random"},
    "ceiling_debate": {"paradigm": "debate", "mode": "demonstrations"},
    "ceiling_multi_step": {"paradigm": "multi_step", "mode": "demonstrations"},
}

ABLATIONS: dict[str, dict] = {  # rows beside `full`, on the benchmarks of `ablation_benchmarks`
    "full": {},
    "without_efficiency": {"efficiency_weight": 0.0},
    "without_format": {"format_weight": 0.0},
    "without_task": {"task_weight": 0.0},
    "without_iteration": {},  # one iteration with the training steps of all: see `at_once`
    "without_teacher": {"mode": "self"},
    "random_selection": {"selection": "random"},
    "efficiency_0.1": {"efficiency_weight": 0.1},
    "efficiency_0.6": {"efficiency_weight": 0.6},
    "efficiency_1.2": {"efficiency_weight": 1.2},
}
SYSTEMS |= {name: {"paradigm": "multi_step"} | changes for name, changes in ABLATIONS.items()}


@dataclass(frozen=True)
class Settings:
    "Everything that decides what one experiment computes."

    system: str  # the row of the table, a name in SYSTEMS
    preset: str = "toy"  # the TOML file that the values came from
    seed: int = 0  # of the tasks' draw, the sampling, the selection and the training

    benchmarks: tuple[str, ...] = ("toy_humaneval",)  # which tasks; a trained team has an adapter for each
    ablation_benchmarks: tuple[str, ...] = ()  # those of the ablations' rows; none: the same
    data: str = ""  # a folder with the real benchmarks' files, a folder each; none: the hub
    paradigm: str = "debate"  # single, debate or multi_step
    team: str = "student"  # who the agents are: the student, or the "teacher", which is evaluated and never trained
    evaluation_strategy: str = "none"  # the format prompt of the evaluation; "best" is chosen on development tasks
    mode: str = "self"  # who writes the training dialogues: the student itself, a "teacher", or a perfect team ("demonstrations")
    teacher: str = ""  # the teacher: "toy" for the shipped one, a model folder, or a hub name
    prompts: str = "toy"  # how the agents are spoken to: in the toy world's few words, or in "english"
    base: str = "toy"  # the student: "toy" for the shipped checkpoint of the seed, a model folder, or a hub name

    iterations: int = 2  # rounds of generate, rank, select, train; 0 leaves the team untrained
    tasks_per_iteration: int = 160  # of each benchmark
    strategies: tuple[str, ...] = ("none",) * 4 + ("polite", "list", "brief", "check")  # one sample per entry and task
    temperature: float = 1.0  # at which the training dialogues are generated; an evaluation's is its decoding's
    max_rounds: int = 5  # of a debate
    max_steps: int = 6  # of a plan
    executors: int = 2  # agents that share the steps of a plan
    max_message_tokens: int = 96  # a longer message is cut

    task_weight: float = 0.5  # of the answer's correctness in the reward
    efficiency_weight: float = 0.3  # of few tokens
    format_weight: float = 0.2  # of valid messages
    max_acceptable_tokens: int = 250  # a dialogue of as many tokens earns nothing for efficiency
    question_metric: str = "exact_match"  # how an answer in words is judged: exact_match or f1

    selection: str = "reward"  # the best dialogues by reward, or as many ordinary ones drawn at "random"
    threshold: float = 0.0  # only dialogues with a reward above it are selected
    keep_share: float = 0.6  # of the tasks' best dialogues
    diversity: bool = True  # keep every strategy in the selection

    quantization: str = "nf4"  # of the base while its adapter trains: nf4, nf4_double or none
    lora_rank: int = 16
    lora_alpha: int = 32
    learning_rate: float = 3e-3
    training_steps: int = 24  # optimiser steps per iteration
    batch_dialogues: int = 32  # dialogues per optimiser step
    micro_batch: int = 32  # examples (one agent's view of a dialogue) per forward pass
    gradient_checkpointing: bool = False  # compute activations twice, keep few: memory and time, not results
    continue_adapter: bool = True  # go on from the last iteration's adapter, or restart from the base

    evaluation_tasks: int = 300  # per benchmark
    iteration_tasks: int = 100  # of these, the first ones, on which the team is evaluated between two iterations
    development_tasks: int = 100  # per benchmark, for what is chosen and not trained
    evaluation_split: str = "evaluation"  # "development" while settings are being chosen
    decodings: tuple[str, ...] = ("greedy", "sampled")

    batch_size: int = 256  # rows that the local engine decodes together
    shard_dialogues: int = 320  # dialogues per file of a stage: what a kill can cost
    threads: int = 1  # of one experiment
    dtype: str = "float32"  # in which the model generates

    engine: str = "local"  # who generates for a team that is not trained: the "local" engine, or a "server"
    base_url: tuple[str, ...] = ()  # the team's servers, such as "http://127.0.0.1:8000/v1"; they share the load
    model: str = ""  # the team's model by its name there; none: `base`, which counts the tokens in any case
    teacher_url: tuple[str, ...] = ()  # the teacher's servers, `teacher` its model by its name there; none: it is local
    concurrency: int = 16  # requests that are under way at a time
    key_variable: str = "OPENAI_API_KEY"  # the environment variable that holds the servers' key
    budget_tokens: int = 0  # what all replies of one model in a run folder may cost, prompts included; 0 is no limit
    budget_money: float = 0.0  # the same in money, at the prices below; 0 is no limit
    price_in: float = 0.0  # money per million prompt tokens
    price_out: float = 0.0  # money per million generated tokens

    def __post_init__(self):
        for name, choices in CHOICES.items():
            check_choice(self, name, choices)
        for name, (least, most) in BOUNDS.items():
            check_bounds(self, name, least, most)
        check_together(self)
        check_names(self)

    def to_dict(self) -> dict:
        "All settings as JSON values; a folder by its name only and no address, for both belong to one machine."
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        if not self.data:
            del values["data"]  # so that experiments from before the setting keep their keys
        values |= {name: folder_name(values[name]) for name in FOLDERS if name in values}
        return {name: value for name, value in values.items() if name not in ASKING} | self.asked(values["model"])

    def asked(self, model: str) -> dict:
        "Which model is asked at a server, as JSON values; nothing where all are local."
        team = {"engine": "server", "model": model} if self.engine == "server" else {}
        return team | ({"teacher_engine": "server"} if self.teacher_url else {})

    def pick(self, *names: str) -> dict:
        "Some settings as JSON values: what one stage depends on."
        values = self.to_dict()
        return {name: values[name] for name in names}

    @property
    def base_folder(self) -> Path:
        "The student's model folder; seeds go round the shipped toy checkpoints."
        return toy_base(self.seed) if self.base == "toy" else Path(self.base)

    @property
    def teacher_folder(self) -> Path:
        "The teacher's model folder."
        return CHECKPOINTS / "toy-teacher" if self.teacher == "toy" else Path(self.teacher)

    @property
    def team_model(self) -> Path:
        "The untrained team's model: the base, or what a server calls by another name."
        return Path(self.model) if self.engine == "server" and self.model else self.base_folder

    @property
    def candidates(self) -> tuple[str, ...]:
        "The strategies that the best one is chosen from."
        return tuple(dict.fromkeys(name for name in self.strategies if name != "none"))

    @cached_property
    def key(self) -> str:
        "16 hexadecimal digits that name the experiment: all settings, the stages' versions, what models and data hold."
        from optima.benchmarks import data_content

        content = {"base": model_digest(self.base_folder)}
        content["teacher"] = self.teacher and model_digest(self.teacher_folder)
        if self.engine == "server":
            content["model"] = model_digest(self.team_model)
        if found := data_content(self.benchmarks, self.data):
            content["data"] = found
        return digest({"settings": self.to_dict() | content, "versions": STAGE_VERSIONS})


CHOICES = {
    "paradigm": ("single", "debate", "multi_step"),
    "mode": ("self", "teacher", "demonstrations"),
    "team": ("student", "teacher"),
    "prompts": ("toy", "english"),
    "question_metric": ("exact_match", "f1"),
    "selection": ("reward", "random"),
    "quantization": ("nf4", "nf4_double", "none"),
    "evaluation_split": ("development", "evaluation"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "engine": ("local", "server"),
}

MANY = float("inf")
BOUNDS = {
    "seed": (0, MANY), "iterations": (0, MANY), "temperature": (0, MANY), "threshold": (-MANY, 1), "keep_share": (0, 1),
    "budget_tokens": (0, MANY), "budget_money": (0, MANY), "price_in": (0, MANY), "price_out": (0, MANY),
    "task_weight": (0, MANY), "efficiency_weight": (0, MANY), "format_weight": (0, MANY), "learning_rate": (0, 1),
    **dict.fromkeys(("tasks_per_iteration", "max_rounds", "max_steps", "executors", "max_message_tokens",
                     "max_acceptable_tokens", "lora_rank", "lora_alpha", "training_steps", "batch_dialogues",
                     "micro_batch", "evaluation_tasks", "iteration_tasks", "development_tasks", "batch_size", "shard_dialogues", "threads", "concurrency"), (1, MANY)),
}


def check_choice(settings: Settings, name: str, choices: tuple):
    "Refuse a word that a setting does not know."
    if getattr(settings, name) not in choices:
        raise OptimaError(suggest(f"value of {name}:", getattr(settings, name), choices))


def check_bounds(settings: Settings, name: str, least: float, most: float):
    "Refuse a number out of its range."
    value = getattr(settings, name)
    if not (math.isfinite(value) and least <= value <= most):
        finite = [f"{word} {bound}" for word, bound in (("at least", least), ("at most", most)) if math.isfinite(bound)]
        raise OptimaError(f"{name} = {value!r}: expected a number, {' and '.join(finite)}")


def check_together(settings: Settings):
    "Refuse what is wrong only in company."
    for name in ("mode", "team"):
        if getattr(settings, name) == "teacher" and not settings.teacher:
            raise OptimaError(f'{settings.system}: {name} = "teacher" needs a teacher: --set teacher=PATH, a model folder, '
                              "or --teacher URL --teacher-model NAME")
    if settings.team == "teacher" and settings.iterations:
        raise OptimaError(f'team = "teacher" is evaluated only: iterations = {settings.iterations}, expected 0')
    check_best(settings)
    check_servers(settings)
    for name in ("benchmarks", "strategies", "decodings"):
        if not getattr(settings, name):
            raise OptimaError(f"{name} is empty; name at least one")
    for name in settings.decodings:
        if name not in ("greedy", "sampled"):
            raise OptimaError(suggest("decoding", name, ("greedy", "sampled")))
    if not settings.keep_share:
        raise OptimaError("keep_share = 0 keeps nothing to train on; expected a number above 0 and at most 1")
    if not settings.task_weight + settings.efficiency_weight + settings.format_weight > 0:
        raise OptimaError("task_weight, efficiency_weight and format_weight are all 0; leave one above 0")


def check_best(settings: Settings):
    "Refuse to choose a strategy for a team that is trained, or from no candidate."
    if settings.evaluation_strategy != "best":
        return
    if settings.iterations:
        raise OptimaError('evaluation_strategy = "best" is for teams that are not trained: '
                          f"iterations = {settings.iterations}, expected 0")
    if not settings.candidates:
        raise OptimaError('evaluation_strategy = "best" has nothing to choose from: strategies names only "none"')


def check_servers(settings: Settings):
    "Refuse addresses that are none, and a server where it would be asked in vain or could not be trained."
    for name in ("base_url", "teacher_url"):
        for url in getattr(settings, name):
            checked_url(name, url)
    served = settings.engine == "server"
    if served and not settings.base_url:
        raise OptimaError('engine = "server" needs base_url = ["http://HOST:PORT/v1"] (--base-url)')
    if served and settings.iterations:
        raise OptimaError(f"engine = \"server\": {settings.system} trains its team, and what a server holds cannot be trained "
                          "here; take an untrained system such as untrained_debate, or put the teacher on a server (--teacher URL)")
    if served and settings.team == "teacher" and not settings.teacher_url:
        raise OptimaError(f'engine = "server" is the student\'s, and {settings.system} asks the teacher: give --teacher URL')
    if not served and (settings.base_url or settings.model):
        raise OptimaError('base_url and model are for engine = "server" (--engine server); the local engine loads base')
    if settings.teacher_url and not settings.teacher:
        raise OptimaError("teacher_url needs teacher = \"NAME\", the model's name there (--teacher-model)")
    if settings.budget_money and not settings.price_in + settings.price_out:
        raise OptimaError("budget_money needs price_in and price_out, the money that a million tokens cost")


def strategy_names(prompts: str) -> list[str]:
    "The strategies that the prompts have a text for."
    if prompts == "toy":
        from optima.toyworld import TOY_PROMPTS
        return list(TOY_PROMPTS["strategies"])
    from optima.paradigms import ENGLISH
    return list(ENGLISH.strategies)


def check_names(settings: Settings):
    "Refuse a strategy that the prompts have no text for, and a benchmark that nobody registered."
    from optima.tasks import benchmark_names

    strategies = strategy_names(settings.prompts)
    for name, words, choices in (("strategies", settings.strategies, strategies),
                                 ("evaluation_strategy", [settings.evaluation_strategy], [*strategies, "best"]),
                                 ("benchmarks", settings.benchmarks, benchmark_names()),
                                 ("ablation_benchmarks", settings.ablation_benchmarks, benchmark_names())):
        for word in words:
            if word not in choices:
                prompts = f" under {settings.prompts} prompts" if "strateg" in name else ""
                raise OptimaError(suggest(f"value of {name}{prompts}:", word, choices))


def toy_base(seed: int) -> Path:
    "The shipped toy checkpoint for a seed: seeds go round as many as are shipped."
    shipped = sorted(CHECKPOINTS.glob("toy-base-[0-9]*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    return shipped[seed % len(shipped)] if shipped else CHECKPOINTS / "toy-base-0"


def model_digest(model: Path | str) -> str:
    "What stands for a model in keys: a folder's content, or the whole of a hub name."
    return digest_at(str(model), times_of(Path(model))) if Path(model).is_dir() else str(model)


def times_of(folder: Path) -> tuple:
    "Every file of a folder with its size and the time of its last change."
    about = {name: path.stat() for name, path in folder_files(folder).items()}
    return tuple((name, one.st_size, one.st_mtime_ns) for name, one in about.items())


@lru_cache
def digest_at(folder: str, times: tuple) -> str:
    "A folder's digest, read once as long as its files stay as they are."
    return folder_digest(Path(folder))


def folder_name(model: str) -> str:
    "A model folder's last part; any other name as it is."
    return Path(model).name if os.path.isabs(model) else model


def find_model(
    where: str,  # what the reader of an error should look at
    name: str,  # "base" or "teacher"
    value: str,
    folder: Path,  # what a relative path starts from
) -> str:  # an absolute path, a hub name, "toy" or nothing
    "Where a model lies; a folder that is not there is an OptimaError."
    if value in ("", "toy"):
        return value
    path = Path(folder, os.path.expanduser(value)).resolve()
    if (path / "config.json").is_file():
        return str(path)
    if path.is_dir():
        raise OptimaError(f"{where}: {name} = {value!r}: {path} is no model folder, it has no config.json")
    if value[0] in "./~" or not HUB_NAME.fullmatch(value):
        raise OptimaError(f"{where}: {name} = {value!r}: there is no folder {path}; "
                          'give a model folder, or a hub name such as "owner/name"')
    return value


def find_data(where: str, value: str, folder: Path) -> str:
    "The absolute path of a data folder, or nothing; one that is not there is an OptimaError."
    path = Path(folder, os.path.expanduser(value)).resolve()
    if value and not path.is_dir():
        raise OptimaError(f"{where}: data = {value!r}: there is no folder {path}; "
                          "give one that has a folder per benchmark")
    return value and str(path)


TYPES = get_type_hints(Settings)
WORDS = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def in_words(kind) -> str:
    "A setting's type for the reader of an error."
    return "a list of texts" if get_origin(kind) is tuple else WORDS[kind]


def convert(where: str, name: str, value):
    "A TOML value as the setting's type, or an OptimaError."
    kind = TYPES[name]
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        if all(isinstance(item, get_args(kind)[0]) for item in value):
            return tuple(value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind is not float and type(value) is kind:
        return value
    raise OptimaError(f"{where}: {name} = {value!r}: expected {in_words(kind)}")


def checked(
    where: str,  # what the reader of an error should look at
    values: dict,
    folder: Path,  # what a relative path among them starts from
) -> dict:
    "Values by known names and of the right types, models and data found."
    known = [field.name for field in fields(Settings) if field.name not in NOT_IN_PRESETS]
    for name in values:
        if name not in known:
            raise OptimaError(f"{where}: {suggest('setting', name, known)}")
    values = {name: convert(where, name, value) for name, value in values.items()}
    if "data" in values:
        values["data"] = find_data(where, values["data"], folder)
    named = ("teacher",) if values.get("teacher_url") else ()  # at a server, not in a folder
    return values | {name: find_model(where, name, values[name], folder) for name in MODELS if name in {*values} - {*named}}


def preset_names() -> list[str]:
    "The presets that are shipped."
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_preset(preset: str) -> dict:
    "The values of a preset: a shipped name, or a path to a TOML file."
    path = Path(preset) if str(preset).endswith(".toml") else PRESETS / f"{preset}.toml"
    if not path.is_file():
        raise OptimaError(suggest("preset", preset, preset_names()) + "; or give the path of a .toml file")
    try:
        return checked(path.name, tomllib.loads(path.read_text(encoding="utf-8")), path.parent)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptimaError(f"{path}: not TOML: {error}") from error


def load_settings(
    system: str,  # a name in SYSTEMS
    preset: str = "toy",  # a shipped preset, or a path to a TOML file
    seed: int = 0,
    overrides: dict | None = None,  # settings that win over preset and system; paths start from the current folder
) -> Settings:
    "The settings of one experiment: defaults, then the preset, then the system, then the overrides."
    if system not in SYSTEMS:
        raise OptimaError(suggest("system", system, SYSTEMS))
    overrides = checked("overrides", overrides or {}, Path.cwd())
    values = read_preset(preset) | checked(f"system {system}", SYSTEMS[system], PRESETS) | overrides
    if system in ABLATIONS and "benchmarks" not in overrides:
        values["benchmarks"] = values.get("ablation_benchmarks") or values.get("benchmarks", Settings.benchmarks)
    if system == "without_iteration" or values.get("mode") == "demonstrations":
        values |= at_once(values)
    seed = convert("overrides", "seed", seed)
    return Settings(system=system, preset=Path(preset).stem, seed=seed, **values)


def at_once(values: dict) -> dict:
    "One iteration, with the training steps of all that the values name; demonstrations also have the tasks of all."
    iterations = max(values.get("iterations", Settings.iterations), 1)
    names = ["training_steps"] + ["tasks_per_iteration"] * (values.get("mode") == "demonstrations")
    return {"iterations": 1} | {name: iterations * values.get(name, getattr(Settings, name)) for name in names}


def parse_override(text: str) -> tuple[str, object]:
    "A command line's `key=value` as a name and a value in TOML's notation; quotes around text may be left out."
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise OptimaError(f"--set {text!r}: expected key=value, such as --set iterations=1")
    return name.strip(), toml_value(name.strip(), value.strip())


def toml_value(name: str, text: str):
    "One value: as it is for a setting that is text, else TOML, else text."
    if TYPES.get(name) is str and not text.startswith(("'", '"')):
        return text
    if get_origin(TYPES.get(name)) is tuple and not text.startswith("["):
        return [item.strip() for item in text.split(",")]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


__all__ = ["ABLATIONS", "SYSTEMS", "Settings", "load_settings", "parse_override", "preset_names", "toy_base"]
