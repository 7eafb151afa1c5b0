"A system is a row of a table: what it changes of its preset's settings, and all that a report says of it, as data."
from dataclasses import dataclass, field
from itertools import count

from optima.base.plugins import Kind

VOTE = " (vote)"  # behind the label of a row that holds the votes of a team that is also greedy
_places = count()


@dataclass(frozen=True)
class Method:
    "How a team is trained: a step for each iteration."

    steps: tuple[str, ...]  # imitate, compare, or a step of one's own
    again: int = 0  # the step that follows the last one
    whole: bool = False  # the last round of steps is a whole one (the paper's appendix H.3)

    def step(self, iteration: int) -> str:
        "The step of an iteration, from 1."
        place = iteration - 1
        if place < len(self.steps):
            return self.steps[place]
        return self.steps[self.again + (place - self.again) % (len(self.steps) - self.again)]


METHODS = Kind("training method")
METHODS.add("isft", Method(("imitate",)))
METHODS.add("idpo", Method(("imitate", "compare"), again=1))
METHODS.add("isft_dpo", Method(("imitate", "compare"), whole=True))


@dataclass(frozen=True)
class Recipe:
    "How one of the two texts, or a user, trains teams: what every system of it has."

    name: str
    source: str  # where it comes from, in words
    table: str = ""  # the table of a preset with what it has instead of the preset's own values
    changes: dict = field(default_factory=dict, hash=False)


ARTICLE_RECIPE = Recipe("article", "the article")
PAPER_RECIPE = Recipe("paper", "arXiv 2410.08115", "paper", {"reward": "paper"})
RECIPES = {recipe.name: recipe for recipe in (ARTICLE_RECIPE, PAPER_RECIPE)}


@dataclass(frozen=True)
class System:
    "One row."

    name: str  # in registries and on the command line
    label: str = ""  # in tables; none: the name
    family: str = "yours"  # whose row it is: the article's, the paper's, or yours
    recipe: Recipe = ARTICLE_RECIPE
    method: str = ""  # one of METHODS; none: the preset's
    agents: int = 0  # of its team; 0: the preset's
    changes: dict = field(default_factory=dict, hash=False)  # settings
    done: str = ""  # what was done to the team, such as "untrained" or "optima": what its colour tells
    variant: str = ""  # its paradigm, or how it differs from its fellows: what its marker tells
    ablates: str = ""  # the system that it is, but for what it changes
    ablation: bool = False  # run on the benchmarks of `ablation_benchmarks`
    at_once: bool = False  # one iteration, with the training steps of all
    untrained: str = ""  # the system that holds the same conversations without having been trained
    controls: tuple[str, ...] = ()  # what it is compared with, in this order
    published: str = ""  # the paper's name for this row
    published_votes: str = ""  # and for its votes
    tables: tuple[str, ...] = ()  # the artefacts that show it, where the row is yours
    order: int = field(default_factory=_places.__next__)  # in tables

    def __post_init__(self):
        object.__setattr__(self, "label", self.label or self.name)

    @property
    def settings(self) -> dict:
        "What it changes of its preset's settings."
        own = {"method": self.method} if self.method else {}
        return self.recipe.changes | own | ({"agents": self.agents} if self.agents else {}) | self.changes


SYSTEMS = Kind("system")


def add(*systems: System):
    "Make systems known by their names."
    for one in systems:
        SYSTEMS.add(one.name, one)


def system_of(name: str) -> System:
    "The system of a registry line; one that nobody registered here stands for itself, behind all others."
    known = SYSTEMS.things.get(name)
    return known or System(name, order=len(SYSTEMS.things) + next(_places))


def labelled(text: str) -> System:
    "The system behind a name, or a label, of a table's row."
    shown = text if text in SYSTEMS.things else text.replace(VOTE, "")
    found = [one for one in SYSTEMS.things.values() if one.name == shown] or [
        one for one in SYSTEMS.things.values() if one.label == shown]
    return found[0] if found else system_of(shown)


def systems_where(**wanted) -> tuple[str, ...]:
    "The names of the systems whose fields have these values, in order."
    return tuple(one.name for one in SYSTEMS.things.values()
                 if all(getattr(one, name) == value for name, value in wanted.items()))


def article(name: str, done: str, paradigm: str, controls: tuple[str, ...] = (), **fields) -> System:
    "A row of the article's main table."
    changes = {"paradigm": paradigm} | fields.pop("changes", {})
    variant = "alone" if paradigm == "single" else paradigm
    return System(name, family="article", done=done, variant=variant, controls=controls, changes=changes, **fields)


PARADIGMS = ("debate", "multi_step")
UNTRAINED, BEST = {"iterations": 0}, {"iterations": 0, "evaluation_strategy": "best"}
TEACHER, RANDOM = {"iterations": 0, "team": "teacher"}, {"selection": "random"}
add(
    article("single", "single", "single", changes=UNTRAINED),
    *(article(f"untrained_{name}", "untrained", name, changes=UNTRAINED) for name in PARADIGMS),
    *(article(f"terse_{name}", "terse", name, changes=BEST) for name in PARADIGMS),
    *(article(f"teacher_{name}", "teacher", name, changes=TEACHER) for name in ("single", "debate")),
    *(article(f"random_selection_{name}", "random_selection", name, changes=RANDOM, untrained=f"untrained_{name}") for name in PARADIGMS),
    *(article(f"optima_{name}", "optima", name, untrained=f"untrained_{name}", controls=(
        "teacher_debate", *(f"{kind}_{name}" for kind in ("untrained", "terse", "random_selection")))) for name in PARADIGMS),
    *(article(f"ceiling_{name}", "ceiling", name, changes={"mode": "demonstrations"}, untrained=f"untrained_{name}") for name in PARADIGMS),
)
MAIN = systems_where(family="article")


