"Rewards: weights under rescaling, and exceptions that name their task."
import itertools
import math
import random

import pytest

from optima.agents.messages import Message, Trajectory
from optima.base.errors import OptimaError
from optima.rewards import terms as rewards
from optima.rewards.terms import (
    RewardWeights,
    TrajectoryScore,
    efficiency_reward,
    evaluate_rag_trajectory,
    format_reward,
    rank,
    task_reward,
)
from optima.sandbox import bubblewrap as isolation
from optima.tasks.metrics import Score
from optima.tasks.task import Task

CODE = Task("code/1", "b", "q", entry_point="f", prefix="def f(x):\n    return ", metric="tests", tests="assert f(2) == 10")
WORDS = Task("words/1", "b", "q", answer="Nile", aliases=("river Nile",))


def dialogue(answer="x + 8", task="code/1", lengths=(10, 5), valid=(True, True), sample=0):
    messages = [Message("proposer", "proposer", '{"answer": "a"}' if good else "no json", token_ids=[1] * length)
                for length, good in zip(lengths, valid)]
    return Trajectory(task, "debate", "none", sample, messages, answer, {})


def random_weights(rng):
    return RewardWeights(*(rng.choice((0.0, rng.random(), 10 ** rng.uniform(-8, 8))) for _ in range(3)))


def test_rescaled_weights_sum_to_one_and_keep_their_proportions():
    rng = random.Random(0)
    for _ in range(500):
        weights = random_weights(rng)
        given = (weights.task, weights.efficiency, weights.format)
        if not any(given):
            continue
        scaled = weights.normalised()
        got = (scaled.task, scaled.efficiency, scaled.format)
        assert math.isclose(sum(got), 1)
        for (a, b), (c, d) in itertools.combinations(zip(given, got), 2):
            assert math.isclose(a * d, b * c, rel_tol=1e-9)
        for before, after in zip(given, got):
            assert (before == 0) == (after == 0)


def test_rescaling_twice_or_by_any_factor_changes_nothing():
    rng = random.Random(1)
    for _ in range(300):
        weights, factor = random_weights(rng), 10 ** rng.uniform(-5, 5)
        given = (weights.task, weights.efficiency, weights.format)
        if not any(given):
            continue
        once, larger = weights.normalised(), RewardWeights(*(factor * weight for weight in given)).normalised()
        for name in ("task", "efficiency", "format"):
            assert math.isclose(getattr(once, name), getattr(once.normalised(), name), rel_tol=1e-12)
            assert math.isclose(getattr(once, name), getattr(larger, name), rel_tol=1e-9)


def test_huge_and_tiny_weights_survive():
    assert RewardWeights(1e308, 1e308, 1e308).normalised().task == pytest.approx(1 / 3)
    assert RewardWeights(5e-324, 0, 0).normalised() == RewardWeights(1, 0, 0)


@pytest.mark.parametrize("weights", [(0, 0, 0), (-1, 1, 1), (float("nan"), 1, 1), (float("inf"), 1, 1)])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(OptimaError, match="weights are"):
        RewardWeights(*weights).normalised()


def test_the_total_is_between_the_smallest_and_the_largest_term():
    rng = random.Random(2)
    for _ in range(300):
        weights = random_weights(rng)
        if not any((weights.task, weights.efficiency, weights.format)):
            continue
        terms = [rng.random() for _ in range(3)]
        total = weights.normalised().total(*terms)
        assert min(terms) - 1e-9 <= total <= max(terms) + 1e-9


def test_a_term_switched_off_does_not_matter():
    good, bad = dialogue(), dialogue("wrong(", valid=(False, False))
    rank({"code/1": CODE}, [good, bad], RewardWeights(task=0, format=0), 100)
    assert good.rewards["total"] == bad.rewards["total"] == pytest.approx(0.85)


def test_efficiency_falls_with_every_token_until_the_cap():
    values = [efficiency_reward(dialogue(lengths=(n,)), 50) for n in range(80)]
    assert values[0] == 1 and values[50:] == [0.0] * 30
    assert all(a > b for a, b in itertools.pairwise(values[:51]))


@pytest.mark.parametrize("cap", [0, -1])
def test_a_cap_below_one_is_refused(cap):
    with pytest.raises(OptimaError, match="max_acceptable_tokens"):
        efficiency_reward(dialogue(), cap)
    with pytest.raises(OptimaError, match="task 'code/1': max_acceptable_tokens"):
        rank({"code/1": CODE}, [dialogue()], max_tokens=cap)


def test_format_is_the_share_of_valid_messages():
    assert format_reward(dialogue(lengths=(1, 1, 1, 1), valid=(True, True, True, False))) == 0.75
    assert format_reward(dialogue(lengths=(), valid=())) == 0


