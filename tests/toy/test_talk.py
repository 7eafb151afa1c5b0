"The toy world's promises: splits that share nothing, tests that catch the slips, habits that are independent."
import random
from itertools import combinations

import pytest

from optima.agents.formats import check
from optima.agents.messages import Message, Trajectory
from optima.agents.paradigms import Prompts, start
from optima.rewards.terms import task_reward
from optima.sandbox.judge import run_tests
from optima.tasks.catalogue import get_benchmark
from optima.tasks.task import assert_disjoint, deal
from optima.toy.functions import INPUTS, SPLITS, humaneval, mbpp, split_of, values
from optima.toy.lookups import MOST, apply_change, facts_in, find, hotpotqa, lookups, stories, sums
from optima.toy.talk import CLEANER, METHODS, TOY_PROMPTS, VIEWS, Habit, asked, draw_demonstration, draw_habit

FAMILIES = [humaneval, mbpp, hotpotqa, stories]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
STYLES = ("chatty", "plain", "terse")


def judged(family, problem, answer):
    "The score of an answer, as an evaluation takes it."
    task = family.task(problem, "x")
    said = Message("solver", "single", f'{{"answer":" {answer} "}}')
    return task_reward(task, Trajectory(task.id, "single", "none", 0, [said], said.answer, {})).value


def test_the_splits_cover_every_bucket_once():
    assert sorted(bound for low, high in SPLITS.values() for bound in range(low, high)) == list(range(100))


@each_family
def test_every_problem_lies_in_one_split_and_is_drawn_in_it(family):
    rng = random.Random(0)
    for split in SPLITS:
        assert {split_of(family.content(family.draw(rng, split))) for _ in range(30)} == {split}


@each_family
def test_the_splits_of_a_benchmark_share_no_task(family):
    benchmark = get_benchmark(family.name)
    drawn = [benchmark.tasks(split, 150) for split in ("train", "development", "evaluation")]
    for one, other in combinations(drawn, 2):
        assert_disjoint(one, other)
    assert benchmark.tasks("train", 20) == drawn[0][:20] != benchmark.tasks("train", 20, seed=1)


@each_family
def test_demonstrations_and_drills_never_meet_the_other_splits(family, monkeypatch):
    seen, draw = [], type(family).draw

    def note(self, rng, split="pretraining"):
        seen.append(split)
        return draw(self, rng, split)

    monkeypatch.setattr(type(family), "draw", note)
    rng = random.Random(1)
    for role in VIEWS:
        draw_demonstration(rng, family, {role: 1.0})
    if family is hotpotqa: lookups(rng)
    assert set(seen) == {"pretraining"} and len(seen) >= len(VIEWS)


def test_word_problems_that_differ_in_names_only_are_in_one_split():
    rng = random.Random(2)
    stories_of = {}
    for _ in range(3000):
        problem = stories.problem(rng)
        stories_of.setdefault((problem.start, problem.changes), set()).add(split_of(stories.content(problem)))
    assert all(len(splits) == 1 for splits in stories_of.values())


@each_family
def test_the_right_answer_scores_one_and_the_careless_one_is_right_now_and_then(family):
    expected = 0.25 if family is hotpotqa else 0.5
    rng, right = random.Random(3), []
    for _ in range(150):
        problem = family.draw(rng, "development")
        assert judged(family, problem, family.answer(problem)) == 1
        right.append(judged(family, problem, family.answer(problem, careful=False)))
    assert abs(sum(right) / len(right) - expected) < 0.15


@pytest.mark.parametrize("family", [humaneval, mbpp], ids=lambda family: family.name)
def test_hidden_tests_catch_every_careless_answer_that_differs(family):
    rng, caught = random.Random(2), 0
    for i in range(100):
        problem = family.draw(rng, "development")
        task, right, careless = family.task(problem, str(i)), family.answer(problem), family.answer(problem, careful=False)
        differs = values(right, INPUTS) != values(careless, INPUTS)
        assert run_tests(task.code(careless), task.tests, task.entry_point).passed is not differs
        caught += differs
    assert caught > 30


def test_the_call_that_a_question_shows_is_true():
    for task in get_benchmark("toy_mbpp").tasks("development", 40):
        shown = task.question.split(" . ")[1].removesuffix(" .").replace("=", "==")
        assert run_tests(task.code(task.answer), f"assert {shown}", "g").passed


def test_two_hops_need_both_passages_and_neither_hand_has_both():
    for task in get_benchmark("toy_hotpotqa").tasks("development", 60):
        relation, link, person, _ = task.question.split()
        first, second = (facts_in(task.passages[place]) for place in task.supporting)
        bridge = find(first, link, person)
        assert len(first) == len(second) == 2 and find(second, relation, bridge) == task.answer
        others = [fact for place, passage in enumerate(task.passages) for fact in facts_in(passage) if place not in task.supporting]
        assert not {link, relation} & {what for what, _, _ in others}
        subjects = [who for _, who, _ in [*first, *second, *others]]
        assert len(set(subjects)) == len(subjects) == 6
        hands = deal(task.passages, 2, task.key, task.supporting)
        assert [len(hand) for hand in hands] == [2, 2]
        assert task.passages[task.supporting[0]] in hands[0] and task.passages[task.supporting[1]] in hands[1]


