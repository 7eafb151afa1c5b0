"Columns, intervals and verdicts: known cases exactly, coverage by simulation, refusals by their words."
import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic

from optima.agents.formats import parse
from optima.base.errors import OptimaError
from optima.config.systems import default_pairs, system_order
from optima.evaluate.filler import PATTERNS, phrase_shares
from optima.evaluate.statistics import (
    KEYS,
    bootstrap,
    check_pairs,
    compare,
    comparisons,
    evaluation_columns,
    fill,
    first_tasks,
    gather,
    interval,
    report_rows,
    resampling_weights,
    verdict,
)
from optima.toy.lookups import TOY_FAMILIES
from optima.toy.talk import Habit, attempt, judgement, solution

ASKED = ["system", "benchmark", "decoding", "score", "score_ci", "tokens", "tokens_ci", "prompt_tokens",
         "tokens_per_message", "turns", "valid_share", "relative_cost", "against", "difference", "difference_ci", "n",
         "seeds", "seed_values", "statuses"]


def cell(scores, tokens=None, tasks=None):
    "A cell from a table of seeds x tasks."
    scores = np.atleast_2d(np.asarray(scores, float))
    tokens = scores * 0 + 10 if tokens is None else np.atleast_2d(tokens)
    names = tasks or [f"t{i}" for i in range(scores.shape[1])]
    return fill({seed: {"task": names, "score": row, "tokens": spent, "prompt_tokens": spent, "turns": row * 0 + 2,
                        "valid": row * 0 + 1, "status": {"ok": len(row)}}
                 for seed, (row, spent) in enumerate(zip(scores, tokens))})


def one_line(system, seed, scores, tokens, benchmark="b", decoding="greedy"):
    "A registry line from scores and tokens."
    size = len(scores)
    columns = {"task": [f"t{i}" for i in range(size)], "score": scores, "tokens": tokens, "prompt_tokens": [9] * size,
               "turns": [2] * size, "valid": [1] * size, "status": {"ok": size}}
    return {"key": f"{system}{seed}", "system": system, "seed": seed,
            "results": {"evaluation": {benchmark: {decoding: columns}}}}


def dialogue(task, valid):
    return SimpleNamespace(task=task, tokens=12, prompt_tokens=40, turns=len(valid),
                           messages=[SimpleNamespace(valid=each, content="x thank you .", tokens=4) for each in valid])


def test_columns_count_per_task():
    tasks = [SimpleNamespace(id="a"), SimpleNamespace(id="b")]
    scores = [SimpleNamespace(value=1, status="passed", level="monty"), SimpleNamespace(value=0, status="failed", level="bubblewrap")]
    columns = evaluation_columns(tasks, [dialogue("a", [True, False]), dialogue("b", [True])], scores)
    assert columns == {"task": ["a", "b"], "score": [1.0, 0.0], "tokens": [12, 12], "prompt_tokens": [40, 40],
                       "turns": [2, 1], "valid": [1, 1], "filler": [0, 0], "acknowledgement": [6, 3],
                       "status": {"failed": 1, "passed": 1}, "level": {"bubblewrap": 1, "monty": 1}}
    json.dumps(columns)


def test_columns_refuse_other_order_and_length():
    score = SimpleNamespace(value=1, status="passed", level="monty")
    with pytest.raises(ValueError, match="'b' stands where 'a'"):
        evaluation_columns([SimpleNamespace(id="a")], [dialogue("b", [True])], [score])
    with pytest.raises(ValueError, match="1 tasks, 1 trajectories, 0 scores"):
        evaluation_columns([SimpleNamespace(id="a")], [dialogue("a", [True])], [])


def test_weights_are_shares_and_repeatable():
    weights = resampling_weights(7, 200, 1)
    assert weights.shape == (200, 7) and np.allclose(weights.sum(axis=1), 1)
    resampling_weights.cache_clear()
    assert np.array_equal(weights, resampling_weights(7, 200, 1))
    assert not np.array_equal(weights, resampling_weights(7, 200, 2))


def test_bootstrap_is_the_plain_loop():
    table = np.random.default_rng(0).normal(size=(3, 11))
    seeds, tasks = (np.rint(resampling_weights(*size, stream) * size[0]).astype(int)
                    for size, stream in (((3, 40), 0), ((11, 40), 1)))
    plain = [np.repeat(np.repeat(table, by_seed, axis=0), by_task, axis=1).mean() for by_seed, by_task in zip(seeds, tasks)]
    assert np.allclose(bootstrap([table], 40), plain)


