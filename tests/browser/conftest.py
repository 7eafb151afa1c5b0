"One browser and one JupyterLab for the tests of this folder, ended with them: Playwright's event loop is in others' way."
import shutil

import pytest
from required import leave

from browser.hostile import EAR
from browser.lab import Lab
from browser.reader import STEP
from tools.project import copy_project

SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]  # as root, without a screen, with little /dev/shm


@pytest.fixture(scope="package")
def chromium():
    "Debian's Chromium, driven by Playwright."
    program = shutil.which("chromium")
    if program is None:
        leave("chromium", "no browser: there is no program chromium on PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        leave("chromium", f"no browser: {error}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=SWITCHES, timeout=STEP)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(chromium, tmp_path_factory):
    "A JupyterLab on a copy of the project."
    folder = tmp_path_factory.mktemp("lab")
    lab = Lab(folder, copy_project(folder / "project"))
    yield lab
    lab.stop()


@pytest.fixture
def lab(server):
    "The JupyterLab, whose kernels end with the test."
    yield server
    server.end_kernels()


@pytest.fixture
def page(chromium, request):
    "An empty page in a window of its own; a parameter sets its colour scheme."
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme=getattr(request, "param", "light"))
    context.add_init_script(EAR)
    yield context.new_page()
    context.close()
