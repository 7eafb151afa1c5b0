"Runs the notebooks of nbs/artefacts by papermill: what is missing, in parallel processes, and the report of it all."
import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from optima.base.errors import OptimaError, suggest
from optima.base.files import digest, make_folder
from optima.base.machine import cores
from optima.base.progress import FILE, Progress
from optima.cli import kernels
from optima.cli.kernels import Ordered, Warmed
from optima.config.artefacts import artefact
from optima.config.models import model_digest
from optima.config.settings import Settings, load_settings
from optima.config.systems import METHODS
from optima.run.registry import read_registry

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "nbs" / "artefacts"
PUBLISHED = ROOT / "nbs" / "results"
EXPERIMENT = "experiment.ipynb"

@dataclass(eq=False)
class Job:
    "One notebook to run: where it comes from, where it goes, what it is told."

    name: str
    notebook: Path
    output: Path
    parameters: dict
    shares: tuple[str, ...] = ()  # names of stages that other jobs make too: the first job of a name goes ahead
    weight: int = 0  # heavier jobs start first
    after: list["Job"] = field(default_factory=list, repr=False)  # the jobs that go ahead
    process: subprocess.Popen | Ordered | None = None
    error: str = ""
    code: int | None = None
    scratch: Path | None = field(default=None, repr=False)


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


def workload(settings: Settings) -> int:
    "How many dialogues an experiment holds, where nothing is shared."
    samples = 0 if settings.mode == "demonstrations" else settings.samples or len(settings.strategies)
    grown = sum(METHODS.get(settings.method).step(number) == "compare" for number in range(1, settings.iterations + 1))
    trees = settings.tree_tasks * settings.expansions * settings.rollouts + settings.pilot_dialogues
    trained = (settings.iterations - grown) * settings.tasks_per_iteration * samples + grown * trees
    between = max(settings.iterations - 1, 0) * settings.iteration_tasks
    chosen = len(settings.candidates) * settings.development_tasks * (settings.evaluation_strategy == "best")
    held = [settings.votes if decoding == "vote" else 1 for decoding in settings.decodings]
    scaled = settings.scaling_tasks * settings.scaling_samples * settings.scaling
    return len(settings.benchmarks) * (trained + between + chosen + sum(held) * settings.evaluation_tasks + scaled)


def shared_stages(settings: Settings) -> tuple[str, ...]:
    "Names for what other experiments may make too: iteration 1's dialogues, or all stages of a benchmark."
    own = {name: value for name, value in settings.to_dict().items() if name not in ("system", "benchmarks")}
    if settings.iterations:
        return digest(own), f"{settings.mode}-{settings.paradigm}-{settings.seed}-{settings.agents}"
    model = settings.teacher_folder if settings.team == "teacher" else settings.base_folder
    return (digest(own | {"seed": None, "model": model_digest(model)}),)  # greedy dialogues know no seed


def experiment_job(settings: Settings, preset: str, runs: Path) -> Job:
    "The job that runs one experiment."
    name = f"{settings.system}-{settings.preset}-{settings.seed}"
    parameters = {"system": settings.system, "preset": absolute_preset(preset), "seed": settings.seed,
                  "runs": str(Path(runs).resolve())}
    return Job(name, NOTEBOOKS / EXPERIMENT, Path(runs) / "notebooks" / f"{name}.ipynb", parameters,
               shares=shared_stages(settings), weight=workload(settings))


def artefact_job(name: str, preset: str, seeds: int, runs: Path) -> Job:
    "The job that makes one table or figure."
    parameters = {"preset": absolute_preset(preset), "seeds": seeds, "runs": str(Path(runs).resolve())}
    return Job(name, NOTEBOOKS / artefact(name)["notebook"], Path(runs) / "notebooks" / f"{name}.ipynb", parameters)


def in_order(jobs: list[Job]) -> list[Job]:
    "The heaviest first, each told which jobs make its shared stages before it."
    ordered, first = sorted(jobs, key=lambda job: -job.weight), {}
    for job in ordered:
        leaders = [first.setdefault(share, job) for share in job.shares]
        job.after = [other for other in leaders if other is not job]
    return ordered


def next_job(waiting: list[Job], running: list[Job]) -> Job:
    "The first that has no stages to wait for; where each has, the first of all: locks keep them apart."
    unfinished = waiting + running
    free = (job for job in waiting if not any(other in unfinished for other in job.after))
    return next(free, waiting[0])


def environment(scratch: Path | None = None) -> dict:
    "One thread, our own Python's kernel; for a job also its own IPython history and a file to tell the progress in."
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    own = {"IPYTHONDIR": str(scratch / "ipython"), FILE: str(scratch / "progress")} if scratch else {}
    return os.environ | threads | own | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": path,
                                         "TOKENIZERS_PARALLELISM": "false",
                                         "JE_ARROW_MALLOC_CONF": "background_thread:false"}  # no thread before a fork


def launch(job: Job, scratch: Path, warmed: Warmed | None = None):
    "Start a job's process, as a fork of the warmed one where there is one; what it prints goes to a file."
    job.scratch = make_folder(scratch / job.name)
    errors, told = job.scratch / "stderr", environment(job.scratch)
    paths = {"notebook": str(job.notebook), "output": str(job.output)}
    if warmed and warmed.alive():
        job.process = warmed.launch(**paths, parameters=job.parameters, environment=told, errors=str(errors))
        return
    command = [sys.executable, "-m", "optima.cli.kernels", "run", *paths.values(), json.dumps(job.parameters),
               str(os.getpid())]
    with open(errors, "w", encoding="utf-8") as log:
        job.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=told,
                                       start_new_session=True)


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
        told = last_line(job.scratch / "stderr") if job.code > 0 else f"ended by signal {-job.code}"
        job.error = told or f"ended with code {job.code}, and said nothing"
    return job.code is not None


