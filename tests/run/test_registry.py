"The registry: sorted, replaced by key, checked when read, whole after parallel writes and kills."
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from optima.base.errors import OptimaError
from optima.base.files import canonical_json
from optima.base.machine import FROZEN, commit_day, dated, git, machine, peak_memory_mb
from optima.run import registry
from optima.run.registry import PACKED, add_line, find_line, read_registry, registry_path, write_registry


def line(key, **changes):
    return {"key": key, "system": "single", "preset": "toy", "seed": 0, "settings": {}, "results": {},
            "cost": {}, "machine": {}} | changes


def test_lines_are_sorted_and_replaced_by_key(tmp_path):
    for key in ("c", "a", "b"):
        add_line(tmp_path, line(key))
    add_line(tmp_path, line("b", results={"score": 0.5, "name": "é"}))
    assert [one["key"] for one in read_registry(tmp_path)] == ["a", "b", "c"]
    assert find_line(tmp_path, "b")["results"]["score"] == 0.5 and find_line(tmp_path, "z") is None
    text = registry_path(tmp_path).read_text(encoding="utf-8")
    assert text == "".join(canonical_json(json.loads(row)) + "\n" for row in text.splitlines()) and "é" in text


def test_the_order_of_adding_does_not_show(tmp_path):
    for folder, keys in (("x", "abc"), ("y", "cab")):
        for key in keys:
            add_line(tmp_path / folder, line(key))
    assert registry_path(tmp_path / "x").read_bytes() == registry_path(tmp_path / "y").read_bytes()


def test_no_registry_yet(tmp_path):
    assert read_registry(tmp_path) == [] and read_registry(tmp_path / "none" / "registry.jsonl") == []


@pytest.mark.parametrize("text, words", [
    ('{"key":', "line 2: not JSON"), ("[]", "line 2: expected a JSON object"),
    (canonical_json({"key": "b"}), "line 2: field 'system' is missing"),
    (canonical_json(line("b", seed="0")), "line 2: field 'seed' is missing or is no int"),
])
def test_corruption_is_named_by_file_and_line(tmp_path, text, words):
    add_line(tmp_path, line("a"))
    before = registry_path(tmp_path).read_text() + text + "\n"
    registry_path(tmp_path).write_text(before)
    for action in (lambda: read_registry(tmp_path), lambda: add_line(tmp_path, line("c"))):
        with pytest.raises(OptimaError, match="registry.jsonl") as caught:
            action()
        assert words in str(caught.value)
    assert registry_path(tmp_path).read_text() == before


def test_an_incomplete_line_is_not_added(tmp_path):
    with pytest.raises(OptimaError, match="field 'machine'"):
        add_line(tmp_path, {name: value for name, value in line("a").items() if name != "machine"})
    assert not registry_path(tmp_path).exists()


def test_parallel_writers_lose_nothing(tmp_path):
    code = """
import sys
from optima.run.registry import add_line
for number in range(10):
    add_line(sys.argv[1], {"key": f"{sys.argv[2]}{number}", "system": "single", "preset": "toy", "seed": 0,
                           "settings": {}, "results": {}, "cost": {}, "machine": {}})
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], stderr=subprocess.DEVNULL)
                 for name in "xyz"]
    assert [process.wait(timeout=30) for process in processes] == [0, 0, 0]
    assert len(read_registry(tmp_path)) == 30


def test_machine_and_memory():
    about = machine()
    assert about["cores"] >= 1 and about["memory_gb"] > 0 and about["packages"]["torch"]
    assert set(about) == {"python", "system", "cpu", "gpu", "cores", "memory_gb", "packages", "commit", "clean", "frozen", "day"}
    assert bool(about["gpu"]) == torch.cuda.is_available()
    assert 5 < peak_memory_mb() < 100_000


def test_a_line_tells_the_day_of_its_run_and_an_older_one_its_commits(monkeypatch):
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", machine()["day"])
    commit = git("rev-parse", "HEAD") or pytest.skip("not a clone")
    assert dated({"commit": commit}) == f"{commit[:10]}, of {git('log', '-1', '--format=%cs')}"
    monkeypatch.setattr("optima.base.machine.git", lambda *_: None)
    commit_day.cache_clear()
    assert dated({"commit": commit, "day": "2026-11-29"}) == f"{commit[:10]}, run 2026-11-29"
    assert dated({"commit": commit}) == commit[:10] and dated({}) == "unknown"
    commit_day.cache_clear()


def test_a_line_names_the_commit_that_froze_models_and_settings(monkeypatch):
    root = Path(registry.__file__).parents[2]
    assert all((root / place).exists() for place in FROZEN)
    assert git("diff", "--stat", machine()["frozen"], "HEAD", "--", *FROZEN) == ""
    monkeypatch.setattr("optima.base.machine.git", lambda *_: None)
    assert machine()["frozen"] is None


def test_a_packed_registry_reads_and_grows_like_any_other(tmp_path):
    write_registry(tmp_path / PACKED, [line("b"), line("a")])
    before = (tmp_path / PACKED).read_bytes()
    write_registry(tmp_path / PACKED, [line("a"), line("b")])
    assert (tmp_path / PACKED).read_bytes() == before and registry_path(tmp_path) == tmp_path / PACKED
    add_line(tmp_path, line("c"))
    assert [one["key"] for one in read_registry(tmp_path)] == ["a", "b", "c"] and [path.name for path in tmp_path.glob("registry*")] == [PACKED]


@pytest.mark.parametrize("harm", [lambda data: data[:40], lambda data: b"not packed", lambda data: data[:20] + b"xx" + data[22:]])
def test_a_damaged_packed_registry_is_one_clear_line(tmp_path, harm):
    write_registry(tmp_path / PACKED, [line("a"), line("b")])
    (tmp_path / PACKED).write_bytes(harm((tmp_path / PACKED).read_bytes()))
    with pytest.raises(OptimaError, match="registry.jsonl.gz"):
        read_registry(tmp_path)
