"Thirty steps of either training give the figures that they gave before; a line changed in a mask, the labels or DPO's sign does not."
import json

import pytest
import torch

from optima.config.models import model_digest
from tools.golden import BASE, BIAS, CHANGES, FOLDER, RUNS, TOLERANCE, apart, changed

pytestmark = [pytest.mark.usefixtures("one_thread"),
              pytest.mark.skipif(torch.cuda.is_available(), reason="the golden runs are float32 on a CPU")]


def stored(name):
    "A golden run, while the base is the one that it was made with."
    line = json.loads((FOLDER / f"{name}.json").read_text())
    assert line["base"] == model_digest(BASE), "another toy-base-0: make the golden runs again (python tools/golden.py)"
    return line


@pytest.mark.parametrize("name", RUNS)
def test_training_does_what_it_did(name):
    worst, bias = apart(RUNS[name](), stored(name)["figures"])
    assert worst < TOLERANCE and abs(bias) < BIAS, (worst, bias)


@pytest.mark.parametrize("change", CHANGES)
def test_one_line_changed_is_ten_times_the_tolerance(change):
    line = stored(CHANGES[change][0])
    worst, bias = changed(change, line["figures"])
    assert worst > 10 * TOLERANCE and abs(bias) > 10 * BIAS
    assert {"worst": worst, "mean": bias} == pytest.approx(line["changed"][change], rel=0.02), "the table in train/06_dpo shows others"
