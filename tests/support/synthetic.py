"Registry lines with made-up numbers: drawn from seeded generators, for tests only; they say nothing about any model."
import numpy as np

from optima.agents.messages import Message, Trajectory, write_jsonl
from optima.base.files import digest, make_folder
from optima.config.systems import METHODS, PAPER_ABLATIONS, PAPER_ROWS, system_of
from optima.evaluate.statistics import first_tasks

SYSTEMS = {  # made-up share of right answers, made-up mean tokens: the rows of the main table
    "single": (0.40, 25), "untrained_debate": (0.42, 150), "untrained_multi_step": (0.40, 120),
    "terse_debate": (0.43, 70), "terse_multi_step": (0.41, 60), "teacher_single": (0.55, 30), "teacher_debate": (0.60, 160),
    "random_selection_debate": (0.42, 140), "random_selection_multi_step": (0.40, 115),
    "optima_debate": (0.75, 40), "optima_multi_step": (0.60, 35),
    "ceiling_debate": (0.80, 30), "ceiling_multi_step": (0.75, 25),
}
ABLATIONS = {  # the rows of the ablation and of the grid of efficiency weights
    "without_efficiency": (0.61, 110), "without_format": (0.55, 36), "without_task": (0.20, 12),
    "without_iteration": (0.54, 60), "full": (0.60, 35), "without_teacher": (0.58, 40), "random_selection": (0.40, 115),
    "efficiency_0.1": (0.61, 70), "efficiency_0.6": (0.58, 25), "efficiency_1.2": (0.50, 18),
}
FOUR = ("toy_humaneval", "toy_mbpp", "toy_hotpotqa", "toy_math")
TWO = ("toy_hotpotqa", "toy_math")  # of the ablations, where they are among a line's benchmarks
PAPER = {  # the same for the rows of the published method, with two agents and the whole reward
    "cot": (0.40, 60), "sc": (0.45, 60), "untrained": (0.45, 150), "autoform": (0.44, 70), "tuned_single": (0.50, 30),
    "random_selection": (0.45, 140), "isft": (0.65, 60), "idpo": (0.62, 40), "isft_dpo": (0.75, 45),
}
PAPER_TWINS = ("toy_2wikimultihopqa", "toy_cbt", "toy_gsm8k", "toy_arc")
STEPS, ITERATION_TASKS = 3, 20  # made-up iterations, and tasks of the evaluations between them


def paradigm(system: str) -> str:
    "What a system's team does."
    if system.endswith("single"):
        return "single"
    return "debate" if system.endswith("debate") else "multi_step"


def trained(system: str) -> bool:
    "Whether a system has iterations."
    return system in ABLATIONS or system.startswith(("optima", "random", "ceiling"))


def efficiency_weight(system: str) -> float:
    "The efficiency weight that a system's name tells."
    return float(system.removeprefix("efficiency_")) if system.startswith("efficiency_") else 0.3 * (system != "without_efficiency")


def columns(right: float, tokens: float, seed, tasks: int = 60) -> dict:
    "Made-up columns; tasks have a difficulty that all systems share."
    rng, difficulty = np.random.default_rng(seed), np.random.default_rng(7).uniform(-0.3, 0.3, tasks)
    turns = rng.integers(1, 5, tasks)
    score = (rng.random(tasks) < right + difficulty).astype(float)
    spent, chatty = rng.poisson(tokens, tasks), min(tokens / 250, 0.5)
    return {"task": [f"t{i}" for i in range(tasks)], "score": score.tolist(),
            "tokens": spent.tolist(), "prompt_tokens": rng.poisson(3 * tokens, tasks).tolist(),
            "turns": turns.tolist(), "valid": (turns - (rng.random(tasks) < 0.1)).tolist(),
            "filler": (spent * chatty).round(3).tolist(), "acknowledgement": (spent * chatty / 2).round(3).tolist(),
            "status": {"failed": int((score == 0).sum()), "passed": int(score.sum())}}


def on_the_way(system: str, seed: int, spot: int, tasks: int, last: dict) -> list[dict]:
    "Made-up greedy columns of each iteration, the last one cut from the full evaluation."
    right, tokens = (SYSTEMS | ABLATIONS)[system]
    early = [columns(right * (0.6 + 0.2 * step), tokens * (4 - step) / 2, [seed, 99, spot, step], tasks)
             for step in range(1, STEPS)]
    return [first_tasks(each, ITERATION_TASKS) for each in (*early, last)]


def summaries(right: float, tokens: float, seed: int) -> list[dict]:
    "Made-up numbers of each iteration's own dialogues."
    return [{"iteration": i, "score": right * (0.8 + 0.1 * i) + seed / 50, "tokens": tokens / i, "selected": 48}
            for i in range(1, STEPS + 1)]


def stage(name: str, key, **amounts) -> dict:
    "One made-up stage of a line's cost."
    return {"stage": name, "key": digest([name, *key])} | amounts


