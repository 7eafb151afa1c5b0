"Processes that are forks of one that has imported what notebooks and commands import: seconds of each otherwise."
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

from optima.cli import kernels

FORKED = multiprocessing.get_context("forkserver" if kernels.can_fork() else "spawn")
FORKED.set_forkserver_preload(["nbdev.test", "optima.cli.main", *kernels.PAGES, *kernels.MODELS, *kernels.TRAINING])


def begin(said: Path, work: Callable, *arguments):
    "What the new process does: all that it says goes into a file, and no collection looks through what it was born with."
    os.setsid()
    gc.freeze()
    for stream in (1, 2): os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    work(*arguments)


def start(said: Path, work: Callable, *arguments):
    "Start a function of a module in a process of its own, the leader of its group."
    started = FORKED.Process(target=begin, args=(said, work, *arguments))
    started.start()
    return started


def kill(started):
    "End a process with all that it started."
    os.killpg(started.pid, signal.SIGKILL)
    started.join()
