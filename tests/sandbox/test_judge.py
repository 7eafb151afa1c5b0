"Traps for the sandbox: each one was seen to hang, to fool a test, or to end the process."
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

from optima.base.errors import OptimaError
from optima.sandbox import bubblewrap as isolation
from optima.sandbox import judge as sandbox
from optima.sandbox.judge import run_tests
from optima.sandbox.monty import STATUSES, Verdict


@pytest.fixture(autouse=True)
def monty_alone(monkeypatch):
    "These traps are for the first level; tests/test_isolation.py has those for the second, and for both."
    monkeypatch.setattr(isolation, "missing", lambda: "switched off")


TEN = "def check(candidate):\n    assert candidate(2) == 10\n"


def status(code, tests=TEN, timeout=0.3, **kwargs):
    return run_tests(code, tests, "f", timeout=timeout, **kwargs).status


def returning(expression, setup=""):
    return f"{setup}\ndef f(x):\n    return {expression}\n"


EXAMPLES = {
    "passed": returning("x + 8"),
    "failed": returning("x + 7"),
    "error": returning("x / 0"),
    "timeout": "def f(x):\n    while True: pass",
    "memory": returning("[0] * 10**9"),
    "unsupported": "def f(x):\n    yield 10",
}


@pytest.mark.parametrize("expected", STATUSES)
def test_every_status_can_be_said(expected):
    verdict = run_tests(EXAMPLES[expected], TEN, "f", timeout=0.3)
    assert verdict.status == expected and verdict.level == "monty"
    assert verdict.passed == (expected == "passed")
    assert (verdict.detail == "") == verdict.passed and "\n" not in verdict.detail


def test_bare_asserts_call_the_entry_point_by_name():
    assert status(returning("x + 8"), "assert f(2) == 10\nassert f(x=2) == 10") == "passed"
    assert status(returning("x + 8"), "assert f(2) == 11") == "failed"


@pytest.mark.parametrize("tests, names", [
    ("assert f(Pair(1)) == 1", "Pair"), ("root = Node(f(1))\nroot.left = Leaf()", "Leaf, Node"),
    ("import math, os.path as path\nfrom re import sub as swap\nassert f(math.pi) == path == swap", ""),
    ("def check(candidate):\n    global seen\n    seen = [x for x in 'ab']\n    assert candidate(seen) == near(1)\ndef near(a, b=lambda c: c): return b(a)", ""),
    ("try:\n    f(1)\nexcept ValueError as error:\n    print(error)\nfor i, *j in []: print(i, j)\nwith f as k: print(k)", ""),
    ("from math import *\nassert f(pi) == 1", "")])
def test_names_that_tests_leave_to_the_candidate(tests, names):
    assert sandbox._undefined(tests, "f") == names


def test_tests_that_python_would_not_compile_are_broken():
    for tests in ("return f(1)", "(" * 10_000, "assert f(1) ="):
        with pytest.raises(OptimaError, match="the tests of 'f' are no Python"):
            status(returning("x"), tests)


def test_check_that_the_tests_call_themselves_runs_once():
    assert status(returning("x + 8"), TEN + "check(f)\n") == "passed"
    assert status(returning("x + 7"), TEN + "check(f)\n") == "failed"


def test_metadata_and_the_helpers_of_a_humaneval_test():
    tests = "import math\nMETADATA = {'author': 'x'}\ndef near(a, b): return math.isclose(a, b)\n" \
            "def check(candidate):\n    for i in range(3): assert near(candidate(i), i + 0.5)\n"
    assert status(returning("x + 0.5"), tests) == "passed"


@pytest.mark.parametrize("code", [
    returning("Yes()", "class Yes:\n    def __eq__(self, other): return True"),
    returning("[Yes()]", "class Yes:\n    def __eq__(self, other): return True"),
    returning("{Yes(): 1}", "class Yes:\n    def __eq__(self, o): return True\n    def __hash__(self): return 1"),
    returning("P(1, 2)", "from collections import namedtuple\nP = namedtuple('P', 'a b')"),
    returning("deque([1])", "from collections import deque"),
    returning("range(3)"), returning("f"), returning("int"), returning("map(str, [1])"), returning("zip([1], [2])"),
    returning("(i for i in [1])"), "def f(x):\n    made = (i for i in [1])\n    return made",
    returning("iter([1])"), returning("{1: 2}.keys()"), returning("ValueError('x')"), returning("..."),
])
def test_what_is_no_plain_value_never_passes(code):
    for tests in ("assert f(1) == f(1)", "f(1)", "try:\n    f(1)\nexcept BaseException:\n    pass"):
        verdict = run_tests(code, tests, "f", timeout=0.3)
        assert verdict.status == "error", verdict


