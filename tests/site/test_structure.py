"The rooms: each imports from those below it only, without circles; a planted upward import, late or not, is caught."
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.project import ROOT
from tools.structure import circles, depth, report

PLANTED = {
    "an upward import": ("base/errors.py", "from optima.cli import main\n"),
    "a late upward import": ("tasks/task.py", "\n\ndef late():\n    from optima.agents import viewer\n"),
    "a circle within a room": ("agents/messages.py", "\n\ndef late():\n    from optima.agents import viewer\n"),
    "a room that no layer names": ("attic/chest.py", "things = []\n"),
}


def linted(folder: Path) -> subprocess.CompletedProcess:
    "What the contract in pyproject.toml says of the package in a folder."
    return subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=folder, text=True, check=False,
                          capture_output=True, env=os.environ | {"PYTHONPATH": str(folder)})


def test_the_rooms_keep_their_order():
    said = linted(ROOT)
    assert said.returncode == 0 and "Contracts: 2 kept, 0 broken." in said.stdout, said.stdout + said.stderr


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_import_is_caught(what, tmp_path):
    shutil.copytree(ROOT / "optima", tmp_path / "optima", ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    name, text = PLANTED[what]
    place = tmp_path / "optima" / name
    place.parent.mkdir(exist_ok=True)
    (place.parent / "__init__.py").touch()
    place.write_text((place.read_text() if place.exists() else "") + text)
    said = linted(tmp_path)
    assert said.returncode == 1 and ("BROKEN" in said.stdout or "exhaustive" in said.stdout.lower()), said.stdout + said.stderr


def test_the_report_counts_what_is_there():
    told = dict(line.split(": ", 1) for line in report(ROOT))
    assert told["circles"] == "0" and told["upward imports"] == "0" and re.match(r"14;", told["layers"])
    assert int(told["modules"].split()[0]) == len([path for path in (ROOT / "optima").rglob("*.py") if path.name not in ("__init__.py", "_modidx.py")])


def test_circles_and_depth_by_hand():
    joined = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]
    assert circles(set("abcd"), joined) == [{"b", "c"}] and depth(set("abcd"), joined) == 3


def test_no_module_is_over_400_lines():
    modules = [path for path in (ROOT / "optima").rglob("*.py") if path.name != "_modidx.py"]
    assert [path.name for path in modules if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []
