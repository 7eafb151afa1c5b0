"The main command for real, on the smoke preset: it makes every page, shares its folder with nobody, survives kills."
import json
import random
import subprocess
import sys
import time

import forked
import pytest

from optima.base.files import canonical_json
from optima.cli import main as cli
from optima.config.artefacts import ARTEFACTS, ARTICLE
from optima.config.settings import load_settings
from optima.config.systems import ABLATIONS, MAIN
from optima.run.registry import read_registry

SHOWN = (*ARTICLE, "paper_main")  # the other pages of the paper are run on made-up lines
SYSTEMS = (*MAIN, *ABLATIONS, *ARTEFACTS["paper_main"]["systems"])
OPTIMA = [sys.executable, "-m", "optima.cli.main"]


def start(*arguments):
    return subprocess.Popen([*OPTIMA, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


SHARDS = {"shard_dialogues": 12}  # of the runs that are killed: a debate's dialogues are written into two files, and one of them may be there already


def truth(line):
    "What has to be byte-identical however often a run was interrupted."
    return canonical_json({"settings": line["settings"], "results": line["results"]})


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    "One `optima reproduce` of the article's pages and the paper's main one, and a second one that came while it ran."
    runs = tmp_path_factory.mktemp("smoke") / "runs"
    first = start("reproduce", "--only", ",".join(SHOWN), "--preset", "smoke", "--runs", runs, "--workers", 2)
    lock = runs / "locks" / "folder.lock"
    while not (lock.is_file() and lock.read_text().strip()) and first.poll() is None:
        time.sleep(0.1)
    second = start("reproduce", "--preset", "smoke", "--runs", runs)
    told = second.communicate(timeout=120)
    out, err = first.communicate(timeout=900)
    return {"runs": runs, "code": first.returncode, "out": out, "err": err,
            "second": (second.returncode, *told)}


def test_reproduce_makes_every_line_every_table_and_the_report(smoke):
    assert smoke["code"] == 0, smoke["err"][-3000:]
    lines = read_registry(smoke["runs"])
    assert sorted(line["system"] for line in lines) == sorted(SYSTEMS)
    assert all(name.removeprefix("paper_") in smoke["out"] for name in [*SYSTEMS, *SHOWN])
    page = (smoke["runs"] / "report.html").read_text(encoding="utf-8")
    assert "optima_debate" in page and 'src="http' not in page
    notebooks = {path.name for path in (smoke["runs"] / "notebooks").glob("*.ipynb")}
    assert notebooks == {f"{system}-smoke-0.ipynb" for system in SYSTEMS} | {one["notebook"] for one in map(ARTEFACTS.get, SHOWN)}


def test_no_job_waited_for_a_stage_that_another_made(smoke):
    told = {path.name: path.read_text(encoding="utf-8") for path in (smoke["runs"] / "notebooks").glob("*.ipynb")}
    assert [name for name, text in told.items() if "which is making" in text] == []


def test_a_second_command_in_the_same_folder_stops_with_one_line(smoke):
    code, out, err = smoke["second"]
    assert code == 2 and out == ""
    assert len(err.strip().splitlines()) == 1 and "in use by process" in err


def test_every_trained_line_trained_for_real(smoke):
    trained = [line for line in read_registry(smoke["runs"])
               if line["settings"]["iterations"] and line["system"] in (*MAIN, *ABLATIONS)]
    assert {line["system"] for line in trained} >= {"optima_debate", "ceiling_debate", *ABLATIONS}
    for line in trained:
        settings, results = line["settings"], line["results"]
        assert sorted(results["iterations"]) == sorted(settings["benchmarks"])
        for benchmark, iterations in results["iterations"].items():
            assert len(iterations) == settings["iterations"] == len(results["iteration_evaluation"][benchmark])
            samples = 1 if settings["mode"] == "demonstrations" else len(settings["strategies"])
            tasks = settings["tasks_per_iteration"]
            for iteration in iterations:
                assert iteration["generated"] == samples * tasks and iteration["selected"] == tasks / 2
                assert iteration["label_tokens"] > 0 and len(iteration["loss"]) == settings["training_steps"]


def test_the_reward_and_its_control_share_the_generate_stage(smoke):
    stages = {line["system"]: line["settings"]["stages"] for line in read_registry(smoke["runs"])}
    for paradigm in ("debate", "multi_step"):
        trained, control = stages[f"optima_{paradigm}"], stages[f"random_selection_{paradigm}"]
        assert trained[:2] == control[:2] and trained[2] != control[2]
    assert set(stages["full"]) <= set(stages["optima_multi_step"])
    assert set(stages["random_selection"]) <= set(stages["random_selection_multi_step"])


def test_a_line_says_what_froze_its_settings(smoke):
    assert len({line["machine"]["frozen"] for line in read_registry(smoke["runs"])}) == 1


@pytest.mark.parametrize("name, systems", [("main_results", MAIN), ("paper_main", (
    "cot", "sc", "untrained", "autoform", "tuned_single", "random_selection", "isft", "idpo", "isft_dpo"))])
def test_the_report_command_reads_what_reproduce_wrote(smoke, name, systems):
    done = start("report", name, "--json", "--runs", smoke["runs"])
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0 and str(smoke["runs"]) in err
    rows = json.loads(out)
    wanted = {"system", "benchmark", "decoding", "score", "score_ci", "tokens", "tokens_ci", "prompt_tokens",
              "tokens_per_message", "turns", "valid_share", "relative_cost", "against", "difference", "difference_ci", "n",
              "seeds", "seed_values", "statuses"}  # fmt: skip
    assert all(wanted <= set(row) for row in rows)
    assert {row["system"] for row in rows if row["benchmark"] == "mean"} >= set(systems)


SMALL = ("--preset", "smoke", "--set", *(f"{name}={value}" for name, value in SHARDS.items()))


def kill_at_work(runs, rng, system):
    "Start the run, let it write something new, and kill it a random moment later."
    before = len(list(runs.rglob("*")))
    run = forked.start(runs.parent / "said", cli.main, ["run", system, "--runs", str(runs), *SMALL])
    while len(list(runs.rglob("*"))) <= before and run.is_alive():
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.8))
    assert run.is_alive(), "the run ended before it could be killed: " + (runs.parent / "said").read_text(encoding="utf-8")
    forked.kill(run)


@pytest.mark.parametrize("system", ["optima_debate", "paper_idpo"])
def test_a_run_killed_three_times_leaves_the_same_line(tmp_path, system):
    runs, rng = tmp_path / "runs", random.Random()
    for _ in range(3):
        kill_at_work(runs, rng, system)
    run = start("run", system, "--runs", runs, *SMALL)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err[-3000:]
    undisturbed = forked.start(tmp_path / "said", cli.main, ["run", system, "--runs", str(tmp_path / "whole"), *SMALL])
    undisturbed.join()  # of the same files, for whoever decodes beside a dialogue may change its last decimals
    (again,), (whole,) = read_registry(runs), read_registry(tmp_path / "whole")
    assert truth(again) == truth(whole) and again["key"] == load_settings(system, "smoke", overrides=SHARDS).key
