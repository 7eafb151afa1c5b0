"Runs the notebooks of nbs/reproduce by papermill: what is missing, in parallel processes, and the report of it all."
import argparse
import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from optima.errors import OptimaError, suggest
from optima.progress import FILE, Progress
from optima.registry import cores, read_registry
from optima.settings import Settings, load_settings
from optima.store import make_folder

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "nbs" / "reproduce"
EXPERIMENT = "experiment.ipynb"

ARTEFACTS = {
    "main_results": {
        "notebook": "main_results.ipynb",
        "systems": ["single", "untrained_debate", "untrained_multi_step", "terse_debate", "terse_multi_step",
                    "optima_debate", "optima_multi_step", "random_selection", "random_selection_multi_step"],
    },
}


@dataclass
class Job:
    "One notebook to run: where it comes from, where it goes, what it is told."

    name: str
    notebook: Path
    output: Path
    parameters: dict
    group: str = ""  # jobs of one group share stages: the second waits for the first
    weight: int = 0  # heavier jobs start first
    process: subprocess.Popen | None = None
    error: str = ""
    code: int | None = None
    scratch: Path | None = field(default=None, repr=False)


def artefact(name: str) -> dict:
    "An artefact's notebook and systems."
    if name not in ARTEFACTS:
        raise OptimaError(suggest("artefact", name, ARTEFACTS))
    return ARTEFACTS[name]


def experiments(name: str, preset: str = "toy", seeds: int = 1) -> list[Settings]:
    "The experiments that an artefact shows, seed by seed."
    if seeds < 1:
        raise OptimaError(f"seeds = {seeds}: expected 1 or more")
    return [load_settings(system, preset, seed) for seed in range(seeds) for system in artefact(name)["systems"]]


def missing(
    name: str,  # a name in ARTEFACTS
    preset: str = "toy",
    seeds: int = 1,  # seeds 0 to seeds - 1
    runs: str | Path = "runs",
) -> list[Settings]:
    "The experiments of an artefact that the registry does not have under these settings."
    finished = {line["key"] for line in read_registry(runs)}
    return [settings for settings in experiments(name, preset, seeds) if settings.key not in finished]


def declared_parameters(notebook: Path) -> dict:
    "Names and defaults in the cell that is tagged `parameters`."
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise OptimaError(f"{notebook}: no notebook to run; install from a clone: pip install -e .") from error
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise OptimaError(f"{notebook}: expected one cell tagged 'parameters', found {len(tagged)}")
    body = ast.parse("".join(tagged[0]["source"])).body
    return {name.id: ast.literal_eval(line.value) for line in body if isinstance(line, ast.Assign)
            for name in line.targets}


def check_parameters(notebook: Path, parameters: dict):
    "Refuse a parameter that the notebook does not declare: papermill only warns, and runs with the default."
    declared = declared_parameters(notebook)
    for name in parameters:
        if name not in declared:
            raise OptimaError(f"{Path(notebook).name}: {suggest('parameter', name, declared)}")


def absolute_preset(preset: str) -> str:
    "A preset's name, or its file's path from anywhere."
    return str(Path(preset).resolve()) if str(preset).endswith(".toml") else preset


def experiment_job(settings: Settings, preset: str, runs: Path) -> Job:
    "The job that runs one experiment."
    name = f"{settings.system}-{settings.preset}-{settings.seed}"
    parameters = {"system": settings.system, "preset": absolute_preset(preset), "seed": settings.seed,
                  "runs": str(Path(runs).resolve())}
    trained = settings.iterations > 0
    return Job(name, NOTEBOOKS / EXPERIMENT, Path(runs) / "notebooks" / f"{name}.ipynb", parameters,
               group=f"{settings.paradigm}-{settings.seed}" if trained else "", weight=settings.iterations)


def artefact_job(name: str, preset: str, seeds: int, runs: Path) -> Job:
    "The job that makes one table or figure."
    parameters = {"preset": absolute_preset(preset), "seeds": seeds, "runs": str(Path(runs).resolve())}
    return Job(name, NOTEBOOKS / artefact(name)["notebook"], Path(runs) / "notebooks" / f"{name}.ipynb", parameters)


