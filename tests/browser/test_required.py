"A browser that is missing skips these tests, and fails them where it is required."
import os
import subprocess
import sys

import pytest

from tools.project import ROOT


@pytest.mark.parametrize("required, ending", [("bwrap", "skipped"), ("bwrap,chromium", "error")])
def test_a_missing_browser_skips_unless_it_is_required(required, ending, tmp_path):
    environment = {**os.environ, "OPTIMA_REQUIRE": required, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/browser/test_report_page.py", "-k", "changed_title"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert f"1 {ending}" in done.stdout and "there is no program chromium on PATH" in done.stdout, done.stdout
    assert (done.returncode == 0) == (ending == "skipped")
