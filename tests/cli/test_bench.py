"The benchmark on tiny sizes: its keys, and that every way holds the same dialogues."
from dataclasses import replace

import pytest

from optima.cli import bench
from optima.config.models import toy_base
from optima.config.settings import load_settings
from optima.engines.loading import load_model
from optima.engines.local import LocalEngine


@pytest.fixture(scope="module")
def settings():
    return replace(load_settings("untrained_debate", "smoke", 0), batch_size=6, max_message_tokens=12)


@pytest.fixture(scope="module")
def found(settings):
    return bench.measure(settings, bench.Sizes(cores=1, dialogues=8, alone=3, steps=2, batch_dialogues=2))


def test_generate_says_what_the_engine_says(settings):
    model = load_model(toy_base(0))
    for temperature in (0.0, 1.0):
        chosen, dialogues = replace(settings, temperature=temperature), bench.debates(settings, 5)
        ours = bench.talk(chosen, LocalEngine(*model, batch_size=3), dialogues, 3)
        theirs = bench.talk(chosen, bench.GenerateEngine(*model, 3), dialogues, 3)
        assert bench.agreement(ours, theirs) == 1


def test_every_way_holds_the_same_dialogues(found):
    assert found["ways"]["engine"]["dialogues"] == found["ways"]["lockstep"]["dialogues"] == 8
    assert found["ways"]["one_by_one"]["dialogues"] == 3
    assert found["same_dialogues"] == {"lockstep": 1, "one_by_one": 1}
    same = found["tokens_of_the_same_dialogues"]
    assert same["engine"] == same["one_by_one"] > 0


def test_ratios_come_from_what_was_measured(found):
    ways = found["ways"]
    ratio = ways["engine"]["dialogues_per_second"] / ways["lockstep"]["dialogues_per_second"]
    assert found["vs_lockstep"] == pytest.approx(ratio, abs=0.01)
    tokens = {name: way["dialogues_per_second"] * way["tokens_per_dialogue"] for name, way in ways.items()}
    assert found["vs_one_by_one"] == pytest.approx(tokens["engine"] / tokens["one_by_one"], rel=0.01, abs=0.01)
    reuse = found["prefill_tokens_per_dialogue"]
    assert 0 < reuse["with_reuse"] <= reuse["without_reuse"]
    assert sum(found["shares"].values()) == pytest.approx(1, abs=0.02) and min(found["shares"].values()) >= 0
    assert set(found["floors"]) == set(found["aims"]) <= set(found)
    assert found["what"]["batch_size"] == 6 and "commit" in found["machine"]


def test_our_step_and_the_bare_loop_learn_the_same(found):
    assert found["sft"]["ours_loss"] == pytest.approx(found["sft"]["bare_loss"], rel=1e-4)
    assert found["sft_vs_bare_loop"] == pytest.approx(found["sft"]["ours_seconds"] / found["sft"]["bare_seconds"], abs=0.05)


def test_the_table_names_the_ratios(found):
    text = bench.table(found)
    for key in ("vs_one_by_one", "vs_lockstep", "sft_vs_bare_loop"):
        assert f"{found[key]:.2f}" in text
    assert "other programs were running" in bench.table(found | {"load_before": 9.0})
