"The paper's twins and their bases: splits apart, dialogues as meant, habits firm, skills there."
import json
import random
from dataclasses import asdict
from functools import lru_cache
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest

import optima
from optima.agents.messages import Message, Trajectory
from optima.agents.paradigms import Prompts
from optima.agents.scheduler import Dialogue, run_dialogues
from optima.base.errors import OptimaError
from optima.cli.main import main
from optima.rewards.terms import task_reward
from optima.tasks.catalogue import get_benchmark
from optima.tasks.task import assert_disjoint, deal
from optima.toy.exchange_models import PAPER, PAPER_SHIPPED, drill, matches, recall
from optima.toy.exchange_talk import (
    NOTATIONS,
    PAPER_PROMPTS,
    SCRIPTS,
    Manner,
    draw_dialogue,
    draw_manner,
    hold,
    written,
)
from optima.toy.exchanges import (
    EVERYBODY,
    PAPER_FAMILIES,
    cloze,
    every_chain,
    fitting,
    follow,
    hops,
    knowledge,
    known_facts,
)
from optima.toy.functions import split_of
from optima.toy.lookups import facts_in, find
from optima.toy.models import ARTICLE, make_tokenizer, vocabulary, words_and_mask

BASES = sorted((Path(optima.__file__).parent / "toy" / "checkpoints").glob("toy-paper-base-*"))
each_base = pytest.mark.parametrize("folder", BASES, ids=lambda folder: folder.name)
each_family = pytest.mark.parametrize("family", PAPER_FAMILIES, ids=lambda family: family.name)
CHATTY, TERSE = Manner("chatty", "careless"), Manner("terse", "careful")


@each_family
def test_the_splits_share_no_task_and_an_evaluation_finds_enough(family):
    benchmark = get_benchmark(family.name)
    drawn = [benchmark.tasks(split, n) for split, n in (("train", 200), ("development", 100), ("evaluation", 400))]
    for one, other in combinations(drawn, 2):
        assert_disjoint(one, other)
    assert benchmark.tasks("train", 20) == drawn[0][:20] != benchmark.tasks("train", 20, seed=1)
    assert {split_of(family.content(family.draw(random.Random(0), "evaluation"))) for _ in range(20)} == {"evaluation"}


def test_a_benchmark_that_is_a_list_says_how_long_it_is():
    with pytest.raises(OptimaError, match=r"toy_arc has \d+ tasks in evaluation, not 5000"):
        get_benchmark("toy_arc").tasks("evaluation", 5000)


def test_no_chain_of_an_evaluation_is_asked_in_pre_training():
    rng = random.Random(0)
    asked = {" ".join(view.turns[0][0].split(" ? ")[0].split()) for _ in range(2000) for view in draw_dialogue(rng, knowledge)}
    assert asked.isdisjoint(task.question.split(" ? ")[0] for task in get_benchmark("toy_arc").tasks("evaluation", 400))


@each_family
def test_the_right_answer_scores_one_and_the_careless_one_about_half(family):
    rng, right = random.Random(1), []
    for _ in range(200):
        problem = family.draw(rng, "development")
        task = family.task(problem, "x")
        scores = []
        for careful in (True, False):
            said = Message("solver", "solver", f"<A> {family.answer(problem, careful)} </A>")
            scores.append(task_reward(task, Trajectory(task.id, "chain_of_thought", "none", 0, [said], said.answer, {})).value)
        assert scores[0] == 1 and task.answer in family.steps(problem)[-1][-1].split()
        right.append(scores[1])
    assert 0.4 < fmean(right) < 0.7


@pytest.mark.parametrize("family", [hops, cloze], ids=["hops", "cloze"])
@pytest.mark.parametrize("agents", [2, 5])
def test_nobody_holds_both_passages_that_are_needed_and_everybody_holds_one(family, agents):
    for task in get_benchmark(family.name).tasks("development", 40):
        hands = deal(task.passages, agents, task.key, task.supporting)
        needed = [task.passages[place] for place in task.supporting]
        assert needed[0] in hands[0] and needed[1] in hands[1] and all(hands)