def test_dealt_hands_of_the_demonstrations_are_like_the_benchmark_s():
    rng, places = random.Random(5), []
    for _ in range(600):
        problem = hotpotqa.draw(rng)
        hands, texts = hotpotqa.hands(rng, problem), hotpotqa.passages(problem)
        needed = [texts[place] for place in hotpotqa.supporting(problem)]
        held = [[text for text in texts if text in hand] for hand in hands]
        assert [len(hand) for hand in held] == [2, 2] and needed[0] in held[0] and needed[1] in held[1]
        places.append(hands[0].startswith(needed[0]))
    assert abs(sum(places) / 600 - 1 / 2) < 0.07


def test_numbers_of_the_stories_have_words():
    rng = random.Random(6)
    for _ in range(300):
        problem = stories.problem(rng)
        middle = apply_change(problem.start, problem.changes[0])
        numbers = [middle, *(apply_change(middle, problem.changes[1], careful) for careful in (True, False))]
        assert all(0 <= number <= MOST for number in numbers)
        assert stories.working(problem).split()[4] == str(middle)
        assert [stories.working(problem, careful).split()[-2] for careful in (True, False)] == [str(number) for number in numbers[1:]]


def test_drills_are_true():
    rng = random.Random(7)
    for told, wrote in sums(rng, 60):
        assert wrote.startswith(told) and wrote == f"{told} = {eval(told)} ."
    for _ in range(20):
        turns = lookups(rng)
        facts = facts_in(turns[0][0])
        assert all(find(facts, *told.split()[-2:]) == wrote.split()[2] for told, wrote in turns)


@each_family
def test_careful_steps_lead_to_the_right_answer_and_write_down_how(family):
    rng = random.Random(12)
    for _ in range(60):
        problem = family.draw(rng)
        state, hands = family.begin(problem), family.hands(rng, problem)
        for place in range(len(family.plan(problem))):
            working = family.step_working(problem, state, place, True, hands[place % 2])
            state = family.carry_out(problem, state, place, True, hands[place % 2])
            assert not working or working.split()[-2] == family.write(state)
        assert family.write(state) == family.answer(problem)


def test_style_and_method_are_independent():
    rng = random.Random(4)
    habits = [draw_habit(rng) for _ in range(20_000)]
    for style, share in {"chatty": 0.80, "plain": 0.08, "terse": 0.12}.items():
        of_style = [habit for habit in habits if habit.style == style]
        assert abs(len(of_style) / len(habits) - share) < 0.015
        assert abs(sum(habit.method == "careful" for habit in of_style) / len(of_style) - 0.17) < 0.03


def test_the_teacher_is_more_careful_and_as_wordy():
    for strategy in METHODS:
        assert CLEANER[strategy][1] >= METHODS[strategy][1] and abs(sum(CLEANER[strategy]) - 1) < 1e-9
    rng = random.Random(8)
    assert abs(sum(draw_habit(rng, methods=CLEANER).style == "chatty" for _ in range(4000)) / 4000 - 0.80) < 0.03


@each_family
@pytest.mark.parametrize("role", VIEWS)
def test_well_formed_demonstrations_follow_the_schema(family, role):
    rng = random.Random(5)
    for style in STYLES:
        for method in ("careless", "careful", "guess"):
            for _, wrote in VIEWS[role](rng, family, Habit(style, method, malformed=False)):
                assert check(role, wrote) == [], wrote


@each_family
@pytest.mark.parametrize("role", VIEWS)
def test_careful_agents_talk_no_less_and_no_more_for_their_style(family, role):
    "What a method costs is its working; greetings and closings must not tell the methods apart."
    def chat(method):
        rng = random.Random(9)
        wrote = [VIEWS[role](rng, family, Habit("chatty", method, False))[0][1] for _ in range(150)]
        return sum("hello team" in text for text in wrote) / len(wrote)
    assert abs(chat("careful") - chat("careless")) < 0.08


@each_family
def test_demonstrations_are_told_what_the_paradigms_say(family):
    rng, prompts = random.Random(10), Prompts(**TOY_PROMPTS)
    problem = family.draw(rng, "development")
    task = family.task(problem, "x")
    for paradigm in ("single", "debate", "multi_step"):
        dialogue, systems = start(paradigm, task, prompts)
        ask = next(dialogue)
        told = family.question(problem) if paradigm == "multi_step" else asked(family, problem)
        assert ask.text.split() == told.split() and systems[ask.agent.name] == TOY_PROMPTS["systems"][ask.agent.role]
    first = dialogue.send(Message("planner", "planner", '{"plan":[" ' + ' "," '.join(family.plan(problem)) + ' "]}'))
    hand = deal(task.passages, 2, task.key, task.supporting)[0] if task.passages else ()
    assert first.text.split() == " ".join([*hand, "step", family.plan(problem)[0], "now", TOY_PROMPTS["nothing"]]).split()
    dialogue, _ = start("debate", task, prompts)
    next(dialogue)
    critique = dialogue.send(Message("proposer", "proposer", "PROPOSAL"))
    assert critique.text.split() == f"{asked(family, problem)} they say PROPOSAL".split()


@each_family
def test_a_family_reads_its_tasks_back(family):
    rng = random.Random(11)
    for _ in range(100):
        problem = family.draw(rng, "development")
        assert family.read(family.task(problem, "x")) == problem
