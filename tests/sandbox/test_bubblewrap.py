"The second sandbox, and attacks on both: what a candidate may try, seen in the wild or thought of, and that it gains nothing."
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from references import REFERENCES
from required import leave

from optima.cli import bench_sandbox
from optima.sandbox import bubblewrap as isolation
from optima.sandbox import judge as sandbox
from optima.sandbox import worker as isolation_worker
from optima.sandbox.bubblewrap import REFUSED, judge, missing, seccomp_filter
from optima.sandbox.judge import run_tests
from optima.sandbox.worker import HEADER, decode, encode, read_value

MEMORY = 50_000_000
SECRET = "secret-" + "7412"  # what the tests expect; in one piece it stands in the tests' process only
TOKEN = "token-in-reach"
TESTS = f"def check(candidate):\n    assert candidate(2) == {SECRET!r}\n"
TEN = "def check(candidate):\n    assert candidate(2) == 10\n"
HEAD = "import sys, os, time, gc, signal, threading\n"
FIND_BORDER = "frame = sys._getframe()\n    while 'border' not in frame.f_locals: frame = frame.f_back\n    border = frame.f_locals['border']\n"


@pytest.fixture(scope="session")
def bwrap():
    "Skips where there is no second level, unless OPTIMA_REQUIRE names bwrap: then that is a failure."
    if reason := missing():
        leave("bwrap", f"no second sandbox level: {reason}")


@pytest.fixture
def host(tmp_path, monkeypatch):
    "A home folder with a token, and a token in the environment; both are as they were at the end."
    home = tmp_path / "home"
    home.mkdir()
    (home / ".token").write_text(TOKEN)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("API_TOKEN", TOKEN)
    yield home
    assert [path.name for path in home.iterdir()] == [".token"] and (home / ".token").read_text() == TOKEN
    assert os.environ["API_TOKEN"] == TOKEN


def body(*lines):
    return HEAD + "def f(x):\n" + "".join(f"    {line}\n" for line in lines)


def succeeds(*lines):
    "A candidate that returns what the tests want only where its attack went through."
    return body(*lines, "return 10")