def next_job(waiting: list[Job], running: list[Job]) -> Job:
    "The heaviest job that shares no stage with a running one; else the lightest, which leaves the shared for later."
    busy = {job.group for job in running if job.group}
    free = [job for job in waiting if job.group not in busy]
    return max(free or waiting, key=lambda job: job.weight)


def environment(scratch: Path) -> dict:
    "One thread, our own Python's kernel, no IPython history in common, and a file to tell the progress in."
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | threads | {"IPYTHONDIR": str(scratch / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1",
                                   FILE: str(scratch / "progress"), "PYTHONPATH": path,
                                   "TOKENIZERS_PARALLELISM": "false"}


def launch(job: Job, scratch: Path):
    "Start a job's process; what it prints goes to files."
    job.scratch = make_folder(scratch / job.name)
    command = [sys.executable, "-m", "optima.launcher", str(job.notebook), str(job.output),
               json.dumps(job.parameters), str(os.getpid())]
    with open(job.scratch / "stderr", "w", encoding="utf-8") as errors:
        job.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                                       env=environment(job.scratch), start_new_session=True)


def last_line(path: Path) -> str:
    "The last line of a file that says something."
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def ended(job: Job) -> bool:
    "Whether the job's process is over; then its exit code and error line are known."
    job.code = job.process.poll()
    if job.code:
        job.error = last_line(job.scratch / "stderr") or f"ended by signal {-job.code}"
    return job.code is not None


def stop(jobs: list[Job], patience: float = 4.0):
    "End processes with all that they started: asked first, then killed."
    alive = [job for job in jobs if job.process and job.process.poll() is None]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for job in alive:
            signal_group(job.process.pid, number)
        limit = time.monotonic() + patience
        while any(job.process.poll() is None for job in alive) and time.monotonic() < limit:
            time.sleep(0.05)


def signal_group(leader: int, number: int):
    "Send a signal to a process group that may be gone."
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        pass


def states(running: list[Job]) -> str:
    "What the running jobs do, in one line."
    lines = {job.name: last_line(job.scratch / "progress") or "starting" for job in running}
    return "; ".join(f"{name}: {line}" for name, line in lines.items())


def run_jobs(
    jobs: list[Job],
    workers: int | None = None,  # processes at once; None: one per core
    title: str = "experiments",
) -> list[Job]:
    "Run the jobs' notebooks in parallel; a failure lets the others finish; the failed jobs are returned."
    for job in jobs:
        check_parameters(job.notebook, job.parameters)
        make_folder(job.output.parent)
    with tempfile.TemporaryDirectory(prefix="optima-") as scratch, Progress(title, len(jobs)) as progress:
        drive(jobs, workers or cores(), Path(scratch), progress)
    return [job for job in jobs if job.code]


def drive(jobs: list[Job], workers: int, scratch: Path, progress: Progress):
    "Keep as many jobs running as there are workers, until all have ended or the user stops them."
    waiting, running = list(jobs), []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = next_job(waiting, running)
                waiting.remove(job)
                launch(job, scratch)
                running.append(job)
            time.sleep(0.1)
            over = [job for job in running if ended(job)]
            running = [job for job in running if job not in over]
            for job in over:
                if job.code:
                    progress.say(f"{job.name} failed: {job.error}")
            progress.step(len(over), note=states(running))
    finally:
        stop(running)


def run_missing(
    names: list[str],  # artefacts
    preset: str = "toy",
    seeds: int = 1,
    runs: str | Path = "runs",
    workers: int | None = None,
) -> list[Job]:
    "Run every experiment that the artefacts need and the registry lacks, each once; the failed jobs are returned."
    wanted = {settings.key: settings for name in names for settings in missing(name, preset, seeds, runs)}
    jobs = [experiment_job(settings, preset, Path(runs)) for settings in wanted.values()]
    return run_jobs(jobs, workers) if jobs else []