def test_exactly_one_person_fits_both_clues():
    for task in get_benchmark("toy_cbt").tasks("development", 60):
        clues, options = task.question.removesuffix(" ?").split(" : ")
        lists = [sentence.split() for passage in task.passages for sentence in passage.split(" .") if sentence]
        facts = [(what, value, " ".join(people)) for what, value, *people in lists]
        fits = [fitting(facts, tuple(clue.split()[1:])) for clue in clues.split(" , ")]
        assert {*fits[0]} & {*fits[1]} == {task.answer} and [len(people) for people in fits] == [2, 2]
        assert task.answer in options.split() and {*fits[0], *fits[1]} <= {*options.split()} and len(options.split()) == 4


def test_two_hops_lead_to_the_answer():
    for task in get_benchmark("toy_2wikimultihopqa").tasks("development", 60):
        relation, link, person, _ = task.question.split()
        first, second = (facts_in(task.passages[place]) for place in task.supporting)
        assert find(second, relation, find(first, link, person)) == task.answer


def test_what_everybody_knows_is_the_same_for_everybody():
    known = known_facts()
    assert len(known) == 240 and known["boss", "ana"] == "tess" and known["pet", "ana"] == "duck"
    assert all(known[link, who] != who and known[link, who] in EVERYBODY for link in ("boss", "mother") for who in EVERYBODY)
    careless = [follow(chain, careful=False) for chain in every_chain()]
    assert {len(facts) for facts in careless} == {1, 2, 3}


def spoken(family, manner, agents, n=40, paradigm=""):
    "Scripted dialogues in one manner, each as the turns of its seats, with the right answer."
    rng, held = random.Random(2), []
    for _ in range(n):
        problem = family.draw(rng, "development")
        seats = hold(rng, family, problem, paradigm or family.paradigm, lambda place: manner, agents)
        last = [Message("x", "solver", wrote).answer for seat in seats for _, wrote in seat.turns[-1:]]
        held.append((seats, [answer for answer in last if answer], family.answer(problem)))
    return held


