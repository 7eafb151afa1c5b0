"The tables and figures: which systems each shows, and the notebook that makes it."
from optima.base.errors import OptimaError, suggest
from optima.config.systems import (
    ABLATION_TABLE,
    MAIN,
    PAPER_ABLATIONS,
    PAPER_ADAPTERS,
    PAPER_AGENTS,
    PAPER_ROWS,
    SYSTEMS,
    TRAINED,
    WEIGHTS,
    system_of,
)

ARTEFACTS = {
    "main_results": {"notebook": "main_results.ipynb", "systems": [*MAIN]},
    "token_cost": {"notebook": "token_cost.ipynb", "systems": [*MAIN]},
    "reward_ablation": {
        "notebook": "reward_ablation.ipynb",
        "systems": [*ABLATION_TABLE],
    },
    "iterations": {
        "notebook": "iterations.ipynb",
        "systems": ["untrained_debate", "untrained_multi_step", "optima_debate", "optima_multi_step",
                    "random_selection_debate", "random_selection_multi_step"],
    },
    "reward_weights": {
        "notebook": "reward_weights.ipynb",
        "systems": [*WEIGHTS],
    },
}
ARTICLE = tuple(ARTEFACTS)  # what is made where nothing is named; the published paper's take longer, and are made by name
ARTEFACTS |= {
    "paper_main": {"notebook": "paper_main.ipynb", "systems": [*PAPER_ROWS, *PAPER_ADAPTERS]},
    "paper_ablation": {"notebook": "paper_ablation.ipynb", "systems": [*PAPER_ABLATIONS]},
    "paper_transfer": {"notebook": "paper_transfer.ipynb", "systems": ["paper_untrained", "paper_autoform", *TRAINED]},
    "paper_three_agents": {
        "notebook": "paper_three_agents.ipynb",
        "systems": ["paper_cot", "paper_sc", "paper_untrained", "paper_autoform", *TRAINED, *PAPER_AGENTS],
    },
    "paper_scaling": {"notebook": "paper_scaling.ipynb", "systems": ["paper_cot", "paper_untrained", *TRAINED]},
    "paper_iterations": {"notebook": "paper_iterations.ipynb", "systems": ["paper_untrained", "paper_random_selection", *TRAINED]},
}


def artefact(name: str) -> dict:
    "An artefact's notebook and systems."
    if name not in ARTEFACTS:
        raise OptimaError(suggest("artefact", name, ARTEFACTS))
    found = ARTEFACTS[name]
    return found | {"systems": [*found["systems"], *(one for one in SYSTEMS if name in system_of(one).tables)]}