def stop(jobs: list[Job], patience: float = 4.0):
    "End processes with all that they started: asked first, then killed."
    alive = [job for job in jobs if job.process and job.process.poll() is None and job.process.pid]
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
    warmed: Warmed | None = None,  # the process to fork the jobs' processes from
) -> list[Job]:
    "Run the jobs' notebooks in parallel; a failure lets the others finish; the failed jobs are returned."
    for job in jobs:
        check_parameters(job.notebook, job.parameters)
        make_folder(job.output.parent)
    with tempfile.TemporaryDirectory(prefix="optima-") as scratch, Progress(title, len(jobs)) as progress:
        drive(jobs, workers or cores(), Path(scratch), progress, warmed)
    return [job for job in jobs if job.code]


def drive(jobs: list[Job], workers: int, scratch: Path, progress: Progress, warmed: Warmed | None = None):
    "Keep as many jobs running as there are workers, until all have ended or the user stops them."
    waiting, running = in_order(jobs), []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = next_job(waiting, running)
                waiting.remove(job)
                launch(job, scratch, warmed)
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


def lacking(names: list[str], preset: str, seeds: int, runs: str | Path) -> list[Settings]:
    "The experiments that the artefacts need and the registry lacks, each once."
    wanted = {settings.key: settings for name in names for settings in missing(name, preset, seeds, runs)}
    return list(wanted.values())


def warm(
    experiments: list[Settings],  # to be run
    artefacts: int = 0,  # tables and figures to be made afterwards
) -> AbstractContextManager:
    "A process that imports once for all notebooks; None for a single one, and where forking is not safe."
    if len(experiments) + artefacts < 2 or not kernels.can_fork():
        return nullcontext()
    trained = any(settings.iterations for settings in experiments)
    modules = kernels.PAGES + kernels.MODELS * bool(experiments) + kernels.TRAINING * trained
    return Warmed(modules, environment())


def run_missing(
    names: list[str],  # artefacts
    preset: str = "toy",
    seeds: int = 1,
    runs: str | Path = "runs",
    workers: int | None = None,
    warmed: Warmed | None = None,  # the process to fork the jobs' processes from
) -> list[Job]:
    "Run every experiment that the artefacts need and the registry lacks, each once; the failed jobs are returned."
    jobs = [experiment_job(settings, preset, Path(runs)) for settings in lacking(names, preset, seeds, runs)]
    return run_jobs(jobs, workers, "experiments", warmed) if jobs else []


def ensure(
    name: str,  # a name in ARTEFACTS
    preset: str = "toy",
    seeds: int = 1,  # seeds 0 to seeds - 1
    runs: str | Path = "runs",  # "": the published registry, where nothing is run
    workers: int | None = None,  # processes at once; None: one per core
) -> list[dict]:
    "The registry lines that an artefact shows; experiments that are missing in a run folder are run first."
    if not runs:
        return published(name, preset, seeds)
    with warm(lacking([name], preset, seeds, runs)) as warmed:
        failed = run_missing([name], preset, seeds, runs, workers, warmed)
    if failed:
        raise OptimaError("; ".join(f"{job.name} failed: {job.error}" for job in failed))
    return lines_of(name, preset, seeds, runs)


def published(name: str, preset: str, seeds: int) -> list[dict]:
    "An artefact's lines in the registry that is part of the repository, as they are."
    systems = artefact(name)["systems"]
    return [line for line in read_registry(PUBLISHED)
            if line["system"] in systems and line["preset"] == Path(preset).stem and line["seed"] < seeds]


def lines_of(name: str, preset: str, seeds: int, runs: str | Path) -> list[dict]:
    "The registry lines that an artefact shows; one that is not there is an OptimaError."
    lines = {line["key"]: line for line in read_registry(runs)}
    wanted = experiments(name, preset, seeds)
    without = [f"{settings.system} (seed {settings.seed})" for settings in wanted if settings.key not in lines]
    if without:
        raise OptimaError(f"{name}: the registry in {runs} has no line for {', '.join(without)}; "
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
    with warm(lacking(names, preset, seeds, runs), len(names)) as warmed:
        failed = run_missing(names, preset, seeds, runs, workers, warmed)
        lost = {settings.key for settings in lacking(names, preset, seeds, runs)} if failed else set()
        whole = [name for name in names if not lost & {settings.key for settings in experiments(name, preset, seeds)}]
        for name in whole:
            lines_of(name, preset, seeds, runs)
        return failed + show(whole, preset, seeds, Path(runs), workers, warmed)


def show(
    names: list[str],  # artefacts
    preset: str,
    seeds: int,
    runs: Path,
    workers: int | None,
    warmed: Warmed | None = None,
) -> list[Job]:
    "Run the artefacts' notebooks and write runs/report.html; the failed jobs are returned."
    from optima.report.page import write_report

    jobs = [artefact_job(name, preset, seeds, runs) for name in names]
    failed = run_jobs(jobs, workers, "tables and figures", warmed) if jobs else []
    shown = [job.output for job in jobs if job.code == 0]
    if shown:
        write_report(shown, runs / "report.html")
    return failed
