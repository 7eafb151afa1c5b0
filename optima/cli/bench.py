"How fast the local engine and the training step are, against plain transformers and PyTorch: ratios of one run."
# Every way holds the same debates: same base, tasks, strategies, random numbers and answer cap. Model loading and warm-up
# are not counted. Seconds of a busy machine mean little; each ratio stands beside the same one by CPU time.
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from optima.agents.prompts import prompts_of
from optima.agents.scheduler import Dialogue, run_dialogues
from optima.base.machine import machine
from optima.cli import kernels
from optima.config.models import toy_base
from optima.config.settings import Settings, load_settings
from optima.engines.loading import load_base, load_model
from optima.engines.local import LocalEngine
from optima.engines.request import Completion, Engine, encode_conversation
from optima.engines.sampling import choose, uniforms
from optima.tasks.catalogue import get_benchmark
from optima.train.examples import IGNORED, examples_of
from optima.train.sft import micro_batches, optimizer_and_schedule, plan_steps, train_with_trl, with_adapter

FLOORS = {"vs_one_by_one": 20, "vs_lockstep": 1.8, "sft_vs_bare_loop": 1.2}
AIMS = {"vs_one_by_one": 30, "vs_lockstep": 2.5, "sft_vs_bare_loop": 1.0}


@dataclass(frozen=True)
class Sizes:
    "How much is measured."
    cores: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    dialogues: int = 320  # per core
    alone: int = 40  # of all dialogues, spread evenly: those held one at a time
    steps: int = 5  # of training, the first not counted
    batch_dialogues: int = 32  # per training step


class Drawn(LogitsProcessor):
    "Leaves one token per row: the one that our engine draws with the same number."

    def __init__(self, temperatures, draws, start):
        self.temperatures, self.draws, self.start = temperatures, draws, start

    def __call__(self, input_ids, scores):
        tokens = choose(scores, self.temperatures, self.draws[:, input_ids.shape[1] - self.start])
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


class GenerateEngine(Engine):
    "transformers' `generate`: every context read afresh, every batch as long as its longest reply."

    def __init__(self, model, tokenizer, batch_size: int):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size

    def generate(self, requests):
        "Complete every request, batch by batch."
        starts = range(0, len(requests), self.batch_size)
        return [reply for start in starts for reply in self._batch(requests[start:start + self.batch_size])]

    @torch.inference_mode()
    def _batch(self, requests):
        "One call of `generate`, padded on the left."
        contexts = [encode_conversation(self.tokenizer, request.messages)[0] for request in requests]
        width, limit = max(map(len, contexts)), max(request.max_tokens for request in requests)
        pad, stop = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        draws = torch.from_numpy(np.stack([uniforms(request.noise, limit) for request in requests]))
        temperatures = torch.tensor([float(request.temperature) for request in requests])
        out = self.model.generate(
            torch.tensor([[pad] * (width - len(context)) + context for context in contexts]),
            attention_mask=torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts]),
            do_sample=False, max_new_tokens=limit, pad_token_id=pad, eos_token_id=stop,
            logits_processor=LogitsProcessorList([Drawn(temperatures, draws, width)]),
        )  # fmt: skip
        rows = zip(requests, contexts, out[:, width:].tolist(), strict=True)
        return [self._completion(*row) for row in rows]

    def _completion(self, request, context, written):
        "A row up to its end-of-turn token."
        stop = self.tokenizer.eos_token_id
        ids = written[:written.index(stop) + 1] if stop in written else written[:request.max_tokens]
        cut = ids[-1] != stop
        text = self.tokenizer.decode(ids if cut else ids[:-1], skip_special_tokens=True)
        return Completion(text, ids, len(context), cut, len(context))


