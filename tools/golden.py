"Golden runs: what thirty steps of training did, in numbers: `python tools/golden.py` (a minute) writes tests/golden/*.json."
# To be made again only when training is meant to give other results; the commit that does so says why.
import json
import random
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from optima.agents.messages import Message, Trajectory
from optima.base.machine import machine
from optima.config.models import model_digest
from optima.engines.loading import load_base, load_tokenizer
from optima.engines.request import encode_conversation
from optima.train.dpo import examples_of_pairs, train_pairs_with_trl
from optima.train.examples import IGNORED, Example, examples_of
from optima.train.pairs import Pair
from optima.train.sft import plan_steps, train_with_trl, with_adapter
from tools.project import ROOT

FOLDER, BASE = ROOT / "tests" / "golden", ROOT / "optima" / "toy" / "checkpoints" / "toy-base-0"
STEPS, BATCH, RATE = 30, 4, 1e-3
TOLERANCE = 1e-3  # how far a figure may be off, as a share of itself
BIAS = 2e-4  # how far all figures together may be off, signs kept: rounding errs as often upwards as downwards
WORDS = ("ana", "ben", "cat", "dog", "duck", "eggs", "first", "from", "gives", "has", "is", "it", "job", "look", "over", "pet", "right", "say", "the", "x")


def words(chance: random.Random, most: int) -> str:
    "A few words that the toy tokenizer knows."
    return " ".join(chance.choices(WORDS, k=chance.randint(2, most)))


def turn(chance: random.Random, tokenizer, name: str, sampled: bool) -> Message:
    "A turn of one agent, with the ids of its tokens where an engine would have sampled it."
    text = words(chance, 10)
    return Message(name, name, text, words(chance, 8), tokenizer(f"{text} <end>")["input_ids"] if sampled else [])


def dialogues(tokenizer) -> list[Trajectory]:
    "Twelve small dialogues of two agents, of whom one speaks twice."
    chance, systems = random.Random(0), {"proposer": "you say the answer", "critic": "you judge"}
    said = [[turn(chance, tokenizer, name, bool(number % 2)) for name in ("proposer", "critic", "proposer")] for number in range(12)]
    return [Trajectory(f"golden {number}", "debate", "none", 0, messages, "", systems) for number, messages in enumerate(said)]


def pairs(tokenizer) -> list[Pair]:
    "The last turn of each dialogue, and another one in its place."
    chance, found = random.Random(1), []
    for trajectory in dialogues(tokenizer):
        *conversation, chosen = trajectory.conversation("proposer")
        found.append(Pair(trajectory.task, "proposer", conversation, chosen, {"role": "assistant", "content": words(chance, 10)}, 0.9, 0.4))
    return found


def run(train, examples_from, made_from) -> dict[str, list[float]]:
    "Loss and length of the gradient at each step, in float32."
    found, model, tokenizer = {"loss": [], "gradient_norm": []}, with_adapter(load_base(BASE, "none"), seed=0), load_tokenizer(BASE)

    def report(loss, label_tokens, **others):
        norms = [weight.grad.norm() for weight in model.parameters() if weight.requires_grad]
        found["loss"].append(loss)
        found["gradient_norm"].append(float(torch.stack(norms).norm()))

    examples = examples_from(made_from(tokenizer), tokenizer)
    plan = plan_steps([one if isinstance(one, Example) else one[0] for one in examples], STEPS, BATCH, seed=0)
    with tempfile.TemporaryDirectory() as out:
        train(model, tokenizer, examples, plan, RATE, out=out, report=report)
    return found


RUNS = {"sft": lambda: run(train_with_trl, examples_of, dialogues), "dpo": lambda: run(train_pairs_with_trl, examples_of_pairs, pairs)}


def everything(*asked, **how):
    "A chat's tokens with a mask of ones."
    ids, _ = encode_conversation(*asked, **how)
    return ids, [1] * len(ids)


def late(example: Example) -> list[int]:
    "The labels with the mask one token late."
    return [token if own else IGNORED for token, own in zip(example.input_ids, [0, *example.mask[:-1]], strict=True)]


def flipped(margin, right=torch.nn.functional.logsigmoid):
    "DPO's sigmoid with the sign turned round."
    return right(-margin)


CHANGES = {  # what a change of one line does: its words -> the run, and the change
    "the mask of `encode_conversation` is all ones (SFT)": ("sft", lambda: patch("optima.train.examples.encode_conversation", everything)),
    "the labels are one token late (SFT)": ("sft", lambda: patch.object(Example, "labels", property(late))),
    "the mask of `encode_conversation` is all ones (DPO)": ("dpo", lambda: patch("optima.train.dpo.encode_conversation", everything)),
    "the sign in DPO's sigmoid is turned round": ("dpo", lambda: patch("torch.nn.functional.logsigmoid", flipped)),
}


def apart(found: dict[str, list[float]], stored: dict[str, list[float]]) -> tuple[float, float]:
    "The largest relative residual of any figure, and the mean of all, signs kept."
    off = [(new - old) / abs(old) for name in stored for new, old in zip(found[name], stored[name], strict=True)]
    return max(map(abs, off)), sum(off) / len(off)


def changed(change: str, figures: dict[str, list[float]]) -> tuple[float, float]:
    "How far one of `CHANGES` moves the figures of its run."
    name, make = CHANGES[change]
    with make(): return apart(RUNS[name](), figures)


def main() -> int:
    torch.set_num_threads(1)
    made_by = {name: machine()[name] for name in ("commit", "python", "packages")}
    for name, make in RUNS.items():
        figures = make()
        moved = {change: changed(change, figures) for change, (run, _) in CHANGES.items() if run == name}
        line = {"run": name, "base": model_digest(BASE), "made_by": made_by, "figures": figures,
                "changed": {change: {"worst": worst, "mean": mean} for change, (worst, mean) in moved.items()}}
        (FOLDER / f"{name}.json").write_text(json.dumps(line, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