def test_known_intervals():
    assert interval(bootstrap([np.full((2, 9), 0.25)])) == pytest.approx((0.25, 0.25))
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    seeds_only = bootstrap([np.array([[0.0] * 5, [1.0] * 5])])
    assert set(np.round(seeds_only, 9)) == {0.0, 0.5, 1.0}


def test_one_seed_resamples_tasks_only():
    scores = np.random.default_rng(0).integers(0, 2, (1, 400)).astype(float)
    low, high = interval(bootstrap([scores]))
    expected = 2 * 1.96 * scores.std() / 20
    assert high - low == pytest.approx(expected, rel=0.1)


def test_benchmarks_count_alike_whatever_their_size():
    rows = report_rows([{"key": "k", "system": "single", "seed": 0, "results": {"evaluation": {
        name: {"greedy": one_line("single", 0, scores, [10] * len(scores))["results"]["evaluation"]["b"]["greedy"]}
        for name, scores in (("big", [1.0] * 90), ("small", [0.0] * 10))}}}])
    assert [(row["benchmark"], row["score"], row["n"]) for row in rows] == [
        ("big", 1.0, 90), ("small", 0.0, 10), ("mean", 0.5, 100)]


@pytest.mark.parametrize(("seeds", "spread"), [(1, (0, 0.35, 0.35)), (3, (0.02, 0.35, 0.35)), (5, (0.05, 0.3, 0.3))])
def test_coverage(seeds, spread):
    rng, hits, repeats = np.random.default_rng(3), 0, 400
    for _ in range(repeats):
        table = sum(rng.normal(0, size, shape) for size, shape in zip(spread, [(seeds, 1), (1, 50), (seeds, 50)]))
        low, high = interval(bootstrap([table], 400))
        hits += low <= 0 <= high
    assert 0.91 <= hits / repeats <= 0.995


def test_two_benchmarks_are_resampled_apart():
    rng, hits, repeats = np.random.default_rng(5), 0, 400
    for _ in range(repeats):
        samples = bootstrap([rng.normal(0, 1, (1, 40)), rng.normal(0, 1, (1, 40))], 400)
        low, high = interval(samples)
        hits += low <= 0 <= high
    assert 0.91 <= hits / repeats <= 0.98


def test_pairs_narrow_the_interval():
    rng = np.random.default_rng(1)
    difficulty = rng.normal(0, 1, 80)
    ours, theirs = difficulty + rng.normal(0.3, 0.2, (3, 80)), difficulty + rng.normal(0, 0.2, (3, 80))
    paired = np.ptp(interval(bootstrap([ours - theirs])))
    assert paired < 0.5 * np.ptp(interval(bootstrap([ours - theirs[:, rng.permutation(80)]])))


def test_pairs_go_by_task_id_not_by_place():
    names = [f"t{i}" for i in range(6)]
    scores = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    turned = compare([cell(scores, tasks=names)], [cell(scores[::-1], tasks=names[::-1])])
    assert turned["difference"] == 0 and turned["difference_ci"] == [0, 0]


def test_verdict_needs_interval_and_seeds():
    assert verdict((0.01, 0.2), [0.1, 0.1]) == "higher"
    assert verdict((0.01, 0.2), [0.3, -0.1]) == "no clear difference"
    assert verdict((-0.2, -0.01), [-0.1, -0.2]) == "lower"
    assert verdict((-0.2, 0.0), [-0.1, -0.2]) == "no clear difference"
    assert verdict((0.0, 0.0), [0.0]) == "no clear difference"


def test_compare_exactly():
    found = compare([cell([[1, 1, 1, 1], [1, 1, 1, 1]], [[5.0] * 4] * 2)], [cell([[0, 0, 0, 0], [0, 0, 0, 0]])])
    assert (found["difference"], found["difference_ci"], found["verdict"]) == (1.0, [1.0, 1.0], "higher")
    assert (found["tokens_ratio"], found["tokens_ratio_ci"], found["tokens_verdict"]) == (0.5, [0.5, 0.5], "lower")
    assert found["tokens_difference"] == -5.0 and found["seed_differences"] == [1.0, 1.0]


def test_compare_with_itself_says_nothing():
    found = compare([cell([1, 0, 1])], [cell([1, 0, 1])])
    assert (found["difference"], found["verdict"], found["tokens_verdict"]) == (0.0, *["no clear difference"] * 2)


