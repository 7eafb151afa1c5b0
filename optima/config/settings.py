"What an experiment is made of: a system, a preset, a seed, and every setting by name."
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

from optima.agents.paradigms import PARADIGMS
from optima.base.errors import OptimaError, suggest
from optima.base.files import digest
from optima.base.plugins import Kind
from optima.config.checks import BOUNDS, CHOICES, KINDS, check_bounds, check_choice, check_names, check_together
from optima.config.models import CHECKPOINTS, SHIPPED, find_data, find_model, folder_name, model_digest, toy_base
from optima.config.systems import ARTICLE_RECIPE, METHODS, RECIPES, SYSTEMS, Recipe
from optima.config.versions import PAPER_VERSIONS, STAGE_VERSIONS

PRESETS = Path(__file__).parent / "presets"
NOT_IN_PRESETS = ("system", "preset", "seed")
MODELS = ("base", "teacher")
FOLDERS = (*MODELS, "model", "data")  # settings that may hold a path of one machine
ASKING = ("engine", "base_url", "model", "teacher_url", "concurrency", "key_variable", "budget_tokens", "budget_money",
          "price_in", "price_out")  # what only a server needs: of these, whom it asks decides results, and not where


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

    method: str = "isft"  # supervised fine-tuning, "idpo" preferences from trees of turns, or "isft_dpo", the two in turn
    reward: str = "sum"  # the article's weighted sum, or the "paper"'s R
    token_weight: float = 0.6  # lambda_token, of the tokens' share in the paper's R
    loss_weight: float = 1.0  # lambda_loss, of the readability in the paper's R
    loss_conditioned: bool = True  # the base reads each turn after the task and the history, or, as in the authors' code, alone
    samples: int = 0  # dialogues per task, in iteration 1 under strategies drawn at random, later under none; 0: see `strategies`
    agents: int = 2  # of an exchange, or of a solver and its critics
    adapters: str = "shared"  # one adapter for all agents, or one "per_role"
    tree_tasks: int = 32  # of each benchmark, in an iteration that grows trees
    expansions: int = 8  # of a tree
    rollouts: int = 3  # dialogues of each expansion
    node_mean: str = "children"  # a turn is worth the mean of its children, or, as in the authors' code, of its "rollouts"
    pilot_dialogues: int = 100  # whose lengths scale the token term in trees
    pilot_percentile: float = 85.0  # of those lengths
    pairs: str = "all"  # of siblings, or the "best_worst" one of each parent
    pair_threshold: float = 0.4  # the better turn of a pair is worth more
    pair_difference: float = 0.2  # and by more than this
    pair_share: float = 0.5  # of a tree's pairs
    beta: float = 0.1  # of DPO: how far the team may move from where it stood
    nll_weight: float = 1.0  # alpha, of the chosen turn's own loss; 0 is plain DPO
    preference_epochs: int = 1  # passes over the pairs of an iteration
    preference_rate: float = 1e-3  # their peak learning rate
    batch_pairs: int = 32  # pairs per optimiser step, at most
    one_model: bool = False  # while trees grow, keep the base or the team in memory, not both
    votes: int = 8  # samples per task of the decoding "vote"
    vote_temperature: float = 0.5
    scaling: bool = False  # sample the first evaluation tasks many times, for curves of self-consistency
    scaling_tasks: int = 100
    scaling_samples: int = 16  # samples of each
    transfer: bool = False  # evaluate each team on the other benchmarks of its paradigm, too
    by: dict = field(default_factory=dict, hash=False)  # what differs by paradigm, method or benchmark: name -> settings

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
        for name, choices in (CHOICES | KINDS).items():
            check_choice(self, name, (*choices, *choices.reserved) if isinstance(choices, Kind) else choices)
        for name, (least, most) in BOUNDS.items():
            check_bounds(self, name, least, most)
        check_together(self)
        check_names(self)

    def to_dict(self) -> dict:
        "The settings as JSON values, without the paper's where they are at their defaults."
        unused = [name for name in SINCE if getattr(self, name) == DEFAULTS[name]]  # older experiments keep their keys
        return {name: value for name, value in self.values().items() if name not in unused}

    def values(self) -> dict:
        "All settings as JSON values; a folder by its name only and no address, for both belong to one machine."
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        values |= {name: folder_name(values[name]) for name in FOLDERS}
        return {name: value for name, value in values.items() if name not in ASKING} | self.asked(values["model"])

    def asked(self, model: str) -> dict:
        "Which model is asked at a server, as JSON values; nothing where all are local."
        team = {"engine": "server", "model": model} if self.engine == "server" else {}
        return team | ({"teacher_engine": "server"} if self.teacher_url else {})

    def pick(self, *names: str) -> dict:
        "Some settings as JSON values: what one stage depends on."
        values = self.values()
        return {name: values[name] for name in names}

    def on(self, benchmark: str, passages: bool) -> "Settings":
        "The settings of one benchmark: its paradigm, by whether its tasks have passages, and what differs there."
        team = "exchange" if passages else "solver_critic"
        paradigm = team if self.paradigm == "by_task" else self.paradigm
        loop = team if paradigm == "chain_of_thought" else paradigm  # the paper's single agent is trained as its team is
        changes = {}
        for name in (loop, self.method, benchmark):
            table = self.by.get(name, {})
            changes |= {key: value for key, value in table.items() if not isinstance(value, dict)} | table.get(self.method, {})
        return replace(self, **(changes | {"paradigm": paradigm, "by": {}}))

    @property
    def base_folder(self) -> Path:
        "The student's model folder; seeds go round the shipped toy checkpoints."
        return toy_base(self.seed, SHIPPED[self.base]) if self.base in SHIPPED else Path(self.base)

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
        from optima.tasks.catalogue import data_content

        content = {"base": model_digest(self.base_folder)}
        content["teacher"] = self.teacher and model_digest(self.teacher_folder)
        if self.engine == "server":
            content["model"] = model_digest(self.team_model)
        if found := data_content(self.benchmarks, self.data):
            content["data"] = found
        plugins = [PARADIGMS.digest(self.paradigm) if self.paradigm in PARADIGMS else "", METHODS.digest(self.method)]
        if any(plugins):
            content["plugins"] = plugins
        paper = PAPER_VERSIONS | (NEVER_MADE if "compare" not in METHODS.get(self.method).steps else {})
        versions = STAGE_VERSIONS | (paper if self.reward == "paper" else {})
        return digest({"settings": self.to_dict() | content, "versions": versions})


