"The second sandbox: full CPython under bubblewrap, tests and candidate each in a sandbox of their own."
# This process relays frames between the two workers and keeps the clocks. It reads a frame's nonce, length and letter, never
# its body: nothing that a candidate writes is decoded, let alone unpickled, outside a sandbox. A candidate that takes its
# worker over can return values, or break the protocol; the comparison, and the verdict, are in the tests' worker.
import json
import math
import os
import platform
import secrets
import select
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from optima.sandbox import worker as isolation_worker
from optima.sandbox.worker import HEADER, MOST_BYTES

CROSSING = 0.01  # seconds that a call's way across may take, on top of the candidate's own time
START_SECONDS, END_SECONDS = 30, 10  # for a sandbox to come up and to go away, on a busy machine
INSTALL = "install bubblewrap 0.7 or newer (apt-get install bubblewrap)"
ALLOW = ("user namespaces must be allowed: on Ubuntu sysctl kernel.apparmor_restrict_unprivileged_userns=0; in a container "
         "a seccomp profile that allows unshare, such as docker run --security-opt seccomp=unconfined")  # fmt: skip

# System calls that a sandbox has no use for, and their numbers on x86_64 and on aarch64 (None: it has no such call).
# Processes and threads: a process limit does not bind root, this does. Namespaces: a new one would give capabilities back.
# The rest reaches memory that no limit of ours counts, the network, the kernel's keys, or other processes.
REFUSED = {
    "fork": (57, None), "vfork": (58, None), "clone": (56, 220), "clone3": (435, 435),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
    "socket": (41, 198), "socketpair": (53, 199), "io_uring_setup": (425, 425),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273),
}  # fmt: skip
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # how the kernel names each architecture to a filter
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: load a word; compare and jump; return
ALLOWED, REFUSAL, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # let through; errno 1, EPERM; end the process