def ablation(name: str, done: str = "", variant: str = "", **fields) -> System:
    "A row of the article's ablation, beside `full`."
    changes = {"paradigm": "multi_step"} | fields.pop("changes", {})
    own = {"ablates": "full", "controls": ("full",)} if name not in ("full", "random_selection") else {}
    return System(name, family="article", done=done, variant=variant, ablation=True, untrained="untrained_multi_step",
                  changes=changes, **(own | fields))


GRID = "weight"  # of efficiency: the variant of a point of the grid
add(
    ablation("without_efficiency", variant=GRID, changes={"efficiency_weight": 0.0}),
    ablation("without_format", changes={"format_weight": 0.0}),
    ablation("without_task", changes={"task_weight": 0.0}),
    ablation("without_iteration", at_once=True),
    ablation("full", "full", GRID, controls=("random_selection",)),
    ablation("without_teacher", changes={"mode": "self"}),
    ablation("random_selection", "random_selection", changes=RANDOM),
)
ABLATION_TABLE = systems_where(family="article", ablation=True)
add(*(ablation(f"efficiency_{weight}", variant=GRID, changes={"efficiency_weight": weight}) for weight in (0.1, 0.6, 1.2)))
ABLATIONS = systems_where(family="article", ablation=True)
WEIGHTS = systems_where(variant=GRID)

# The published paper's rows (arXiv 2410.08115). Their settings are those of a preset's [paper] table.
TEAM, ALONE = {"paradigm": "by_task"}, {"paradigm": "chain_of_thought"}
TOLD = {"iterations": 0, "evaluation_strategy": "autoform"}
BESIDE = ("untrained", "tuned_single", "random_selection")  # labels of what the paper's methods are compared with
NAMED = {"isft": "Optima-iSFT", "idpo": "Optima-iDPO", "isft_dpo": "Optima-iSFT-DPO"}


def paper(label: str, done: str, changes: dict, **fields) -> System:
    "A row of the paper's tables."
    return System(f"paper_{label}", label, "paper", PAPER_RECIPE, done=done, changes=changes, **fields)


def trained(method: str, ending: str = "", changes: dict | None = None, **fields) -> System:
    "A team that one of the paper's methods trained."
    votes = "" if ending else f"{NAMED[method]} SC"
    untrained = f"paper_untrained_{fields['agents']}" if "agents" in fields else "paper_untrained"
    return paper(method + ending, method, TEAM | (changes or {}), method=method, untrained=untrained,
                 published_votes=votes, **fields)


def rows_of_method(method: str) -> tuple[System, ...]:
    "All teams of one method: the main one, three agents, an adapter for each role, and the ablations."
    name, whole = NAMED[method], f"paper_{method}_full"
    lacking = {"ablation": True, "ablates": whole, "controls": (whole,)}
    return (
        trained(method, changes={"scaling": True, "transfer": True}, published=name,
                controls=tuple(f"paper_{other}" for other in BESIDE)),
        trained(method, "_3", agents=3, variant="three", published=name,
                controls=tuple(f"paper_{other}_3" for other in BESIDE)),
        trained(method, "_full", ablation=True, published=name, controls=tuple(f"paper_{other}_full" for other in BESIDE)),
        *([trained(method, "_per_role", {"adapters": "per_role"}, variant="per_role", controls=("paper_isft",))]
          if method == "isft" else []),
        trained(method, "_without_loss", {"loss_weight": 0.0}, variant="without_loss", published=f"{name} w/o Loss", **lacking),
        trained(method, "_without_tokens", {"token_weight": 0.0}, variant="without_tokens", published=f"{name} w/o #Tokens", **lacking),
    )


add(
    paper("cot", "cot", ALONE | {"iterations": 0, "scaling": True}, variant="alone", published="CoT"),
    paper("sc", "sc", ALONE | {"iterations": 0, "decodings": ["vote"]}, variant="votes", published="SC (n=8)"),
    paper("untrained", "untrained", TEAM | {"iterations": 0, "scaling": True}, published="MAD"),
    *(paper(f"untrained_{agents}", "untrained", TEAM | UNTRAINED, agents=agents, variant="three" if agents == 3 else "")
      for agents in (3, 4, 5)),
    paper("autoform", "autoform", TEAM | TOLD, published="AutoForm"),
    paper("autoform_3", "autoform", TEAM | TOLD, agents=3, variant="three", published="AutoForm"),
    paper("tuned_single", "tuned_single", ALONE, variant="alone", untrained="paper_cot"),
    paper("random_selection", "random_selection", TEAM | RANDOM, untrained="paper_untrained"),
    *(row for method in NAMED for row in rows_of_method(method)),
)
TRAINED = tuple(f"paper_{method}" for method in NAMED)
PAPER_ROWS = ("paper_cot", "paper_sc", "paper_untrained", "paper_autoform", "paper_tuned_single", "paper_random_selection", *TRAINED)
PAPER_ADAPTERS = systems_where(variant="per_role")
PAPER_ABLATIONS = systems_where(family="paper", ablation=True)
PAPER_AGENTS = tuple(name for name in systems_where(family="paper") if SYSTEMS.things[name].agents > 2)


def system_order(name: str) -> tuple:
    "Sort key: the rows of tables in their order, then those that nobody registered here by name."
    known = SYSTEMS.things.get(name)
    return (known.order if known else float("inf"), name)


def default_pairs(systems) -> list[tuple[str, str]]:  # (system, against), as far as both were run
    "Each system with its controls."
    pairs = [(system, other) for system in sorted(systems, key=system_order) for other in system_of(system).controls]
    return [pair for pair in pairs if set(pair) <= set(systems)]
