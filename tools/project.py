"The files of this checkout, and copies of it that checks may write into."
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("tasks", "agents", "rewards", "train", "run", "evaluate", "report", "engines", "toy", "sandbox")  # folders of nbs/, as they are read


def project_files() -> list[Path]:
    "Every file that git tracks or would track, relative to the root."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({Path(name) for name in listed.split("\0") if name and os.path.lexists(ROOT / name)})


def notebooks(*folders: str) -> list[Path]:
    "The notebooks of these folders of nbs/ (none named: of all of nbs/), relative to the root."
    found = [path for path in project_files() if path.suffix == ".ipynb" and path.parts[0] == "nbs"]
    return [path for path in found if not folders or path.parts[1] in folders]


def copy_project(
    destination: Path,  # folder to make
) -> Path:
    "Copy the checkout's files, symlinks as symlinks."
    for name in project_files():
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return destination