def test_rows_have_the_asked_keys_and_order():
    rows = report_rows(synthetic.lines())
    assert set(ASKED) | {"tokens_ratio", "tokens_ratio_ci", "verdict", "levels"} == set(KEYS) and list(KEYS)[:19] == ASKED
    assert all(tuple(row) == KEYS for row in rows)
    greedy = [row["system"] for row in rows if row["decoding"] == "greedy" and row["benchmark"] == "mean"]
    assert greedy == list(synthetic.SYSTEMS)
    assert [row["decoding"] for row in rows] == sorted(row["decoding"] for row in rows)


def test_row_values_exactly():
    rows = report_rows([one_line("single", seed, [1.0, 0.0], [4, 6]) for seed in (0, 1)]
                       + [one_line("optima_debate", seed, [1.0, float(seed)], [20, 30]) for seed in (0, 1)]
                       + [one_line("untrained_debate", seed, [0.0, 0.0], [50, 50]) for seed in (0, 1)])
    row = next(row for row in rows if row["system"] == "optima_debate" and row["benchmark"] == "b")
    assert row["score"] == 0.75 and row["seed_values"] == [0.5, 1.0] and row["seeds"] == 2 and row["n"] == 2
    assert row["tokens"] == 25 and row["relative_cost"] == 5.0 and row["prompt_tokens"] == 9
    assert row["tokens_per_message"] == 12.5 and row["turns"] == 2 and row["valid_share"] == 0.5
    assert row["against"] == "untrained_debate" and row["difference"] == 0.75 and row["tokens_ratio"] == 0.5
    assert row["statuses"] == {"ok": 4}
    assert [row["against"] for row in rows if row["system"] != "optima_debate"] == [None] * 4


def test_no_single_no_relative_cost_and_no_untrained_no_difference():
    row = report_rows([one_line("optima_debate", 0, [1.0], [5])])[0]
    assert row["relative_cost"] is None and row["against"] is None and row["verdict"] is None


def test_rows_are_the_same_bytes_in_any_order_and_alone():
    lines = synthetic.lines()
    rows = report_rows(lines)
    assert json.dumps(rows) == json.dumps(report_rows(lines[::-1]))
    alone = report_rows([line for line in lines if line["system"] == "terse_debate"])
    kept = [row for row in rows if row["system"] == "terse_debate"]
    assert [row | {"relative_cost": None} for row in kept] == alone


def test_against_by_name_and_by_table():
    lines = synthetic.lines(1)
    assert {row["against"] for row in report_rows(lines, against="single")} == {"single", None}
    rows = report_rows(lines, against={"optima_debate": "random_selection_debate"})
    assert {row["system"] for row in rows if row["against"]} == {"optima_debate"}


def test_default_comparisons():
    pairs = default_pairs(synthetic.SYSTEMS)
    controls = ("teacher_debate", "untrained_debate", "terse_debate", "random_selection_debate")
    assert pairs[:4] == [("optima_debate", other) for other in controls]
    assert pairs[4] == ("optima_multi_step", "teacher_debate") and len(pairs) == 8
    assert len(comparisons(synthetic.lines())) == 8 * 2 * 2


def test_ablations_are_set_beside_full_and_full_beside_its_control():
    pairs = default_pairs(synthetic.ABLATIONS)
    control = ("full", "random_selection")
    assert pairs[0] == ("without_efficiency", "full") and control in pairs
    assert {other for _, other in pairs if (_, other) != control} == {"full"} and len(pairs) == 9
    assert default_pairs(["without_task", "random_selection"]) == []


def test_systems_stand_in_the_articles_order():
    names = sorted([*synthetic.SYSTEMS, *synthetic.ABLATIONS, "mine"], key=system_order)
    assert names == [*synthetic.SYSTEMS, *synthetic.ABLATIONS, "mine"]


def test_a_line_of_four_benchmarks_and_one_of_two():
    lines = synthetic.lines(2, synthetic.FOUR) + synthetic.lines(2, synthetic.FOUR, systems=tuple(synthetic.ABLATIONS))
    rows = {(row["system"], row["benchmark"]): row for row in report_rows(lines) if row["decoding"] == "greedy"}
    assert rows["full", "mean"]["n"] == 120 and rows["optima_debate", "mean"]["n"] == 240
    cost = rows["full", "mean"]["tokens"] / np.mean([rows["single", name]["tokens"] for name in synthetic.TWO])
    assert rows["full", "mean"]["relative_cost"] == pytest.approx(cost, abs=1e-5)
    assert rows["optima_debate", "mean"]["against"] == "teacher_debate"