def test_lazy_results_are_not_lists():
    assert status(returning("map(str, [1])"), "assert f(1) == ['1']") == "error"
    assert status(returning("list(map(str, [1]))"), "assert f(1) == ['1']") == "passed"
    uses = "[sorted(zip([1], [2])), dict(enumerate('a', 1)), ''.join(map(str, [1])), sum(filter(None, [1, 0])), " \
           "max(map(abs, [-3])), [*reversed([1, 2])], next(map(str, [7])), 3 in map(int, '123'), tuple(zip('a', 'b'))]"
    wanted = "[[(1, 2)], {1: 'a'}, '1', 1, 3, [2, 1], '7', True, (('a', 'b'),)]"
    assert status(returning(uses), f"assert f(1) == {wanted}") == "passed"


def test_generator_expressions_work_where_they_are_consumed():
    code = "def f(x):\n    iter = None\n    found = next((i for i in range(9) if i == x), -1)\n" \
           "    return [found, sum(i for i in [1, 2]), sorted(i for j in [[2], [1]] for i in j), any(i for i in [0]), " \
           "','.join(str(i) for i in [1]), *(i for i in [8]), dict((i, i) for i in [4]), max((i for i in [5]), default=0)]"
    assert status(code, "assert f(3) == [3, 3, [1, 2], False, '1', 8, {4: 4}, 5]\nassert f(10)[0] == -1") == "passed"


@pytest.mark.parametrize("hard", ["-" * 15000, "not " * 4000, "(" * 15000, "x" + ".x" * 7000, "x" + "+x" * 7000, "[" * 15000])
def test_code_that_is_hard_to_parse_does_no_harm(hard):
    assert status(f"def f(x): return list(i for i in [1])\ny = {hard}") in ("error", "unsupported")


def test_dict_subclasses_cross_as_the_dict_they_equal():
    assert status(returning("Counter('aab')", "from collections import Counter"), "assert f(1) == {'a': 2, 'b': 1}") == "passed"
    code = "from collections import defaultdict\ndef f(x):\n    d = defaultdict(list)\n    d[x].append(1)\n    return d"
    assert status(code, "assert f(2) == {2: [1]}") == "passed"


@pytest.mark.parametrize("value", [
    "None", "True", "0", "-0.0", "float('inf')", "10**5000", "'é\\n'", "b'\\x00'", "[1, [2, (3,)]]", "{'a': {1, 2}}",
    "frozenset([1])", "2j", "()", "{(1, 2): None}"])
def test_plain_values_keep_their_value_and_type(value):
    tests = f"assert f(1) == {value}\nassert type(f(1)) == type({value})\nassert f({value}, 1) == 1"
    code = f"def f(x, y=None):\n    return {value} if y is None else y\n"
    assert status(code, tests) == "passed"


def test_negative_zero_and_nan_survive():
    assert status(returning("-0.0"), "assert str(f(1)) == '-0.0'") == "passed"
    assert status(returning("float('nan')"), "assert f(1) != f(1)") == "passed"


@pytest.mark.parametrize("leave", ["raise SystemExit", "raise SystemExit('x')", "raise SystemExit(0)",
                                   "raise KeyboardInterrupt", "exit()", "quit()"])
def test_leaving_is_no_pass(leave):
    for code in (f"def f(x):\n    {leave}", leave):
        assert status(code) in ("error", "unsupported")
        assert status(code, "try:\n    f(1)\nexcept BaseException:\n    pass") in ("error", "unsupported")


@pytest.mark.parametrize("build", ["x = []\n    for _ in range(100000): x = [x]",
                                   "x = []\n    x.append(x)", "x = {}\n    x[1] = x"])
def test_deep_and_cyclic_values(build):
    assert status(f"def f(_):\n    {build}\n    return x", "assert f(1) == f(1)") == "error"


def test_a_small_object_with_two_to_the_sixty_leaves():
    started = time.perf_counter()
    code = "def f(_):\n    x = [1]\n    for _ in range(60): x = [x, x]\n    return x"
    assert status(code, "assert f(1) == f(1)") == "timeout"
    assert status(code + "\ndef _border(value): return (value, '')", "assert f(1) == f(1)") == "timeout"
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("forged", ["(value, '')", "(None, '')", "value", "(value, 3)", "((value, ''), '')", "[value, '']"])
def test_replacing_the_border_gains_nothing(forged):
    code = "class Yes:\n    def __eq__(self, other): return True\ndef f(x): return Yes()\n"
    assert status(code + f"def _border(value): return {forged}\n") != "passed"


@pytest.mark.parametrize("code", [
    "def check(candidate): pass\ndef f(x): return 0",
    "candidate = None\ndef f(x): return 0",
    "def _across(*a): return 10\ndef f(x): return 0",
    "def f(x):\n    global f\n    return 0",
    "class int:\n    def __eq__(self, o): return True\ndef f(x): return int()",
])
def test_redefining_the_checker(code):
    assert status(code) in ("failed", "error")


