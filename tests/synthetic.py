"Registry lines with made-up numbers: drawn from seeded generators, for tests only; they say nothing about any model."
import numpy as np

from optima.messages import Message, Trajectory, write_jsonl
from optima.store import digest, make_folder

SYSTEMS = {  # made-up share of right answers, made-up mean tokens
    "single": (0.40, 25), "untrained_debate": (0.42, 150), "untrained_multi_step": (0.40, 120),
    "terse_debate": (0.43, 70), "terse_multi_step": (0.41, 60), "random_selection": (0.42, 140),
    "random_selection_multi_step": (0.40, 115), "optima_debate": (0.75, 40), "optima_multi_step": (0.60, 35),
}


def columns(right: float, tokens: float, seed, tasks: int = 60) -> dict:
    "Made-up columns; tasks have a difficulty that all systems share."
    rng, difficulty = np.random.default_rng(seed), np.random.default_rng(7).uniform(-0.3, 0.3, tasks)
    turns = rng.integers(1, 5, tasks)
    score = (rng.random(tasks) < right + difficulty).astype(float)
    return {"task": [f"t{i}" for i in range(tasks)], "score": score.tolist(),
            "tokens": rng.poisson(tokens, tasks).tolist(), "prompt_tokens": rng.poisson(3 * tokens, tasks).tolist(),
            "turns": turns.tolist(), "valid": (turns - (rng.random(tasks) < 0.1)).tolist(),
            "status": {"failed": int((score == 0).sum()), "passed": int(score.sum())}}


def line(system: str, seed: int, benchmarks=("toy_humaneval",), tasks: int = 60) -> dict:
    "One made-up registry line."
    right, tokens = SYSTEMS[system]
    place = list(SYSTEMS).index(system)
    evaluation = {benchmark: {decoding: columns(right, tokens, [seed, place, spot, number], tasks)
                              for number, decoding in enumerate(("greedy", "sampled"))}
                  for spot, benchmark in enumerate(benchmarks)}
    trained = system.startswith(("optima", "random"))
    iterations = [{"iteration": i, "score": right * (0.8 + 0.1 * i) + seed / 50, "tokens": tokens / i, "selected": 48}
                  for i in (1, 2)] if trained else []
    stages = [{"stage": "generate", "key": digest(["generate", seed]), "dialogues": 640, "tokens": 64000, "seconds": 30.0},
              *[{"stage": "evaluate", "key": evaluation_key(system, seed, decoding), "dialogues": tasks, "tokens": 999,
                 "seconds": 2.0} for decoding in ("greedy", "sampled")]]
    return {"key": digest([system, seed]), "system": system, "preset": "synthetic", "seed": seed,
            "settings": {"base": "toy", "mode": "self",
                         "stages": [f"{entry['stage']}-{entry['key']}" for entry in stages]},
            "results": {"evaluation": evaluation, "iterations": iterations}, "cost": {"stages": stages},
            "machine": {"cpu": "a made-up processor", "commit": "0" * 40, "clean": True}}


def lines(seeds: int = 3, benchmarks=("toy_humaneval",), tasks: int = 60) -> list[dict]:
    "A made-up registry of all systems."
    return [line(system, seed, benchmarks, tasks) for system in SYSTEMS for seed in range(seeds)]


def evaluation_key(system: str, seed: int, decoding: str = "greedy") -> str:
    "The made-up key of an evaluation's stage."
    return digest(["evaluate", system, seed, decoding])


def write_dialogues(runs, line: dict, benchmark: str = "toy_humaneval", decoding: str = "greedy"):
    "Dialogues of the lengths that the line's columns name, in the folder of their stage, which is returned."
    found, made = line["results"]["evaluation"][benchmark][decoding], []
    for task, tokens, prompt in zip(found["task"], found["tokens"], found["prompt_tokens"]):
        said = Message("proposer", "proposer", '{"answer":"<b>made up</b>"}', "a task", [5] * tokens, prompt)
        made.append(Trajectory(task, "debate", "none", 0, [said], "<b>made up</b>", {"proposer": ""}))
    folder = make_folder(runs / f"evaluate-{evaluation_key(line['system'], line['seed'], decoding)}")
    write_jsonl(folder / "shard-00000.jsonl", made)
    return folder
