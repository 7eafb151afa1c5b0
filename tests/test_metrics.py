"Metrics: the official rules at their edges."
import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from optima.errors import OptimaError
from optima.metrics import (
    Score,
    exact_match,
    faithfulness,
    math_score,
    normalise_answer,
    score_text,
    text_metric,
    token_f1,
)

WORDS = ("the", "Nile", "nile.", "river", "yes", "no", "a", "A.M.", "1,889", "noanswer", "", "Nile")


def some_texts(count=300, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(5))) for _ in range(count)]


def test_normalising_twice_changes_nothing():
    for text in some_texts():
        once = normalise_answer(text)
        assert normalise_answer(once) == once and once == once.strip().lower()


@pytest.mark.parametrize("text, wanted", [
    ("An apple", "apple"), ("the the", ""), ("theatre", "theatre"), ("Ananas", "ananas"), ("it's", "its"), ("1,889", "1889"),
    ("  two\n\twords ", "two words"), ("a-b", "ab"), ("É", "é"), ("U.S.A.", "usa"), ("\u201cquoted\u201d", "\u201cquoted\u201d")])
def test_normalised_texts(text, wanted):
    assert normalise_answer(text) == wanted


@pytest.mark.parametrize("prediction, gold, wanted", [
    ("yes", "no", 0), ("yes", "yes", 1), ("Yes.", "yes", 1), ("yes it is", "yes", 0), ("yes", "yes it is", 0), ("no", "none", 0),
    ("noanswer", "", 0), ("", "", 0), ("the", "a", 0), ("a b c", "b c d", 0.8), ("b b", "b", 2 / 3), ("x", "y", 0),
    ("Barack Obama", "Obama", 2 / 3)])
def test_f1_by_the_official_rule(prediction, gold, wanted):
    assert token_f1(prediction, gold) == pytest.approx(wanted)


def test_f1_is_symmetric_bounded_and_one_where_exact_match_is():
    for said, gold in itertools.pairwise(some_texts()):
        assert token_f1(said, gold) == token_f1(gold, said)
        assert 0 <= token_f1(said, gold) <= 1
        if exact_match(said, gold) and normalise_answer(said):
            assert token_f1(said, gold) == 1
        if token_f1(said, gold) == 1:
            assert sorted(normalise_answer(said).split()) == sorted(normalise_answer(gold).split())


def test_the_best_alias_counts_whatever_the_order():
    golds = ["United States of America", "USA", "the States"]
    for order in itertools.permutations(golds):
        assert score_text("usa", order) == Score(1.0)
        assert score_text("America", order, "f1").value == 0.4


def test_nothing_said_is_unparsed_and_no_gold_is_an_error():
    assert score_text("", ["x"]) == score_text(" \n", ["x"], "f1") == Score(0.0, "unparsed")
    assert score_text("the", ["x"]) == Score(0.0, "ok")
    with pytest.raises(OptimaError, match="no gold answer"):
        score_text("x", [])


def test_an_unknown_metric_is_named_with_those_there_are():
    with pytest.raises(OptimaError, match="choose one of: exact_match"):
        text_metric("exact_macth")


@pytest.mark.parametrize("said, value, status", [
    ("9", 1, "ok"), (" 9 ", 1, "ok"), ("4 + 5", 1, "ok"), ("18/2", 1, "ok"), ("9.0", 1, "ok"), ("x = 9", 1, "ok"),
    ("8", 0, "ok"), ("rome", 0, "unparsed"), ("return", 0, "unparsed"), (" ", 0, "unparsed")])
def test_numbers_are_compared_as_mathematics(said, value, status):
    assert score_text(said, ["9"], "math") == Score(value, status)


def test_a_formula_that_takes_too_long_is_a_timeout():
    assert math_score("9 ** 9 ** 9", "9", seconds=1) == Score(0.0, "timeout")


def test_mathematics_is_judged_in_other_threads_too():
    with ThreadPoolExecutor(1) as pool:
        assert [pool.submit(math_score, said, "9").result().value for said in ("4 + 5", "8")] == [1, 0]


def test_the_best_alias_counts_and_a_gold_answer_without_formula_is_an_error():
    assert score_text("0.5", ["7", "1/2"], "math") == Score(1.0)
    with pytest.raises(OptimaError, match="holds no formula"):
        score_text("1", ["rome"], "math")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_score_outside_its_range_is_refused(value):
    with pytest.raises(ValueError):
        Score(value)


@pytest.mark.parametrize("answer, reference, wanted", [
    ("", "x", 0), ("...", "x", 0), ("Paris", "", 0), ("Paris", "Paris is in France", 1), ("Paris, Texas", "Paris is in France", 0.5),
    ("it is", "it is so", 1), ("The Who", "the who", 1), ("東京です", "東京は首都です", 1), ("大阪", "東京は首都です", 0),
    ("snake_case", "snake case", 0), ("wrong wrong right", "right", 1 / 3)])
def test_faithfulness(answer, reference, wanted):
    assert faithfulness(answer, reference) == pytest.approx(wanted)


def test_faithfulness_is_one_to_itself():
    for text in some_texts():
        assert faithfulness(text, text) == (1.0 if normalise_answer(text) else 0.0)
