"Training cost and pay-back against known answers, and beside the lines of a whole registry."
import json

import numpy as np
import pytest
from synthetic import lines, stage

from optima.report.costs import (
    cost_rows,
    payback,
    payback_row,
    queries_to_pay,
    total_figure,
    training_cost,
    training_stages,
    training_table,
)


def test_training_is_what_made_the_teams_each_stage_once():
    line = lines(1, ("toy_hotpotqa", "toy_math"), systems=("optima_debate",))[0]
    line["cost"]["stages"] += [line["cost"]["stages"][0], stage("evaluate_iteration", ["x"], tokens=7, seconds=1.0),
                               stage("sample", ["y"], tokens=7, seconds=1.0), stage("demonstrate", ["z"], tokens=7, seconds=1.0)]
    assert [entry["stage"] for entry in training_stages(line)] == ["generate", "train"] * 2
    assert training_cost(line) == {"generated": 64000, "trained": 9000, "tokens": 73000, "flops": None, "seconds": 42.0}


def test_preferences_are_trained_on_and_their_trees_generated():
    line = lines(1, systems=("untrained_debate",))[0]
    line["cost"]["stages"] += [stage("grow", ["a"], tokens=500, flops=9, seconds=1.0), stage("pair", ["b"], pairs=12),
                               stage("prefer", ["c"], tokens=70, flops=5, seconds=2.0)]
    assert training_cost(line) == {"generated": 500, "trained": 70, "tokens": 570, "flops": 14, "seconds": 3.0}


def test_an_untrained_team_cost_nothing():
    assert training_cost(lines(1, systems=("untrained_debate",))[0]) == {
        "generated": 0, "trained": 0, "tokens": 0, "flops": 0, "seconds": 0}


@pytest.mark.parametrize(("cost", "saving", "queries"), [(100, 10, 10), (100, 0, np.inf), (100, -1, np.inf), (-5, 10, 0), (-5, -1, np.inf)])
def test_questions_that_pay_for_training(cost, saving, queries):
    assert queries_to_pay(cost, saving) == queries


def test_a_sure_saving_has_an_interval_of_one_point_and_its_seeds_costs_widen_it():
    sure = [np.full((3, 20), 5.0), np.full((3, 30), 15.0)]
    assert payback(np.full(3, 100.0), sure) == (10.0, [10.0, 10.0])
    value, (low, high) = payback(np.array([50.0, 100.0, 150.0]), sure)
    assert value == 10.0 and 5 <= low < 7 and 13 < high <= 15


def test_an_interval_ends_at_never_where_resamples_save_nothing():
    value, (low, high) = payback(np.full(3, 100.0), [np.random.default_rng(0).normal(0.5, 10, (3, 40))])
    assert value > low > 0 and high is None


def test_against_another_trained_system_only_the_difference_is_paid_for():
    both = lines(3, systems=("random_selection_debate", "optima_debate"))
    row = payback_row(both, "optima_debate", "random_selection_debate")
    assert row["saved_tokens"] > 90 and row["queries_tokens"] == 0.0


def with_operations(line, parameters=1000, share=0.25):
    "The line with evaluation stages that know what they computed."
    found = []
    for decoding, columns in line["results"]["evaluation"]["toy_humaneval"].items():
        spent, read = sum(columns["tokens"]), sum(columns["prompt_tokens"])
        found.append(stage("evaluate", [line["key"], decoding], tokens=spent, decoded_tokens=spent, prefill_tokens=read * share,
                           prefill_tokens_without_reuse=read, flops=2 * parameters * (spent + read * share)))
    for entry in line["cost"]["stages"]: entry["flops"] = 6 * parameters * entry["tokens"]
    return line | {"cost": {"stages": [each for each in line["cost"]["stages"] if each["stage"] != "evaluate"] + found}}


def test_operations_of_a_question_are_those_that_its_evaluation_measured():
    made = [with_operations(line, share=share) for line, share in zip(lines(2, systems=("optima_debate",)), (0.25, 0.75))]
    measured = [next(entry["flops"] / 60 for entry in line["cost"]["stages"] if entry["stage"] == "evaluate") for line in made]
    rows = cost_rows(made, "optima_debate")
    assert rows[0]["flops"] == pytest.approx(np.mean(measured)) and rows[0]["trained"]["flops"] == 6000 * 73000


def test_what_is_not_known_is_a_dash_and_rows_are_json():
    rows = cost_rows(lines(2, systems=("untrained_debate", "optima_debate")), "untrained_debate")
    assert json.loads(json.dumps(rows, allow_nan=False)) and rows[1]["payback"]["queries_flops"] is None
    text = str(training_table(rows, "synthetic numbers"))
    assert "nan" not in text and "never" not in text and total_figure(rows, "flops") is None and total_figure(rows) is not None


def test_a_team_that_saves_nothing_never_pays_for_its_training():
    rows = cost_rows(lines(2, systems=("single", "optima_debate")), "single")
    assert rows[1]["payback"]["queries_tokens"] is None and "never [never, never]" in str(training_table(rows))
