"The launcher: which experiments, in which order, what happens when one fails, stops or is killed."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from optima.base.errors import OptimaError
from optima.base.files import make_folder
from optima.cli import kernels
from optima.cli import reproduce as launcher
from optima.config import artefacts
from optima.config.settings import load_settings
from optima.config.systems import ABLATIONS, MAIN, SYSTEMS
from optima.report.page import write_report
from optima.run.registry import add_line, read_registry

EXPERIMENT = """
import os
from optima.base.errors import OptimaError
from optima.base.progress import Progress
from optima.run.registry import add_line
from optima.config.settings import load_settings
if os.environ.get("FAKE_FAILS") == system:
    raise OptimaError("the team cannot be found; call it")
if os.environ.get("FAKE_DIES") == system:
    os.kill(os.getpid(), 9)
if os.environ.get("FAKE_BUGS") == system:
    raise ZeroDivisionError("a bug")
settings = load_settings(system, preset, seed)
with Progress("evaluate", 1) as progress:
    add_line(runs, {"key": settings.key, "system": system, "preset": settings.preset, "seed": seed, "settings": {},
                    "results": {"threads": os.environ["OMP_NUM_THREADS"], "forked": "ipykernel_launcher" not in
                                open("/proc/self/cmdline").read()}, "cost": {}, "machine": {}})
"""
TABLE = """
from IPython.display import HTML, display
from optima.run.registry import read_registry
import sys
lines = read_registry(runs)
print("noise", file=sys.stderr)
display(HTML("<table><tr><td>rows: %d</td></tr></table><script>alert(1)</script>" % len(lines)))
"""
SLEEP = """
import os, time
from pathlib import Path
(Path(runs) / f"{system}.pid").write_text(str(os.getpid()))
time.sleep(60)
"""