def ensure(
    name: str,  # a name in ARTEFACTS
    preset: str = "toy",
    seeds: int = 1,  # seeds 0 to seeds - 1
    runs: str | Path = "runs",
    workers: int | None = None,  # processes at once; None: one per core
) -> list[dict]:
    "The registry lines that an artefact shows; experiments that are missing are run first."
    failed = run_missing([name], preset, seeds, runs, workers)
    if failed:
        raise OptimaError("; ".join(f"{job.name} failed: {job.error}" for job in failed))
    return lines_of(name, preset, seeds, runs)


def lines_of(name: str, preset: str, seeds: int, runs: str | Path) -> list[dict]:
    "The registry lines that an artefact shows; one that is not there is an OptimaError."
    lines = {line["key"]: line for line in read_registry(runs)}
    wanted = experiments(name, preset, seeds)
    lacking = [f"{settings.system} (seed {settings.seed})" for settings in wanted if settings.key not in lines]
    if lacking:
        raise OptimaError(f"{name}: the registry in {runs} has no line for {', '.join(lacking)}; "
                          f"run: optima reproduce --only {name} --preset {preset} --seeds {seeds}")
    return [lines[settings.key] for settings in wanted]


def reproduce(
    names: list[str],  # artefacts
    preset: str = "toy",
    seeds: int = 1,
    runs: str | Path = "runs",
    workers: int | None = None,
) -> list[Job]:
    "Experiments, then the artefacts' notebooks, then runs/report.html; the failed jobs are returned."
    for name in names:
        check_parameters(NOTEBOOKS / artefact(name)["notebook"], {"preset": "", "seeds": 1, "runs": ""})
    failed = run_missing(names, preset, seeds, runs, workers)
    lost = {settings.key for name in names for settings in missing(name, preset, seeds, runs)} if failed else set()
    whole = [name for name in names if not lost & {settings.key for settings in experiments(name, preset, seeds)}]
    for name in whole:
        lines_of(name, preset, seeds, runs)
    return failed + show(whole, preset, seeds, Path(runs), workers)


def show(names: list[str], preset: str, seeds: int, runs: Path, workers: int | None) -> list[Job]:
    "Run the artefacts' notebooks and write runs/report.html; the failed jobs are returned."
    from optima.report import write_report

    jobs = [artefact_job(name, preset, seeds, runs) for name in names]
    failed = run_jobs(jobs, workers, "tables and figures") if jobs else []
    shown = [job.output for job in jobs if job.code == 0]
    if shown:
        write_report(shown, runs / "report.html")
    return failed


def watch(parent: int):
    "End this process when its parent is gone, so that a killed command leaves nothing running."
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3)
    os._exit(1)


def interrupt(*_):
    "Turn a request to end into the exception that papermill cleans up after."
    raise KeyboardInterrupt


def execute(notebook: str, output: str, parameters: dict) -> int:
    "Run one notebook in this process; the exit code is 0, 1 for an error, 2 for an OptimaError."
    sys.modules.setdefault("rfc3987_syntax", None)  # seconds of start that jsonschema spends where JupyterLab is there
    import papermill
    from nbclient.exceptions import DeadKernelError

    try:
        papermill.execute_notebook(notebook, output, parameters, kernel_name="python3", progress_bar=False,
                                   log_output=False, cwd=str(Path(notebook).parent))
    except papermill.PapermillExecutionError as error:
        user = error.ename == "OptimaError"
        print(error.evalue if user else f"{error.ename}: {error.evalue}", file=sys.stderr)
        return 2 if user else 1
    except DeadKernelError:
        print("the notebook's process died; was it killed, or out of memory?", file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    "What one child process does: python -m optima.launcher NOTEBOOK OUTPUT PARAMETERS PARENT."
    parser = argparse.ArgumentParser(prog="optima.launcher")
    for name in ("notebook", "output", "parameters"):
        parser.add_argument(name)
    parser.add_argument("parent", type=int)
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=watch, args=[chosen.parent], daemon=True).start()
    try:
        return execute(chosen.notebook, chosen.output, json.loads(chosen.parameters))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