def costs(system: str, seed: int, benchmarks, tasks: int) -> list[dict]:
    "Made-up stages; all trained systems of a paradigm share the first dialogues."
    found = []
    for benchmark in benchmarks if trained(system) else ():
        found += [stage("generate", [paradigm(system), benchmark, seed], dialogues=640, tokens=64000, seconds=30.0),
                  stage("train", [system, benchmark, seed], dialogues=40, tokens=9000, seconds=12.0)]
    return found + [{"stage": "evaluate", "key": evaluation_key(system, seed, decoding, benchmark), "dialogues": tasks,
                     "tokens": 999, "seconds": 2.0} for benchmark in benchmarks for decoding in ("greedy", "sampled")]


def line(system: str, seed: int, benchmarks=("toy_humaneval",), tasks: int = 60) -> dict:
    "One made-up registry line."
    if system_of(system).family == "paper": return paper_line(system, seed, tasks)
    right, tokens = (SYSTEMS | ABLATIONS)[system]
    if system in ABLATIONS:
        benchmarks = tuple(name for name in benchmarks if name in TWO) or benchmarks
    place = list(SYSTEMS | ABLATIONS).index(system)
    evaluation = {benchmark: {decoding: columns(right, tokens, [seed, place, spot, number], tasks)
                              for number, decoding in enumerate(("greedy", "sampled"))}
                  for spot, benchmark in enumerate(benchmarks)}
    learned = benchmarks if trained(system) else ()
    stages = costs(system, seed, benchmarks, tasks)
    strategy = "brief" if system.startswith("terse") else "none"
    return {"key": digest([system, seed]), "system": system, "preset": "synthetic", "seed": seed,
            "settings": {"base": "toy", "mode": "self", "paradigm": paradigm(system), "training_steps": 24,
                         "iterations": STEPS if learned else 0, "task_weight": 0.5, "format_weight": 0.2,
                         "efficiency_weight": efficiency_weight(system),
                         "stages": [f"{entry['stage']}-{entry['key']}" for entry in stages]},
            "results": {
                "evaluation": evaluation,
                "iterations": {name: summaries(right, tokens, seed) for name in learned},
                "iteration_evaluation": {name: on_the_way(system, seed, spot, tasks, evaluation[name]["greedy"])
                                         for spot, name in enumerate(learned)},
                "evaluation_strategy": dict.fromkeys(benchmarks, strategy)},
            "cost": {"stages": stages, "peak_memory_mb": 1234},
            "machine": {"cpu": "a made-up processor", "commit": "0" * 40, "clean": True, "frozen": "f" * 40}}


def lines(seeds: int = 3, benchmarks=("toy_humaneval",), tasks: int = 60, systems=tuple(SYSTEMS)) -> list[dict]:
    "A made-up registry: the rows of the main table, unless others are named."
    return [line(system, seed, benchmarks, tasks) for system in systems for seed in range(seeds)]


def paper_means(system: str) -> tuple[float, float, int]:
    "The made-up share of right answers, the made-up mean tokens and the number of agents that a system's name tells."
    changes, agents = system_of(system).settings, system_of(system).settings.get("agents", 2)
    right, tokens = PAPER[system_of(system).done]
    return right, tokens * agents / 2 * (3 if changes.get("token_weight") == 0 else 1), agents


def paper_samples(right: float, tokens: float, seed, tasks: int, count: int = 4) -> dict:
    "Made-up samples: several answers of each task, the right one named so."
    drawn = [columns(right, tokens, [*seed, number], tasks) for number in range(count)]
    scores, spent = (np.array([each[name] for each in drawn]).T.tolist() for name in ("score", "tokens"))
    answers = [["right" if score else f"wrong {place % 3}" for place, score in enumerate(row)] for row in scores]
    statuses = [["passed" if score else "failed" for score in row] for row in scores]
    return {"task": drawn[0]["task"], "metric": ["exact_match"] * tasks, "answers": answers, "scores": scores, "statuses": statuses, "tokens": spent}


def learned_from(method: str, iterations: int, kept: int) -> list[dict]:
    "Made-up counts of each iteration: selected dialogues, or pairs."
    return [{"iteration": step, "generated": 512, "score": 0.5, "tokens": 60.0 / step} | ({"pairs": 2 * kept} if METHODS.get(method).step(step) == "compare" else {"selected": kept})
            for step in range(1, iterations + 1)]


