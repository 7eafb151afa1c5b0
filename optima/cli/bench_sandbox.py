"How many programs a second the two sandboxes judge on one core, and where the time goes."
# One program after the other; this process, and all that it starts, may use one core. Each measurement is repeated and the
# best one told: what else runs on a machine only ever makes it slower.
import os
import time
from contextlib import contextmanager

from optima.base.errors import OptimaError
from optima.base.machine import machine
from optima.sandbox import bubblewrap as isolation
from optima.sandbox import judge as sandbox

FLOORS = {"monty": 500, "bubblewrap": 10}  # programs per second and core
PROGRAM = "def take(x):\n    return [(x + 3) * 2 for _ in range(3)]"
TESTS = "def check(candidate):\n    for x in range(3):\n        assert candidate(x) == [(x + 3) * 2] * 3"
COUNTS, REPEATS = {"monty": 200, "bubblewrap": 10}, 5


@contextmanager
def one_core():
    "Keep this process, and what it starts meanwhile, on one of its cores."
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def by_monty():
    "Judge the program in two fresh interpreters of the warm pools."
    return sandbox._judged(sandbox._test_program(TESTS, "take"), PROGRAM, "take", 5.0, 50_000_000)


def monty_start():
    "Two fresh interpreters, and nothing in them."
    with sandbox._session("tests", 5.0, 50_000_000), sandbox._session("candidate", 5.0, 50_000_000):
        pass


def by_bubblewrap():
    "Judge the program in two fresh sandboxes."
    return isolation.judge(PROGRAM, sandbox._test_body(TESTS, "take"), "take", 5.0, 50_000_000)


def bubblewrap_start():
    "Two sandboxes with Python up in them, and away again."
    with isolation.Sandbox("candidate", 5.0, 50_000_000) as one, isolation.Sandbox("tests", 5.0, 50_000_000) as other:
        one.start(), other.start()


def seconds_each(action, count: int, repeats: int) -> float:
    "Seconds that an action takes, at its best: the mean of the quickest series."
    def series():
        started = time.perf_counter()
        for _ in range(count):
            action()
        return (time.perf_counter() - started) / count

    return min(series() for _ in range(repeats))


def level(name: str, judge, start, count: int, repeats: int) -> dict:
    "One level's speed, and the share of its time that goes into making and ending interpreters."
    if (found := judge()).status != "passed":
        raise OptimaError(f"{name} judged a right program as {found.status}: {found.detail}")
    whole, empty = seconds_each(judge, count, repeats), seconds_each(start, count, repeats)
    return {"programs_per_second": round(1 / whole, 1), "milliseconds": round(1000 * whole, 2),
            "start_share": round(min(1.0, empty / whole), 3), "floor": FLOORS[name]}  # fmt: skip


def measure(counts: dict | None = None, repeats: int = REPEATS) -> dict:
    "Everything that `optima bench sandbox` reports."
    counts, load, reason = counts or COUNTS, os.getloadavg()[0], isolation.missing()
    with one_core():
        levels = {"monty": level("monty", by_monty, monty_start, counts["monty"], repeats)}
        if not reason:
            levels["bubblewrap"] = level("bubblewrap", by_bubblewrap, bubblewrap_start, counts["bubblewrap"], repeats)
    return {"levels": levels, "missing": reason, "counts": counts, "repeats": repeats,
            "load_before": round(load, 2), "machine": machine()}  # fmt: skip


def table(found: dict) -> str:
    "The report as text."
    lines = ["programs judged per second on one core, one after the other: a function of one line, three calls of its tests",
             f"the best of {found['repeats']} series of {', '.join(f'{n} ({name})' for name, n in found['counts'].items())}", "",
             f"{'':12}{'programs/s':>12}{'floor':>8}{'ms each':>10}  of it making and ending interpreters"]  # fmt: skip
    for name, one in found["levels"].items():
        lines.append(f"{name:12}{one['programs_per_second']:12.1f}{one['floor']:8}{one['milliseconds']:10.2f}  {one['start_share']:.0%}")
    if found["missing"]:
        lines.append(f"bubblewrap: not measured; {found['missing']}")
    if found["load_before"] > 0.5:
        lines.append(f"other programs were running (load {found['load_before']}): an idle core is faster")
    return "\n".join(lines)
