"The command line: every command, and every error in one line with its exit code."
import errno
import gzip
import hashlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from synthetic import evaluation_key, write_dialogues
from synthetic import line as made_up

from optima.agents.messages import read_jsonl
from optima.base.files import make_folder, write_json
from optima.cli import doctor
from optima.cli import main as cli
from optima.cli import publish as publishing
from optima.cli import reproduce as launcher
from optima.cli import show as reading
from optima.config.artefacts import ARTEFACTS, ARTICLE
from optima.config.settings import load_settings
from optima.config.systems import ABLATIONS, MAIN, PAPER_ROWS, system_of
from optima.run.registry import add_line, read_registry
from optima.run.stages import Store
from optima.sandbox import bubblewrap as isolation

ARTICLE_SYSTEMS = (*MAIN, *ABLATIONS)


def experiment_line(system, preset="toy", seed=0, **overrides):
    "A made-up line under the key and settings that the real experiment has."
    settings = load_settings(system, preset, seed, overrides)
    line = made_up(system, seed)
    stages = line["settings"]["stages"]
    return line | {"key": settings.key, "preset": preset, "settings": settings.to_dict() | {"stages": stages}}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    "An empty current folder, and the run folder's place in it."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "PUBLISHED", tmp_path / "published")
    return tmp_path / "runs"


@pytest.fixture
def filled(runs):
    "A run folder with the lines and the dialogues of all systems, one seed."
    for system in ARTICLE_SYSTEMS:
        add_line(runs, experiment_line(system))
    return runs


@pytest.fixture
def loop(monkeypatch):
    "A loop that only notes the experiments it was asked for."
    asked = []

    def run_experiment(settings, folder, progress=None):
        asked.append(settings)
        return add_line(folder, experiment_line(settings.system, settings.preset, settings.seed))

    monkeypatch.setitem(sys.modules, "optima.run.experiments", types.SimpleNamespace(run_experiment=run_experiment))
    return asked


