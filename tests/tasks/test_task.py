"Tasks: identity, what a benchmark refuses, lazily found benchmarks, fair deals."
import subprocess
import sys

import pytest
from plugged import plug

from optima.base.errors import OptimaError
from optima.tasks.catalogue import get_benchmark
from optima.tasks.task import BENCHMARKS, Benchmark, Task, assert_disjoint, benchmark, deal


def some(n, **fields): return [Task(f"t{i}", "b", f"q{i}", **fields) for i in range(n)]


def test_key_is_the_content():
    one = Task("a", "b", "q", "x", passages=["p", "r"])
    assert one.key == Task("z", "y", "q", "x", ["alias"], ["r", "p"], metric="f1").key
    others = [Task("a", "b", "q2", "x", passages=["p", "r"]), Task("a", "b", "q", "y", passages=["p", "r"]),
              Task("a", "b", "q", "x", passages=["pr"]), Task("a", "b", "q", "x", passages=["p", "r"], tests="assert 1")]
    assert len({one.key, *(other.key for other in others)}) == 5
    assert len(one.key) == 16 and int(one.key, 16)


def test_key_stays_the_same_for_ever():
    assert Task("a", "b", "q", "x", passages=["p"], tests="t").key == "f5386d4c4031aef1"
    assert Task("a", "b", "\ud800").key


def test_tasks_are_hashable_and_frozen():
    task = Task("a", "b", "q", passages=["p"], aliases=["x"])
    assert {task: 1}[Task("a", "b", "q", passages=("p",), aliases=("x",))] == 1
    with pytest.raises(AttributeError): task.question = "other"


@pytest.mark.parametrize("split, n, words", [("test", 1, "unknown split"), ("train", 0, "at least 1"), ("train", -3, "at least 1"),
                                             ("train", 9, "has 5 tasks in train, not 9")])
def test_benchmark_refuses(split, n, words):
    with pytest.raises(OptimaError, match=words): Benchmark("b", "f1", lambda split, n, seed: some(5)).tasks(split, n)


def test_benchmark_gives_exactly_n_and_minds_ids():
    assert len(Benchmark("b", "f1", lambda split, n, seed: some(5)).tasks("train", 3)) == 3
    with pytest.raises(ValueError, match="one id"): Benchmark("b", "f1", lambda *_: some(1) * 2).tasks("train", 2)


def test_disjoint_names_at_most_three():
    assert_disjoint(some(5), [])
    with pytest.raises(OptimaError, match=r"5 tasks.*t2 = t2 and 2 more"): assert_disjoint(some(5), iter(some(5)))


def test_built_in_benchmarks_are_imported_when_asked_for():
    code = "import optima.tasks.task as t; assert not t.BENCHMARKS.things; assert t.BENCHMARKS.get('toy_math').metric == 'math'"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_decorated_loader_is_a_benchmark_and_the_last_one_counts(monkeypatch):
    plug(monkeypatch, BENCHMARKS, "mine", None)  # taken away again after the test
    first, second = (lambda *_: some(1) for _ in range(2))
    assert benchmark("mine", "f1")(first) is first and get_benchmark("mine").load is first
    assert benchmark("mine", "f1")(second) is second and get_benchmark("mine").load is second and get_benchmark("mine").metric == "f1"
    with pytest.raises(OptimaError, match="choose one of: mine"): get_benchmark("min")


def test_the_packages_benchmarks_are_not_replaced():
    with pytest.raises(OptimaError, match="'toy_math' is a benchmark of the package"): benchmark("toy_math")(lambda *_: [])


def test_listing_names_loads_nothing_heavy():
    code = "import sys, optima.tasks.catalogue as t; t.benchmark_names(); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("hands", [1, 2, 3, 7])
def test_deal_is_balanced_and_complete(hands):
    for count in range(12):
        passages = [f"p{i}" for i in range(count)]
        for seed in (0, 1, "a key"):
            dealt = deal(passages, hands, seed)
            sizes = [len(hand) for hand in dealt]
            assert len(dealt) == hands and max(sizes) - min(sizes) <= 1
            assert sorted(passage for hand in dealt for passage in hand) == sorted(passages)
            assert dealt == deal(passages, hands, seed)


def test_deal_gives_a_repeated_passage_once():
    assert sorted(sum(deal(["a", "a", "b"], 2, 0), ())) == ["a", "b"]
    with pytest.raises(OptimaError): deal(["a"], 0, 0)


@pytest.mark.parametrize("hands", [2, 3])
def test_deal_parts_the_passages_that_are_needed(hands):
    first_places = set()
    for seed in range(60):
        dealt = deal("abcdefg", hands, seed, supporting=(5, 2))
        assert "f" in dealt[0] and "c" in dealt[1] and sorted(sum(dealt, ())) == list("abcdefg")
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1 and dealt == deal("abcdefg", hands, seed, (5, 2))
        first_places.add(dealt[0].index("f"))
    assert len(first_places) > 1


def test_supporting_passages_must_be_there():
    with pytest.raises(OptimaError, match="count from 0"): Task("a", "b", "q", passages=["p"], supporting=(1,))


def test_deal_is_pinned():
    assert deal("abcde", 2, 7) == [("d", "a", "c"), ("b", "e")]