def seccomp_filter(machine: str) -> bytes:
    "A BPF program for bwrap's --seccomp: it refuses the calls of `REFUSED`, and every call of a foreign kind."
    numbers = [pair[machine == "aarch64"] for pair in REFUSED.values() if pair[machine == "aarch64"] is not None]
    # each line: operation, how many lines to skip where it holds and where not, a number; the last two lines are the answers
    body = [(EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    lines = [
        (LOAD, 0, 0, 4), (EQUAL, 1, 0, AUDIT[machine]), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0), (AT_LEAST, len(numbers) + 1, 0, 0x40000000),  # the x32 calls, under numbers of their own
        *body, (RETURN, 0, 0, ALLOWED), (RETURN, 0, 0, REFUSAL),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def shown(python: str) -> list[str]:
    "The paths that a sandbox sees: the interpreter, its library, and the system's shared libraries."
    prefixes = dict.fromkeys(["/usr", sys.base_prefix, sys.base_exec_prefix])
    libraries = [f"{prefix}/{name}" for prefix in prefixes for name in ("lib", "lib64", "lib32")]
    return [python, *filter(os.path.isdir, libraries)]


def command(python: str) -> list[str]:
    "bwrap and its flags, up to the program: no network, no /proc, no /dev, nothing that can be written to."
    # A tmpfs with a size would bound bytes, not files: 250,000 empty ones in a second took 255 MB of kernel memory.
    # bwrap's --disable-userns needs a writable /proc/sys, which containers lack; the filter refuses what it would.
    flags = "--unshare-all --unshare-user --uid 65534 --gid 65534 --cap-drop ALL --die-with-parent --new-session --clearenv"
    binds = [part for path in shown(python) for part in ("--ro-bind", path, path)]
    for path in map(Path, ("/lib", "/lib64", "/lib32")):
        if path.is_symlink():
            binds += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            binds += ["--ro-bind", str(path), str(path)]
    binds += ["--ro-bind", isolation_worker.__file__, "/worker.py", "--dir", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]
    return [shutil.which("bwrap"), *flags.split(), "--setenv", "PYTHONHASHSEED", "0", *binds]


class Broken(Exception):
    "A worker ended, or wrote what is no frame."


class Late(Exception):
    "A worker did not answer in time."


def pipe_with(content: bytes) -> int:
    "A descriptor from which a little content can be read."
    source, target = os.pipe()
    os.write(target, content)
    os.close(target)
    return source


class Sandbox:
    "A worker under bubblewrap, its pipes and its clock; use it in a `with` block, which ends the whole process tree."

    def __init__(self, role: str, seconds: float, memory: int):
        self.seconds, self.memory, self.spent, self.asked = seconds, memory, 0.0, 0
        self.buffer, self.nonce = bytearray(), bytes(16)
        python = os.path.realpath(sys._base_executable)
        source, self.target = os.pipe()
        self.source, target = os.pipe()
        rules = pipe_with(seccomp_filter(platform.machine()))
        inside = [python, "-s", "-S", "-P", "-B", "-X", "utf8", "/worker.py", role, str(source), str(target)]
        self.process = subprocess.Popen(
            [*command(python), "--seccomp", str(rules), "--", *inside], env={}, cwd="/", pass_fds=(source, target, rules),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        for descriptor in (source, target, rules):
            os.close(descriptor)
        os.set_blocking(self.target, False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.target)
        self.process.stderr.close()
        deadline = time.monotonic() + END_SECONDS
        while self._read(deadline):  # the end of the file comes when the last process has gone
            self.buffer.clear()
        os.close(self.source)

    def _ready(self, descriptor: int, event: int, deadline: float):
        "Wait until a pipe can be used."
        waiting = select.poll()
        waiting.register(descriptor, event)
        if not waiting.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise Late

    def _read(self, deadline: float) -> bool:
        "Add what can be read to the buffer; False at the end of the file."
        self._ready(self.source, select.POLLIN, deadline)
        part = os.read(self.source, 1 << 16)
        self.buffer += part
        return bool(part)

    def receive(self, deadline: float) -> tuple[bytes, bytes]:
        "The next frame's letter and body; it must answer the last frame sent."
        size = HEADER.size
        while len(self.buffer) < size:
            if not self._read(deadline):
                raise Broken("ended its process")
            if len(self.buffer) >= HEADER.size:
                nonce, length, letter = HEADER.unpack_from(self.buffer)
                size = HEADER.size + length
                if nonce != self.nonce or length > MOST_BYTES or len(self.buffer) > size:
                    raise Broken("wrote an answer that nobody asked for")
        body = bytes(self.buffer[HEADER.size:])
        self.buffer.clear()
        return letter, body

    def send(self, letter: bytes, body: bytes, deadline: float):
        "A frame under a new nonce."
        self.nonce = secrets.token_bytes(16)
        waiting = memoryview(HEADER.pack(self.nonce, len(body), letter) + body)
        while waiting:
            self._ready(self.target, select.POLLOUT, deadline)
            try:
                waiting = waiting[os.write(self.target, waiting):]
            except BrokenPipeError:
                raise Broken("ended its process") from None

    def start(self):
        "Wait until the worker is up; raises `RuntimeError` with what bwrap said where it does not come."
        try:
            self.receive(time.monotonic() + START_SECONDS)
        except (Broken, Late):
            self.process.kill()
            said = " ".join(self.process.stderr.read().decode(errors="replace").split())
            raise RuntimeError(f"bubblewrap did not start Python: {said or f'no sign of life in {START_SECONDS} s'}") from None

    def ask(self, letter: bytes, body: bytes) -> tuple[bytes, bytes]:
        "A frame and its answer, on this worker's clock."
        self.asked += 1
        began = time.monotonic()
        deadline = began + self.seconds + CROSSING * min(self.asked, 1000) - self.spent
        self.send(letter, body, deadline)
        answer = self.receive(deadline)
        self.spent += time.monotonic() - began
        return answer

    def begin(self, code: str, entry_point: str) -> tuple[bytes, bytes]:
        "Hand over limits and code."
        processor_seconds = math.ceil(self.seconds + CROSSING * 1000) + 1  # the clock comes first
        told = {"code": code, "entry_point": entry_point, "memory": self.memory, "seconds": processor_seconds}
        return self.ask(b"s", json.dumps(told).encode())


@dataclass(frozen=True)
class Outcome:
    "What a candidate's run against its tests showed."

    status: str  # passed, failed, error, timeout, memory or unsupported
    detail: str = ""
    calls: int = 0


class Stopped(Exception):
    "The verdict is settled, whatever the tests would make of it."

    def __init__(self, status: str, detail: str):
        self.outcome = Outcome(status, detail)


CANDIDATE_ENDS = {  # letter -> status, and what to say; {0} is the entry point, {1} the worker's text
    b"o": ("error", "{0} returned no plain value but a {1}"), b"m": ("memory", "{1}"), b"l": ("error", "{0} left by {1}"),
    b"t": ("error", "{1}"),
}  # fmt: skip
TESTS_ENDS = {
    b"f": ("failed", "{1}"), b"t": ("error", "{1}"), b"m": ("memory", "{1}"),
    b"u": ("unsupported", "the tests pass a {1} to {0}"), b"x": ("error", "{0} returned no plain value ({1})"),
}  # fmt: skip


def settled(ask, goes_on: bytes, ends: dict, who: str, entry_point: str) -> tuple[bytes, bytes]:
    "A worker's answer, where it is of a kind that goes on; raises `Stopped` for all others."
    try:
        letter, body = ask()
    except Broken as broken:
        raise Stopped("error", f"{who} {broken}") from None
    except Late:
        raise Stopped("timeout", f"{who} took too long") from None
    if letter in goes_on:
        return letter, body
    status, says = ends.get(letter, ("error", "{0} wrote an answer of no known kind"))
    raise Stopped(status, says.format(entry_point, body[:300].decode(errors="replace")))


def relay(candidate: Sandbox, tests: Sandbox, code: str, program: str, entry_point: str) -> Outcome:
    "Carry calls and answers between the two workers until the tests have ended."
    def answer(ask, goes_on):
        return settled(ask, goes_on, CANDIDATE_ENDS, entry_point, entry_point)

    def tests_go_on(ask):
        return settled(ask, b"cp", TESTS_ENDS, "the tests", entry_point)

    answer(lambda: candidate.begin(code, entry_point), b"v")
    call, calls = tests_go_on(lambda: tests.begin(program, entry_point)), 0
    while call[0] == b"c":
        calls += 1
        given = answer(lambda call=call: candidate.ask(*call), b"vr")
        call = tests_go_on(lambda given=given: tests.ask(*given))
    answer(lambda: candidate.ask(b"e", b""), b"e")  # an answer too many would be found here
    return Outcome("passed", "", calls)


def judge(
    code: str,  # the candidate
    program: str,  # the tests, which call `candidate` or the entry point by name
    entry_point: str,
    seconds: float,  # for all of the candidate's calls together, and as many for the tests
    memory: int,  # bytes for the candidate, twice as many for the tests
) -> Outcome:
    "Run a candidate against its tests; raises `RuntimeError` where bubblewrap does not start."
    with Sandbox("candidate", seconds, memory) as candidate, Sandbox("tests", seconds, 2 * memory) as tests:
        candidate.start(), tests.start()
        try:
            return relay(candidate, tests, code, program, entry_point)
        except Stopped as stopped:
            return stopped.outcome


PROBE = "import os\ndef f(x):\n    try: os.fork()\n    except PermissionError: return x"


@lru_cache(maxsize=1)
def missing() -> str:
    "Why this machine has no second sandbox, and what to do; '' where it has."
    if platform.system() != "Linux" or platform.machine() not in AUDIT:
        return f"bubblewrap and its filter are for Linux on {' or '.join(AUDIT)}"
    if not shutil.which("bwrap"):
        return f"bubblewrap is not installed: {INSTALL}"
    try:
        found = judge(PROBE, "assert f((1, 2)) == (1, 2)", "f", START_SECONDS, 50_000_000)
    except RuntimeError as error:
        return f"{error}; {INSTALL if 'nknown option' in str(error) else ALLOW}"
    return "" if found.status == "passed" else f"bubblewrap does not hold what it should: {found.status}, {found.detail}"