def paper_line(system: str, seed: int, tasks: int = 60) -> dict:
    "One made-up registry line of the published method, on the paper's four twins, or two of them for an ablation."
    (right, tokens, agents), changes = paper_means(system), system_of(system).settings
    names = PAPER_TWINS if system not in PAPER_ABLATIONS else PAPER_TWINS[::3]
    place, learned = sum(map(ord, system)), names if changes.get("iterations") != 0 else ()
    def made(name, *more, share=1, spent=tokens): return columns(right * share, spent, [seed, place, PAPER_TWINS.index(name), *more], tasks)
    vote, method = system == "paper_sc", changes.get("method", "isft")
    iterations = STEPS + (method == "isft_dpo") if learned else 0  # whole rounds, as the settings have them
    evaluation = {name: {"vote": made(name, spent=8 * tokens)} if vote else {"greedy": made(name)} for name in names}
    steps = {name: [first_tasks(made(name, 2, step, share=0.6 + 0.2 * step, spent=tokens * (4 - step) / 2), ITERATION_TASKS)
                    for step in range(1, iterations)] + [first_tasks(evaluation[name]["greedy"], ITERATION_TASKS)] for name in learned}
    more = {"samples": {name: paper_samples(right, tokens, [seed, place, spot], 30) for spot, name in enumerate(names)}} if changes.get("scaling") else {}
    if changes.get("transfer"):
        more["transfer"] = {home: {away: made(away, 3, share=0.9)} for home, away in zip(names, [names[spot] for spot in (1, 0, 3, 2)])}
    stages = [stage("evaluate", [system, seed, name], dialogues=tasks, tokens=999, seconds=2.0, flops=1e9) for name in names]
    taken = sum(4 if METHODS.get(method).step(step) == "compare" else 24 for step in range(1, iterations + 1))
    stages += [stage("train", [system, seed, name], dialogues=40, tokens=9000, seconds=12.0, flops=5e10, steps=taken) for name in learned]
    settings = {"base": "toy_paper", "paradigm": "by_task", "training_steps": 24, "iterations": iterations, "method": method}
    more["iterations"] = {name: learned_from(method, iterations, 25 if changes.get("loss_weight") == 0 else 45) for name in learned}
    return {"key": digest([system, seed]), "system": system, "preset": "synthetic", "seed": seed,
            "settings": settings | ({"agents": agents} if agents > 2 else {}) | {"stages": [f"{entry['stage']}-{entry['key']}" for entry in stages]},
            "results": {"evaluation": evaluation, "iteration_evaluation": steps} | more, "cost": {"stages": stages, "peak_memory_mb": 1234},
            "machine": {"cpu": "a made-up processor", "commit": "0" * 40, "clean": True, "frozen": "f" * 40}}


def paper_lines(seeds: int = 3, tasks: int = 60, systems=tuple(PAPER_ROWS)) -> list[dict]:
    "A made-up registry of the published method: the rows of its main table, unless others are named."
    return [paper_line(system, seed, tasks) for system in systems for seed in range(seeds)]


def evaluation_key(system: str, seed: int, decoding: str = "greedy", benchmark: str = "toy_humaneval") -> str:
    "The made-up key of an evaluation's stage."
    return digest(["evaluate", system, seed, decoding, *[benchmark] * (benchmark != "toy_humaneval")])


def write_dialogues(runs, line: dict, benchmark: str = "toy_humaneval", decoding: str = "greedy"):
    "Dialogues of the lengths that the line's columns name, in the folder of their stage, which is returned."
    found, made = line["results"]["evaluation"][benchmark][decoding], []
    for task, tokens, prompt in zip(found["task"], found["tokens"], found["prompt_tokens"]):
        said = Message("proposer", "proposer", '{"answer":"<b>made up</b>"}', "a task", [5] * tokens, prompt)
        made.append(Trajectory(task, "debate", "none", 0, [said], "<b>made up</b>", {"proposer": ""}))
    folder = make_folder(runs / f"evaluate-{evaluation_key(line['system'], line['seed'], decoding, benchmark)}")
    write_jsonl(folder / "shard-00000.jsonl", made)
    return folder


def samples(right: float, tokens: int, seed: int, tasks: int = 80, count: int = 8) -> dict:
    "Made-up columns of `count` samples per task, as `optima.evaluate.voting.sample_columns` makes them; tasks differ in difficulty."
    rng, difficulty = np.random.default_rng([seed, tokens]), np.random.default_rng(7).uniform(-0.3, 0.3, tasks)
    hits, spent = rng.random((tasks, count)) < (right + difficulty)[:, None], rng.poisson(tokens, (tasks, count))
    answers = np.where(hits, "rome", rng.choice(["oslo", "riga", ""], (tasks, count)))
    zeros = np.zeros((tasks, count)).tolist()
    return {"task": [f"t{i}" for i in range(tasks)], "metric": ["exact_match"] * tasks, "answers": answers.tolist(),
            "scores": hits.astype(float).tolist(), "statuses": np.where(answers == "", "unparsed", "ok").tolist(),
            "tokens": spent.tolist(), "prompt_tokens": (3 * spent).tolist(), "turns": np.ones((tasks, count), int).tolist(),
            "valid": np.ones((tasks, count), int).tolist(), "filler": zeros, "acknowledgement": zeros}


def sampled_line(system: str, seed: int, benchmarks=("toy_gsm8k",), tasks: int = 80, count: int = 8) -> dict:
    "One made-up registry line of a system that sampled."
    right, tokens = (SYSTEMS | ABLATIONS)[system]
    return {"system": system, "seed": seed, "results": {"samples": {
        name: samples(right, tokens, 10 * seed + spot, tasks, count) for spot, name in enumerate(benchmarks)}}}


def alone(lines, *systems):
    "The lines of some systems."
    return [line for line in lines if line["system"] in systems]
