"Metrics: the official rules at their edges."
import itertools
import multiprocessing
import random
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from optima.base.errors import OptimaError
from optima.evaluate.voting import winners
from optima.rewards.terms import naming_task
from optima.sandbox.process import Helper
from optima.tasks.metrics import (
    Score,
    answer_key,
    choice_match,
    exact_match,
    faithfulness,
    math_score,
    normalise_answer,
    number_match,
    numbers,
    pass_at_k,
    score_text,
    subword_f1,
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


@pytest.mark.parametrize("said, gold, value, status", [
    ("3", r"3\sqrt{2}", 0, "ok"), (r"\sqrt{18}", r"3\sqrt{2}", 1, "ok"), ("0.5", r"\frac{1}{2}", 1, "ok"), ("1/2", "0.5", 1, "ok"),
    (r"$\boxed{\frac{1}{\frac{4}{2}}}$", r"\frac12", 1, "ok"), (r"(3, \pi/2)", r"\left(3,\frac{\pi}{2}\right)", 1, "ok"),
    ("3", "2x+3", 0, "ok"), ("3+2x", "2x+3", 1, "ok"), ("9x", "9", 0, "ok"), ("2,1", "1, 2", 1, "ok"), ("1,2", "1,2,3", 0, "ok"),
    ("evelyn", r"\text{Evelyn}", 1, "ok"), ("Paris", r"\text{Rome}", 0, "ok"), ("1200", r"\$1{,}200", 1, "ok"), ("90", r"90^\circ", 1, "ok"),
    ("The answer is 0.5", r"\frac{1}{2}", 1, "ok"), (r"[2, \infty)", r"[2,\infty)", 1, "ok"), (r"(2, \infty)", r"[2,\infty)", 0, "ok"),
    (r"\frac{}{", "9", 0, "unparsed"), ("5", r"x \% y @", 0, "unsupported"), ("($" * 50, "9", 0, "unparsed"), ("1/0", "9", 0, "ok"), ("\ud800", "9", 0, "unparsed")])
def test_formulas_in_latex(said, gold, value, status):
    assert math_score(said, gold) == Score(value, status)


@pytest.mark.parametrize("said, gold, value, status", [
    ("+3", "3", 1, "ok"), ("3", "+3", 1, "ok"), ("\u22123", "-3", 1, "ok"), ("x = \u22123", "-3", 1, "ok"), ("x = +3", "3", 1, "ok"), ("+3", "-3", 0, "ok"),
    ("(+3, \u22122)", "(3, -2)", 1, "ok"), ("5 \u2212 2", "3", 1, "ok"), ("5 + 3", "8", 1, "ok"), ("2516", "2516_8", 1, "ok"), ("1358", "2516_8", 0, "ok")])
def test_signs_and_bases_in_formulas(said, gold, value, status):
    assert math_score(said, gold) == Score(value, status)


def test_signs_make_no_other_answer_for_a_vote():
    assert answer_key("\u22123", "math") == answer_key("-3", "math") != answer_key("3", "math") == answer_key("+3", "math")
    assert answer_key("5 + 3", "math") == "5+3" and answer_key("0^{+}", "math") == "0^{+}"


def test_the_gold_formula_comes_first():
    assert math_score(r"(-\infty, 3)", "x < 3").value == 1
    assert math_score("x < 3", r"(-\infty, 3)").value == 0


def test_a_formula_that_takes_too_long_is_a_timeout_and_the_next_is_judged():
    started = time.perf_counter()
    assert math_score("9 ** 9 ** 9", "9", seconds=1) == Score(0.0, "timeout")
    assert time.perf_counter() - started < 30 and math_score("4 + 5", "9") == Score(1.0)


HARD = ["4 + 5", "8", "9 ** 9 ** 9", "18/2", "9 ** 9 ** 9", "rome"]
JUDGED = [Score(1.0), Score(0.0), Score(0.0, "timeout"), Score(1.0), Score(0.0, "timeout"), Score(0.0, "unparsed")]


def judge(said): return math_score(said, "9", seconds=1)


def test_mathematics_is_judged_in_threads_with_the_same_clock():
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(judge, HARD)) == JUDGED


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_mathematics_is_judged_in_processes_with_the_same_clock(method):
    assert judge("4 + 5").value == 1  # the parent has a helper already
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert list(pool.map(judge, HARD)) == JUDGED
    assert judge("18/2").value == 1


