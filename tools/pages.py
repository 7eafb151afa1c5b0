"Processes the notebooks into _proc/, ready for Quarto, which this does not need: `python tools/pages.py`."
import os
import sys
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs


def make_pages() -> Path:
    "What nbdev-proc-nbs does, without its attempt to install Quarto."
    refresh_quarto_yml()
    _build_modidx()
    nbdev_sidebar.__wrapped__()
    return proc_nbs(get_config().nbs_path, n_workers=1)


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    os.chdir(root)
    sys.path.insert(0, str(root))  # the workers take it over
    print(make_pages())
