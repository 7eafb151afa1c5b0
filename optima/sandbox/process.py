"A function in a process of its own: asked by JSON lines, limited in time and memory, killed and started anew."
import atexit
import contextlib
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading

PATIENCE = 20  # wall-clock seconds per second of computing, and 10 more: a busy machine must cost no answer its score


class Helper:
    "Asks a function in another process. Threads take turns; a forked or spawned process starts a helper of its own."

    def __init__(
        self,
        module: str,  # where the function is
        name: str,  # of the function: JSON values as keywords -> a JSON value
        memory: int = 2**31,  # bytes that the process may have
    ):
        self.command = (f"import sys; sys.path[:] = {sys.path!r}\n"
                        f"from optima.sandbox.process import serve; serve({module!r}, {name!r}, {memory})")
        self.process = None
        self.lock = threading.Lock()
        os.register_at_fork(after_in_child=self.forget)
        atexit.register(self.stop)

    def forget(self):
        "In a forked child: leave the parent's helper alone, and its lock too, which another thread may have held."
        process, self.process, self.lock = self.process, None, threading.Lock()
        if process:
            process.returncode = 0  # not ours to wait for
            for pipe in (process.stdin, process.stdout):
                pipe.close()

    def stop(self):
        "End the process."
        process, self.process = self.process, None
        if process:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()

    def start(self) -> subprocess.Popen:
        "The process, started at the first question and after each that it did not survive."
        if self.process is None or self.process.poll() is not None:
            self.stop()
            self.process = subprocess.Popen([sys.executable, "-c", self.command], bufsize=0,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if self.process.stdout.readline() != b"ready\n":
                raise RuntimeError("the helper process did not start; its error is above")
        return self.process

    def ask(
        self,
        seconds: float,  # of computing, not of waiting for a busy processor
        **question,
    ):
        "The function's value; TimeoutError or MemoryError where it takes too much, RuntimeError where it raises."
        with self.lock:
            process = self.start()
            with contextlib.suppress(BrokenPipeError):  # it has just ended: what it was is told below
                process.stdin.write(json.dumps({"seconds": seconds, "question": question}).encode() + b"\n")
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE * seconds + 10)
            line = process.stdout.readline() if ready else b""
            if not line.endswith(b"\n"):
                self.stop()
                self.ended(process.returncode, seconds)
        answer = json.loads(line)
        if "error" in answer:
            raise MemoryError if answer["error"] == "MemoryError" else RuntimeError(answer["error"])
        return answer["value"]

    @staticmethod
    def ended(code: int, seconds: float):
        "Raise what a process that gave no answer stands for."
        if code in (-signal.SIGPROF, -signal.SIGKILL):
            raise TimeoutError(f"no answer within {seconds} s")
        raise RuntimeError(f"the helper process ended with code {code}")


def serve(module: str, name: str, memory: int):
    "Answer questions on standard input until it closes; what the function prints is dropped."
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    function = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    print("ready", file=answers)
    for line in sys.stdin:
        print(json.dumps(answer(function, **json.loads(line))), file=answers)


def answer(function, seconds: float, question: dict) -> dict:
    "One question's value, or the error that it raised; the clock ends the process, also inside one long operation."
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return {"value": function(**question)}
    except MemoryError:
        return {"error": "MemoryError"}
    except Exception as error:  # noqa: BLE001 - it is raised again where the question came from
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
