"Votes and coverage against plain enumeration, and votes as evaluations."
from itertools import combinations, permutations
from statistics import fmean

import numpy as np
import pytest

from optima.agents.messages import Message, Trajectory
from optima.base.errors import OptimaError
from optima.evaluate.statistics import check_columns, evaluation_columns, report_rows
from optima.evaluate.voting import (
    alike,
    coverage_curve,
    gather_samples,
    group_numbers,
    sample_columns,
    sample_orders,
    vote_columns,
    vote_curve,
    vote_groups,
    voted,
    votes_by_prefix,
    winners,
)
from optima.tasks.metrics import Score, answer_key, score_text
from optima.tasks.task import Task

WORDS = ("ana ben", "ben ana", "ana ben cid dora eve fay gil hal ida", "ana ben cid dora eve fay gil hal ida jo",
         "cid dora eve fay gil hal ida jo kim", "", "the", "yes")


def slow_vote(answers, scores, metric, order):
    "What a vote of these samples, in this order, earns, by the plain rule."
    return voted([answers[place] for place in order], [scores[place] for place in order], [""] * len(order), metric)[0]


def test_the_fast_vote_is_the_plain_rule_in_every_order_and_of_every_length():
    rng = np.random.default_rng(0)
    for _ in range(12):
        answers = [str(word) for word in rng.choice(WORDS, 5)]
        scores, every = rng.random(5).round(2).tolist(), np.array(list(permutations(range(5))))
        fast = votes_by_prefix(group_numbers(alike(answers, "f1"), every), np.array(scores)[every])
        slow = [[slow_vote(answers, scores, "f1", order[:k]) for k in range(1, 6)] for order in every]
        assert np.allclose(fast, slow)


@pytest.mark.parametrize("metric", ["exact_match", "number", "choice", "math", "tests"])
def test_answers_in_one_group_are_judged_alike(metric):
    answers = ["7", "7 ", "(b) 7.", "7.0", "$7$", "8", "x = 7", "7 apples", ""]
    for group in vote_groups(answers, metric):
        if metric != "tests":
            assert len({score_text(answers[place], ["7"], metric).value for place in group}) == 1
        assert len({answer_key(answers[place], metric) for place in group}) == 1


def test_a_vote_curve_starts_at_the_mean_and_ends_at_the_vote_of_all():
    answers, scores = ["4", "5", "5", "6", "4", "5", ""], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    curve = vote_curve(answers, scores, "number")
    assert curve[0] == pytest.approx(fmean(scores)) and curve[-1] == scores[winners(answers, "number")[0]] == 0.0


def test_a_vote_curve_is_the_mean_over_all_orders():
    answers, scores = ["4", "5", "4", "6", "5", "4"], [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    exact = [fmean(slow_vote(answers, scores, "number", order) for order in permutations(range(6), k)) for k in range(1, 7)]
    assert vote_curve(answers, scores, "number") == pytest.approx(exact, abs=0.06)


def test_orders_are_seeded_and_each_sample_stands_equally_often_at_each_place():
    orders = sample_orders(7)
    counts = {int((column == sample).sum()) for column in orders.T for sample in range(7)}
    assert counts == {len(orders) // 7} and (sample_orders.__wrapped__(7) == orders).all()


def test_coverage_is_the_mean_best_over_all_sets():
    scores = np.random.default_rng(1).random(7).round(2).tolist()
    exact = [fmean(max(drawn) for drawn in combinations(scores, k)) for k in range(1, 8)]
    assert coverage_curve(scores) == pytest.approx(exact)


def made(task, sample, answer, tokens=10):
    "A dialogue of one message."
    said = Message("solver", "solver", f"<A>{answer}</A>", token_ids=[0] * tokens, prompt_tokens=3 * tokens)
    return Trajectory(task.id, "chain_of_thought", "none", sample, [said], answer, {"solver": ""})


def sampled(answers, gold="7"):
    "Tasks with the samples that are given, in columns."
    tasks = [Task(f"t{place}", "made_up", f"{place} ?", gold, metric="number") for place in range(len(answers))]
    dialogues = [made(task, sample, said, 10 + sample) for task, of_task in zip(tasks, answers) for sample, said in enumerate(of_task)]
    scores = [Score(float(dialogue.answer == gold), "ok" if dialogue.answer else "unparsed") for dialogue in dialogues]
    return tasks, dialogues, scores


def test_a_vote_of_one_is_an_evaluation_of_the_first_samples():
    tasks, dialogues, scores = sampled([["7", "8"], ["8", "7"], ["", "7"]])
    plain = evaluation_columns(tasks, dialogues[::2], scores[::2])
    assert vote_columns(sample_columns(tasks, dialogues, scores), 1) == plain


def test_a_vote_pays_for_all_its_samples_and_stands_in_tables():
    columns = vote_columns(sample_columns(*sampled([["7", "8", "7"], ["", "", ""]])), 3)
    check_columns(columns, "here")
    assert columns["tokens"] == [33, 33] and columns["turns"] == [3, 3] and columns["score"] == [1.0, 0.0]
    assert columns["status"] == {"ok": 1, "unparsed": 1}
    line = {"system": "paper_sc", "seed": 0, "results": {"evaluation": {"made_up": {"vote": columns}}}}
    assert report_rows([line])[0]["score"] == 0.5


def test_samples_come_in_the_order_of_their_numbers_whatever_order_they_ended_in():
    tasks, dialogues, scores = sampled([["7", "8"], ["9", "7"]])
    mixed = [3, 0, 2, 1]
    assert sample_columns(tasks, dialogues, scores) == sample_columns(
        tasks, [dialogues[place] for place in mixed], [scores[place] for place in mixed])


def test_two_experiments_of_one_seed_are_refused():
    line = {"system": "a", "seed": 0, "results": {"samples": {"made_up": sample_columns(*sampled([["7"]]))}}}
    with pytest.raises(OptimaError, match="two experiments of system 'a' with seed 0"):
        gather_samples([line, line])