def debates(settings: Settings, count: int) -> list[Dialogue]:
    "The first dialogues of a generate stage over all benchmarks, a sample per task and strategy."
    each = -(-count // (len(settings.strategies) * len(settings.benchmarks)))
    drawn = [get_benchmark(name).tasks("train", each, settings.seed) for name in settings.benchmarks]
    tasks = [task for together in zip(*drawn) for task in together]
    return [Dialogue(task, settings.paradigm, strategy, sample)
            for task in tasks for sample, strategy in enumerate(settings.strategies)][:count]


HELD = {}  # of a worker process: its models and engines, loaded once


def prepare(settings: Settings, threads: int, together):
    "Set a worker process up, let it run warm, and wait for the others."
    torch.set_num_threads(threads)
    HELD["model"] = load_model(toy_base(0), dtype=settings.dtype)
    for way in ("engine", "lockstep"):
        hold(settings, way, debates(settings, 16))
    together.wait()


def talk(settings: Settings, engine, dialogues: list[Dialogue], width: int) -> list:
    "Hold dialogues as a generate stage does."
    return run_dialogues(
        dialogues, engine, prompts_of(settings.prompts), seed=settings.seed, temperature=settings.temperature,
        max_message_tokens=settings.max_message_tokens, width=width, executors=settings.executors,
        max_rounds=settings.max_rounds, max_steps=settings.max_steps,
    )  # fmt: skip


def hold(settings: Settings, way: str, dialogues: list[Dialogue]) -> dict:
    "Hold dialogues one way, in this process: when, how much CPU time, what was counted, what was said."
    model, size = HELD["model"], {"engine": settings.batch_size, "lockstep": settings.batch_size, "alone": 1}[way]
    began, spent = time.perf_counter(), time.process_time()
    if way == "engine":
        engine = LocalEngine(*model, batch_size=size)
        done, counters = talk(settings, engine, dialogues, size), dict(engine.counters)
    else:
        engine, parts = GenerateEngine(*model, size), range(0, len(dialogues), size)
        done, counters = [one for at in parts for one in talk(settings, engine, dialogues[at:at + size], size)], {}
    spent = time.process_time() - spent
    return {"began": began, "ended": time.perf_counter(), "cpu": spent, "counters": counters, "dialogues": done}


def shares(settings: Settings, dialogues: list[Dialogue]) -> dict:
    "Where the engine's time goes."
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        held = hold(settings, "engine", dialogues)
    total, spent = (held["ended"] - held["began"]) * 1e6, dict.fromkeys(("weights", "attention", "other_tensor_work"), 0)
    for event in profiler.key_averages():
        name = "weights" if event.key in ("aten::mm", "aten::addmm") else "other_tensor_work"
        name = "attention" if any(word in event.key for word in ("attention", "bmm", "softmax")) else name
        spent[name] += event.self_cpu_time_total
    parts = {name: round(value / total, 3) for name, value in spent.items()}
    return parts | {"python": round(max(0.0, 1 - sum(parts.values())), 3)}


def bare_step(model, optimizer, schedule, examples: list, most: int, max_norm: float = 1.0) -> float:
    "One step of the plainest PyTorch over the same padded micro-batches; its loss."
    from torch.nn.functional import cross_entropy

    label_tokens, total = sum(example.label_tokens for example in examples), 0.0
    for rows in micro_batches(torch.tensor([len(example.input_ids) for example in examples]), most):
        part = [examples[row] for row in rows]
        width = max(len(example.input_ids) for example in part)
        ids = torch.tensor([example.input_ids + [0] * (width - len(example.input_ids)) for example in part])
        labels = torch.tensor([example.labels + [IGNORED] * (width - len(example.labels)) for example in part])
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / label_tokens
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    return total


def training(settings: Settings, trajectories: list, steps: int, batch_dialogues: int) -> dict:
    "CPU seconds of our QLoRA step and of a bare loop's, turn by turn on the same batches, and both losses."
    tokenizer, base = HELD["model"][1], toy_base(0)
    examples = examples_of(trajectories, tokenizer)
    plan = plan_steps(examples, steps, batch_dialogues, settings.seed)
    rank = settings.lora_rank, settings.lora_alpha
    ours, bare = (with_adapter(load_base(base, settings.quantization), 0, *rank) for _ in range(2))
    optimizer, schedule = optimizer_and_schedule(bare.train(), settings.learning_rate, steps)
    log = {"ours": [], "bare": [], "ours_loss": [], "bare_loss": []}
    clock = [time.process_time()]

    def report(loss, label_tokens):
        "Between our step's backward and its optimiser: the bare loop's turn, on a clock of its own."
        log["ours"].append(time.process_time() - clock[0])
        began, batch = time.process_time(), [examples[row] for row in plan[len(log["bare"])]]
        log["ours_loss"].append(loss)
        log["bare_loss"].append(bare_step(bare, optimizer, schedule, batch, settings.micro_batch))
        clock[0] = time.process_time()
        log["bare"].append(clock[0] - began)

    with TemporaryDirectory() as out:
        train_with_trl(ours, tokenizer, examples, plan, settings.learning_rate, out=out, seed=settings.seed,
                       micro_batch=settings.micro_batch, report=report)  # fmt: skip
    return log


@contextmanager
def workers(settings: Settings, processes: int, threads: int):
    "Worker processes of so many threads each, all of them warm; forks of one that has imported, where that is safe."
    context, before = get_context("forkserver" if kernels.can_fork() else "spawn"), os.environ.get("OMP_NUM_THREADS")
    context.set_forkserver_preload(["optima.cli.bench", *kernels.TRAINING])
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the processes that are not forked, as they start
    arguments = (settings, threads, context.Barrier(processes))
    with ProcessPoolExecutor(processes, context, initializer=prepare, initargs=arguments) as pool:
        for ready in [pool.submit(os.getpid) for _ in range(processes)]:
            ready.result()
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
        yield pool


def hold_all(pool, settings: Settings, way: str, parts: list[list[Dialogue]]) -> dict:
    "Hold one part per process, all at once: seconds from the first start to the last end, and CPU seconds."
    done = [future.result() for future in [pool.submit(hold, settings, way, part) for part in parts]]
    seconds = max(one["ended"] for one in done) - min(one["began"] for one in done)
    held = [trajectory for one in done for trajectory in one["dialogues"]]
    names = sorted({name for one in done for name in one["counters"]})
    counters = {name: sum(one["counters"].get(name, 0) for one in done) for name in names}
    return {"seconds": seconds, "cpu": sum(one["cpu"] for one in done), "counters": counters, "held": held}


def rate(measured: dict) -> dict:
    "Dialogues per second, by the clock and per CPU second, and how long the dialogues are."
    held = measured["held"]
    return {"dialogues": len(held), "tokens_per_dialogue": round(sum(one.tokens for one in held) / len(held), 1),
            "dialogues_per_second": round(len(held) / measured["seconds"], 3),
            "dialogues_per_cpu_second": round(len(held) / measured["cpu"], 3)}  # fmt: skip


def said(held: list) -> list:
    "What was written, token by token."
    return [[message.token_ids for message in one.messages] for one in held]


def agreement(one: list, other: list) -> float:
    "Share of dialogues that were word for word the same."
    pairs = list(zip(said(one), said(other), strict=True))
    return round(sum(a == b for a, b in pairs) / len(pairs), 3)


def measure(settings: Settings | None = None, sizes: Sizes | None = None) -> dict:
    "Everything that `optima bench toy` reports."
    settings, sizes = settings or load_settings("untrained_debate", "toy", 0), sizes or Sizes()
    load = os.getloadavg()[0]
    everything = debates(settings, sizes.cores * sizes.dialogues)
    parts = [everything[start:start + sizes.dialogues] for start in range(0, len(everything), sizes.dialogues)]
    spread = np.linspace(0, len(everything) - 1, min(sizes.alone, len(everything))).round().astype(int).tolist()
    with workers(settings, sizes.cores, 1) as pool:
        engine, lockstep = (hold_all(pool, settings, way, parts) for way in ("engine", "lockstep"))
        where = pool.submit(shares, settings, parts[0][:max(1, sizes.dialogues // 2)]).result()
        log = pool.submit(training, settings, engine["held"][:3 * sizes.batch_dialogues], sizes.steps,
                          sizes.batch_dialogues).result()  # fmt: skip
    with workers(settings, 1, sizes.cores) as pool:
        alone = hold_all(pool, settings, "alone", [[everything[at] for at in spread]])
    same = [engine["held"][at] for at in spread]
    ways = {"engine": rate(engine), "lockstep": rate(lockstep), "one_by_one": rate(alone)}
    return summary(settings, sizes, ways, engine["counters"], log, where) | {
        "same_dialogues": {"lockstep": agreement(engine["held"], lockstep["held"]),
                           "one_by_one": agreement(same, alone["held"])},
        "tokens_of_the_same_dialogues": {"engine": sum(one.tokens for one in same),
                                         "one_by_one": sum(one.tokens for one in alone["held"])},
        "load_before": round(load, 2), "machine": machine(),
    }  # fmt: skip


def summary(settings: Settings, sizes: Sizes, ways: dict, counters: dict, log: dict, where: dict) -> dict:
    "Ratios from what was measured."
    def ratio(other, unit, threads=1):
        # a dialogue of the spread-out few may be shorter or longer than most: count it by its tokens
        ours, theirs = ways["engine"], ways[other]
        size = theirs["tokens_per_dialogue"] / ours["tokens_per_dialogue"]
        return round(ours[unit] / (theirs[unit] * size * threads), 2)

    seconds = {name: sum(log[name][1:]) / max(1, len(log[name]) - 1) for name in ("ours", "bare")}
    count = ways["engine"]["dialogues"]
    return {
        "vs_one_by_one": ratio("one_by_one", "dialogues_per_second"),
        "vs_lockstep": ratio("lockstep", "dialogues_per_second"),
        "sft_vs_bare_loop": round(seconds["ours"] / seconds["bare"], 3),
        "by_cpu_time": {"vs_one_by_one": ratio("one_by_one", "dialogues_per_cpu_second"),
                        "vs_lockstep": ratio("lockstep", "dialogues_per_cpu_second")},
        "prefill_tokens_per_dialogue": {"with_reuse": round(counters["prefill_tokens"] / count, 1),
                                        "without_reuse": round(counters["prefill_tokens_without_reuse"] / count, 1)},
        "shares": where, "ways": ways,
        "sft": {"ours_seconds": round(seconds["ours"], 4), "bare_seconds": round(seconds["bare"], 4),
                "ours_loss": log["ours_loss"], "bare_loss": log["bare_loss"],
                "dialogues_per_step": sizes.batch_dialogues},
        "what": {"base": toy_base(0).name, "paradigm": settings.paradigm, "benchmarks": list(settings.benchmarks),
                 "batch_size": settings.batch_size, "max_message_tokens": settings.max_message_tokens,
                 "temperature": settings.temperature, "dialogues_per_core": sizes.dialogues, "cores": sizes.cores,
                 "layout": "engine and lockstep: one process of one thread per core; one_by_one: one process of as many "
                           "threads as cores, fewer dialogues, counted by their tokens; sft: one thread, CPU seconds"},
        "floors": FLOORS, "aims": AIMS,
    }  # fmt: skip


def line_of(found: dict, key: str, way: str, title: str) -> str:
    "A way to generate: its speed, how many times faster the engine is (by the clock, by CPU time), floor and aim."
    speed, by_cpu = found["ways"][way]["dialogues_per_second"], found["by_cpu_time"][key]
    return f"{title:44}{speed:12.2f}{found[key]:8.2f}{by_cpu:8.2f}{FLOORS[key]:7}{AIMS[key]:6}"


def table(found: dict) -> str:
    "The report as text."
    what, reuse, sft = found["what"], found["prefill_tokens_per_dialogue"], found["sft"]
    same, speed = found["same_dialogues"], found["ways"]["engine"]["dialogues_per_second"]
    where = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in found["shares"].items())
    floor, aim = FLOORS["sft_vs_bare_loop"], AIMS["sft_vs_bare_loop"]
    lines = [
        f"{what['base']}, {what['paradigm']}, {what['cores']} cores with {what['dialogues_per_core']} dialogues each, "
        + f"batch {what['batch_size']}, answers cut after {what['max_message_tokens']} tokens",
        "",
        f"{'':44}{'dialogues/s':>12}{'ratio':>8}{'CPU':>8}{'floor':>7}{'aim':>6}",
        f"{'our engine, a process per core':44}{speed:12.2f}",
        line_of(found, "vs_one_by_one", "one_by_one", "generate, one dialogue at a time"),
        line_of(found, "vs_lockstep", "lockstep", "generate in lockstep, a process per core"),
        "",
        f"QLoRA step {sft['ours_seconds']:.3f} s, bare loop {sft['bare_seconds']:.3f} s: "
        + f"{found['sft_vs_bare_loop']:.2f} times (at most {floor}, aim {aim})",
        f"context tokens read per dialogue: {reuse['with_reuse']}, without reuse {reuse['without_reuse']}",
        f"where the engine's time goes: {where}",
        f"word for word the same dialogues: {same['lockstep']:.0%} in lockstep, {same['one_by_one']:.0%} one by one",
    ]
    if found["load_before"] > 0.5:
        lines.append(f"other programs were running (load {found['load_before']}): trust the column by CPU time")
    return "\n".join(lines)
