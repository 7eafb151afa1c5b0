"The store: kills, two processes at once, damaged files, full and read-only disks."
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optima.base import files as store_module
from optima.base.errors import OptimaError
from optima.base.files import aside, folder_digest, make_folder, write_json, write_text
from optima.config.versions import STAGE_VERSIONS
from optima.run.stages import Store, stage_key, verify

WORK = """
import sys, time
from pathlib import Path
from optima.run.stages import Store
from optima.base.files import aside

def generate(folder):
    print("making", flush=True)
    for number in range(12):
        if not first.shard(number).exists():
            with aside(first.shard(number)) as path:
                with open(path, "w") as file:
                    for row in range(40):
                        file.write(f"{number} {row}\\n")
                        file.flush()
                        time.sleep(pause)

def join(folder):
    (folder / "deep").mkdir()
    rows = [shard.read_text() for shard in first.shards()]
    for number, text in enumerate(rows):
        (folder / "deep" / f"{number}.txt").write_text(text)
        time.sleep(pause * 20)
    (folder / "all.txt").write_text("".join(rows))

pause = float(sys.argv[2])
store = Store(sys.argv[1])
first = store.stage("generate", {"seed": 0})
first.make(generate)
second = store.stage("select", {"share": 0.6}, inputs=[first.key]).make(join)
print(second.key)
"""


def start(runs, pause=0.0):
    return subprocess.Popen([sys.executable, "-c", WORK, str(runs), str(pause)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and "locks" not in path.parts}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    runs = tmp_path_factory.mktemp("uninterrupted")
    process = start(runs)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return tree(runs)


def test_killed_at_random_and_continued_gives_the_same_bytes(tmp_path, uninterrupted):
    clock, kills = random.Random(7), 0
    for _ in range(8):
        process = start(tmp_path, pause=0.0008)
        time.sleep(clock.uniform(0.08, 0.3))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 3
    assert start(tmp_path).communicate(timeout=30)[1] == ""
    assert tree(tmp_path) == uninterrupted


def test_a_second_process_waits_with_one_line_and_finds_it_done(tmp_path, uninterrupted):
    first = start(tmp_path, pause=0.0008)
    assert first.stdout.readline() == "making\n"
    second = start(tmp_path, pause=0.0008)
    assert first.communicate(timeout=30)[1] == ""
    output, errors = second.communicate(timeout=30)
    assert "making" not in output
    lines = errors.splitlines()
    assert 1 <= len(lines) <= 2 and lines[0].startswith(f"waiting for process {first.pid}, which is making ")
    assert tree(tmp_path) == uninterrupted


def test_a_killed_holder_frees_the_lock_and_loses_one_shard_at_most(tmp_path):
    process = start(tmp_path, pause=0.002)
    stage = Store(tmp_path).stage("generate", {"seed": 0})
    while len(stage.shards()) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in stage.shards()}
    assert not stage.done
    with stage.work() as folder:
        assert {path: path.stat().st_mtime_ns for path in stage.shards()} == before
        assert not list(folder.glob("*.partial"))


def made(runs, settings=None):
    stage = Store(runs).stage("evaluate", settings or {"n": 1}, inputs=["a"])
    return stage.make(lambda folder: (folder / "scores.json").write_text("[1]"))


def test_keys_depend_on_all_that_went_in_and_on_nothing_else():
    key = stage_key("train", {"b": 1, "a": (1, 2)}, 1, ["x", "y"])
    assert len(key) == 16 and key == stage_key("train", {"a": [1, 2], "b": 1}, 1, ["x", "y"])
    others = [stage_key("rank", {"b": 1, "a": [1, 2]}, 1, ["x", "y"]), stage_key("train", {"b": 2}, 1, ["x", "y"]),
              stage_key("train", {"b": 1, "a": [1, 2]}, 2, ["x", "y"]),
              stage_key("train", {"b": 1, "a": [1, 2]}, 1, ["y", "x"])]
    assert len({key, *others}) == 5


def test_a_finished_stage_is_not_made_again(tmp_path):
    made(tmp_path)
    again = Store(tmp_path).stage("evaluate", {"n": 1}, inputs=["a"]).make(lambda folder: pytest.fail("made again"))
    assert again.file("scores.json").read_text() == "[1]"
    about = json.loads(again.file("settings.json").read_text())
    assert about == {"stage": "evaluate", "version": STAGE_VERSIONS["evaluate"], "inputs": ["a"], "settings": {"n": 1}}
    with pytest.raises(KeyError, match="not a file of"):
        again.file("nothing.json")