TYPES = get_type_hints(Settings)
WORDS = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}
DEFAULTS = {one.name: one.default if one.default is not MISSING else {} for one in fields(Settings) if one.name != "system"}
NEVER_MADE = {"prefer": 1}  # by imitation: a later version of that stage leaves these experiments their keys
SINCE = ("data", *list(DEFAULTS)[list(DEFAULTS).index("method"):list(DEFAULTS).index("by") + 1])  # settings that came after the first published runs


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
    if "by" in values:
        values["by"] = {name: checked_table(where, name, table, folder) for name, table in values["by"].items()}
    if "data" in values:
        values["data"] = find_data(where, values["data"], folder)
    named = ("teacher",) if values.get("teacher_url") else ()  # at a server, not in a folder
    return values | {name: find_model(where, name, values[name], folder) for name in MODELS if name in {*values} - {*named}}


def checked_table(where: str, name: str, table: dict, folder: Path) -> dict:
    "What differs by one paradigm, method or benchmark; a table in it is a method's, there."
    from optima.tasks.catalogue import benchmark_names

    known = (*PARADIGMS, *METHODS, *benchmark_names())
    if name not in known:
        raise OptimaError(f"{where}: {suggest('paradigm, method or benchmark', name, known)}")
    if not isinstance(table, dict):
        raise OptimaError(f"{where}: by.{name} = {table!r}: expected a table of settings")
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    for key in inner:
        if key not in METHODS:
            raise OptimaError(f"{where}: by.{name}: {suggest('method', key, METHODS)}")
    outer = {key: value for key, value in table.items() if key not in inner}
    return checked(f"{where}: by.{name}", outer, folder) | {
        key: checked(f"{where}: by.{name}.{key}", value, folder) for key, value in inner.items()}


def preset_names() -> list[str]:
    "The presets that are shipped."
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_preset(
    preset: str,  # a shipped name, or a path to a TOML file
    recipe: Recipe = ARTICLE_RECIPE,  # with what the recipe's table has instead
) -> dict:
    "The values of a preset."
    path = Path(preset) if str(preset).endswith(".toml") else PRESETS / f"{preset}.toml"
    if not path.is_file():
        raise OptimaError(suggest("preset", preset, preset_names()) + "; or give the path of a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = {one.table: values.pop(one.table, {}) for one in RECIPES.values() if one.table}
        own = {name: checked(f"{path.name} [{name}]", table, path.parent) for name, table in tables.items()}
        return checked(path.name, values, path.parent) | own.get(recipe.table, {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptimaError(f"{path}: not TOML: {error}") from error


def load_settings(
    system: str,  # a name in SYSTEMS
    preset: str = "toy",  # a shipped preset, or a path to a TOML file
    seed: int = 0,
    overrides: dict | None = None,  # settings that win over preset and system; paths start from the current folder
) -> Settings:
    "The settings of one experiment: defaults, then the preset, then the system, then the overrides."
    row = SYSTEMS.get(system)
    overrides = checked("overrides", overrides or {}, Path.cwd())
    values = read_preset(preset, row.recipe) | checked(f"system {system}", row.settings, PRESETS)
    if METHODS.get(values.get("method", Settings.method)).whole:
        values |= whole_rounds(values)
    values |= overrides
    if row.ablation and "benchmarks" not in overrides:
        values["benchmarks"] = values.get("ablation_benchmarks") or values.get("benchmarks", Settings.benchmarks)
    if row.at_once or values.get("mode") == "demonstrations":
        values |= at_once(values)
    seed = convert("overrides", "seed", seed)
    return Settings(system=system, preset=Path(preset).stem, seed=seed, **values)


def whole_rounds(values: dict) -> dict:
    "As many iterations, or a few more, so that the last round of steps is a whole one (appendix H.3)."
    iterations, round_of = values.get("iterations", Settings.iterations), len(METHODS.get(values["method"]).steps)
    return {"iterations": iterations + -iterations % round_of}


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


__all__ = ["Settings", "load_settings", "parse_override", "preset_names", "toy_base"]
