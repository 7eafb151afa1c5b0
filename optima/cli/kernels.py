"What the launcher's processes do: run a notebook by papermill, in a kernel that is a fork of one warmed process."
import argparse
import atexit
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

PAGES = ("papermill", "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "pandas", "matplotlib.figure",
         "optima.report.ablations")
MODELS = ("torch", "optima.engines.local", "transformers.models.llama.modeling_llama", "optima.run.experiments", "optima.sandbox.monty")
TRAINING = ("peft", "bitsandbytes", "datasets", "optima.train.sft", "trl.trainer.sft_trainer")
DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # a driver that an import has woken does not survive a fork
MESSAGE = 1 << 20  # bytes


def can_fork() -> bool:
    "Whether a process that has imported torch may be forked here."
    return sys.platform == "linux" and not any(map(os.path.exists, DEVICES))


class Forked:
    "A child of this process that fork made, with what subprocess.Popen would offer."

    stdin = stdout = stderr = returncode = None

    def __init__(self, pid: int):
        self.pid = pid

    def poll(self, options: int = os.WNOHANG) -> int | None:
        "The exit code, or None while it runs."
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        "The exit code, when it has ended."
        return self.poll(0)

    def send_signal(self, number: int):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Ordered:
    "A job that the warmed process was asked to start, as the launcher sees it."

    def __init__(self, warmed: "Warmed"):
        self.warmed, self.pid, self.code = warmed, 0, None

    def poll(self) -> int | None:
        "The exit code, or None while it runs."
        self.warmed.hear()
        return self.code


class Warmed:
    "One process that imports once and then forks a process per job; use it in a `with` statement."

    def __init__(
        self,
        modules: tuple[str, ...],  # to import before the first fork
        environment: dict,
    ):
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-m", "optima.cli.kernels", "serve", str(theirs.fileno()), str(os.getpid())]
        self.process = subprocess.Popen([*command, *modules], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, env=environment, pass_fds=[theirs.fileno()],
                                        start_new_session=True)
        theirs.close()
        self.ordered, self.ready = [], False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()
        if not self.ready:
            self.process.kill()  # busy with its imports
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def launch(self, **request) -> Ordered:
        "Ask for a job: its number comes back in every answer."
        job = Ordered(self)
        self.ordered.append(job)
        with suppress(OSError):
            self.channel.send(json.dumps(request | {"job": len(self.ordered) - 1}).encode())
        return job

    def alive(self) -> bool:
        "Whether it can start another job."
        return self.process.poll() is None

    def hear(self):
        "Take in what it has told; when it is gone, so are its jobs."
        while select.select([self.channel], [], [], 0)[0]:
            try:
                message = self.channel.recv(MESSAGE)
            except OSError:
                message = b""
            if not message:
                code = self.process.wait()
                for job in self.ordered:
                    job.code = (code or 1) if job.code is None else job.code
                return
            told = json.loads(message)
            self.ready, job = True, self.ordered[told["job"]]
            job.pid, job.code = told["pid"], told["code"]


def die_with(parent: int):
    "Have the system kill this process when the one that started it is gone, whatever it is doing."
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def skip_slow_formats():
    "Spare the seconds that jsonschema spends on one import where JupyterLab is installed."
    sys.modules.setdefault("rfc3987_syntax", None)


def preload(modules: list[str]):
    "Import; what cannot be imported is for the notebook to tell, if it needs it at all."
    skip_slow_formats()
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # read at matplotlib's import
    gc.disable()
    for name in modules:
        with suppress(Exception):
            import_module(name)
    gc.freeze()  # a collection in a child would copy the pages that it shares with the others
    gc.enable()


def serve(channel: socket.socket) -> dict | None:
    "Fork on request until the launcher closes the channel; returns in each child, with the child's request."
    children = {}
    while True:
        if select.select([channel], [], [], 0.05)[0]:
            message = channel.recv(MESSAGE)
            if not message:
                break
            request = json.loads(message) | {"parent": os.getpid()}
            pid = os.fork()
            if pid == 0:
                channel.close()
                return request
            children[request["job"]] = Forked(pid)
            tell(channel, request["job"], children[request["job"]])
        for job in [job for job, child in children.items() if child.poll() is not None]:
            tell(channel, job, children.pop(job))
    for child in children.values():
        child.terminate()  # and `watch` in it sees to the rest
    return None