def notebook(path, source, **parameters):
    declared = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cells = [nbformat.v4.new_markdown_cell("# A page\n\n> and what it is for"),
             nbformat.v4.new_code_cell(declared, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(source)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def shorten(set_attribute):
    "Have the warmed process import what a light notebook needs, and no torch."
    for name, modules in {"PAGES": ("papermill", "ipykernel.kernelapp"), "MODELS": (), "TRAINING": ()}.items():
        set_attribute(kernels, name, modules)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    "A folder of light notebooks in the place of nbs/artefacts, and an artefact of two systems."
    folder = tmp_path / "reproduce"
    folder.mkdir()
    notebook(folder / "experiment.ipynb", EXPERIMENT, system="single", preset="smoke", seed=0, runs="runs")
    notebook(folder / "main_results.ipynb", TABLE, preset="smoke", seeds=1, runs="runs")
    monkeypatch.setattr(launcher, "NOTEBOOKS", folder)
    shorten(monkeypatch.setattr)
    monkeypatch.setitem(artefacts.ARTEFACTS, "main_results",
                        {"notebook": "main_results.ipynb", "systems": ["single", "untrained_debate"]})
    return folder


def finish(runs, settings):
    add_line(runs, {"key": settings.key, "system": settings.system, "preset": settings.preset, "seed": settings.seed,
                    "settings": {}, "results": {}, "cost": {}, "machine": {}})


def test_what_is_missing_shrinks_as_lines_are_added(tmp_path):
    systems = artefacts.ARTEFACTS["main_results"]["systems"]
    assert len(launcher.missing("main_results", "smoke", 2, tmp_path)) == 2 * len(systems)
    finish(tmp_path, load_settings("single", "smoke", 1))
    finish(tmp_path, load_settings("single", "toy", 0))
    lacking = launcher.missing("main_results", "smoke", 2, tmp_path)
    assert len(lacking) == 2 * len(systems) - 1
    assert ("single", 1) not in [(settings.system, settings.seed) for settings in lacking]


def test_the_real_notebooks_declare_what_they_are_told(tmp_path):
    for job in (launcher.experiment_job(load_settings("single"), "toy", tmp_path),
                launcher.artefact_job("main_results", "toy", 1, tmp_path)):
        launcher.check_parameters(job.notebook, job.parameters)
        assert set(launcher.declared_parameters(job.notebook)) == set(job.parameters)


def test_a_parameter_that_the_notebook_lacks_is_refused_before_anything_runs(fake, tmp_path):
    job = launcher.experiment_job(load_settings("single", "smoke"), "smoke", tmp_path)
    job.parameters["sede"] = 1
    with pytest.raises(OptimaError, match="unknown parameter 'sede'; choose one of: seed"):
        launcher.run_jobs([job])
    nbformat.write(nbformat.v4.new_notebook(), fake / "empty.ipynb")
    with pytest.raises(OptimaError, match="found 0"):
        launcher.check_parameters(fake / "empty.ipynb", {})
    with pytest.raises(OptimaError, match="from a clone"):
        launcher.check_parameters(fake / "none.ipynb", {})


def test_every_artefact_shows_known_systems_and_all_systems_are_shown():
    assert artefacts.ARTICLE == ("main_results", "token_cost", "reward_ablation", "iterations", "reward_weights")
    assert all(name.startswith("paper_") for name in artefacts.ARTEFACTS.keys() - {*artefacts.ARTICLE})
    shown = [system for found in artefacts.ARTEFACTS.values() for system in found["systems"]]
    assert set(shown) == set(SYSTEMS) and len(artefacts.ARTEFACTS["reward_ablation"]["systems"]) == 7


def test_an_experiment_of_several_artefacts_is_run_once(tmp_path):
    lacking = launcher.lacking(list(artefacts.ARTEFACTS), "smoke", 2, tmp_path)
    assert sorted((one.system, one.seed) for one in lacking) == sorted((name, seed) for name in SYSTEMS for seed in (0, 1))


def order_of(preset, workers, seeds=1):
    "The order in which jobs start, where each takes as long as it weighs, and the names of those held by another's lock."
    settings = [load_settings(system, preset, seed) for seed in range(seeds) for system in (*MAIN, *ABLATIONS)]
    waiting = launcher.in_order([launcher.experiment_job(one, preset, Path("runs")) for one in settings])
    running, ends, started, held, now = [], {}, [], [], 0
    while waiting:
        while waiting and len(running) < workers:
            job = launcher.next_job(waiting, running)
            held += [job.name] if set(job.after) & set(waiting + running) else []
            waiting.remove(job)
            running.append(job)
            ends[job] = now + job.weight
            started.append(job.name)
        now = min(ends[job] for job in running)
        running = [job for job in running if ends[job] > now]
    return started, held


@pytest.mark.parametrize("preset", ["smoke", "toy"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_two_workers_are_busy_with_stages_of_their_own(preset, seeds):
    started, held = order_of(preset, 2, seeds)
    assert held == [] and len(started) == seeds * len((*MAIN, *ABLATIONS))
    assert started[:2] == [f"random_selection_debate-{preset}-0", f"random_selection_multi_step-{preset}-0"]  # two worlds of stages
    for first, second in (("optima_multi_step", "full"), ("random_selection_multi_step", "random_selection")):
        assert started.index(f"{first}-{preset}-0") < started.index(f"{second}-{preset}-0")


def test_who_shares_stages_with_whom():
    shares = {system: set(launcher.shared_stages(load_settings(system))) for system in SYSTEMS}
    assert shares["full"] == shares["optima_multi_step"] and shares["random_selection"] == shares["random_selection_multi_step"]
    assert len(shares["full"] & shares["without_task"] & shares["efficiency_0.1"] & shares["without_iteration"]) == 1
    for lonely in ("single", "untrained_debate", "terse_debate", "teacher_debate", "without_teacher"):
        assert not any(shares[lonely] & others for system, others in shares.items() if system != lonely)
    teachers = [launcher.shared_stages(load_settings("teacher_single", seed=seed)) for seed in (0, 1)]
    assert teachers[0] == teachers[1]  # one teacher, one set of greedy dialogues


def test_more_workers_than_first_jobs_are_not_left_idle():
    jobs = [launcher.Job(name, Path(), Path(), {}, shares=("x",), weight=1) for name in "abc"]
    waiting = launcher.in_order(jobs)
    assert [waiting.pop(waiting.index(launcher.next_job(waiting, []))).name for _ in "abc"] == ["a", "b", "c"]


def test_reproduce_makes_experiments_table_and_page_and_does_nothing_twice(fake, tmp_path, capsys):
    runs = tmp_path / "runs"
    finish(runs, load_settings("single", "smoke"))
    assert launcher.reproduce(["main_results"], "smoke", 1, runs, workers=2) == []
    lines = {line["system"]: line["results"] for line in read_registry(runs)}
    assert lines == {"single": {}, "untrained_debate": {"threads": "1", "forked": kernels.can_fork()}}
    assert {path.name for path in (runs / "notebooks").iterdir()} == {"untrained_debate-smoke-0.ipynb",
                                                                     "main_results.ipynb"}
    page = (runs / "report.html").read_text()
    assert "rows: 2" in page and "and what it is for" in page
    assert not any(word in page for word in ("<script", "alert", "http", "noise", "read_registry", "<link"))
    assert "experiments 1/1" in capsys.readouterr().err
    assert len(launcher.ensure("main_results", "smoke", 1, runs)) == 2


def test_failures_are_told_and_the_others_finish(fake, tmp_path, monkeypatch, capsys):
    artefacts.ARTEFACTS["main_results"]["systems"] += ["terse_debate", "terse_multi_step"]
    monkeypatch.setenv("FAKE_FAILS", "single")
    monkeypatch.setenv("FAKE_BUGS", "terse_debate")
    monkeypatch.setenv("FAKE_DIES", "terse_multi_step")
    runs = tmp_path / "runs"
    failed = {job.name: (job.code, job.error) for job in launcher.reproduce(["main_results"], "smoke", 1, runs, 2)}
    assert failed == {"single-smoke-0": (2, "the team cannot be found; call it"),
                      "terse_debate-smoke-0": (1, "ZeroDivisionError: a bug"),
                      "terse_multi_step-smoke-0": (1, "the notebook's process died; was it killed, or out of memory?")}
    assert "single-smoke-0 failed: the team cannot be found; call it" in capsys.readouterr().err.splitlines()
    assert [line["system"] for line in read_registry(runs)] == ["untrained_debate"]
    assert not (runs / "report.html").exists()
    with pytest.raises(OptimaError, match="no line for single"):
        launcher.lines_of("main_results", "smoke", 1, runs)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    "A process's children, and theirs."
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(place.parent.name)] = int(place.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            pass  # it has ended
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def wait_for(condition, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("systems", [["single"], ["single", "untrained_debate"]], ids=["alone", "forked"])
def test_nothing_is_left_running_after_ctrl_c_or_kill(fake, tmp_path, number, systems):
    notebook(fake / "experiment.ipynb", SLEEP, system="", preset="", seed=0, runs="")
    runs = tmp_path / "runs"
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from optima.cli import reproduce as launcher
from optima.config import artefacts
from test_reproduce import shorten
shorten(setattr)
launcher.NOTEBOOKS = Path({str(fake)!r})
artefacts.ARTEFACTS["main_results"]["systems"] = {systems}
try:
    launcher.ensure("main_results", "smoke", 1, {str(runs)!r}, 2)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    places = [runs / f"{system}.pid" for system in systems]
    assert wait_for(lambda: all(place.exists() and place.read_text() for place in places), 60)
    started = descendants(process.pid)
    assert {int(place.read_text()) for place in places} <= set(started)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert output == (b"stopped\n" if number == signal.SIGINT else b"")
    assert wait_for(lambda: not any(map(alive, started)), 20)


def order(fake, runs, system, warmed):
    "Launch one sleeping job and wait until its notebook runs."
    notebook(fake / "experiment.ipynb", SLEEP, system="", preset="", seed=0, runs="")
    job = launcher.experiment_job(load_settings(system, "smoke"), "smoke", runs)
    make_folder(job.output.parent)
    launcher.launch(job, runs, warmed)
    place = runs / f"{system}.pid"
    assert wait_for(lambda: place.exists() and place.read_text(), 60)
    return job, int(place.read_text())


linux = pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked here")


@linux
def test_when_the_warmed_process_dies_its_jobs_fail_and_the_next_ones_start_afresh(fake, tmp_path):
    with kernels.Warmed(kernels.PAGES, launcher.environment()) as warmed:
        job, kernel = order(fake, tmp_path, "single", warmed)
        assert not launcher.ended(job) and os.getpgid(job.process.pid) == job.process.pid
        warmed.process.kill()
        assert wait_for(lambda: launcher.ended(job), 10) and (job.code, job.error) == (-9, "ended by signal 9")
        assert wait_for(lambda: not alive(kernel), 10)
        job, kernel = order(fake, tmp_path, "untrained_debate", warmed)
        assert isinstance(job.process, subprocess.Popen)
        launcher.stop([job])
        assert wait_for(lambda: not alive(kernel), 10)


@linux
def test_a_warmed_process_that_still_imports_is_ended_at_once(fake, tmp_path):
    (tmp_path / "slow_module.py").write_text("import time; time.sleep(60)")
    environment = launcher.environment() | {"PYTHONPATH": f"{tmp_path}:{launcher.ROOT}"}
    with kernels.Warmed(("slow_module",), environment) as warmed:
        job = launcher.Job("x", fake / "experiment.ipynb", tmp_path / "x.ipynb", {})
        launcher.launch(job, tmp_path, warmed)
        assert not launcher.ended(job)
        started = time.monotonic()
        launcher.stop([job])
    assert not warmed.alive() and time.monotonic() - started < 5


def test_a_kernel_waits_for_its_children_but_not_for_those_that_have_ended():
    kernel_class = kernels.punctual_kernel()
    kernel = kernel_class.__new__(kernel_class)
    children = [subprocess.Popen(command) for command in (["sleep", "60"], ["true"])]
    try:
        os.waitid(os.P_PID, children[1].pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked how
        waited_for = {child.pid for child in kernel._process_children()}
        assert children[0].pid in waited_for and children[1].pid not in waited_for
        assert children[1].pid in {child.pid for child in super(kernel_class, kernel)._process_children()}
    finally:
        children[0].kill()
        for child in children: child.wait()


def test_without_fork_every_job_is_a_process_of_its_own(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "can_fork", lambda: False)
    lines = launcher.ensure("main_results", "smoke", 1, tmp_path, workers=2)
    assert [line["results"] for line in lines] == [{"threads": "1", "forked": False}] * 2


def test_what_is_warmed(monkeypatch):
    made = []
    monkeypatch.setattr(launcher, "Warmed", lambda modules, environment: made.append(modules))
    monkeypatch.setattr(kernels, "can_fork", lambda: True)
    single, trained = load_settings("single", "smoke"), load_settings("optima_debate", "smoke")
    for experiments, shown in (([], 1), ([trained], 0), ([], 2), ([single], 1), ([single, trained], 0)):
        launcher.warm(experiments, shown)
    assert made == [kernels.PAGES, kernels.PAGES + kernels.MODELS, kernels.PAGES + kernels.MODELS + kernels.TRAINING]


@linux
@pytest.mark.slow
def test_warming_imports_everything_computes_nothing_and_starts_no_thread():
    code = """
import os, sys
from optima.cli import kernels
modules = kernels.PAGES + kernels.MODELS + kernels.TRAINING
kernels.preload(modules)
assert not [name for name in modules if name not in sys.modules]
import torch
from optima.sandbox import monty as sandbox
assert len(os.listdir("/proc/self/task")) == 1 and torch.get_num_threads() == 1 and not sandbox._pools
"""
    subprocess.run([sys.executable, "-c", code], env=launcher.environment(), check=True)


def test_wrong_names_and_numbers(tmp_path):
    with pytest.raises(OptimaError, match="choose one of: main_results"):
        launcher.reproduce(["main_result"], runs=tmp_path)
    with pytest.raises(OptimaError, match="expected 1 or more"):
        launcher.missing("main_results", "toy", 0, tmp_path)


def test_a_page_that_loads_from_outside_is_refused(tmp_path):
    output = nbformat.v4.new_output("display_data", data={"text/html": "<img src='https://example.org/x.png'>"})
    cell = nbformat.v4.new_code_cell("x", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
    with pytest.raises(OptimaError, match="loads from outside"):
        write_report([tmp_path / "x.ipynb"], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_a_disk_that_fills_up_under_papermill_is_one_line(tmp_path, capsys):
    notebook(tmp_path / "x.ipynb", "1")
    (tmp_path / "out.ipynb").symlink_to("/dev/full")
    assert kernels.execute(str(tmp_path / "x.ipynb"), str(tmp_path / "out.ipynb"), {}) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"cannot write {tmp_path}/out.ipynb: the disk is full; free some space")


def test_the_environment_of_a_child(tmp_path):
    assert launcher.environment(tmp_path)["OMP_NUM_THREADS"] == "1"
    assert os.environ.get("OPTIMA_PROGRESS") is None
    assert json.loads(json.dumps(launcher.absolute_preset("x.toml"))) == str(Path("x.toml").resolve())