def test_leftovers_of_another_attempt_do_not_reach_the_result(tmp_path):
    stage = Store(tmp_path).stage("generate", {"n": 1})
    make_folder(stage.folder / "old")
    for name in ("old/a.txt", "log.txt", "shard-00001.jsonl.partial", "shard-00000.jsonl"):
        (stage.folder / name).write_text("x")
    stage.make(lambda folder: (folder / "new.txt").write_text("y"))
    names = sorted(json.loads((stage.folder / "done.json").read_text())["files"])
    assert names == ["new.txt", "settings.json", "shard-00000.jsonl"]


@pytest.mark.parametrize("harm, words", [
    (lambda path: path.write_text("[2]"), "scores.json was changed"),
    (lambda path: path.unlink(), "scores.json is missing"),
    (lambda path: (path.parent / "done.json").write_text("{"), "done.json is not readable"),
    (lambda path: (path.parent / "done.json").write_text("[]"), "done.json is not readable"),
])
def test_damage_is_named_with_what_to_do(tmp_path, harm, words):
    harm(made(tmp_path).folder / "scores.json")
    with pytest.raises(OptimaError, match=words) as caught:
        made(tmp_path)
    assert "delete the folder" in str(caught.value)


def test_an_unfinished_stage_gives_no_files(tmp_path):
    with pytest.raises(OptimaError, match="not finished"):
        Store(tmp_path).stage("evaluate", {}).file("scores.json")


def test_an_error_while_making_keeps_shards_and_frees_the_lock(tmp_path):
    stage = Store(tmp_path).stage("generate", {})

    def breaks(folder):
        write_text(stage.shard(0), "whole")
        with aside(stage.shard(1)) as path:
            path.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.make(breaks)
    assert [path.name for path in stage.folder.iterdir()] == ["shard-00000.jsonl"]
    stage.make(lambda folder: write_text(stage.shard(1), "whole"))
    assert stage.done and len(stage.shards()) == 2


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"),
                                           (errno.EACCES, "permission denied"), (errno.EDQUOT, "quota")])
def test_a_disk_that_refuses_is_one_line_and_nothing_is_lost(tmp_path, monkeypatch, number, words):
    stage = Store(tmp_path).stage("generate", {})

    def refused(*_):
        raise OSError(number, os.strerror(number))

    def build(folder):
        write_text(stage.shard(0), "whole")
        monkeypatch.setattr(store_module, "flush", refused)
        write_text(stage.shard(1), "never whole")

    with pytest.raises(OptimaError, match=words):
        stage.make(build)
    monkeypatch.undo()
    assert [path.read_text() for path in stage.shards()] == ["whole"]
    assert stage.make(lambda folder: write_text(stage.shard(1), "whole")).done


def test_a_really_full_disk(tmp_path):
    "/dev/full refuses every byte."
    with pytest.raises(OptimaError, match="the disk is full"), store_module.storage_errors(tmp_path):
        Path("/dev/full").write_text("x")


@pytest.mark.parametrize("place", ["file", "file/runs", "/proc/runs", "/dev/null/runs"])
def test_folders_that_cannot_be(tmp_path, place):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OptimaError, match="choose another folder"):
        made(tmp_path / place)
    with pytest.raises(OptimaError), Store(tmp_path / place).lock():
        pass
    assert (tmp_path / "file").read_text() == "kept"


def test_other_errors_are_not_dressed_up():
    with pytest.raises(FileNotFoundError), store_module.storage_errors(Path("x")):
        Path("/nowhere/x").read_text()


def test_the_folder_lock_names_who_holds_it(tmp_path):
    code = "import sys, time; from optima.run.stages import Store\n"
    code += f"with Store({str(tmp_path)!r}).lock(): print('held', flush=True); time.sleep(30)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(OptimaError, match=f"in use by process {process.pid}"), Store(tmp_path).lock():
        pass
    process.kill()
    process.wait()
    with Store(tmp_path).lock():
        assert Store(tmp_path).lock_path("folder").read_text() == f"{os.getpid()}\n"


def test_verify_folder_digest_and_json(tmp_path):
    stage = made(tmp_path)
    verify(stage.folder)
    before = folder_digest(stage.folder)
    write_json(stage.folder / "manifest.json", {"seconds": 1})
    assert folder_digest(stage.folder) == before
    assert Store(tmp_path).stage_folders() == [stage.folder]
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
