"What `optima report` finds in a registry."
import pytest

from optima.cli.reproduce import PUBLISHED
from optima.cli.show import lines_to_show, unchanged
from optima.config.artefacts import ARTEFACTS
from optima.run.registry import read_registry

LINES = [line for line in read_registry(PUBLISHED) if line["preset"] == "toy"]


@pytest.mark.parametrize("name", ARTEFACTS)
def test_every_published_table_is_found_from_a_fresh_clone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no run folder is
    shown = lines_to_show(name)
    assert {(line["system"], line["seed"]) for line in shown} == {(system, seed) for system in ARTEFACTS[name]["systems"] for seed in range(3)}


def test_a_setting_that_is_newer_than_a_line_leaves_it_unchanged():
    line = next(line for line in LINES if line["system"] == "optima_debate")
    older = line | {"settings": {name: value for name, value in line["settings"].items() if name != "gradient_checkpointing"}}
    assert unchanged(line, "toy") and unchanged(older, "toy")


def test_a_setting_that_was_set_by_hand_is_told_from_the_presets():
    line = next(line for line in LINES if line["system"] == "optima_debate")
    assert not unchanged(line | {"settings": line["settings"] | {"training_steps": 17}, "key": "0" * 16}, "toy")