def test_the_expected_values_are_nowhere_in_the_candidates_interpreter(monkeypatch):
    fed = []
    real = sandbox._Candidate._timed
    monkeypatch.setattr(sandbox._Candidate, "_timed",
                        lambda self, text, **kwargs: (fed.append((text, kwargs)), real(self, text, **kwargs))[1])
    secret = 987654321
    assert status(returning("x"), f"assert f(3) == {secret}") == "failed"
    assert fed and str(secret) not in repr(fed)


@pytest.mark.parametrize("body", [
    "while True: pass",
    "while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "import time\n    while True: time.sleep(5)",
    "sum(range(10**12))",
    "a = 0\n    while True: a += 1",
])
def test_endless_loops_end(body):
    started = time.perf_counter()
    assert status(f"def f(x):\n    {body}") == "timeout"
    assert time.perf_counter() - started < 5


def test_endless_loop_while_loading():
    assert status("while True: pass\ndef f(x): return 10") == "timeout"


def test_the_time_limit_is_for_all_calls_together():
    code = "def f(x):\n    n = 0\n    for i in range(300000): n += i\n    return 10"
    assert status(code, TEN, timeout=3.0) == "passed"
    started = time.perf_counter()
    assert status(code, "for _ in range(10**6): f(1)", timeout=0.3) == "timeout"
    assert time.perf_counter() - started < 5


def test_one_long_operation_is_cut_and_the_pool_goes_on():
    assert status("def f(x): return pow(3, 10**9) % 10", timeout=0.2) in ("timeout", "memory")
    assert status(EXAMPLES["passed"]) == "passed"


@pytest.mark.parametrize("body", ["return 'a' * 10**12", "return 10**10**9", "y = []\n    while True: y.append('a' * 99999)",
                                  "return 'a' * 40000000",
                                  ("try:\n        y = []\n        while True: y.append('a' * 99999)\n"
                                   "    except BaseException: pass\n    return 10")])
def test_memory_bombs(body):
    assert status(f"def f(x):\n    {body}", timeout=1.0) == "memory"
    assert status(EXAMPLES["passed"]) == "passed"


def test_print_floods_end_and_a_little_printing_is_fine(capfd):
    assert status("def f(x):\n    while True: print('x' * 1000)", timeout=1.0) in ("memory", "timeout")
    assert status("def f(x):\n    print('debug', x)\n    return 10") == "passed"
    assert "debug" not in capfd.readouterr().out


def test_recursion_is_an_error():
    assert status("def f(x): return f(x + 1)") == "error"


def test_exceptions_of_the_candidate_reach_the_tests():
    code = "def f(x):\n    if x < 0: raise ValueError('negative')\n    return {}[x]"
    tests = "for call, kind in ((-1, ValueError), (1, KeyError)):\n    try:\n        f(call)\n        assert False\n" \
            "    except kind as error:\n        pass\n"
    assert status(code, tests) == "passed"
    assert status(returning("1"), tests) == "failed"
    verdict = run_tests(code, "f(-1)", "f")
    assert verdict.status == "error" and "negative" in verdict.detail


def test_a_candidates_own_assert_is_an_error():
    assert status("def f(x):\n    assert x == 3, 'only three'\n    return 10") == "error"


def test_a_limit_cannot_be_caught_by_careless_tests():
    careless = "for _ in range(3):\n    try:\n        f(1)\n    except BaseException:\n        pass"
    assert status(EXAMPLES["timeout"], careless) == "timeout"
    assert status(EXAMPLES["memory"], careless) == "memory"
    assert status("def f(x):\n    import heapq", careless) == "unsupported"


@pytest.mark.parametrize("code", [
    "def f(x):\n    yield 10", "def f(x):\n    del x", "class A(Exception):\n    pass\ndef f(x): return 10", "import heapq",
    "from functools import cmp_to_key", "from collections import OrderedDict", "import string", "def f(x): return bytearray(b'')",
    "class A:\n    @property\n    def b(self): return 1", "import sys\nsys.exit()"])
def test_what_the_interpreter_lacks_is_unsupported(code):
    assert status(code) == "unsupported"


@pytest.mark.parametrize("code", ["", "x = 1", "f = 10", "def f(:", "def f(x) return 10", "import no_such_module_anywhere",
                                  "-" * 5000 + "1", "(" * 5000, "x = '\ud800'", "def g(x): return 10", "\x00", "f(2) == 10",
                                  "raise ValueError", "def f(): return 10", "raise 'x'"])
