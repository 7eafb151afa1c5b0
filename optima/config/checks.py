"What settings may be, alone and together; each refusal is one line."
import math

from optima.agents.paradigms import PARADIGMS
from optima.agents.prompts import PROMPTS
from optima.base.errors import OptimaError, suggest
from optima.config.systems import METHODS
from optima.engines.endpoints import checked_url

KINDS = {"paradigm": PARADIGMS, "method": METHODS, "prompts": PROMPTS}  # settings whose words plug-ins may add to
CHOICES = {
    "reward": ("sum", "paper"),
    "pairs": ("all", "best_worst"),
    "node_mean": ("children", "rollouts"),
    "adapters": ("shared", "per_role"),
    "mode": ("self", "teacher", "demonstrations"),
    "team": ("student", "teacher"),
    "question_metric": ("exact_match", "f1"),
    "selection": ("reward", "random"),
    "quantization": ("nf4", "nf4_double", "none"),
    "evaluation_split": ("development", "evaluation"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "engine": ("local", "server"),
}

DECODINGS = ("greedy", "sampled", "vote")
MANY = float("inf")
MOST_TASKS = 1_000_000  # more than any benchmark has; drawing ever more made ones would not end
BOUNDS = {
    "seed": (0, MANY), "iterations": (0, MANY), "temperature": (0, MANY), "threshold": (-MANY, MANY), "keep_share": (0, 1),
    "budget_tokens": (0, MANY), "budget_money": (0, MANY), "price_in": (0, MANY), "price_out": (0, MANY),
    "task_weight": (0, MANY), "efficiency_weight": (0, MANY), "format_weight": (0, MANY), "learning_rate": (0, 1),
    "token_weight": (0, MANY), "loss_weight": (0, MANY), "samples": (0, MANY), "vote_temperature": (0, MANY),
    "pair_threshold": (-MANY, MANY), "pair_difference": (0, MANY), "pair_share": (0, 1), "pilot_percentile": (0, 100),
    "beta": (0, MANY), "nll_weight": (0, MANY), "preference_rate": (0, 1),
    **dict.fromkeys(("tasks_per_iteration", "evaluation_tasks", "iteration_tasks", "development_tasks", "tree_tasks", "scaling_tasks"),
                    (1, MOST_TASKS)),
    **dict.fromkeys(("max_rounds", "max_steps", "executors", "max_message_tokens",
                     "max_acceptable_tokens", "lora_rank", "lora_alpha", "training_steps", "batch_dialogues",
                     "micro_batch", "batch_size", "shard_dialogues",
                     "threads", "concurrency", "agents", "expansions", "rollouts", "pilot_dialogues",
                     "preference_epochs", "batch_pairs", "votes", "scaling_samples"), (1, MANY)),
}


def check_choice(settings, name: str, choices: tuple):
    "Refuse a word that a setting does not know."
    if getattr(settings, name) not in choices:
        raise OptimaError(suggest(f"value of {name}:", getattr(settings, name), choices))


def check_bounds(settings, name: str, least: float, most: float):
    "Refuse a number out of its range."
    value = getattr(settings, name)
    if not (math.isfinite(value) and least <= value <= most):
        finite = [f"{word} {bound}" for word, bound in (("at least", least), ("at most", most)) if math.isfinite(bound)]
        raise OptimaError(f"{name} = {value!r}: expected a number, {' and '.join(finite)}")


def check_together(settings):
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
        if name not in DECODINGS:
            raise OptimaError(suggest("decoding", name, DECODINGS))
    for name in ("keep_share", "pair_share"):
        if not getattr(settings, name):
            raise OptimaError(f"{name} = 0 keeps nothing to train on; expected a number above 0 and at most 1")
    check_paper(settings)
    if not settings.task_weight + settings.efficiency_weight + settings.format_weight > 0:
        raise OptimaError("task_weight, efficiency_weight and format_weight are all 0; leave one above 0")


def check_paper(settings):
    "Refuse combinations that the paper's method has no meaning for."
    compares = "compare" in METHODS.get(settings.method).steps
    if settings.adapters == "per_role" and compares:
        raise OptimaError(f'adapters = "per_role" is for method = "isft": {settings.method} compares turns under one adapter')
    if compares and settings.reward != "paper":
        raise OptimaError(f'method = "{settings.method}" grows trees under the paper\'s reward: set reward = "paper"')
    if compares and settings.tree_tasks > settings.tasks_per_iteration:
        raise OptimaError(f"tree_tasks = {settings.tree_tasks}: expected at most tasks_per_iteration, {settings.tasks_per_iteration}")
    if settings.paradigm == "exchange" and settings.agents < 2:
        raise OptimaError("agents = 1: an exchange takes two or more")


def check_best(settings):
    "Refuse to choose a strategy for a team that is trained, or from no candidate."
    if settings.evaluation_strategy != "best":
        return
    if settings.iterations:
        raise OptimaError('evaluation_strategy = "best" is for teams that are not trained: '
                          f"iterations = {settings.iterations}, expected 0")
    if not settings.candidates:
        raise OptimaError('evaluation_strategy = "best" has nothing to choose from: strategies names only "none"')


def check_servers(settings):
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


def check_names(settings):
    "Refuse a strategy that the prompts have no text for, and a benchmark that nobody registered."
    from optima.tasks.catalogue import benchmark_names

    strategies = list(PROMPTS.get(settings.prompts).strategies)
    for name, words, choices in (("strategies", settings.strategies, strategies),
                                 ("evaluation_strategy", [settings.evaluation_strategy], [*strategies, "best"]),
                                 ("benchmarks", settings.benchmarks, benchmark_names(settings.data)),
                                 ("ablation_benchmarks", settings.ablation_benchmarks, benchmark_names(settings.data))):
        for word in words:
            if word not in choices:
                prompts = f" under {settings.prompts} prompts" if "strateg" in name else ""
                raise OptimaError(suggest(f"value of {name}{prompts}:", word, choices))
