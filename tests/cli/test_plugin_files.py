"A user's file reaches every command, its content enters the keys, and an error in it names file and line."
import os

import pytest

from optima.agents.paradigms import PARADIGMS
from optima.base.plugins import VARIABLE
from optima.cli import main as cli
from optima.config.settings import load_settings
from optima.config.systems import METHODS, SYSTEMS
from optima.run.registry import read_registry
from optima.tasks.task import BENCHMARKS

MINE = '''
from optima.agents.paradigms import cast_agent, paradigm
from optima.config.systems import METHODS, Method, System, add
from optima.tasks.task import Task, benchmark

@benchmark("doubles", "number")
def doubles(split, n, seed):
    return [Task(f"{split}-{i}", "doubles", f"{split}: {i} and {i} ?", str(2 * i), metric="number") for i in range(n)]

@paradigm("alone", lambda task, prompts, limits: [cast_agent("solver", "single", prompts)])
def alone(task, team, limits):
    return (yield team[0].solve(task))

METHODS.add("twice", Method(("imitate", "imitate")))
add(System("mine", changes={"paradigm": "alone", "iterations": 0, "benchmarks": ["doubles"]}, tables=("main_results",)))
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    "A plug-in file, forgotten after the test."
    for kind in (PARADIGMS, METHODS, SYSTEMS, BENCHMARKS):
        kind.names()
        for table in ("things", "sources"):
            monkeypatch.setattr(kind, table, dict(getattr(kind, table)))
    monkeypatch.setenv(VARIABLE, "")
    path = tmp_path / "mine.py"
    path.write_text(f"# {tmp_path}\n{MINE}")  # a file of one content is loaded once
    return path


def test_a_benchmark_a_paradigm_a_method_and_a_row_of_ones_own_run_and_are_reported(mine, tmp_path, capsys):
    runs = str(tmp_path / "runs")
    assert cli.main(["run", "mine", "--plugins", str(mine), "--preset", "smoke", "--runs", runs]) == 0
    (line,) = read_registry(runs)
    assert list(line["results"]["evaluation"]) == ["doubles"] and line["settings"]["paradigm"] == "alone"
    assert os.environ[VARIABLE] == str(mine) and METHODS.get("twice").step(5) == "imitate"
    capsys.readouterr()
    assert cli.main(["report", "main_results", "--plugins", str(mine), "--runs", runs, "--preset", "smoke"]) == 0
    assert "mine" in capsys.readouterr().out


def test_another_content_is_another_experiment(mine):
    from optima.base.plugins import load_file

    load_file(mine)
    before = load_settings("mine", "smoke").key
    mine.write_text(mine.read_text() + "\n")
    load_file(mine)
    assert load_settings("mine", "smoke").key != before


def test_an_error_in_a_plugin_is_one_line_and_nothing_is_written(mine, tmp_path, capsys):
    mine.write_text("x = 1\ny = x / 0\n")
    assert cli.main(["run", "single", "--plugins", str(mine), "--preset", "smoke", "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "mine.py, line 2: ZeroDivisionError" in said and not (tmp_path / "runs").exists()
