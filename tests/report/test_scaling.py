"Curves against samples and tokens: known answers, pairs, and what is refused."
import json
from xml.etree import ElementTree

import numpy as np
import pytest
import synthetic

from optima.base.errors import OptimaError
from optima.evaluate.voting import gather_samples, vote_columns
from optima.report.published import published
from optima.report.scaling import (
    equal_rows,
    equal_table,
    reach_row,
    reach_words,
    scaling_figure,
    scaling_rows,
    scaling_table,
    score_at,
    tokens_for,
)

TWO = ("toy_gsm8k", "toy_arc")


@pytest.fixture(scope="module")
def lines():
    "Two systems that sampled on two benchmarks under three seeds."
    return [synthetic.sampled_line(system, seed, TWO) for system in ("untrained_debate", "optima_debate") for seed in range(3)]


@pytest.fixture(scope="module")
def curves(lines):
    "Their curves."
    return gather_samples(lines)


@pytest.fixture(scope="module")
def rows(curves):
    "The points of their curves."
    return scaling_rows(curves)


def changed(line, **values):
    "The line under another name, with some columns replaced by functions of themselves."
    made = {name: samples | {key: change(samples[key]) for key, change in values.items()} for name, samples in line["results"]["samples"].items()}
    return line | {"system": "changed", "results": {"samples": made}}


def halved(tokens): return [[value / 2 for value in of_task] for of_task in tokens]


def test_the_curve_starts_at_the_mean_score_and_ends_at_the_vote_of_all(lines, rows):
    found = {row["samples"]: row for row in rows if (row["system"], row["benchmark"], row["measure"]) == ("optima_debate", "mean", "vote")}
    samples = [line["results"]["samples"][name] for line in lines if line["system"] == "optima_debate" for name in TWO]
    assert found[1]["score"] == pytest.approx(np.mean([each["scores"] for each in samples]), abs=1e-6)
    assert found[8]["tokens"] == pytest.approx(np.mean([np.sum(each["tokens"], axis=1) for each in samples]))
    all_vote = np.mean([vote_columns(each, 8)["score"] for each in samples])
    assert found[8]["score"] == pytest.approx(all_vote, abs=0.02)  # ties fall by the order of the samples


def test_coverage_never_falls_and_is_never_below_the_vote(rows):
    by_key = {(row["system"], row["benchmark"], row["measure"], row["samples"]): row["score"] for row in rows}
    for (system, benchmark, measure, count), score in by_key.items():
        if measure == "coverage":
            assert score >= by_key[system, benchmark, "vote", count] - 1e-9
            assert score >= by_key.get((system, benchmark, measure, count - 1), 0) - 1e-9


def test_half_the_tokens_for_the_same_answers_is_half_the_tokens_in_every_resample(lines):
    same = [line for line in lines if line["system"] == "optima_debate"]
    row = reach_row(gather_samples(same + [changed(line, tokens=halved) for line in same]), "changed", "optima_debate")
    assert row["tokens_ratio"] <= 0.5 and row["tokens_ratio_ci"][1] == 0.5 and "fewer" in reach_words(row)


def test_a_system_at_the_tokens_of_its_twin_differs_by_nothing(lines):
    same = [line for line in lines if line["system"] == "optima_debate"]
    found = equal_rows(gather_samples(same + [changed(line) for line in same]), "changed", "optima_debate", "toy_arc")
    assert [row["samples"] for row in found] == [1, 2, 4, 8]
    assert all(row["difference"] == 0 and row["difference_ci"] == [0, 0] for row in found)


def test_a_budget_and_a_score_are_inverse_on_a_rising_curve():
    rng = np.random.default_rng(0)
    tokens, scores = np.cumsum(rng.random(9)), np.cumsum(rng.random(9))
    for wanted in np.linspace(scores[0], scores[-1], 20):
        assert score_at(tokens, scores, tokens_for(tokens, scores, wanted)) == pytest.approx(wanted)


def test_what_is_out_of_reach_is_none_and_rows_are_json(curves):
    back = reach_row(curves, "untrained_debate", "optima_debate")
    assert back["tokens"] is None and "does not reach" in reach_words(back)
    equal = equal_rows(curves, "untrained_debate", "optima_debate")
    assert equal[0]["score"] is None and equal[-1]["score"] is not None
    assert json.loads(json.dumps([back, *equal], allow_nan=False)) and "nan" not in str(equal_table(equal))


def test_pairs_of_other_seeds_tasks_or_benchmarks_are_refused(lines):
    one = [synthetic.sampled_line("single", seed, TWO) for seed in range(2)]
    with pytest.raises(OptimaError, match="different seeds"):
        reach_row(gather_samples(lines + one), "optima_debate", "single")
    few = [synthetic.sampled_line("single", seed, TWO, tasks=30) for seed in range(3)]
    with pytest.raises(OptimaError, match="different tasks"):
        equal_rows(gather_samples(lines + few), "optima_debate", "single")
    other = [synthetic.sampled_line("single", seed) for seed in range(3)]
    with pytest.raises(OptimaError, match="sampled on different benchmarks"):
        reach_row(gather_samples(lines + other), "optima_debate", "single")


def test_the_figure_is_an_svg_and_the_table_names_its_model(rows):
    figure = scaling_figure(rows, model="synthetic numbers")
    assert ElementTree.fromstring(figure.svg).tag.endswith("svg") and "with 8" in figure.alt
    table = scaling_table(rows, "toy_arc", "synthetic numbers")
    assert table.caption.startswith("Ours, synthetic numbers, toy_arc") and len(table.rows) == 8


def test_the_published_curves_say_that_they_are_read_off_a_plot():
    found = published("paper", "figure3")
    assert len(found) == 12 and all("not exact" in row["note"] for row in found)
