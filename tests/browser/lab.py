"A JupyterLab of its own on loopback, and a browser's page that uses it as a reader would."
import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import nbformat
import psutil

START_SECONDS, STOP_SECONDS, STEP_SECONDS = 90, 20, 60  # generous: the machine may be busy
LOG_CHARACTERS = 3000
SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


def surroundings(folder: Path, token: str) -> dict[str, str]:
    "The environment of a server that finds and leaves nothing of the user's."
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG_"))}
    places = {name: str(folder / name.lower()) for name in (
        "HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR",
    )}
    for place in places.values():
        Path(place).mkdir(parents=True)
    for name, values in SETTINGS.items():
        path = Path(places["JUPYTERLAB_SETTINGS_DIR"], f"{name}.jupyterlab-settings")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    return kept | places | {"JUPYTER_TOKEN": token}


class Lab:
    "A JupyterLab that shows `root`; its log and settings are in `folder`. It ends with all that it started."

    def __init__(self, folder: Path, root: Path):
        self.root, self.token, self.log = root, secrets.token_hex(16), folder / "lab.log"
        self.environment = surroundings(folder, self.token)
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
                   "--expose-app-in-browser", f"--ServerApp.root_dir={root}"]
        with self.log.open("w") as log:
            self.server = psutil.Popen(command, cwd=root, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT)
        try:
            self.url = self.wait_for_address()
        except BaseException:
            self.stop()
            raise

    def wait_for_address(self) -> str:
        "The address, once the server answers there."
        told = Path(self.environment["JUPYTER_RUNTIME_DIR"], f"jpserver-{self.server.pid}.json")
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.server.poll() is None:
            try:
                url = json.loads(told.read_text())["url"]
                self.ask(url + "api/status")
                return url
            except (OSError, ValueError):
                time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start\n{self.last_words()}")

    def ask(self, url: str, method: str = "GET"):
        "What the server answers."
        asked = Request(url, headers={"Authorization": f"token {self.token}"}, method=method)
        with urlopen(asked, timeout=STEP_SECONDS) as answer:
            return json.loads(answer.read() or "null")

    def end_kernels(self):
        "Shut every kernel down."
        for kernel in self.ask(f"{self.url}api/kernels"):
            with suppress(HTTPError):  # of one that is just being restarted; it ends with the server
                self.ask(f"{self.url}api/kernels/{kernel['id']}", "DELETE")

    def write_notebook(self, name: str, *cells, kernel: str = "python3") -> str:
        "Write a notebook into the lab's folder; returns its name."
        spec = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata={"kernelspec": spec}), self.root / name)
        return name

    def last_words(self) -> str:
        "How the server stands, and the end of its log."
        code = self.server.poll()
        state = "runs" if code is None else f"ended with code {code}"
        return f"JupyterLab {state}; its log ends:\n{self.log.read_text()[-LOG_CHARACTERS:]}"

    def stop(self):
        "End the server and everything that it started."
        if self.server.poll() is not None:  # kernels end by themselves when their server has gone
            return
        started = [self.server, *self.server.children(recursive=True)]
        self.server.terminate()
        for process in psutil.wait_procs(started, STOP_SECONDS)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
