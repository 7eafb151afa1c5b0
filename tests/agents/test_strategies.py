"The format pool and the paper's prompts: draws, and teams of any size that are told nothing unfilled."
import random
import re

import pytest

from optima.agents.messages import Message
from optima.agents.paradigms import start
from optima.agents.strategies import FORMATS, PAPER_ENGLISH, PAPER_MATHS, draw_formats
from optima.tasks.task import Task

RIVER = Task("river", "b", "Which river?", "Mire", passages=tuple(f"passage {place}" for place in range(6)), supporting=(0, 1))
NAMES = list(FORMATS)


def told(paradigm, prompts, agents, replies):
    "All that a team is told, and by what system prompts."
    dialogue, systems = start(paradigm, RIVER, prompts, agents=agents)
    texts, ask = [], next(dialogue)
    while True:
        texts.append(ask.text)
        try:
            ask = dialogue.send(Message(ask.agent.name, ask.agent.role, next(replies), ask.text))
        except StopIteration:
            return texts, systems


@pytest.mark.parametrize("prompts", [PAPER_ENGLISH, PAPER_MATHS])
@pytest.mark.parametrize("paradigm, agents", [(name, agents) for name in ("exchange", "solver_critic") for agents in (2, 3, 5)] + [("chain_of_thought", 1)])
def test_nothing_is_left_unfilled(paradigm, agents, prompts):
    texts, systems = told(paradigm, prompts, agents, iter(f"turn {turn}" for turn in range(100)))
    assert len(systems) == agents and len(texts) == (1 if agents == 1 else 5 * agents)
    for text in [*texts, *systems.values()]:
        assert text and text == text.strip() and not re.search(r"\{\w+\}|  |\n\n", text)
    for name in systems if paradigm == "exchange" else ():
        assert systems[name].startswith(f"You are {name}, and you work with ") and all(other in systems[name] for other in systems)


def test_a_solver_hears_its_critics_by_name():
    texts, _ = told("solver_critic", PAPER_ENGLISH, 3, iter(["<A>Mire</A>", "line 1 lacks a reason", "all hold", "<A>Mire</A>"]))
    assert texts[3].startswith("critic: line 1 lacks a reason\ncritic_2: all hold\n") and "passage 0" in texts[1]


def test_every_format_is_one_line_and_a_strategy():
    assert len(FORMATS) >= 20 and "none" not in FORMATS
    for name, text in FORMATS.items():
        assert PAPER_ENGLISH.strategy(name) == text == " ".join(text.split()) and text.endswith(".")
    assert "autoform" not in FORMATS and PAPER_ENGLISH.strategy("autoform") == PAPER_MATHS.strategy("autoform") != ""
    assert not FORMATS.keys() & PAPER_MATHS.strategies.keys()


def test_a_draw_depends_on_seed_task_and_sample_only():
    wanted = {(task, seed): draw_formats(NAMES, task, 8, seed) for task in ("a", "b", "c") for seed in (0, 1)}
    random.seed(5)
    for task, seed in reversed(wanted):
        assert draw_formats(NAMES, task, 3, seed) == wanted[task, seed][:3]
    assert len(set(map(tuple, wanted.values()))) == 6
    assert wanted["a", 0] == DRAWN


def test_samples_of_a_task_and_tasks_of_a_sample_are_drawn_apart():
    columns = list(zip(*(draw_formats(NAMES[:4], f"task {place}", 4, 0) for place in range(400))))
    for first, second in ((0, 1), (1, 3)):
        same = sum(a == b for a, b in zip(columns[first], columns[second]))
        assert 70 < same < 130


DRAWN = ["table", "lookup", "paths", "operators", "rules", "records", "graph", "rules"]  # of another process