@pytest.mark.parametrize(("text", "acknowledged", "filler"), [
    ('{"answer":" return x "}', 0, 0),
    ("Thank you for the clear plan! The answer is 3.5 metres.", 6, 0),
    ("Hello team, I am happy to help. The result is 4.", 0, 7),
    ("You asked me to add 3.5 and 2. That is 5.5", 0, 8),
    ("you say 7 , it looks right to me .", 6, 4),
    ("LET ME KNOW if it helps\nnext: 4", 0, 6),
    ("", 0, 0),
])
def test_phrases_in_toy_words_and_in_english(text, acknowledged, filler):
    shares, size = phrase_shares(text), max(len(text.split()), 1)
    assert (shares["acknowledgement"] * size, shares["filler"] * size) == pytest.approx((acknowledged, filler))


def test_first_tasks():
    whole = synthetic.columns(0.5, 20, 0, 9)
    assert first_tasks(whole, 9) is whole and first_tasks(whole, 99) is whole
    cut = first_tasks(whole, 4)
    assert {len(values) for values in cut.values()} == {4} and cut["task"] == whole["task"][:4] and "status" not in cut
    assert fill({0: cut}).arrays["tokens"].tolist() == [whole["tokens"][:4]]


def test_columns_of_before_have_no_phrases():
    old = {name: values for name, values in synthetic.columns(0.5, 20, 0, 9).items() if name not in ("filler", "acknowledgement")}
    found = fill({0: synthetic.columns(0.5, 20, 0, 9), 1: old})
    assert not found.has("filler") and found.has("tokens") and not cell([1.0]).has("acknowledgement")


def test_refusals_say_what_to_do():
    with pytest.raises(OptimaError, match="different tasks .*t2"):
        check_pairs(cell([1, 0, 1]), cell([1, 0]), ("a", "b"))
    lines = [one_line("optima_debate", seed, [1.0], [5]) for seed in (0, 1)] + [one_line("terse_debate", 0, [1.0], [5])]
    with pytest.raises(OptimaError, match="different seeds"):
        comparisons(lines, [("optima_debate", "terse_debate")])
    with pytest.raises(OptimaError, match="choose one of: terse_debate"):
        comparisons(lines, [("optima_debate", "terse_debat")])
    with pytest.raises(OptimaError, match="unknown system 'optima'"):
        comparisons(lines, [("optima", "terse_debate")])
    with pytest.raises(OptimaError, match="different benchmarks"):
        comparisons([one_line("a", 0, [1.0], [1]), one_line("c", 0, [1.0], [1], "other")], [("a", "c")])


def test_two_experiments_of_one_system_and_seed_are_refused():
    with pytest.raises(OptimaError, match="two experiments of system 'a' with seed 0"):
        gather([one_line("a", 0, [1.0], [1])] * 2)


def test_damaged_columns_are_refused():
    line = one_line("a", 0, [1.0, 0.0], [1, 2])
    line["results"]["evaluation"]["b"]["greedy"]["tokens"] = [1]
    with pytest.raises(OptimaError, match="damaged evaluation of a, seed 0, b, greedy"):
        gather([line])
    line["results"]["evaluation"]["b"]["greedy"] |= {"tokens": [1, 2], "task": ["t0", "t0"]}
    with pytest.raises(OptimaError, match="a task stands in it twice"):
        gather([line])


def test_seeds_with_other_tasks_leave_holes():
    columns = one_line("a", 0, [1.0, 0.0], [1, 2])["results"]["evaluation"]["b"]["greedy"]
    found = fill({0: columns, 1: columns | {"task": ["t1", "t2"]}})
    assert found.tasks == ("t0", "t1", "t2") and found.mean("score") == 0.5
    samples = bootstrap([found.arrays["score"]])  # a resample that leaves a seed without tasks does not count
    assert np.isnan(samples).any() and np.isfinite(interval(samples)).all()


def test_no_lines_no_rows():
    assert report_rows([]) == [] and comparisons([]) == []


@pytest.mark.parametrize("family", TOY_FAMILIES, ids=lambda family: family.name)
def test_all_that_a_chatty_agent_of_the_toy_world_adds_is_on_the_list(family):
    rng, chatty, plain = random.Random(0), Habit("chatty", "careless", False), Habit("terse", "careless", False)
    for _ in range(200):
        problem = family.draw(rng)
        working, answer = attempt(rng, family, problem, "careful")
        for said in (solution(rng, family, problem, chatty, "", answer), judgement(rng, family, problem, chatty, answer)[0]):
            words = re.sub("|".join(pattern.pattern for pattern in PATTERNS.values()), "", parse(said).get("say", ""), flags=re.IGNORECASE)
            assert not words.strip()
        kept = f'{family.question(problem)} {working} {family.check(problem)} {solution(rng, family, problem, plain, "", answer)}'
        assert set(phrase_shares(kept).values()) == {0}
