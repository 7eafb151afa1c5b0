"Draws the first page's picture from the published registry: `python tools/picture.py`."
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "nbs/images/score_tokens.svg"

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from optima.report.front_page import picture
    from optima.run.registry import read_registry

    picture([line for line in read_registry(ROOT / "nbs/results") if line["preset"] == "toy"]).save(PICTURE)
