"The words that a team is told, by the name that settings give them."
from functools import lru_cache
from importlib import import_module

from optima.agents.paradigms import Prompts

WORDS = {  # name -> where they stand
    "toy": ("optima.toy.talk", "TOY_PROMPTS"), "toy_paper": ("optima.toy.exchange_talk", "PAPER_PROMPTS"),
    "english": ("optima.agents.paradigms", "ENGLISH"), "english_paper": ("optima.agents.strategies", "PAPER_ENGLISH"),
    "maths_paper": ("optima.agents.strategies", "PAPER_MATHS"),
}  # fmt: skip


@lru_cache
def prompts_of(
    name: str,  # a key of `WORDS`
) -> Prompts:
    "The prompts of that name."
    module, words = WORDS[name]
    found = getattr(import_module(module), words)
    return found if isinstance(found, Prompts) else Prompts(**found)
