"Tables of named things: one decorator for the package's and a user's, errors that name file and line, digests of files."
import os
import subprocess
import sys

import pytest

from optima.base.errors import OptimaError
from optima.base.files import file_digest
from optima.base.plugins import VARIABLE, Kind, Source, load_file, loaded_files

NUMBERS = Kind("number", reserved=("none",))


@pytest.fixture(autouse=True)
def emptied():
    yield
    for table in (NUMBERS.things, NUMBERS.sources):
        table.clear()


def test_a_decorator_adds_and_hands_back():
    def one(): return 1
    assert NUMBERS("one")(one) is one and NUMBERS.get("one") is one and NUMBERS.names() == ["one"]


def test_the_closest_right_word_is_told():
    NUMBERS.add("three", 3)
    with pytest.raises(OptimaError, match="unknown number 'tree'; choose one of: three"):
        NUMBERS.get("tree")


def test_a_users_may_replace_a_users_and_never_the_packages():
    NUMBERS.add("one", 1)
    assert NUMBERS.add("one", 2) == NUMBERS.get("one") == 2
    NUMBERS.sources["one"] = Source("optima.tasks.hub", "")
    for name in ("one", "none"):
        with pytest.raises(OptimaError, match=f"'{name}' is a number of the package; choose another name"):
            NUMBERS.add(name, 3)
    assert NUMBERS.get("one") == 2 and NUMBERS.packaged("one")


@pytest.mark.parametrize("before, now, may", [
    (None, Source("mine", "f"), True), (Source("mine", "f"), Source("yours", "g"), True),
    (Source("optima.x", "f"), Source("mine", "f"), False), (Source("optima.x", "f"), Source("__main__", "f"), True),
    (Source("optima.x", "f"), Source("__main__", "g"), False), (Source("optima.x", ""), Source("__main__", ""), False),
    (Source("optima.x", "f"), Source("optima.y", "g"), True)])
def test_a_chapter_may_define_again_what_it_exported(before, now, may):
    assert now.may_replace(before) is may


def test_a_file_is_loaded_once_and_stands_for_its_things_in_keys(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from test_plugins import NUMBERS\n\n@NUMBERS('four')\ndef four():\n    return 4\n")
    assert load_file(path) == load_file(str(path)) == file_digest(path) == NUMBERS.digest("four")
    assert NUMBERS.get("four")() == 4
    NUMBERS.add("five", 5)
    assert NUMBERS.digest("five") == ""
    path.write_text(path.read_text().replace("return 4", "return 44"))
    before = NUMBERS.digest("four")
    assert load_file(path) == NUMBERS.digest("four") != before and NUMBERS.get("four")() == 44


@pytest.mark.parametrize("text, said", [
    ("x = 1\ny = x / 0\n", r"mine\.py, line 2: ZeroDivisionError: division by zero; mend the plug-in"),
    ("def f(:\n", r"mine\.py, line 1: SyntaxError"),
    ("\n\nimport no_such_module\n", r"mine\.py, line 3: ModuleNotFoundError"),
    ("from optima.agents.paradigms import paradigm\n\n@paradigm('debate', None)\ndef run(): ...\n",
     r"mine\.py, line 3: OptimaError: 'debate' is a paradigm of the package")])
def test_an_error_names_file_and_line(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(OptimaError, match=said):
        load_file(path)
    assert file_digest(path) not in loaded_files.values()


def test_a_file_that_is_not_there():
    with pytest.raises(OptimaError, match="there is no plug-in file .*nowhere.py"):
        load_file("nowhere.py")


def test_what_the_package_adds_is_there_without_an_import():
    code = ("from optima.agents.prompts import PROMPTS\nfrom optima.agents.paradigms import PARADIGMS\n"
            "assert 'toy' in PROMPTS.names() and PARADIGMS.packaged('exchange')")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_processes_of_a_command_know_its_plugins(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from optima.agents.paradigms import paradigm\n\n@paradigm('mine', None)\ndef mine(task, team, limits): ...\n")
    code = "from optima.agents.paradigms import PARADIGMS; print('mine' in PARADIGMS.names(), PARADIGMS.digest('mine')[:8])"
    said = subprocess.run([sys.executable, "-c", code], env=os.environ | {VARIABLE: str(path)}, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", file_digest(path)[:8]]