@pytest.mark.parametrize("answer, wanted", [
    ("x + 8", Score(1.0, "passed")), ("x", Score(0.0, "failed")), ("x / 0", Score(0.0, "error")), ("", Score(0.0, "unparsed")),
    ("[0] * 10**9", Score(0.0, "memory")), ("bytearray(x)", Score(0.0, "unsupported"))])
def test_code_is_scored_by_its_tests(answer, wanted, monkeypatch):
    monkeypatch.setattr(isolation, "missing", lambda: "switched off")
    score = task_reward(CODE, dialogue(answer))
    assert score == wanted and score.level == ("monty" if answer else "")


def test_questions_are_scored_by_exact_match_or_by_f1():
    said = dialogue("the great river Nile", "words/1")
    assert task_reward(WORDS, said) == Score(0.0, "ok")
    assert task_reward(WORDS, said, "f1").value == pytest.approx(0.8)
    assert task_reward(WORDS, dialogue("The river Nile.", "words/1")) == Score(1.0, "ok")
    assert task_reward(WORDS, dialogue(" ", "words/1")).status == "unparsed"


def test_without_a_question_metric_the_task_s_own_judges():
    task = Task("words/2", "b", "q", answer="river Nile", metric="f1")
    assert task_reward(task, dialogue("the Nile", "words/2")).value == pytest.approx(2 / 3)
    assert task_reward(task, dialogue("the Nile", "words/2"), "exact_match").value == 0
    sums = Task("m/1", "b", "q", answer="1/2", metric="math")
    assert task_reward(sums, dialogue("0.5", "m/1"), "exact_match") == task_reward(sums, dialogue("0.5", "m/1")) == Score(1.0)


def test_the_question_metric_does_not_touch_code():
    assert task_reward(CODE, dialogue(), "f1") == Score(1.0, "passed")


@pytest.mark.parametrize("task, metric, says", [
    (Task("m/1", "b", "q", answer="rome", metric="math"), "exact_match", "no formula"),
    (WORDS, "bleu", "choose one of"),
    (Task("t/9", "b", "q", entry_point="f", metric="tests", tests="assert ("), "exact_match", "no Python"),
    (Task("t/9", "b", "q", entry_point="f g", metric="tests", tests="assert f(1)"), "exact_match", "entry_point")])
def test_user_errors_name_the_task_once(task, metric, says):
    said = dialogue("1", task.id)
    for score in (lambda: task_reward(task, said, metric), lambda: rank({task.id: task}, [said], question_metric=metric)):
        with pytest.raises(OptimaError, match=says) as caught:
            score()
        assert str(caught.value).count(task.id) == 1
    assert said.rewards is None


@pytest.mark.parametrize("broken", ["run_tests", "efficiency_reward", "format_reward"])
@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), KeyError("k"), MemoryError(), TimeoutError("slow"), AssertionError()])
def test_an_exception_in_any_reward_stops_with_the_tasks_id_and_is_never_a_zero(monkeypatch, broken, error):
    def fails(*args, **kwargs):
        raise error

    fine, said, later = dialogue(), dialogue("x + 9", "code/7"), dialogue(task="code/8")
    rank({"code/1": CODE}, [fine], max_tokens=100)
    monkeypatch.setattr(rewards, broken, fails)
    with pytest.raises(RuntimeError, match=f"task 'code/7' raised {type(error).__name__}") as caught:
        rank({"code/7": CODE, "code/8": CODE}, [said, later], max_tokens=100)
    assert caught.value.__cause__ is error
    assert said.rewards is None and later.rewards is None


def test_a_stop_by_the_user_is_not_dressed_up(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(rewards, "run_tests", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rank({"code/1": CODE}, [dialogue()])


def test_a_dialogue_without_its_task_is_an_error():
    with pytest.raises(OptimaError, match="'code/2'"):
        rank({"code/1": CODE}, [dialogue(task="code/2")])


def test_rank_fills_every_term_and_judges_equal_answers_once(monkeypatch):
    judged = []
    real = rewards.run_tests
    monkeypatch.setattr(rewards, "run_tests", lambda *args: (judged.append(args), real(*args))[1])
    samples = [dialogue(answer, sample=n) for n, answer in enumerate(["x + 8", "x + 8", "x", "x + 8"])]
    rank({"code/1": CODE}, samples, max_tokens=100)
    assert len(judged) == 2
    assert [sample.rewards["task"] for sample in samples] == [1, 1, 0, 1]
    assert list(samples[0].rewards) == ["task", "efficiency", "format", "total", "status", "level"]
    assert samples[0].rewards["total"] == pytest.approx(0.5 + 0.3 * 0.85 + 0.2)
    assert samples[2].rewards["status"] == "failed"


def test_ranking_twice_gives_the_same_bytes():
    from optima.base.files import canonical_json

    def ranked():
        samples = [dialogue(answer, sample=n, lengths=(n + 1, 3)) for n, answer in enumerate(["x + 8", "x", "2 * 5"])]
        rank({"code/1": CODE}, samples, RewardWeights(3, 1, 1), 70)
        return canonical_json([sample.to_dict() for sample in samples])

    assert ranked() == ranked()


def test_the_articles_total():
    assert TrajectoryScore(task_score=1, efficiency_score=0, format_score=0).total == 0.5
    assert TrajectoryScore(0.0, 1.0, 0.0).total == 0.3
    assert TrajectoryScore(0.0, 0.0, 1.0).total == 0.2
    assert TrajectoryScore(1.0, 1.0, 1.0).total == 1.0


def message(content="The Nile.", tokens=100, **more):
    return {"content": content, "token_count": tokens, **more}


def test_a_recorded_rag_dialogue():
    score = evaluate_rag_trajectory("q", [message("Look it up.", 2900), message()], "the Nile")
    assert score == TrajectoryScore(1.0, 0.8, 1.0)
    assert evaluate_rag_trajectory(query="q", trajectory=[message(tokens=20_000)], ground_truth="the Nile").efficiency_score == 0
    assert evaluate_rag_trajectory("q", [message(tokens=50)], "the Nile", max_tokens=100).efficiency_score == 0.5
    assert evaluate_rag_trajectory("q", [message("The Amazon.")], "the Nile").task_score == 0


def test_violations_lower_the_format_score():
    talk = [message('{"next": "writer"', role="supervisor"), message("", role="assistant"),
            message('{"answer": 3}', role="proposer"), message()]
    assert evaluate_rag_trajectory("q", talk, "the Nile").format_score == 0.25


def test_an_answer_in_json_is_read():
    assert evaluate_rag_trajectory("q", [message('{"answer": "the Nile"}', role="single")], "Nile").task_score == 1
    assert evaluate_rag_trajectory("q", [message('{"answer": ["x"]}')], "x").task_score == 1


@pytest.mark.parametrize("talk, says", [
    ([], "no messages"), ([{"content": "x"}], "token_count"), ([message(tokens=-1)], "token_count"),
    ([message(tokens=True)], "token_count"), ([message(tokens=1.5)], "token_count"), (["text"], "token_count"),
    ([{"token_count": 1}], "content"), ([message(None)], "content")])
def test_what_cannot_be_scored_raises_with_the_query(talk, says):
    with pytest.raises(OptimaError, match=f"which river.*{says}"):
        evaluate_rag_trajectory("which river", talk, "Nile")


def test_a_cap_of_zero_raises_for_rag_too():
    with pytest.raises(OptimaError, match="max_acceptable_tokens"):
        evaluate_rag_trajectory("q", [message()], "Nile", max_tokens=0)


def ranked(*weights, **fields):
    made = dialogue(**fields)
    rank({"code/1": CODE}, [made], RewardWeights(*weights), max_tokens=100)
    return made


def test_an_own_term_takes_its_share_and_leaves_the_rest_in_proportion():
    rng = random.Random(2)
    for _ in range(200):
        made, weight, value = ranked(rng.random(), rng.random(), rng.random()), rng.uniform(0.01, 0.99), rng.random()
        before = dict(made.rewards)
        rewards.add_term({"code/1": CODE}, [made], "own", lambda task, trajectory, value=value: value, weight)
        assert made.rewards["total"] == pytest.approx(before.pop("total") * (1 - weight) + weight * value)
        assert made.rewards["own"] == value and before.items() <= made.rewards.items()


@pytest.mark.parametrize("name, gives, weight, says", [
    ("own", 1.5, 0.5, "task 'code/1': the term 'own' gave 1.5"), ("own", -0.1, 0.5, "gave -0.1"), ("own", math.nan, 0.5, "gave nan"),
    ("own", 1, 0, "weight of 'own' is 0"), ("own", 1, 1, "weight of 'own' is 1"), ("task", 1, 0.5, "there is a term 'task' already"),
    ("total", 1, 0.5, "there is a term 'total' already"), ("status", 1, 0.5, "there is a term 'status' already")])
def test_an_own_term_is_refused(name, gives, weight, says):
    made = ranked()
    with pytest.raises(OptimaError, match=says):
        rewards.add_term({"code/1": CODE}, [made], name, lambda task, trajectory: gives, weight)
    assert made.rewards == ranked().rewards


def test_an_own_term_that_raises_names_its_task_and_an_unranked_dialogue_is_refused():
    with pytest.raises(RuntimeError, match="the reward of task 'code/1' raised KeyError"):
        rewards.add_term({"code/1": CODE}, [ranked()], "own", lambda task, trajectory: {}["x"], 0.5)
    with pytest.raises(OptimaError, match="task 'code/1': the dialogue has no reward yet"):
        rewards.add_term({"code/1": CODE}, [dialogue()], "own", lambda task, trajectory: 1, 0.5)