def tell(channel: socket.socket, job: int, child: Forked):
    "How a job stands; a launcher that does not listen any more has closed the channel."
    with suppress(OSError):
        channel.send(json.dumps({"job": job, "pid": child.pid, "code": child.returncode}).encode())


def run_forked(request: dict) -> int:
    "A job's process: it forks its kernel while it has no thread and no event loop, then runs the notebook."
    os.setsid()
    os.environ.update(request["environment"])
    log = os.open(request["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    reading, writing = os.pipe()
    job, pid = os.getpid(), os.fork()
    if pid == 0:
        os.close(writing)
        return run_kernel(reading, job)
    os.close(reading)
    adopt(pid, writing)
    return run_job(request["notebook"], request["output"], request["parameters"], request["parent"])


def run_kernel(reading: int, parent: int) -> int:
    "A kernel's process: it waits to be told its connection file, and ends with the job."
    os.setsid()
    die_with(parent)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        told = pipe.read()
    if not told:
        return 0
    from ipykernel.kernelapp import IPKernelApp

    told = json.loads(told)
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    IPKernelApp.launch_instance(argv=told["arguments"], parent_handle=parent, kernel_class=punctual_kernel())
    return 0


def is_over(child: int) -> bool:
    "Whether a child of this process has ended, though nobody has asked how."
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # a child's child
        return False


def punctual_kernel() -> type:
    "The class of IPython's kernels that do not wait at their end for children that have ended already."
    from ipykernel.ipkernel import IPythonKernel

    class Punctual(IPythonKernel):
        "A kernel that looks at how its children stand."

        def _process_children(self):  # else it waits 2.5 s for the sandbox's processes, job by job, until it is killed
            return [child for child in super()._process_children() if not is_over(child.pid)]

    return Punctual


def adopt(pid: int, writing: int):
    "Have jupyter_client take a kernel that waits already where it would start one."
    from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

    class Adopted(LocalProvisioner):
        "The kernel that this process forked."

        async def launch_kernel(self, cmd, **settings):
            self.process, self.pid, self.pgid = Forked(pid), pid, pid
            self.cwd = settings.get("cwd") or os.getcwd()
            told = {"arguments": cmd[cmd.index("-f"):], "folder": str(self.cwd),
                    "environment": dict(settings.get("env") or {})}
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                pipe.write(json.dumps(told))
            return self.connection_info

    factory = KernelProvisionerFactory.instance()
    factory.provisioners["adopted"] = SimpleNamespace(name="adopted", load=lambda: Adopted)
    factory.default_provisioner_name = "adopted"


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
    "Run one notebook in this process; the exit code is 0, 1 for an error, 2 for what the user can mend."
    from optima.base.files import REASONS, unwritable

    skip_slow_formats()
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
    except OSError as error:
        if error.errno not in REASONS:
            raise
        print(unwritable(error.filename or output, REASONS[error.errno]), file=sys.stderr)
        return 2
    return 0


def run_job(notebook: str, output: str, parameters: dict, parent: int) -> int:
    "What one job's process does, until it is done, stopped, or left alone."
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=watch, args=[parent], daemon=True).start()
    try:
        return execute(notebook, output, parameters)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def leave(code: int):
    "End this process without the seconds that Python takes to clear away what it has imported, page by page."
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def run_warmed(channel: int, parent: int, modules: list[str]):
    "What the warmed process does, and every job's process that comes from it."
    die_with(parent)
    preload(modules)
    request = serve(socket.socket(fileno=channel))
    leave(run_forked(request) if request else 0)


def main(arguments: list[str] | None = None) -> int:
    "python -m optima.cli.kernels run NOTEBOOK OUTPUT PARAMETERS PARENT, or: serve CHANNEL PARENT MODULES."
    parser = argparse.ArgumentParser(prog="optima.cli.kernels")
    commands = parser.add_subparsers(dest="command", required=True)
    run, warm = commands.add_parser("run"), commands.add_parser("serve")
    for name in ("notebook", "output", "parameters"):
        run.add_argument(name)
    warm.add_argument("channel", type=int)
    for command in (run, warm):
        command.add_argument("parent", type=int)
    warm.add_argument("modules", nargs="*")
    chosen = parser.parse_args(arguments)
    if chosen.command == "serve":
        run_warmed(chosen.channel, chosen.parent, chosen.modules)
    return run_job(chosen.notebook, chosen.output, json.loads(chosen.parameters), chosen.parent)


if __name__ == "__main__":
    sys.exit(main())
