"The words that a team is told, by the name that settings give them."
from optima.agents.paradigms import ENGLISH, Prompts
from optima.agents.strategies import PAPER_ENGLISH, PAPER_MATHS
from optima.base.plugins import Kind

PROMPTS = Kind("set of prompts")  # name -> Prompts
PROMPTS.add("english", ENGLISH)
PROMPTS.add("english_paper", PAPER_ENGLISH)
PROMPTS.add("maths_paper", PAPER_MATHS)


def prompts_of(
    name: str,  # one of `PROMPTS`
) -> Prompts:
    "The prompts of that name."
    return PROMPTS.get(name)