NUMBERS = [pair[platform.machine() == "aarch64"] for pair in REFUSED.values()]
# name -> code, and the status and words that the second level answers with: an attack that fails by a slip would show
ATTACKS = {
    # leaving early
    "sys.exit": (body("sys.exit(0)"), "error", "f left by SystemExit"),
    "sys.exit while loading": (HEAD + "sys.exit(0)\ndef f(x): return 10", "error", "left by SystemExit"),
    "os._exit": (body("os._exit(0)"), "error", "f ended its process"),
    "os._exit while loading": (HEAD + "os._exit(0)", "error", "f ended its process"),
    "raise SystemExit": (body("raise SystemExit"), "error", "f left by SystemExit"),
    "KeyboardInterrupt": (body("raise KeyboardInterrupt"), "error", "f left by KeyboardInterrupt"),
    "own kind of exit": ("class E(BaseException): pass\ndef f(x): raise E", "error", "f left by E"),
    "abort": (body("os.abort()"), "error", "f ended its process"),
    "segfault": ("import ctypes\ndef f(x): ctypes.string_at(0)", "error", "f ended its process"),
    "stack overflow": ("import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)", "error|memory|timeout", ""),
    "exec": (body("os.execv(sys.executable, [sys.executable, '-c', 'print(10)'])"), "error", "f ended its process"),
    "atexit": ("import atexit\natexit.register(print, 'passed')\ndef f(x): raise SystemExit", "error", "f left by SystemExit"),
    "closes all": (body("os.closerange(0, 4096)", "return 10"), "error", "f ended its process"),
    # values that seem equal
    "always equal": ("class Y:\n  def __eq__(s, o): return True\ndef f(x): return Y()", "error", "but a Y"),
    "always equal, nested": ("class Y:\n  def __eq__(s, o): return True\ndef f(x): return [{1: Y()}]", "error", "but a Y"),
    **{f"always equal {kind}": (f"class Y({kind}):\n  __eq__ = lambda s, o: True\n  __hash__ = {kind}.__hash__\ndef f(x): return Y()",
                                "error", "but a Y") for kind in ("int", "str", "list", "dict", "tuple", "float")},
    "lies about its type": ("class Y:\n  __class__ = int\n  def __eq__(s, o): return True\ndef f(x): return Y()", "error", "but a Y"),
    "odd metaclass": ("class M(type):\n  __eq__ = lambda s, o: True\n  __hash__ = type.__hash__\nclass Y(metaclass=M): pass\ndef f(x): return Y()",
                      "error", "but a Y"),
    "generator": ("def f(x): yield 10", "error", "but a generator"),
    "function": ("def f(x): return f", "error", "but a function"),
    "NaN": ("def f(x): return float('nan')", "failed", ""),
    # the checker
    "own checker": ("def check(c): pass\ndef f(x): return 0", "failed", ""),
    "patched builtins": ("import builtins\nbuiltins.AssertionError = int\nbuiltins.len = lambda s: 10\ndef f(x): return 0", "failed|timeout|error", ""),
    "own entry point": (body("global f", "f = lambda x: 10", "return 0"), "failed", ""),
    "stack walk": (body("frame = sys._getframe()", "text = ''", "while frame:",
                        "    text += repr(frame.f_locals) + repr(frame.f_globals)", "    frame = frame.f_back",
                        "at = text.find('secret-')", "return text[at:at + 11] if at + 1 else 0"), "failed", ""),
    "gc walk": (body("found = [o for d in gc.get_objects() if type(d) is dict for o in d.values() if type(o) is str]",
                     "return next((o[o.find('secret-'):][:11] for o in found if 'secret-' in o), 0)"), "failed", ""),
    "own source": (body("text = open('/worker.py').read()", "return 'secret-' in text"), "failed", ""),
    "/proc": (body("return open('/proc/self/environ').read()"), "error", "No such file or "),
    "/dev": (body("return open('/dev/null').read()"), "error", "No such file or "),
    # the protocol
    "prints success": (body("print('passed\\n1 passed in 0.01s\\nOK')"), "failed", ""),
    "forged line": (body("[os.write(fd, b'{\"status\": \"passed\"}\\n') for fd in range(1, 3)]"), "failed", ""),
    "forged frames": (body("for fd in range(3, 4096):", "    try: os.write(fd, b'passed' * 9)", "    except OSError: pass", "return 10"),
                      "error", "answer that nobody asked for"),
    "forged verdict": (body(FIND_BORDER, "border.send(b'p', '')", "time.sleep(9)"), "error", "answer of no known kind"),
    "two results": (body(FIND_BORDER, "border.send(b'v', 10)", "return 10"), "error|failed", ""),
    "a thousand results": (body(FIND_BORDER, "[border.send(b'v', 10) for _ in range(1000)]"), "error", "nobody asked for"),
    "partial JSON": (body(FIND_BORDER, "import __main__ as m", "part = b'[1, 2'",
                          "os.write(border.target, m.HEADER.pack(border.nonce, len(part), b'v') + part)", "time.sleep(9)"),
                     "error", "no plain value .JSONDecodeError"),
    "half a frame": (body(FIND_BORDER, "os.write(border.target, bytes(9))", "os._exit(0)"), "error", "f ended its process"),
    "promised gigabytes": (body(FIND_BORDER, "import __main__ as m",
                                "os.write(border.target, m.HEADER.pack(border.nonce, 2**32 - 1, b'v'))", "time.sleep(9)"),
                           "error", "nobody asked for"),
    "invalid UTF-8": (body(FIND_BORDER, "import __main__ as m",
                           "os.write(border.target, m.HEADER.pack(border.nonce, 4, b'v') + b'\"\\xff\\xfe\"')", "time.sleep(9)"),
                      "error", "no plain value .UnicodeDecodeError"),
    "unknown tag": (body(FIND_BORDER, "border.send(b'v', {'eval': '10'})", "time.sleep(9)"), "error", "no plain value"),
    "forged exception": (body(FIND_BORDER, "border.send(b'r', {'names': ['SystemExit', 'eval', 'print'], 'args': [0]})", "time.sleep(9)"),
                         "error", "no plain value"),
    "surrogates": ("def f(x): return '\\ud800'", "failed", ""),
    # values too large
    "huge list": ("def f(x): return [0] * 3_000_000", "error", "too large|memory"),
    "huge text": ("def f(x): return 'a' * 20_000_000", "error", "too large"),
    "huge integer": ("def f(x): return 1 << 200_000_000", "error|memory", ""),
    "small object, many leaves": (body("y = [1]", "for _ in range(60): y = [y, y]", "return y"), "error|timeout", ""),
    "deep": (body("y = []", "for _ in range(100_000): y = [y]", "return y"), "error", "too deep"),
    "cyclic": (body("y = []", "y.append(y)", "return y"), "error", "too deep"),
    "cyclic dict": (body("y = {}", "y[1] = y", "return y"), "error", "too deep"),
    # time
    "endless loop": (body("while True: pass"), "timeout", ""),
    "endless loop while loading": ("while True: pass\ndef f(x): return 10", "timeout", ""),
    "swallowed time-out": (body("for n in range(1, 65):", "    try: signal.signal(n, signal.SIG_IGN)", "    except (OSError, ValueError): pass",
                                "while True:", "    try:", "        while True: pass", "    except BaseException: pass"), "timeout", ""),
    "sleep": (body("time.sleep(60)"), "timeout", ""),
    "stops itself": (body("os.kill(os.getpid(), signal.SIGSTOP)", "return 10"), "timeout", ""),
    "catastrophic regex": ("import re\ndef f(x): return re.match('(a+)+$', 'a' * 40 + 'b')", "timeout", ""),
    "infinite output": (body("while True: print('x' * 1000)"), "timeout", ""),
    "infinite error output": (body("while True: os.write(2, b'x' * 1000)"), "timeout", ""),
    "slow ending": (body("import atexit", "atexit.register(time.sleep, 60)", "threading.Thread(target=time.sleep, args=(60,)).start()"),
                    "error", "can't start new thread"),
    # memory and processes
    "ten billion letters": ("def f(x): return 'a' * 10**10", "memory", ""),
    "growing list": (body("y = []", "while True: y.append('a' * 99999)"), "memory", ""),
    "anonymous memory": ("import mmap\ndef f(x): return len(mmap.mmap(-1, 10**9)) and 10", "error", "Cannot allocate memory"),
    "memory file": (succeeds("os.memfd_create('x')"), "error", "PermissionError"),
    "shared memory": ("from multiprocessing.shared_memory import SharedMemory\ndef f(x): return SharedMemory(create=True, size=9) and 10",
                      "error", "FileNotFoundError|Permission|Read-only|not implemented"),
    "many descriptors": (succeeds("held = [os.pipe() for _ in range(100)]"), "error", "Too many open files"),
    "fork": (succeeds("os.fork()"), "error", "PermissionError"),
    "fork bomb": (body("made = 0", "for _ in range(5000):", "    try: made += os.fork() >= 0", "    except OSError: pass", "return 10 if made else 0"),
                  "failed", ""),
    "subprocess": (succeeds("import subprocess", "subprocess.run(['/bin/true'])"), "error", "PermissionError|BlockingIOError"),
    "posix_spawn": (succeeds("os.posix_spawn(sys.executable, [sys.executable], {})"), "error", "PermissionError"),
    "multiprocessing": (succeeds("import multiprocessing", "multiprocessing.get_context('fork').Process(target=print).start()"), "error", "Permission"),
    "thread": (succeeds("threading.Thread(target=print).start()"), "error", "can't start new thread"),
    "thread bomb": (body("made = 0", "for _ in range(1000):", "    try: threading.Thread(target=time.sleep, args=(9,)).start(); made += 1",
                         "    except RuntimeError: pass", "return 10 if made else 0"), "failed", ""),
    "refused calls": (body("import ctypes", "libc = ctypes.CDLL(None, use_errno=True)", f"for number in {[n for n in NUMBERS if n]}:",
                           "    if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1: return 10", "return 0"), "failed", ""),
    "raises its limits": (body("import resource", "before = resource.getrlimit(resource.RLIMIT_AS)",
                               "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "return 10"), "error", "ValueError|PermissionError"),
    # input, files, tokens
    "stdin": (body("return input()"), "error", "EOFError"),
    "stdin to its end": (body("return sys.stdin.read() + 'x'"), "failed", ""),
    "writes somewhere": (body("for folder, folders, _ in os.walk('/'):", "    if folder.count('/') > 3: folders.clear()",
                              "    try: open(folder + '/x', 'w').close()", "    except OSError: continue", "    return 10", "return 0"), "failed", ""),
    "fills the disk": (succeeds("open('filler', 'wb').write(bytes(10**6))"), "error", "Read-only file system"),
    "many files": (succeeds("[open(f'/tmp/{n}', 'w').close() for n in range(10**6)]"), "error", "Read-only file system"),
    "makes folders": (succeeds("os.makedirs('/tmp/a/b')"), "error", "Read-only file system"),
    "shadow module": (succeeds("open('json.py', 'w').write('loads = print')", "import json"), "error", "Read-only file system"),
    "symlink out": (succeeds("os.symlink('/', '/tmp/out')", "os.listdir('/tmp/out/home')"), "error", "Read-only file system"),
    "deletes": (succeeds("import shutil", "shutil.rmtree('HOME')"), "error", "No such file"),
    "deletes its library": (succeeds("os.remove(os.__file__)"), "error", "Read-only file system"),
    "writes outside": (succeeds("open('HOME/x', 'w')"), "error", "No such file|Read-only"),
    "token in the home folder": (body("return open('HOME/.token').read() and 10"), "error", "No such file"),
    "token in the environment": (body("return os.environ['API_TOKEN'] and 10"), "error", "KeyError"),
    "password file": (body("return open('/etc/passwd').read() and 10"), "error", "No such file"),
    "mounts": (succeeds("import ctypes", "if ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, 0): raise OSError('refused')"), "error", "refused"),
    # network, other processes
    "TCP": (succeeds("import socket", "socket.create_connection(('127.0.0.1', PORT), 1)"), "error", "PermissionError"),
    "UDP": (succeeds("import socket", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"), "error", "PermissionError"),
    "unix socket": (succeeds("import socket", "socket.socket(socket.AF_UNIX)"), "error", "PermissionError"),
    "socket pair": (succeeds("import socket", "socket.socketpair()"), "error", "PermissionError"),
    "kills its parent": (body("parent = os.getppid()", "os.kill(parent, 9)", "time.sleep(0.1)", "return 10 if os.getppid() != parent else 0"), "failed", ""),
    "kills everything": (body("try: os.kill(-1, 9)", "except ProcessLookupError: pass", "return 0"), "failed", ""),
    "signals the harness": (succeeds("os.kill(HARNESS, 0)"), "error", "ProcessLookupError"),
}  # fmt: skip


def prepared(name, home):
    "An attack's code with this machine's paths in it."
    code = ATTACKS[name][0].replace("HOME", str(home)).replace("HARNESS", str(os.getpid()))
    return code.replace("PORT", "9")


def question(name):
    return TESTS if "walk" in name or name == "own source" else TEN


def on_monty(code, tests):
    return sandbox._judged(sandbox._test_program(tests, "f"), code, "f", 0.5, MEMORY)


def on_bubblewrap(code, tests, seconds=0.7):
    return judge(code, sandbox._test_body(tests, "f"), "f", seconds, MEMORY)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_on_the_second_level(name, bwrap, host):
    _, status, words = ATTACKS[name]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    found = on_bubblewrap(prepared(name, host), question(name))
    assert re.fullmatch(status, found.status) and re.search(words, found.detail), found
    assert time.monotonic() - started < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB, of the harness


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_on_the_first_level(name, host):
    found = on_monty(prepared(name, host), question(name))
    assert not found.passed and found.status != "passed", found


@pytest.mark.parametrize("name", ["os._exit", "always equal", "endless loop", "growing list", "sys.exit", "two results", "unknown tag"])
def test_careless_tests_hide_nothing(name, bwrap):
    careless = "for _ in range(3):\n    try:\n        f(2)\n    except BaseException:\n        pass"
    assert on_bubblewrap(ATTACKS[name][0], careless).status in ("error", "timeout", "memory")


def test_a_candidate_that_owns_its_worker_can_return_values_and_nothing_else(bwrap):
    forged = body(FIND_BORDER, "border.send(b'v', 10)", "letter, call = border.receive()", "border.send(b'e', '')", "time.sleep(9)")
    assert on_bubblewrap(forged, TEN).status == "passed"  # the right answer, by another way
    assert on_bubblewrap(forged, TESTS).status == "failed"


def test_leftovers_are_not_seen_by_the_next_candidate(bwrap):
    leaves = body("import builtins, json", "builtins.left = json.left = 10", "for path in ('/tmp/left', 'left', '/left'):",
                  "    try: open(path, 'w').write('10')", "    except OSError: pass", "return 10")
    finds = body("import builtins, json", "return getattr(builtins, 'left', getattr(json, 'left', len(os.listdir('/tmp'))))")
    for second in (on_bubblewrap, lambda code, tests: run_tests(code + "\ndef g(): yield", tests, "f")):
        assert second(leaves, TEN).status == "passed"
        assert second(finds, TEN).status == "failed"


def test_globals_live_as_long_as_one_program(bwrap):
    code = "n = 0\ndef f(x):\n    global n\n    n += 1\n    return n"
    for _ in range(2):
        assert on_bubblewrap(code, "assert f(1) == 1\nassert f(1) == 2").status == "passed"


def test_chance_and_the_order_of_sets_are_the_same_every_time(bwrap):
    code = "import random\ndef f(x):\n    yield\ndef f(x): return [random.random(), list({'a', 'b', 'c', 'd'}), hash('x')]"
    details = {on_bubblewrap(code, "raise ValueError(f(1))").detail for _ in range(3)}
    assert len(details) == 1 and "ValueError: [0.8444" in details.pop()


def descendants(pid):
    "A process's children, and theirs."
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found, waiting = found + children, waiting + children
    return found


def until(condition, seconds=20):
    "Wait for something that has to come."
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_harness_takes_its_sandboxes_along(bwrap):
    program = "from optima.sandbox.bubblewrap import judge\njudge('while True: pass', 'f(1)', 'f', 60.0, 50_000_000)"
    harness = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        until(lambda: len(descendants(harness.pid)) == 6)  # two sandboxes: bwrap, its first process, Python
        inside = descendants(harness.pid)
    finally:
        harness.send_signal(signal.SIGKILL)
        harness.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))


def test_nothing_is_left_open_or_running(bwrap):
    judge("def f(x): return 10", "assert f(2) == 10", "f", 1.0, MEMORY)
    before = len(os.listdir("/proc/self/fd"))
    for name in ("os._exit", "endless loop", "always equal", "closes all"):
        on_bubblewrap(ATTACKS[name][0], TEN)
    assert len(os.listdir("/proc/self/fd")) == before and descendants(os.getpid()) == list(map(int, pools()))


def pools():
    "The warm workers of the first level, which other tests have started."
    return [pid for pid in descendants(os.getpid()) if b"bwrap" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_another_user_is_held_as_root_is(bwrap):
    if os.getuid() != 0:
        return  # all other tests have shown it
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        judge_as_another_user(Path(folder) / "optima")


def judge_as_another_user(package):
    "Judge with a copy of the package that every user may read."
    room = package / "sandbox"
    for folder in (package, room):
        folder.mkdir(mode=0o755)
    shutil.copy(Path(isolation.__file__).parents[1] / "__init__.py", package)
    for module in ("__init__", "bubblewrap", "worker"):
        shutil.copy(Path(isolation.__file__).with_name(f"{module}.py"), room)
    forks = ATTACKS["fork bomb"][0]
    program = f"import os\nfrom optima.sandbox.bubblewrap import judge\nassert os.getuid() == 65534\n" \
              f"print(judge({forks!r}, 'assert f(2) == 10', 'f', 2.0, {MEMORY}).status, " \
              f"judge('def f(x): return 10', 'assert f(2) == 10', 'f', 2.0, {MEMORY}).status)"
    said = []
    for python in (os.path.realpath(sys._base_executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            done = subprocess.run([python, "-c", program], user=65534, group=65534, extra_groups=[], cwd="/", check=False,
                                  env={"PYTHONPATH": str(package.parent), "PATH": os.environ["PATH"]}, capture_output=True, text=True)
        except OSError:  # in root's home folder, or not there
            continue
        if done.stdout == "failed passed\n":
            return
        said.append(done.stderr)
    leave("bwrap", f"no interpreter that another user may run: {said}")


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_programs_pass(name, bwrap):
    code, tests, entry_point = REFERENCES[name]
    assert judge(code, sandbox._test_body(tests, entry_point), entry_point, 5.0, MEMORY).status == "passed"
    wrong = f"def {entry_point}(*args, **kwargs): return 'wrong'"
    assert judge(wrong, sandbox._test_body(tests, entry_point), entry_point, 5.0, MEMORY).status in ("failed", "error")


def test_reference_programs_pass_at_whichever_level_judges_them(bwrap, capsys):
    verdicts = {name: run_tests(*reference) for name, reference in REFERENCES.items()}
    assert {name: verdict for name, verdict in verdicts.items() if not verdict.passed} == {}
    beyond = sorted(name for name, verdict in verdicts.items() if verdict.level == "bubblewrap")
    with capsys.disabled():
        print(f"\n{len(beyond)} of {len(REFERENCES)} reference programs are beyond monty alone "
              f"({len(beyond) / len(REFERENCES):.0%}): {', '.join(beyond)}")
    assert 0 < len(beyond) < len(REFERENCES)


def test_without_a_second_level_the_same_programs_are_unsupported(monkeypatch):
    monkeypatch.setattr(isolation, "missing", lambda: "bubblewrap is not installed: install it")
    verdicts = [run_tests(*reference) for reference in REFERENCES.values()]
    assert {verdict.status for verdict in verdicts} == {"passed", "unsupported"}
    told = next(verdict for verdict in verdicts if not verdict.passed)
    assert told.level == "monty" and told.detail.endswith("no second level: bubblewrap is not installed: install it")


def test_exceptions_cross_by_the_name_of_their_built_in_type(bwrap):
    code = "class Own(LookupError): pass\n" \
           "def f(x):\n    if x == 1: raise ValueError('negative', 3)\n    if x == 2: return {}['k']\n    if x == 3: raise Own('mine')\n" \
           "    if x == 4: b'\\xff'.decode()\n    if x == 5: assert False, 'own'\n    if x == 6: raise OSError(2, 'gone')\n    yield"
    code = code.replace("    yield", "    raise StopIteration")
    kinds = ["ValueError", "KeyError", "LookupError", "UnicodeDecodeError", "AssertionError", "FileNotFoundError", "StopIteration"]
    kinds[3] = "ValueError"
    tests = "".join(f"try:\n    f({n})\n    raise SystemError\nexcept {kind} as error:\n    seen = error\n" for n, kind in enumerate(kinds, 1))
    tests += "try: f(1)\nexcept ValueError as error: assert error.args == ('negative', 3)\n" \
             "try: f(2)\nexcept KeyError as error: assert str(error) == \"'k'\"\n"
    assert on_bubblewrap(code, tests).status == "passed"
    assert on_bubblewrap("def f(x): return 1", tests).status == "error"
    assert on_bubblewrap(code, "f(5)").status == "error"  # a candidate's own assert is no failed test
    assert on_bubblewrap(code, "assert f(1) == 3").detail == "ValueError: ('negative', 3)"


def test_arguments_cross_as_copies_and_what_cannot_cross_is_unsupported(bwrap):
    code = "def f(*a, **k):\n    a[0].append(1)\n    return [list(a), k]"
    assert on_bubblewrap(code, "a = [0]\nassert f(a, (2,), b={3}) == [[[0, 1], (2,)], {'b': {3}}]\nassert a == [0]").status == "passed"
    for argument in ("lambda: 1", "object()", "[print]"):
        found = on_bubblewrap(code, f"try: f({argument})\nexcept BaseException: pass")
        assert found.status == "unsupported" and "the tests pass a" in found.detail


@pytest.mark.parametrize("code", ["", "f = 10", "def f(:", "import no_such_module", "-" * 5000 + "1", "(" * 5000, "x = '\ud800'", "\x00",
                                  "raise ValueError", "def f(): return 10", "raise 'x'", "def g(x): return 10", "-" * 100_000 + "1"])
def test_code_that_is_no_candidate(code, bwrap):
    assert on_bubblewrap(code, TEN).status in ("error", "memory")


def test_modules_of_the_standard_library_are_there_and_no_others(bwrap):
    names = ["heapq", "string", "operator", "statistics", "fractions", "cmath", "decimal", "itertools", "typing", "dataclasses", "enum", "abc", "bisect", "array", "collections.abc", "functools", "hashlib", "json", "re", "struct", "textwrap", "unicodedata", "ctypes", "zlib", "sqlite3", "asyncio", "contextlib"]
    code = "\n".join(f"import {name}" for name in names) + "\ndef f(x): return 10"
    assert on_bubblewrap(code, TEN, 9.0).status == "passed"
    assert "ModuleNotFoundError" in on_bubblewrap("import numpy\ndef f(x): return 10", TEN).detail
    assert "ModuleNotFoundError" in on_bubblewrap("import optima\ndef f(x): return 10", TEN).detail


def test_broken_tests_raise_and_endless_ones_end(bwrap):
    generator = "def g(): yield\ndef f(x): return x"
    with pytest.raises(Exception, match="never call"):
        run_tests(generator, "def check(candidate): pass", "f")
    assert on_bubblewrap(generator, "f(1)\nwhile True: pass").status == "timeout"
    assert on_bubblewrap(generator, "f(1)\ntry:\n    while True: pass\nexcept BaseException: pass").status == "timeout"
    assert on_bubblewrap(generator, "f(1)\nimport os\nos._exit(0)").status == "error"
    assert on_bubblewrap(generator, "f(1)\nexit()").status == "error"
    assert on_bubblewrap(generator, "f(1)\nx = 'a' * 10**10").status == "memory"


def test_the_time_is_for_all_calls_together_and_a_slow_program_gets_its_time(bwrap):
    code = "import time, heapq\ndef f(x):\n    time.sleep(0.3)\n    return x"
    assert on_bubblewrap(code, "assert f(1) == 1", 3.0).status == "passed"
    assert on_bubblewrap(code, "for i in range(100): assert f(i) == i", 0.5).status == "timeout"
    assert run_tests(code, "assert f(1) == 1", "f", timeout=0.2).status == "passed"  # the second try has four times as long


def test_many_calls(bwrap):
    assert on_bubblewrap("def f(x): return [x, (x,)]", "for i in range(2000): assert f(i) == [i, (i,)]").status == "passed"


def test_threads_and_forked_processes_judge_too(bwrap):
    code, verdicts = "def g(): yield 8\ndef f(x): return x + next(g())", []
    work = [threading.Thread(target=lambda: verdicts.append(run_tests(code, TEN, "f"))) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(timeout=60)
    assert [(verdict.status, verdict.level) for verdict in verdicts] == [("passed", "bubblewrap")] * 4
    with multiprocessing.get_context("fork").Pool(1) as pool:
        forked = pool.apply_async(run_tests, (code, TEN, "f")).get(timeout=60)
    assert forked == verdicts[0]


VALUES = [None, True, 0, -1, 2**63, -(2**63), 10**5000, 0.0, -0.0, 1e-320, float("inf"), -float("inf"), 2j, complex("nan+infj"), "", "é\n\x00",
          "\ud800", b"", b"\x00\xff", [], (), set(), frozenset(), {}, {1: 2}, {"set": [1]}, {(1, 2): None, b"k": {3}}, [1, [2, (3, {4})]],
          {frozenset([1]): [None]}, {"tuple": {"dict": []}}]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_keep_their_value_and_type(value):
    crossed = read_value(json.dumps(encode(value), allow_nan=False).encode())
    assert type(crossed) is type(value)
    assert crossed == value if value == 10**5000 else repr(crossed) == repr(value)


def drawn(rng, depth=0):
    "A random value, nested up to four deep."
    kind = rng.choice(["atom", "list", "tuple", "dict"] if depth < 4 else ["atom"])
    if kind == "atom":
        return rng.choice([rng.random(), rng.getrandbits(100), str(rng.random()), None, True, b"x", frozenset([rng.random()]), 1j])
    items = [drawn(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {"list": items, "tuple": tuple(items), "dict": {rng.random(): item for item in items}}[kind]


def test_random_values_cross():
    rng = random.Random(0)
    for value in (drawn(rng) for _ in range(500)):
        assert decode(json.loads(json.dumps(encode(value), allow_nan=False))) == value


@pytest.mark.parametrize("forged", [
    '{"eval": "1"}', '{"__class__": "x"}', '{"tuple": 3}', '{"int": "zz"}', '{"int": 5}', '{"set": [[1]]}', '{"dict": [[1]]}', "{}",
    '{"list": [1]}', '{"tuple": [], "set": []}', '{"bytes": "q"}', "[1, 2", "\xff", "", '{"dict": {"a": 1}}',
    "[" * 100_000, '{"tuple": [' * 500 + "]}" * 500, "9" * 5000])
def test_what_no_value_was_written_as_is_no_value(forged):
    with pytest.raises((ValueError, TypeError, KeyError, RecursionError, AttributeError)):
        read_value(forged.encode("latin-1"))


def decision(program, architecture, number):
    "What a BPF filter says of a system call."
    lines, place, accumulator = list(struct.iter_unpack("=HBBI", program)), 0, None
    while True:
        operation, yes, no, value = lines[place]
        if operation == isolation.RETURN:
            return value
        if operation == isolation.LOAD:
            accumulator, skip = {0: number, 4: architecture}[value], 0
        else:
            holds = accumulator == value if operation == isolation.EQUAL else accumulator >= value
            skip = yes if holds else no
        place += 1 + skip


@pytest.mark.parametrize("machine", isolation.AUDIT)
def test_the_filter_refuses_what_it_lists_and_nothing_else(machine):
    program, own = seccomp_filter(machine), isolation.AUDIT[machine]
    listed = {pair[machine == "aarch64"] for pair in REFUSED.values()} - {None}
    assert len(program) % 8 == 0 and len(program) // 8 < 256
    for number in range(600):
        assert decision(program, own, number) == (isolation.REFUSAL if number in listed else isolation.ALLOWED)
    assert decision(program, own, 0x40000000) == decision(program, own, 0x40000039) == isolation.REFUSAL
    assert decision(program, 0x40000003, 1) == isolation.KILL  # a call of 32 bits


@pytest.mark.parametrize("place, header", [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")])
def test_the_numbers_are_those_of_the_kernels_headers(place, header):
    if not Path(header).exists():
        pytest.skip(f"no {header}")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    numbers = {name: pair[place] for name, pair in REFUSED.items() if pair[place] is not None and name in found}
    assert {name: int(found[name]) for name in numbers} == numbers and len(numbers) > 30


def fake_bwrap(folder, script):
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("script, words", [
    ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions to create new namespace; user namespaces must"),
    ("echo 'bwrap: Unknown option --cap-drop' >&2; exit 1", "Unknown option --cap-drop; install bubblewrap 0.7 or newer"),
    ("exit 0", "bubblewrap did not start Python"),
    (f"while [ \"$1\" != -- ]; do shift; done; shift; python=$1; shift 7; exec $python {isolation_worker.__file__} $2 $3 $4",
     "bubblewrap does not hold what it should"),
])
def test_a_second_level_that_does_not_work_says_why(script, words, tmp_path, monkeypatch):
    fake_bwrap(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(isolation, "missing", missing.__wrapped__)
    assert words in isolation.missing() and "\n" not in isolation.missing()
    verdict = run_tests("def g(): yield\ndef f(x): return 10", TEN, "f")
    assert verdict.status == "unsupported" and verdict.level == "monty" and "no second level: bubblewrap" in verdict.detail


def test_where_bubblewrap_is_not_installed_there_is_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing.__wrapped__() == "bubblewrap is not installed: install bubblewrap 0.7 or newer (apt-get install bubblewrap)"
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "for Linux on x86_64 or aarch64" in missing.__wrapped__()


@pytest.mark.parametrize("required, ending", [("", "skipped"), ("bwrap", "error"), ("gpu,bwrap", "error")])
def test_a_missing_second_level_skips_unless_it_is_required(required, ending, tmp_path):
    environment = {**os.environ, "OPTIMA_REQUIRE": required, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "test_many_calls"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False)
    assert f"1 {ending}" in done.stdout and (done.returncode == 0) == (ending == "skipped"), done.stdout


def test_a_header_has_the_size_that_the_worker_writes():
    assert HEADER.size == 21 and HEADER.unpack(HEADER.pack(b"n" * 16, 7, b"v")) == (b"n" * 16, 7, b"v")


MONTY_LACKS = {
    "__len__": "def __len__(self): return 3\nassert_ = lambda: len(A()) == 3", "__lt__": "def __lt__(self, o): return True\nassert_ = lambda: A() < A()",
    "__bool__": "def __bool__(self): return False\nassert_ = lambda: not A()", "__iadd__": "def __iadd__(self, o): return 7\nassert_ = lambda: __import__('operator').iadd(A(), 1) == 7",
    "__format__": "def __format__(self, s): return 'z'\nassert_ = lambda: f'{A():3}' == 'z'", "__getattr__": "def __getattr__(self, n): return n\nassert_ = lambda: A().b == 'b'",
    "__dict__": "x = 1\nassert_ = lambda: A().__dict__ == {}", "__name__": "x = 1\nif __name__ == '__main__': raise ValueError\nassert_ = lambda: True",
    "order": "x = 1\nfrom dataclasses import dataclass\n@dataclass(order=True)\nclass B:\n    x: int\nassert_ = lambda: B(1) < B(2)",
    "str.lower": "x = 1\nassert_ = lambda: sorted(['b', 'A'], key=str.lower) == ['A', 'b']",
    "re.sub": "x = 1\nimport re\nassert_ = lambda: re.sub('a', lambda m: 'b', 'a') == 'b'", "bytes": "x = 1\nassert_ = lambda: bytes([1]) == b'\\x01'",
    "star import": "x = 1\nfrom math import *\nassert_ = lambda: floor(2.5) == 2", "typing's star": "x = 1\nfrom typing import *\nassert_ = lambda: True",
    "memo": "x = 1\ndef g(n): return g.memo[n]\ng.memo = {1: 2}\nassert_ = lambda: g(1) == 2",
    "type alias": "x = 1\nfrom typing import List\nGrid = List[List[int]]\nassert_ = lambda: True",
    "set.union": "x = 1\nassert_ = lambda: {1}.union([2], [3]) == {1, 2, 3}", "inverse": "x = 1\nassert_ = lambda: pow(3, -1, 7) == 5",
    "stdout": "x = 1\nimport sys\nassert_ = lambda: sys.stdout.write('a') == 1",
}  # fmt: skip


@pytest.mark.parametrize("name", MONTY_LACKS)
def test_what_monty_lacks_or_passes_over_is_unsupported_and_never_a_wrong_answer(name, bwrap):
    code = f"class A:\n    {MONTY_LACKS[name]}\ndef f(x): return assert_()"
    assert on_monty(code, "assert f(1) is True").status == "unsupported"
    assert run_tests(code, "assert f(1) is True", "f").level == "bubblewrap"
    assert on_bubblewrap(code, "assert f(1) is True", 5.0).status == "passed"


RIGHT = {  # what models write, and what it gives for [3, 1, 2]; monty fails those of the second half, some without a word
    "walrus": ("def f(x): return [y for n in x if (y := n * n) > 3]", [9, 4]),
    "match": ("def f(x):\n    match x:\n        case [a, *rest]: return [a, len(rest)]\n        case _: return None", [3, 2]),
    "dataclass": ("from dataclasses import dataclass, field\n@dataclass\nclass P:\n    a: int\n    b: list = field(default_factory=list)\ndef f(x): return P(1, x).b", [3, 1, 2]),
    "f-string": ("def f(x): return f'{x[0] / 7:>8.3f}|{1234567:,}|{x[0]:#x}|{x!r}|{0.256:.1%}'", "   0.429|1,234,567|0x3|[3, 1, 2]|25.6%"),
    "lambda defaults": ("def f(x): return [g(1) for g in [lambda y, i=i: y + i for i in x]]", [4, 2, 3]),
    "late binding": ("def f(x): return [g() for g in [lambda: i for i in x]]", [2, 2, 2]),
    "nonlocal": ("def f(x):\n    n = 0\n    def g(a):\n        nonlocal n\n        n += a\n    [g(a) for a in x]\n    return n", 6),
    "global": ("n = 1\ndef f(x):\n    global n\n    n += x[0]\n    return n", 4),
    "finally": ("def f(x):\n    try: return x[9]\n    except IndexError: return 'none'\n    finally: x.clear()", "none"),
    "chained error": ("def f(x):\n    try:\n        try: 1 // 0\n        except ZeroDivisionError as e: raise ValueError('v') from e\n    except ValueError as e: return type(e.__cause__).__name__", "ZeroDivisionError"),
    "scopes": ("def f(x):\n    i = 7\n    return [i for i in x] + [i]", [3, 1, 2, 7]),
    "text": ("def f(x): return 'hello wOrld'.title() + 'ab'.translate(str.maketrans('ab', 'xy')) + 'a,b'.rpartition(',')[2]", "Hello Worldxyb"),
    "itertools": ("from itertools import combinations, groupby\ndef f(x): return [list(c) for c in combinations(x, 2)] + [k for k, g in groupby('aab')]", [[3, 1], [3, 2], [1, 2], "a", "b"]),
    "Counter": ("from collections import Counter\ndef f(x): return Counter(x + [1]).most_common(1)", [(1, 2)]),
    "deque": ("from collections import deque\ndef f(x):\n    d = deque(x, maxlen=2)\n    d.rotate(1)\n    return list(d)", [2, 1]),
    "reduce": ("from functools import reduce\ndef f(x): return reduce(lambda a, b: a * b, x)", 6),
    "lru_cache": ("from functools import lru_cache\n@lru_cache(maxsize=None)\ndef g(n): return n if n < 2 else g(n - 1) + g(n - 2)\ndef f(x): return g(9)", 34),
    "re": ("import re\ndef f(x): return re.findall(r'\\d+', 'a12b3') + [re.search(r'(?P<n>b)', 'abc')['n']]", ["12", "3", "b"]),
    "heapq": ("import heapq\ndef f(x):\n    heapq.heapify(x)\n    return heapq.heappop(x)", 1),
    "bisect": ("import bisect\ndef f(x): return bisect.bisect_left(sorted(x), 2)", 1),
    "property": ("class A:\n    @property\n    def r(self): return 5\ndef f(x): return A().r", 5),
    "generator": ("def g(x):\n    for a in x: yield a * a\ndef f(x): return list(g(x))", [9, 1, 4]),
    "decorator": ("def twice(g): return lambda *a: g(*a) * 2\n@twice\ndef f(x): return len(x)", 6),
    "with": ("class C:\n    def __enter__(self): return 5\n    def __exit__(self, *a): return True\ndef f(x):\n    with C() as n: return n", 5),
    "stars": ("def g(a, *b, c=1, **d): return [a, list(b), c, d]\ndef f(x): return g(*x, c=3, e=4)", [3, [1, 2], 3, {"e": 4}]),
    "sorted": ("def f(x): return sorted(x, key=lambda a: -a) + sorted(['bb', 'a'], key=len)", [3, 2, 1, "a", "bb"]),
    "zip strict": ("def f(x):\n    try: return list(zip(x, [1], strict=True))\n    except ValueError: return 'uneven'", "uneven"),
    "bits": ("def f(x): return [(11).bit_count(), (11).bit_length(), ~x[0]]", [3, 4, -4]),
    "slices": ("def f(x):\n    x[::2] = [0, 0]\n    return x[::-1]", [0, 1, 0]),
    "chained comparison": ("def f(x): return [1 < x[0] < 5, 1 < x[0] > 4, 1 in x == True]", [True, False, False]),
    "lazy any": ("def f(x):\n    seen = []\n    any(seen.append(a) or a < 3 for a in x)\n    return seen", [3, 1]),
    "lazy walrus": ("def f(x): return hit if any((hit := a) < 3 for a in x) else None", 1),
    "endless iterator": ("from itertools import count\ndef f(x): return next(n for n in count(1) if n * n > 50)", 8),
    "round": ("def f(x): return round(2.675, 2)", 2.67),
    "what an assertion says": ("def f(x):\n    try: assert not x, 'empty'\n    except AssertionError as e: return str(e)", "empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_is_never_judged_wrong(name, bwrap):
    code, gives = RIGHT[name]
    namespace = {}
    exec(code, namespace)  # noqa: S102 - our own programs
    assert namespace["f"]([3, 1, 2]) == gives
    verdict = run_tests(code, f"assert f([3, 1, 2]) == {gives!r}", "f")
    assert verdict.passed, verdict


def test_a_simple_program_is_judged_once_and_a_failed_one_stays_so_without_a_second_level(monkeypatch):
    asked = []
    monkeypatch.setattr(isolation, "missing", lambda: asked.append(1) or "switched off")
    for code in ("def f(x): return x + 3", "def f(x): return x +", "def f(x): return ( min ( x , 2 ) - y ) ** 3", "def f(x): return x + 8"):
        assert run_tests(code, TEN, "f").level == "monty"
    assert not asked
    assert run_tests("def f(x): return round(2.5)", TEN, "f").status == "failed" and asked


def test_the_benchmark_of_the_sandboxes(bwrap):
    before = os.sched_getaffinity(0)
    found = bench_sandbox.measure({"monty": 20, "bubblewrap": 2}, repeats=2)
    assert set(found["levels"]) == {"monty", "bubblewrap"} and found["missing"] == ""
    for name, one in found["levels"].items():
        assert one["programs_per_second"] > 0 and 0 < one["start_share"] <= 1 and one["floor"] == bench_sandbox.FLOORS[name]
        assert f"{one['programs_per_second']:.1f}" in bench_sandbox.table(found)
    assert "not measured; no bwrap" in bench_sandbox.table(found | {"missing": "no bwrap"})
    assert os.sched_getaffinity(0) == before
