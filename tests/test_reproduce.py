"The main command for real, on the smoke preset: it makes the table, it shares its folder with nobody, it survives kills."
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from optima.launcher import ARTEFACTS
from optima.registry import read_registry
from optima.store import canonical

OPTIMA = [sys.executable, "-m", "optima.cli"]


def start(*arguments):
    return subprocess.Popen([*OPTIMA, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def truth(line):
    "What has to be byte-identical however often a run was interrupted."
    return canonical({"key": line["key"], "settings": line["settings"], "results": line["results"]})


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    "One `optima reproduce --preset smoke`, and a second one that came while it ran."
    runs = tmp_path_factory.mktemp("smoke") / "runs"
    first = start("reproduce", "--preset", "smoke", "--runs", runs)
    lock = runs / "locks" / "folder.lock"
    while not (lock.is_file() and lock.read_text().strip()) and first.poll() is None:
        time.sleep(0.1)
    second = start("reproduce", "--preset", "smoke", "--runs", runs)
    told = second.communicate(timeout=120)
    out, err = first.communicate(timeout=900)
    return {"runs": runs, "code": first.returncode, "out": out, "err": err,
            "second": (second.returncode, *told)}


def test_reproduce_makes_every_line_the_table_and_the_report(smoke):
    assert smoke["code"] == 0, smoke["err"][-3000:]
    lines = read_registry(smoke["runs"])
    assert {line["system"] for line in lines} == set(ARTEFACTS["main_results"]["systems"])
    for system in ARTEFACTS["main_results"]["systems"]:
        assert system in smoke["out"]
    page = (smoke["runs"] / "report.html").read_text(encoding="utf-8")
    assert "optima_debate" in page and 'src="http' not in page
    assert list((smoke["runs"] / "notebooks").glob("*.ipynb"))


def test_a_second_command_in_the_same_folder_stops_with_one_line(smoke):
    code, out, err = smoke["second"]
    assert code == 2 and out == ""
    assert len(err.strip().splitlines()) == 1 and "in use by process" in err


def test_every_trained_line_trained_for_real(smoke):
    trained = [line for line in read_registry(smoke["runs"]) if line["settings"]["iterations"]]
    assert len(trained) == 4
    for line in trained:
        (iteration,) = line["results"]["iterations"]
        assert iteration["generated"] == 32 and iteration["label_tokens"] > 0 and len(iteration["loss"]) == 2


def test_the_reward_and_its_control_share_the_generate_stage(smoke):
    lines = {line["system"]: line["settings"]["stages"] for line in read_registry(smoke["runs"])}
    assert lines["optima_debate"][:2] == lines["random_selection"][:2]
    assert lines["optima_debate"][2] != lines["random_selection"][2]


def test_the_report_command_reads_what_reproduce_wrote(smoke):
    done = start("report", "main_results", "--json", "--runs", smoke["runs"])
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0 and str(smoke["runs"]) in err
    rows = json.loads(out)
    wanted = {"system", "benchmark", "decoding", "score", "score_ci", "tokens", "tokens_ci", "prompt_tokens",
              "tokens_per_message", "turns", "valid_share", "relative_cost", "against", "difference", "difference_ci", "n",
              "seeds", "seed_values", "statuses"}  # fmt: skip
    assert rows and all(wanted <= set(row) for row in rows)


def kill_at_work(runs, rng):
    "Start the run, let it write something new, and kill it a random moment later."
    before = len(list(runs.rglob("*")))
    run = start("run", "optima_debate", "--preset", "smoke", "--runs", runs)
    while len(list(runs.rglob("*"))) <= before and run.poll() is None:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.8))
    assert run.poll() is None, "the run ended before it could be killed"
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()


def test_a_run_killed_three_times_leaves_the_same_line(smoke, tmp_path):
    runs, rng = tmp_path / "runs", random.Random()
    for _ in range(3):
        kill_at_work(runs, rng)
    run = start("run", "optima_debate", "--preset", "smoke", "--runs", runs)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err[-3000:]
    (again,) = read_registry(runs)
    whole = next(line for line in read_registry(smoke["runs"]) if line["system"] == "optima_debate")
    assert truth(again) == truth(whole)
