"The rows of the tables: what each system changes of its preset's settings."

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
MAIN = tuple(SYSTEMS)

ABLATIONS: dict[str, dict] = {  # rows beside `full`, on the benchmarks of `ablation_benchmarks`
    "full": {},
    "without_efficiency": {"efficiency_weight": 0.0},
    "without_format": {"format_weight": 0.0},
    "without_task": {"task_weight": 0.0},
    "without_iteration": {},  # one iteration with the training steps of all: see `settings.at_once`
    "without_teacher": {"mode": "self"},
    "random_selection": {"selection": "random"},
    "efficiency_0.1": {"efficiency_weight": 0.1},
    "efficiency_0.6": {"efficiency_weight": 0.6},
    "efficiency_1.2": {"efficiency_weight": 1.2},
}
SYSTEMS |= {name: {"paradigm": "multi_step"} | changes for name, changes in ABLATIONS.items()}

# The published paper's rows (arXiv 2410.08115); reports drop the prefix. Their settings are those of a preset's [paper] table.
METHODS = ("isft", "idpo", "isft_dpo")
TEAM, ALONE = ({"paradigm": paradigm, "reward": "paper"} for paradigm in ("by_task", "chain_of_thought"))
TRAINED = {f"paper_{method}": TEAM | {"method": method} for method in METHODS}
PAPER_MAIN: dict[str, dict] = {
    "paper_cot": ALONE | {"iterations": 0, "scaling": True},
    "paper_sc": ALONE | {"iterations": 0, "decodings": ["vote"]},
    "paper_untrained": TEAM | {"iterations": 0, "scaling": True},  # the paper's MAD
    "paper_autoform": TEAM | {"iterations": 0, "evaluation_strategy": "autoform"},
    "paper_tuned_single": ALONE,
    "paper_random_selection": TEAM | {"selection": "random"},
    **{name: changes | {"scaling": True, "transfer": True} for name, changes in TRAINED.items()},
}
PAPER_ABLATIONS: dict[str, dict] = {  # on the benchmarks of `ablation_benchmarks`
    f"{name}{suffix}": changes | weights for name, changes in TRAINED.items()
    for suffix, weights in (("_full", {}), ("_without_tokens", {"token_weight": 0.0}), ("_without_loss", {"loss_weight": 0.0}))
}
PAPER_THREE: dict[str, dict] = {  # three agents, and how an untrained team's tokens grow with their number
    **{f"{name}_3": changes | {"agents": 3} for name, changes in TRAINED.items()},
    **{f"paper_untrained_{agents}": TEAM | {"iterations": 0, "agents": agents} for agents in (3, 4, 5)},
    "paper_autoform_3": PAPER_MAIN["paper_autoform"] | {"agents": 3},
}
PAPER_ADAPTERS: dict[str, dict] = {"paper_isft_per_role": TRAINED["paper_isft"] | {"adapters": "per_role"}}
PAPER = PAPER_MAIN | PAPER_ABLATIONS | PAPER_THREE | PAPER_ADAPTERS
SYSTEMS |= PAPER


def prefers(
    method: str,  # one of METHODS
    iteration: int,  # from 1
) -> bool:
    "Whether an iteration of a method is one of preferences; else it is one of imitation."
    return {"isft": False, "idpo": iteration > 1, "isft_dpo": iteration % 2 == 0}[method]


def untrained_row(
    paradigm: str,
    agents: int = 2,
) -> str:
    "The system that holds the same conversations without having been trained."
    named = {"single": "single", "chain_of_thought": "paper_cot", "by_task": "paper_untrained" + f"_{agents}" * (agents > 2)}
    return named.get(paradigm, f"untrained_{paradigm}")