def test_code_that_is_no_candidate_is_an_error(code):
    assert status(code) == "error"


def test_arguments_that_cannot_cross_are_unsupported_and_never_a_pass():
    for tests in ("assert f(lambda: 1) == 10", "class A:\n    pass\nassert f(A()) == 10", "assert f([len]) == 10"):
        assert status(returning("10"), tests) == "unsupported"
    assert status("def f(*a, **k): return [list(a), k]", "assert f(1, (2,), b={3}) == [[1, (2,)], {'b': {3}}]") == "passed"


def test_arguments_are_copies():
    code = "def f(x):\n    x.append(1)\n    return len(x)"
    assert status(code, "a = []\nassert f(a) == 1\nassert a == []\nassert f(a) == 1") == "passed"


def test_a_candidate_may_name_things_as_it_likes():
    code = "list = [1]\ntype = 3\nmap = None\nmax = 2\ndef f(x): return [10, (list, {type: max})]"
    assert status(code, "assert f(1) == [10, ([1], {3: 2})]") == "passed"


def test_globals_live_as_long_as_one_program():
    code = "n = 0\ndef f(x):\n    global n\n    n += 1\n    return n"
    for _ in range(2):
        assert status(code, "assert f(1) == 1\nassert f(1) == 2") == "passed"


def test_chance_and_clock_are_the_same_every_time():
    code = "import random, time\ndef f(x): return [random.random(), time.time()]"
    first = run_tests(code, "assert f(1) == 0", "f").detail
    assert first == run_tests(code, "assert f(1) == 0", "f").detail


def test_no_files_and_no_environment():
    assert status("def f(x): return open('/etc/passwd').read()") == "error"
    assert status("import os\ndef f(x): return os.environ['HOME']") in ("error", "unsupported")


def test_more_than_a_thousand_calls():
    assert status(returning("x"), "for i in range(2000): assert f(i) == i", timeout=0.5) == "passed"


def test_broken_tests_raise_and_name_what_to_do():
    for tests in ("assert (", "", "assert True", "def check(candidate): pass"):
        with pytest.raises(OptimaError, match="tests"):
            run_tests(returning("1"), tests, "f")
    with pytest.raises(OptimaError, match="entry_point"):
        run_tests(returning("1"), TEN, "f()")


def test_tests_that_use_what_is_missing_are_unsupported():
    assert status(returning("1"), "import heapq\nassert f(1) == 1") == "unsupported"


def test_tests_that_never_end():
    assert status(returning("sum(range(100000))"), "while True: f(1)") == "timeout"
    assert status(returning("1"), "f(1)\nwhile True: pass") == "timeout"


def test_detail_is_one_short_line():
    detail = run_tests("def f(x): raise ValueError('a\\n' * 10000)", TEN, "f").detail
    assert "\n" not in detail and len(detail) <= 300


def test_threads_share_the_pools():
    verdicts = []
    work = [threading.Thread(target=lambda: verdicts.extend(status(EXAMPLES["passed"]) for _ in range(10))) for _ in range(8)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(timeout=30)
    assert verdicts == ["passed"] * 80


def test_a_fork_after_the_pool_was_opened():
    assert status(EXAMPLES["passed"]) == "passed"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, f"{status(EXAMPLES['passed'])} {status(EXAMPLES['failed'])}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        assert answers.read() == "passed failed"
    assert os.waitpid(pid, 0)[1] == 0
    assert status(EXAMPLES["passed"]) == "passed"


def test_a_forked_pool_of_processes():
    assert status(EXAMPLES["passed"]) == "passed"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(status, [EXAMPLES["passed"], EXAMPLES["failed"]]).get(timeout=30) == ["passed", "failed"]


def test_the_process_ends_cleanly_and_leaves_no_worker():
    program = "import os\nfrom optima.sandbox.judge import run_tests\n" \
              "assert run_tests('def f(): return 1', 'assert f() == 1', 'f').passed\n" \
              "if os.fork() == 0: raise SystemExit(0)\nos.wait()\n" \
              "assert run_tests('def f(): return 1', 'assert f() == 1', 'f').passed\nprint('done')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False,
                           env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
    assert ended.returncode == 0 and ended.stdout == "done\n", ended.stderr


def test_speed():
    code = EXAMPLES["passed"]
    run_tests(code, TEN, "f")
    started = time.perf_counter()
    for _ in range(200):
        run_tests(code, TEN, "f")
    assert 200 / (time.perf_counter() - started) > 20


def test_a_candidate_may_begin_with_a_future_import():
    assert status("'''doc'''\nfrom __future__ import annotations\ndef f(x: int) -> int:\n    return x + 8") == "passed"


def test_a_verdict_is_a_value():
    assert Verdict.of("passed") == Verdict(True, "passed", "monty", "")