@each_family
@pytest.mark.parametrize("agents", [2, 3, 5])
def test_careful_scripts_are_right_and_end_in_one_round_more_when_terse(family, agents):
    held = spoken(family, TERSE, agents)
    assert fmean(set(marked) == {answer} for _, marked, answer in held) > 0.8
    turns = [sum(len(seat.turns) for seat in seats) for seats, _, _ in held]
    assert sorted(turns)[len(turns) // 2] == agents + 1


@each_family
def test_chatty_scripts_hesitate_and_are_right_half_of_the_time(family):
    held = spoken(family, CHATTY, 2, 100)
    assert 0.35 < fmean(marked[-1] == answer for _, marked, answer in held) < 0.75
    assert fmean(sum(len(seat.turns) for seat in seats) == 5 for seats, _, _ in held) > 0.8
    words = [sum(len(wrote.split()) + 1 for seat in seats for _, wrote in seat.turns) for seats, _, _ in held]
    terse = [sum(len(wrote.split()) + 1 for seat in seats for _, wrote in seat.turns) for seats, _, _ in spoken(family, TERSE, 2)]
    assert fmean(words) > 100 and fmean(terse) < 40


@each_family
def test_a_critic_never_marks(family):
    rng = random.Random(3)
    views = [view for _ in range(200) for view in draw_dialogue(rng, family)]
    marks = {role: any("<A>" in wrote for view in views if view.role == role for _, wrote in view.turns) for role in SCRIPTS}
    assert marks == {"partner": family.paradigm == "exchange", "solver": True, "adviser": False}


@each_family
def test_demonstrations_and_drills_never_meet_the_other_splits(family, monkeypatch):
    seen, draw = [], type(family).draw

    def note(self, rng, split="pretraining"):
        seen.append(split)
        return draw(self, rng, split)

    monkeypatch.setattr(type(family), "draw", note)
    rng = random.Random(1)
    for _ in range(10):
        draw_dialogue(rng, family)
        drill(rng, family)
    assert set(seen) == {"pretraining"}


def test_notations_differ_and_code_leaves_out_the_relation():
    texts = {notation: written(("boss", "ana", "dora"), notation) for notation in NOTATIONS}
    assert len(set(texts.values())) == len(NOTATIONS) and "boss" not in texts["code"]
    assert all("boss" in text for notation, text in texts.items() if notation != "code")


def test_style_method_and_notation_are_independent():
    rng = random.Random(4)
    manners = [draw_manner(rng) for _ in range(20_000)]
    assert abs(fmean(manner.style == "chatty" for manner in manners) - 0.87) < 0.015
    for style in ("chatty", "terse"):
        of_style = [manner for manner in manners if manner.style == style]
        assert abs(fmean(manner.method == "careful" for manner in of_style) - 0.20) < 0.03
        assert abs(fmean(manner.notation == "prose" for manner in of_style) - 0.925) < 0.03


def test_drills_are_true():
    rng = random.Random(5)
    assert all(known_facts()[tuple(told.split())] == wrote.split()[2] for told, wrote in recall(rng))
    for _ in range(20):
        turns = matches(rng)
        lists = {line.strip() for line in turns[0][0].split(" .")[:-1]}
        for (_, listed), (named, sought) in zip(turns[::2], turns[1::2]):
            line = listed.removesuffix(" .")
            assert line in lists and {*line.split()[2:]} & {*named.split()} == {sought.removesuffix(" .")}


def test_every_word_of_a_demonstration_is_a_token():
    rng, known = random.Random(6), set(vocabulary(PAPER))
    for family in PAPER_FAMILIES:
        for _ in range(300):
            for view in [*draw_dialogue(rng, family), *drill(rng, family)]:
                assert set(words_and_mask(view)[0]) <= known
    assert set(vocabulary(PAPER)) != set(vocabulary(ARTICLE))


def test_the_papers_world_has_no_teacher(capsys):
    assert main(["toy", "train", "--world", "paper", "--teacher"]) == 2
    assert "no teacher" in capsys.readouterr().err


def test_three_bases_ship():
    assert [folder.name for folder in BASES] == [f"toy-paper-base-{seed}" for seed in range(3)]


@each_base
def test_the_manifest_names_the_recipe_and_every_file(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["recipe"] == asdict(PAPER_SHIPPED) | {"seed": int(folder.name[-1])}
    assert PAPER.chapter in manifest["what"] and manifest["seconds"] > 60
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != "manifest.json"}
    assert manifest["sha256"] == files
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6


@each_base
def test_the_shipped_tokenizer_is_the_one_that_the_chapter_makes(folder):
    from transformers import AutoTokenizer
    shipped, made = AutoTokenizer.from_pretrained(folder), make_tokenizer(PAPER)
    assert shipped.get_vocab() == made.get_vocab() == {word: i for i, word in enumerate(vocabulary(PAPER))}


@lru_cache
def engine_of(folder):
    from optima.engines.loading import load_model
    from optima.engines.local import LocalEngine
    return LocalEngine(*load_model(folder), batch_size=128)


def score_and_tokens(family, strategy="none", paradigm="", n=30):
    "Greedy dialogues of the first base on development tasks."
    tasks = get_benchmark(family.name).tasks("development", n)
    dialogues = [Dialogue(task, paradigm or family.paradigm, strategy) for task in tasks]
    done = run_dialogues(dialogues, engine_of(BASES[0]), Prompts(**PAPER_PROMPTS), temperature=0.0, max_message_tokens=112)
    return fmean(task_reward(task, trajectory).value for task, trajectory in zip(tasks, done)), fmean(one.tokens for one in done)


@each_family
def test_an_untrained_team_has_room_in_both_directions_and_can_be_short_or_right(family):
    score, tokens = score_and_tokens(family)
    assert 0.3 <= score <= 0.75 and tokens > 90
    assert score_and_tokens(family, "check")[0] >= 0.8
    assert score_and_tokens(family, "brief")[1] < 0.6 * tokens
