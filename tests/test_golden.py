"Thirty steps of either training give the figures that they gave before; a line changed in the mask or in DPO's sign does not."
import json

import pytest
import torch

from optima import dpo
from optima.settings import model_digest
from optima.training import Example
from tools.golden import BASE, BIAS, FOLDER, RUNS, TOLERANCE, apart

pytestmark = [pytest.mark.usefixtures("one_thread"),
              pytest.mark.skipif(torch.cuda.is_available(), reason="the golden runs are float32 on a CPU")]


def stored(name):
    "The golden figures, while the base is the one that they were made with."
    line = json.loads((FOLDER / f"{name}.json").read_text())
    assert line["base"] == model_digest(BASE), "another toy-base-0: make the golden runs again (python tools/golden.py)"
    return line["figures"]


@pytest.mark.parametrize("name", RUNS)
def test_training_does_what_it_did(name):
    worst, bias = apart(RUNS[name](), stored(name))
    assert worst < TOLERANCE and abs(bias) < BIAS, (worst, bias)


def late(example):
    "The labels with the mask one token late."
    return [token if own else -100 for token, own in zip(example.input_ids, [0, *example.mask[:-1]], strict=True)]


def flip(monkeypatch):
    "The sign in DPO's sigmoid turned round."
    right = torch.nn.functional.logsigmoid
    monkeypatch.setattr(torch.nn.functional, "logsigmoid", lambda margin: right(-margin))


CHANGES = {
    "sft, mask": ("sft", lambda patch: patch.setattr(Example, "labels", property(late))),
    "dpo, mask": ("dpo", lambda patch: patch.setattr(dpo, "opening", lambda one: one.input_ids[:one.mask.index(1) + 1])),
    "dpo, sign": ("dpo", flip),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_line_changed_is_ten_times_the_tolerance(change, monkeypatch):
    name, make = CHANGES[change]
    make(monkeypatch)
    worst, bias = apart(RUNS[name](), stored(name))
    print(f"{change}: worst {worst:.3g}, mean {bias:+.3g}")
    assert worst > 10 * TOLERANCE and abs(bias) > 10 * BIAS
