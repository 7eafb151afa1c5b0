"The toy world's promises: splits that share nothing, tests that catch the common bug, habits that are independent."
import random

import pytest

from optima.messages import check
from optima.paradigms import Prompts, start
from optima.sandbox import run_tests
from optima.tasks import assert_disjoint
from optima.toyworld import (
    SPLITS,
    TOY_PROMPTS,
    VIEWS,
    Functions,
    Habit,
    _values,
    draw_demonstration,
    draw_habit,
    make_task,
    split_of,
    toy_humaneval,
)

FAMILY = Functions()


def test_every_question_lies_in_one_split_and_is_drawn_in_it():
    rng = random.Random(0)
    assert sorted(bound for low, high in SPLITS.values() for bound in range(low, high)) == list(range(100))
    for split in SPLITS:
        assert {split_of(FAMILY.question(FAMILY.draw(rng, split))) for _ in range(30)} == {split}


def test_the_splits_of_the_benchmark_share_no_task():
    drawn = {split: toy_humaneval.tasks(split, 150) for split in ("train", "development", "evaluation")}
    assert_disjoint(drawn["train"], drawn["evaluation"])
    assert_disjoint(drawn["train"], drawn["development"])
    assert_disjoint(drawn["development"], drawn["evaluation"])


def test_demonstrations_never_meet_the_other_splits():
    rng = random.Random(1)
    told = [turn[0] for _ in range(400) for turn in draw_demonstration(rng, FAMILY, {"single": 1, "planner": 1}).turns]
    assert {split_of(question) for question in told} == {"pretraining"}


def test_hidden_tests_pass_the_right_answer_and_catch_every_careless_one_that_differs():
    rng, caught = random.Random(2), 0
    for i in range(150):
        problem = FAMILY.draw(rng, "development")
        task, right, careless = make_task(FAMILY, problem, str(i)), FAMILY.answer(problem), FAMILY.answer(problem, careful=False)
        assert run_tests(task.code(right), task.tests, task.entry_point).passed
        differs = _values(right) != _values(careless)
        assert run_tests(task.code(careless), task.tests, task.entry_point).passed is not differs
        caught += differs
    assert caught > 50


def test_style_and_method_are_independent():
    rng = random.Random(4)
    habits = [draw_habit(rng) for _ in range(20_000)]
    for style, share in {"chatty": 0.80, "plain": 0.08, "terse": 0.12}.items():
        of_style = [habit for habit in habits if habit.style == style]
        assert abs(len(of_style) / len(habits) - share) < 0.015
        assert abs(sum(habit.method == "careful" for habit in of_style) / len(of_style) - 0.17) < 0.03


@pytest.mark.parametrize("role", VIEWS)
def test_well_formed_demonstrations_follow_the_schema(role):
    rng = random.Random(5)
    for style in ("chatty", "plain", "terse"):
        for method in ("careless", "careful", "guess"):
            for _, wrote in VIEWS[role](rng, FAMILY, Habit(style, method, malformed=False)):
                assert check(role, wrote) == [], wrote


def test_demonstrations_are_told_what_the_paradigms_say():
    task, prompts = toy_humaneval.tasks("development", 1)[0], Prompts(**TOY_PROMPTS)
    for paradigm in ("single", "debate", "multi_step"):
        dialogue, systems = start(paradigm, task, prompts)
        ask = next(dialogue)
        assert ask.text == task.question and systems[ask.agent.name] == TOY_PROMPTS["systems"][ask.agent.role]
