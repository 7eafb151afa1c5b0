"What the doctor says of a preset: the card, the models, the room, and the one setting to turn down."
from dataclasses import replace
from pathlib import Path

import pytest

from optima.cli import fitness
from optima.cli.fitness import (
    CONTEXT,
    RESERVE,
    data_findings,
    disk_finding,
    lower,
    memory_findings,
    model_findings,
    preset_findings,
)
from optima.cli.main import main
from optima.cli.memory import SHAPES, generation_memory, training_memory
from optima.config.settings import load_settings

LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"
EIGHT = SHAPES[LLAMA]


@pytest.fixture
def settings():
    toy = load_settings("optima_debate", "toy", overrides={"base": LLAMA, "teacher": "", "mode": "self"})
    return replace(toy, dtype="auto", quantization="nf4_double", gradient_checkpointing=True, batch_size=16)


@pytest.fixture
def cut_off(monkeypatch):
    "A machine without a GPU, without the models, and without the hub."
    monkeypatch.setattr(fitness, "gpu", lambda: None)
    monkeypatch.setattr(fitness, "in_cache", lambda model: False)
    monkeypatch.setattr(fitness, "on_the_hub", lambda name, revision, kind: "the hub cannot be reached (ConnectError)")


def test_a_machine_that_is_cut_off_is_told_what_it_lacks(settings, cut_off, tmp_path):
    found = list(preset_findings(settings, tmp_path))
    assert [good for good, _ in found] == [False, False, True, True, True, True]
    told = " | ".join(text for _, text in found)
    assert "CUDA" in told and "--set base=PATH" in told and "training takes" in told and "hours at most" in told


def test_the_toy_presets_need_nothing(tmp_path):
    assert [good for good, _ in preset_findings(load_settings("optima_debate", "smoke"), tmp_path)] == [True]


@pytest.mark.parametrize("change, memory, advice", [
    ({"gradient_checkpointing": False}, 16, "gradient_checkpointing=true"),
    ({"quantization": "none"}, 18, "quantization=nf4_double"),
    ({}, 6, "base=MODEL"),
    ({"batch_size": 64}, 24, "batch_size=16"),
])  # fmt: skip
def test_the_one_setting_to_turn_down_is_named_and_helps(settings, change, memory, advice):
    asked = replace(settings, **change)
    bad = [text for good, text in memory_findings(asked, EIGHT, memory) if not good]
    assert bad and advice in bad[0]
    if "MODEL" not in advice:
        name, value = advice.split("=")
        mended = replace(asked, **{name: {"true": True}.get(value, int(value) if value.isdigit() else value)})
        room, which = memory - RESERVE, generation_memory if name == "batch_size" else training_memory
        size = CONTEXT if name == "batch_size" else fitness.MICRO_TOKENS
        needs = [sum(which(EIGHT, each, size).values()) for each in (asked, mended)]
        assert needs[0] > room >= needs[1]
    assert lower(asked, EIGHT, memory - RESERVE) in bad[0]


def test_models_are_looked_for_where_they_may_be(settings, cut_off, monkeypatch, tmp_path):
    assert not next(model_findings(settings))[0]
    monkeypatch.setattr(fitness, "in_cache", lambda model: True)
    assert next(model_findings(settings)) == (True, f"base: {LLAMA} is in the cache")
    assert next(model_findings(replace(settings, base=str(tmp_path))))[0]
    monkeypatch.setattr(fitness, "in_cache", lambda model: False)
    monkeypatch.setattr(fitness, "on_the_hub", lambda name, revision, kind: "")
    assert next(model_findings(settings)) == (True, f"base: {LLAMA}, to be downloaded")


def test_data_are_looked_for_in_a_folder_or_on_the_hub(settings, cut_off, monkeypatch, tmp_path):
    real = replace(settings, benchmarks=("hotpotqa", "humaneval", "toy_math"))
    found = list(data_findings(real))
    assert [good for good, _ in found] == [False] * 3  # HumanEval trains on MBPP
    assert all("--set data=DIR" in text and "cannot be reached" in text for _, text in found)
    assert [good for good, _ in data_findings(replace(real, data=str(Path(__file__).parents[1] / "fixtures")))] == [True, True]
    (bad,) = data_findings(replace(real, benchmarks=("hotpotqa",), data=str(tmp_path)))
    assert not bad[0] and "train.jsonl" in bad[1]
    monkeypatch.setattr(fitness, "on_the_hub", lambda name, revision, kind: "")
    assert all(good and "to be downloaded" in text for good, text in data_findings(real))


def test_room_is_counted_for_what_must_be_downloaded(settings, cut_off, tmp_path):
    assert ", 20 are needed" in disk_finding(settings, tmp_path)[1]
    assert ", 5 are needed" in disk_finding(replace(settings, base=str(tmp_path)), tmp_path)[1]


def test_a_model_of_unknown_sizes_is_a_finding_and_ends_nothing(settings, cut_off, tmp_path):
    found = list(preset_findings(replace(settings, base="mistralai/Nobody-Knows-9B"), tmp_path))
    told = " | ".join(text for _, text in found)
    assert [good for good, _ in found] == [False, False, True, False]
    assert "5 are needed, and what mistralai/Nobody-Knows-9B takes, which is not known" in told
    assert "unknown model 'mistralai/Nobody-Knows-9B'" in told and "config.json tells the sizes" in told


def test_a_teacher_behind_a_server_is_not_looked_for(settings, cut_off, tmp_path):
    taught = replace(settings, mode="teacher", teacher="gpt-4", teacher_url=("http://one/v1",))
    assert "gpt-4" not in " ".join(text for _, text in preset_findings(taught, tmp_path))


@pytest.mark.parametrize("base", ["toy", "toy_paper"])
def test_shipped_models_are_not_looked_for(cut_off, tmp_path, base):
    shipped = replace(load_settings("optima_debate", "smoke"), base=base)
    assert [good for good, _ in preset_findings(shipped, tmp_path)] == [True]
    (teacher, _) = preset_findings(replace(shipped, teacher=LLAMA), tmp_path)
    assert not teacher[0] and teacher[1].startswith(f"teacher: {LLAMA}")


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch):
    def refuse(*args, **kwargs): raise ConnectionError("no route")
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", refuse)
    assert fitness.on_the_hub(LLAMA, None, "model") == "the hub cannot be reached (ConnectionError)"


def test_the_command_counts_what_is_to_be_mended(cut_off, tmp_path, capsys):
    preset = tmp_path / "big.toml"
    preset.write_text(f'base = "{LLAMA}"\nprompts = "english"\nstrategies = ["none"]\ndtype = "auto"\n')
    assert main(["doctor", "--preset", str(preset), "--runs", str(tmp_path)]) == 1
    assert "BAD base:" in capsys.readouterr().out
    assert main(["doctor", "--preset", "tyo"]) == 2
    assert "toy" in capsys.readouterr().err
