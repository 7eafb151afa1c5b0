"Golden runs: what thirty steps of training did, in numbers: `python tools/golden.py` (half a minute) writes tests/golden/*.json."
# To be made again only when training is meant to give other results; the commit that does so says why.
import json
import random
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from optima.dpo import PairExample, train_pairs_with_trl
from optima.loading import load_base, load_tokenizer
from optima.registry import machine
from optima.settings import model_digest
from optima.training import Example, plan_steps, train_with_trl, with_adapter
from tools.project import ROOT

FOLDER, BASE = ROOT / "tests" / "golden", ROOT / "optima" / "checkpoints" / "toy-base-0"
STEPS, BATCH, RATE = 30, 4, 1e-3
TOLERANCE = 1e-3  # how far a figure may be off, as a share of itself
BIAS = 2e-4  # how far all figures together may be off, signs kept: rounding errs as often upwards as downwards


def words(chance: random.Random, most: int) -> list[int]:
    "Random words of the toy world, as token ids."
    return [chance.randrange(60, 200) for _ in range(chance.randint(2, most))]


def turn(opening: list[int], own: list[int], number: int) -> Example:
    "A turn after an opening."
    return Example([*opening, *own], [0] * len(opening) + [1] * len(own), number)


def data() -> list[PairExample]:
    "Twelve pairs of turns; of the toy world's code they use its tokens' numbers only."
    chance = random.Random(0)
    openings = [words(chance, 20) for _ in range(12)]
    return [tuple(turn(opening, words(chance, 12), number) for _ in range(2)) for number, opening in enumerate(openings)]


def run(train, examples: list) -> dict[str, list[float]]:
    "Loss and length of the gradient at each step, in float32."
    found, model = {"loss": [], "gradient_norm": []}, with_adapter(load_base(BASE, "none"), seed=0)

    def report(loss, label_tokens, **others):
        norms = [weight.grad.norm() for weight in model.parameters() if weight.requires_grad]
        found["loss"].append(loss)
        found["gradient_norm"].append(float(torch.stack(norms).norm()))

    plan = plan_steps([chosen for chosen, _ in data()], STEPS, BATCH, seed=0)
    with tempfile.TemporaryDirectory() as out:
        train(model, load_tokenizer(BASE), examples, plan, RATE, out=out, report=report)
    return found


RUNS = {"sft": lambda: run(train_with_trl, [chosen for chosen, _ in data()]), "dpo": lambda: run(train_pairs_with_trl, data())}


def apart(found: dict[str, list[float]], stored: dict[str, list[float]]) -> tuple[float, float]:
    "The largest relative residual of any figure, and the mean of all, signs kept."
    off = [(new - old) / abs(old) for name in stored for new, old in zip(found[name], stored[name], strict=True)]
    return max(map(abs, off)), sum(off) / len(off)


def main() -> int:
    torch.set_num_threads(1)
    made_by = {name: machine()[name] for name in ("commit", "python", "packages")}
    for name, make in RUNS.items():
        line = {"run": name, "base": model_digest(BASE), "made_by": made_by, "figures": make()}
        (FOLDER / f"{name}.json").write_text(json.dumps(line, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