def test_a_fork_while_another_thread_waits_for_its_score():
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(judge, "9 ** 9 ** 9")
        time.sleep(0.2)
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as processes:
            assert processes.submit(judge, "4 + 5").result(timeout=60).value == 1
        assert slow.result(timeout=60).status == "timeout"


def runs(pid: int) -> bool:
    "Whether a process is there and not only waited for."
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_helper_outlives_its_process():
    code = ("from optima.tasks.metrics import _helper, math_score; math_score('4 + 5', '9')\n"
            "print(_helper().process.pid, flush=True); import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    deadline = time.monotonic() + 20
    while runs(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(int(done.stdout))


def test_a_helper_tells_time_memory_errors_and_its_own_end_apart():
    dumps = Helper("json", "dumps")
    assert dumps.ask(1, obj=[1, "é"]) == '[1, "\\u00e9"]'
    with pytest.raises(RuntimeError, match="TypeError: .*unexpected"):
        dumps.ask(1, obj=1, nonsense=2)
    assert dumps.ask(1, obj=2) == "2"
    with pytest.raises(MemoryError):
        Helper("numpy", "ones", memory=2**30).ask(5, shape=2**31)
    with pytest.raises(RuntimeError, match="ended with code 3"):
        Helper("os", "_exit").ask(1, status=3)
    with pytest.raises(RuntimeError, match="did not start"):
        Helper("no_such_module", "x").ask(1)


def test_an_answer_that_takes_too_much_memory_says_so(monkeypatch):
    class Full:
        def ask(self, seconds, **question): raise MemoryError
    monkeypatch.setattr("optima.tasks.metrics._helper", Full)
    assert math_score("8", "9") == Score(0.0, "memory")


def test_a_metric_that_raises_names_the_task(monkeypatch):
    class Broken:
        def ask(self, seconds, **question): raise RuntimeError("the helper process ended with code -11")
    monkeypatch.setattr("optima.tasks.metrics._helper", Broken)
    with pytest.raises(RuntimeError, match="the reward of task 'math/test/4' raised RuntimeError: the helper"), naming_task("math/test/4"):
        math_score("8", "9")


def test_the_best_alias_counts_and_a_gold_answer_without_formula_is_an_error():
    assert score_text("0.5", ["7", "1/2"], "math") == Score(1.0)
    for said, gold in (("1", "rome"), ("rome", "rome"), ("-", "-")):
        with pytest.raises(OptimaError, match="holds no formula"):
            score_text(said, [gold], "math")


@pytest.mark.parametrize("said, gold, value, status", [
    ("1,200", "1200", 1, "ok"), ("$1,200.00", "1,200", 1, "ok"), ("1200.0", "1200", 1, "ok"), ("\u20ac 15", "15", 1, "ok"),
    ("50%", "50", 1, "ok"), ("50 %", "50%", 1, "ok"), ("-7", "\u22127", 1, "ok"), ("-$5", "-5", 1, "ok"), ("5", "-5", 0, "ok"),
    ("42 apples", "42", 1, "ok"), (r"\boxed{42}", "42", 1, "ok"), ("12\u202f480", "12480", 1, "ok"), (".5", "0.50", 1, "ok"),
    ("1e3", "1000", 1, "ok"), ("1.5", "15", 0, "ok"), ("42.", "42", 1, "ok"), ("8 or 9", "9", 0, "unparsed"), ("1,23", "123", 0, "unparsed"),
    ("nine", "9", 0, "unparsed"), ("", "9", 0, "unparsed"), ("10-5", "5", 0, "unparsed"), ("1 200", "1200", 0, "unparsed")])
def test_numbers_are_compared_as_numbers(said, gold, value, status):
    assert number_match(said, gold) == score_text(said, [gold], "number") == Score(value, status)


def test_numbers_of_a_text_and_a_gold_answer_that_is_none():
    assert numbers("3 boats, 1,204 people, -2.50 and x2") == [Decimal(3), Decimal(1204), Decimal("-2.5")]
    for gold in ("nine", "8 or 9"):
        with pytest.raises(OptimaError, match="is not one number"):
            number_match("9", gold)


HUGE = "1e99999999999999999999"  # more than a Decimal holds


@pytest.mark.parametrize("said", ["1e1000000", "-1e1000000", HUGE, f"-{HUGE}", "1e-99999999999999999999", "1e999999999999999999", "9" * 20_000, f"-{'9' * 30}.5",
                                  "1e" + "9" * 20_000])
def test_a_number_of_any_size_is_compared_and_counted(said):
    started = time.perf_counter()
    assert number_match(said, "5") == Score(0.0) and number_match(f"{said} or 5", "5") == number_match(f"5, {said}", "5") == Score(0.0, "unparsed")
    assert number_match("1e-99999999999999999999", "0") == Score(0.0)
    assert winners(["5", said, "5.0"], "number") == [0, 2] and answer_key(said, "number")
    assert time.perf_counter() - started < 2


def test_a_negative_number_keeps_all_its_digits():
    digits = "12345678901234567890123456789012345"
    assert numbers(f"-{digits}") == [Decimal(f"-{digits}")]
    assert number_match(f"-{digits}", f"-{digits[:-1]}6") == Score(0.0)
    with pytest.raises(OptimaError, match="is not one number"):
        number_match("5", HUGE)


def test_exact_match_knows_nothing_of_numbers():
    assert exact_match("1200.0", "1200") == 0 and exact_match("$1,200", "1200") == 1  # punctuation goes, as SQuAD has it


@pytest.mark.parametrize("said, gold, wanted", [
    ("the Nile", "The Nile", 1), ("B. the Nile", "the Nile", 1), ("(b) the Nile.", "the Nile", 1), ("2) 6", "6", 1), ("2", "6", 0), ("B", "the Nile", 0),
    ("6", "6", 1), ("+5", "-5", 0), ("1.5", "15", 0), ("It burns", "It burns.", 1), ("the  crust\n", "the crust", 1), ("a", "a", 1), ("", "a", 0)])
def test_choices_are_compared_by_their_text(said, gold, wanted):
    assert choice_match(said, gold) == wanted


def test_the_authors_f1_depends_on_the_tokenizer_and_is_no_default():
    assert subword_f1("madrid", "adrid", list) == 1 and token_f1("madrid", "adrid") == 0
    assert subword_f1("The Nile", "Nile", str.split) == pytest.approx(2 / 3) and token_f1("The Nile", "Nile") == 1
    assert subword_f1("yes it is", "yes", str.split) == 0.5 and subword_f1("", "x", list) == subword_f1("m=", "x", list) == 0
    with pytest.raises(OptimaError, match="unknown metric"):
        text_metric("subword_f1")


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_pass(n):
    for passed in range(n + 1):
        tries = [True] * passed + [False] * (n - passed)
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(tries, k))
            assert pass_at_k(n, passed, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


@pytest.mark.parametrize("n, c, k, words", [(5, 2, 6, "make at least 6"), (0, 0, 1, "make at least 1"), (5, 2, 0, "let k be 1 or more"),
                                            (5, 6, 1, "expected 0 to 5"), (5, -1, 1, "expected 0 to 5")])
def test_pass_at_k_makes_nothing_up(n, c, k, words):
    with pytest.raises(OptimaError, match=words):
        pass_at_k(n, c, k)


def test_pass_at_k_stays_exact_where_floats_would_not():
    assert pass_at_k(10_000, 1, 1) == 1e-4 and pass_at_k(1000, 1, 1000) == 1.0


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