def one_line(capsys, *arguments) -> str:
    "What a command that the user has to mend says."
    assert cli.main([str(word) for word in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([text for text in lines if not text.startswith("registry:")]) == 1, lines
    return lines[-1]


@pytest.mark.parametrize("arguments, words", [
    ("repoduce", "unknown command 'repoduce'; choose one of: reproduce,"),
    ("", "name a command: run, reproduce,"),
    ("run optima_debat", "unknown system 'optima_debat'; choose one of: optima_debate,"),
    ("run single --sed 3", "unknown option '--sed'; choose one of: --seed,"),
    ("run single --seed x", "'x': expected a whole number"),
    ("run single --preset toyy", "unknown preset 'toyy'; choose one of: toy"),
    ("run single --set iteration=1", "unknown setting 'iteration'; choose one of: iterations"),
    ("run single --set iterations=one", "iterations = 'one': expected a whole number"),
    ("run single --set iterations", "expected key=value"),
    ("run single --set threshold=nan", "threshold = nan: expected a number"),
    ("run single --set strategies=none,brif", "'brif'; choose one of: brief"),
    ("run single --set benchmarks=toy_humanevil", "'toy_humanevil'; choose one of: toy_humaneval"),
    ("run single --set base=./nowhere", "base = './nowhere': there is no folder"),
    ("run single twice", "'twice' is one word too many"),
    ("reproduce --only main_result", "unknown artefact 'main_result'; choose one of: main_results"),
    ("reproduce --seeds 0", "'0': expected a whole number, 1 or more"),
    ("reproduce --preset none", "unknown preset 'none'"),
    ("report main_result", "unknown artefact"),
    ("report main_results", "no registry in runs or"),
    ("report main_results --runs nowhere", "no registry in nowhere; make one: optima reproduce"),
    ("status", "there is no run folder runs yet"),
    ("toy", "see optima toy --help"),
    ("toy trian", "choose one of: train"),
])
def test_what_the_user_can_mend(runs, loop, capsys, arguments, words):
    assert words in one_line(capsys, *arguments.split())
    assert not runs.exists() or not any(path.is_file() and "locks" not in path.parts for path in runs.rglob("*"))


def test_run_gives_settings_to_the_loop_and_prints_the_rows(runs, loop, capsys):
    command = "run optima_debate --seed 2 --set learning_rate=1e-4 strategies=none,brief --set diversity=false"
    assert cli.main(command.split()) == 0
    (settings,) = loop
    assert (settings.system, settings.seed, settings.learning_rate) == ("optima_debate", 2, 1e-4)
    assert settings.strategies == ("none", "brief") and settings.diversity is False
    output = capsys.readouterr().out
    assert output.index("greedy") < output.index("sampled") and "optima_debate" in output
    assert len(read_registry(runs)) == 1


def test_run_names_benchmarks_and_a_trained_team_by_default(runs, loop):
    assert cli.main(["run", "--preset", "smoke", "--benchmarks", "toy_math,toy_mbpp", "--data", "."]) == 0
    (settings,) = loop
    assert (settings.system, settings.benchmarks, settings.data) == ("optima_debate", ("toy_math", "toy_mbpp"), str(runs.parent.resolve()))


def test_ctrl_c_and_bugs(runs, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "optima.run.experiments", types.SimpleNamespace(run_experiment=stopped))
    assert cli.main(["run", "single"]) == 130
    assert capsys.readouterr().err == "optima: stopped; the same command goes on from here\n"
    monkeypatch.setitem(sys.modules, "optima.run.experiments", types.SimpleNamespace(run_experiment=lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "single"])


@pytest.mark.parametrize("command", ["run single", "reproduce --preset smoke"])
def test_a_locked_folder(runs, loop, capsys, command):
    code = f"import sys; from optima.run.stages import Store\nwith Store({str(runs)!r}).lock(): print(1, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=os.environ | {"PYTHONPATH": str(launcher.ROOT)})
    holder.stdout.readline()
    assert f"runs is in use by process {holder.pid}" in one_line(capsys, *command.split())
    holder.communicate(b"\n")
    assert loop == []


@pytest.mark.parametrize("place", ["file", "file/runs", "/proc/runs"])
@pytest.mark.parametrize("command", ["run single", "reproduce"])
def test_a_folder_that_cannot_be(runs, loop, capsys, place, command):
    Path("file").write_text("kept")
    assert "choose another folder" in one_line(capsys, *command.split(), "--runs", place)
    assert Path("file").read_text() == "kept" and loop == []


def test_a_full_disk_loses_nothing(filled, loop, monkeypatch, capsys):
    before = (filled / "registry.jsonl").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("optima.base.files.flush", full)
    assert "the disk is full" in one_line(capsys, "run", "single", "--seed", "1")
    assert (filled / "registry.jsonl").read_bytes() == before and len(list(filled.glob("*.partial"))) == 0


def test_report_prints_tables_and_rows(filled, capsys):
    assert cli.main(["report", "main_results"]) == 0
    told = capsys.readouterr()
    assert told.err == f"registry: runs/registry.jsonl, preset toy, {len(MAIN)} lines\n"
    assert all(system in told.out for system in MAIN)
    assert [pair[:2] for pair in compared(told.out)] == 2 * [
        (f"optima_{paradigm}", other) for paradigm in ("debate", "multi_step") for other in (
            "teacher_debate", f"untrained_{paradigm}", f"terse_{paradigm}", f"random_selection_{paradigm}")]
    assert all(words[2] in ("higher", "lower", "no") for words in compared(told.out))
    assert told.out.index("paired differences, greedy") < told.out.index("sampled decoding; 60")
    assert cli.main(["report", "main_results", "--against", "single"]) == 0
    assert {pair[1] for pair in compared(capsys.readouterr().out)} == {"single"}
    assert cli.main(["report", "main_results", "--json", "--against", "single"]) == 0
    rows = json.loads(capsys.readouterr().out)
    wanted = {"system", "benchmark", "decoding", "score", "score_ci", "tokens", "tokens_ci", "prompt_tokens",
              "tokens_per_message", "turns", "valid_share", "relative_cost", "against", "difference", "difference_ci",
              "n", "seeds", "seed_values", "statuses"}
    assert all(wanted <= set(row) for row in rows)
    assert {row["against"] for row in rows if row["system"] == "optima_debate"} == {"single"}
    assert "unknown system 'singel'" in one_line(capsys, "report", "main_results", "--against", "singel")


def compared(printed: str) -> list[tuple]:
    "The lines of the printed comparisons, as words: they start with two systems."
    lines = [tuple(line.split()) for line in printed.splitlines()]
    return [words for words in lines if len(words) > 1 and words[0] in ARTICLE_SYSTEMS and words[1] in ARTICLE_SYSTEMS]


@pytest.mark.parametrize("name", ARTICLE)
def test_report_knows_every_artefact(filled, capsys, name):
    assert cli.main(["report", name]) == 0
    told = capsys.readouterr()
    systems = ARTEFACTS[name]["systems"]
    assert f"preset toy, {len(systems)} lines" in told.err and all(system in told.out for system in systems)
    if name == "reward_ablation":
        rows = [system for system in systems if system.startswith("without_")]
        assert {pair[:2] for pair in compared(told.out)} == {(row, "full") for row in rows} | {("full", "random_selection")}
    assert cli.main(["report", name, "--json"]) == 0
    assert {row["system"] for row in json.loads(capsys.readouterr().out)} == set(systems)


def test_report_names_the_papers_systems_as_the_paper_does(runs, capsys):
    for system in ARTEFACTS["paper_main"]["systems"]: add_line(runs, experiment_line(system))
    assert cli.main(["report", "paper_main", "--json", "--against", "untrained"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["system"] for row in rows if row["benchmark"] == "mean"} == {*(system_of(name).label for name in PAPER_ROWS), "isft_per_role"}
    assert {row["decoding"] for row in rows if row["system"] == "sc"} == {"vote"} and {row["against"] for row in rows} == {"untrained", None}
    assert cli.main(["report", "paper_main"]) == 0
    assert "isft_per_role  isft " in capsys.readouterr().out


def test_report_compares_only_what_was_run_with_the_same_seeds(filled, capsys):
    add_line(filled, experiment_line("optima_debate", seed=1))
    assert cli.main(["report", "main_results"]) == 0
    told = capsys.readouterr()
    assert "not compared: optima_debate with terse_debate, they were run with different seeds" in told.err
    assert {words[0] for words in compared(told.out)} == {"optima_multi_step"}


def test_report_leaves_out_lines_with_settings_set_by_hand(runs, capsys):
    add_line(runs, experiment_line("single", evaluation_tasks=10))
    assert "no line of main_results with preset toy" in one_line(capsys, "report", "main_results")
    add_line(runs, experiment_line("single"))
    assert len(reading.lines_to_show("main_results")) == 1
    add_line(runs, experiment_line("single") | {"key": "0" * 16})
    (line,) = reading.lines_to_show("main_results")
    assert line["key"] == load_settings("single").key


def test_report_reads_the_published_registry_when_there_is_no_other(runs, tmp_path, capsys):
    add_line(tmp_path / "published", experiment_line("single", "smoke"))
    assert cli.main(["report", "main_results"]) == 0
    assert "published/registry.jsonl, preset smoke, 1 lines" in capsys.readouterr().err


def test_a_damaged_registry(filled, capsys):
    with open(filled / "registry.jsonl", "a") as file:
        file.write("{\n")
    assert f"line {len(ARTICLE_SYSTEMS) + 1}: not JSON" in one_line(capsys, "report", "main_results")


def test_status_counts_stages_and_experiments(filled, capsys):
    store = Store(filled)
    store.stage("generate", {"n": 1}).make(lambda folder: (folder / "a.txt").write_text("x" * 2000))
    make_folder(store.stage("generate", {"n": 2}).folder)
    assert cli.main(["status"]) == 0
    output = capsys.readouterr().out
    assert "generate        1 done    1 partial     2." in output and f"finished experiments: {len(ARTICLE_SYSTEMS)}" in output


def test_reproduce_prints_tables_and_where_the_rest_is(filled, monkeypatch, capsys):
    monkeypatch.setattr(launcher, "run_jobs", lambda jobs, *_: [setattr(job, "code", 0) for job in jobs] and [])
    monkeypatch.setattr("optima.report.page.write_report", lambda notebooks, path: path.write_text("page"))
    assert cli.main(["reproduce"]) == 0
    output = capsys.readouterr().out
    headings = [text for text in output.splitlines() if "optima report" in text]
    assert [text.split()[0] for text in headings] == list(ARTICLE) and "report: runs/report.html" in output
    assert "sampled" not in output
    failed = launcher.Job("single-toy-0", Path(), Path(), {}, code=1)
    for code in (1, 2):
        failed.code = code
        monkeypatch.setattr(launcher, "reproduce", lambda *_: [failed])
        assert cli.main(["reproduce"]) == code
        assert "1 failed: single-toy-0; the same command" in capsys.readouterr().err


def test_toy_train(runs, monkeypatch, capsys):
    asked = []
    fake = types.SimpleNamespace(Recipe=lambda seed: seed, TEACHER=100, train_base=lambda *given: asked.append(given))
    monkeypatch.setitem(sys.modules, "optima.toy.models", fake)
    assert cli.main(["toy", "train", "--seed", "3"]) == cli.main(["toy", "train", "--teacher"]) == 0
    assert asked == [(Path("toy-base-3"), 3), (Path("toy-teacher"), 100)]
    assert cli.main(["toy", "train", "--teacher", "--seed", "3"]) == 2


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.setattr(publishing, "git", lambda *_: "")


@pytest.fixture
def finished(filled):
    "The filled run folder, made from a clean tree, with the dialogues of all evaluations."
    for line in read_registry(filled):
        add_line(filled, line | {"machine": {"clean": True}})
        for decoding in ("greedy", "sampled"):
            folder = write_dialogues(filled, line, decoding=decoding)
            digest = hashlib.sha256((folder / "shard-00000.jsonl").read_bytes()).hexdigest()
            write_json(folder / "done.json", {"files": {"shard-00000.jsonl": digest}})
    return filled


def evaluation(runs, system, decoding) -> Path:
    "The folder of one evaluation."
    return runs / f"evaluate-{evaluation_key(system, 0, decoding)}"


def test_publish_copies_lines_and_one_seeds_dialogues(finished, clean, tmp_path):
    add_line(tmp_path / "to", experiment_line("single", "smoke"))
    for _ in range(2):
        assert cli.main(["publish", str(finished), "--to", str(tmp_path / "to")]) == 0
    assert len(read_registry(tmp_path / "to")) == 1 + len(ARTICLE_SYSTEMS)
    assert [path.name for path in (tmp_path / "to").glob("registry*")] == ["registry.jsonl.gz"]
    packed = sorted((tmp_path / "to" / "dialogues").iterdir())
    assert [path.name for path in packed] == sorted(f"{system}-toy-0.jsonl.gz" for system in MAIN)
    (tmp_path / "x.jsonl").write_bytes(gzip.decompress(packed[0].read_bytes()))
    assert len(read_jsonl(tmp_path / "x.jsonl")) == 2 * 60


def test_publish_leaves_out_lines_with_settings_set_by_hand(finished, clean, tmp_path):
    add_line(finished, experiment_line("single", seed=4, evaluation_tasks=10))
    assert cli.main(["publish", str(finished), "--to", str(tmp_path / "to")]) == 0
    assert len(read_registry(tmp_path / "to")) == len(ARTICLE_SYSTEMS)


def test_publish_one_artefact_and_nothing_else(finished, clean, tmp_path):
    old = [make_folder(tmp_path / "to" / "dialogues") / f"{name}-0.jsonl.gz" for name in
           ("random_selection-toy", "random_selection-toy-large", "random_selection-smoke", "single-toy")]
    for path in old:
        path.write_bytes(b"an older run's")
    assert cli.main(["publish", str(finished), "--to", str(tmp_path / "to"), "--name", "reward_ablation"]) == 0
    assert {line["system"] for line in read_registry(tmp_path / "to")} == set(ARTEFACTS["reward_ablation"]["systems"])
    assert [path.exists() for path in old] == [False, True, True, True]


def test_publish_wants_every_seed_of_every_artefact(finished, clean, tmp_path, capsys):
    add_line(finished, experiment_line("efficiency_0.6", seed=2) | {"machine": {"clean": True}})
    told = one_line(capsys, "publish", finished, "--to", tmp_path / "to")
    assert "main_results: the registry in" in told and "single (seed 1), " in told and "single (seed 2)" in told
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("decoding", ["greedy", "sampled"])
def test_publish_wants_the_dialogues_of_every_decoding(finished, clean, tmp_path, capsys, decoding):
    folder = evaluation(finished, "terse_debate", decoding)
    (folder / "done.json").unlink()
    assert f"terse_debate (seed 0): not all of its evaluation's dialogues are in {finished} ({folder.name})" in one_line(
        capsys, "publish", finished, "--to", tmp_path / "to")


def test_publish_refuses_a_stage_that_was_made_with_changes(finished, clean, tmp_path, capsys):
    folder = evaluation(finished, "single", "sampled")
    write_json(folder / "cost-00000.json", {"commit": "0" * 40, "clean": True})
    assert cli.main(["publish", str(finished), "--to", str(tmp_path / "to")]) == 0
    write_json(folder / "cost-00001.json", {"commit": "0" * 40, "clean": False})
    assert f"stages made from a tree with changes: {folder.name}; delete" in one_line(capsys, "publish", finished)


def test_publish_refuses(finished, monkeypatch, capsys):
    monkeypatch.setattr(publishing, "git", lambda *_: None)
    assert "in a git clone only" in one_line(capsys, "publish", finished)
    monkeypatch.setattr(publishing, "git", lambda *_: " M optima/run/loop.py")
    assert "M optima/run/loop.py, ...); commit them first" in one_line(capsys, "publish", finished)
    monkeypatch.setattr(publishing, "git", lambda *_: "")
    add_line(finished, experiment_line("single") | {"machine": {"clean": False}})
    assert "made from a tree with changes: single (seed 0)" in one_line(capsys, "publish", finished)
    add_line(finished, experiment_line("single", seed=1))
    assert "no line for untrained_debate (seed 1)" in one_line(capsys, "publish", finished)


def test_doctor_names_what_is_bad_and_goes_on(runs, monkeypatch, capsys, tmp_path):
    checkpoint = make_folder(tmp_path / "checkpoints" / "toy-base-0")
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    write_json(checkpoint / "manifest.json", {"sha256": {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}})
    monkeypatch.setattr(doctor, "CHECKPOINTS", tmp_path / "checkpoints")
    for name in ("torch_finding", "quantization_finding", "sandbox_finding", "isolation_finding"):
        monkeypatch.setattr(doctor, name, lambda: "works")
    monkeypatch.setattr(doctor, "requirements", lambda: ["numpy>=2"])
    monkeypatch.setattr(doctor, "LEAST_MEMORY_GB", 0)
    monkeypatch.setattr(doctor, "LEAST_DISK_GB", 0)
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("ok  checkpoint toy-base-0 is whole\nall well\n")
    (checkpoint / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(doctor, "requirements", lambda: ["numpy>=99", "not-there>=1"])
    monkeypatch.setattr(doctor, "sandbox_finding", lambda: 1 / 0)
    assert cli.main(["doctor"]) == 1
    output = capsys.readouterr().out
    for words in ("BAD numpy", "BAD not-there is not installed", "BAD sandbox: ZeroDivisionError",
                  "BAD checkpoint toy-base-0: ValueError: model.safetensors is not the file", "4 to mend"):
        assert words in output


def test_doctor_says_whether_there_is_a_second_sandbox_and_does_not_mind(monkeypatch):
    monkeypatch.setattr(isolation, "missing", lambda: "bubblewrap is not installed: install it")
    assert doctor.tried("second sandbox", doctor.isolation_finding) == (True, (
        "no second sandbox level: programs that monty cannot run count as unsupported; bubblewrap is not installed: install it"))
    monkeypatch.setattr(isolation, "missing", lambda: "")
    assert "judges what monty cannot run" in doctor.isolation_finding()


def test_doctor_reads_the_bounds_that_pip_reads():
    assert any(text.startswith("torch>=") for text in doctor.requirements())


def test_help_is_quick_and_names_every_command():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "optima.cli.main", "--help"], check=True,
                          capture_output=True, text=True, cwd=Path(cli.__file__).parents[2])
    assert all(command in done.stdout for command in cli.COMMANDS)
    assert not any(f" {name}\n" in done.stderr for name in ("numpy", "torch", "nbformat", "optima.evaluate.statistics"))
