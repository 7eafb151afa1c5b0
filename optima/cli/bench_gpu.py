"What one GPU holds and how fast it is, on a model of the real shape with random weights: nothing is downloaded."
# The ceilings are measured in the same run: bytes per second by copying, operations per second by multiplying matrices.
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from optima.base.errors import OptimaError
from optima.base.machine import machine
from optima.cli.memory import BYTES, GIB, SHAPES, Shape
from optima.engines.loading import compute_dtype, load_base, load_model
from optima.engines.local import LocalEngine
from optima.engines.request import Request
from optima.toy.models import make_tokenizer
from optima.train.dpo import train_pairs_with_trl
from optima.train.examples import Example
from optima.train.sft import train_with_trl, with_adapter

MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"


@dataclass(frozen=True)
class Sizes:
    "How much is measured."
    shape: Shape = SHAPES[MODEL]
    cap: float = 24.0  # GiB that the process may take
    tokens: int = 2048  # of a training step
    steps: int = 4  # of training, the first not counted
    batches: tuple[int, ...] = (1, 8, 32, 128)  # rows that are generated together
    written: int = 64  # tokens per row
    context: int = 128  # tokens that each row has read before
    square: int = 8192  # of the matrices that are multiplied for the ceiling


def random_model(shape: Shape, folder: Path):
    "Write a Llama of this shape with random weights in 16 bits, and the toy world's tokenizer beside it."
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=shape.feed_forward, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads, head_dim=shape.head_width,
        tie_word_embeddings=shape.tied, max_position_embeddings=8192, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    tokenizer.save_pretrained(folder)


def wait():
    "Let the GPU finish."
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(use: Callable, times: int) -> float:
    "Seconds of one use, after one to warm up."
    use()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        use()
    wait()
    return (time.perf_counter() - began) / times


def ceilings(square: int) -> dict[str, float]:
    "What the device can do at best: bytes moved and operations, per second, in the type that models compute in."
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one, other = (torch.randn(square, square, device=device, dtype=compute_dtype()) for _ in range(2))
    moved = 2 * one.numel() * one.element_size()
    return {"bytes_per_second": moved / seconds_of(lambda: other.copy_(one), 10),
            "operations_per_second": 2 * square**3 / seconds_of(lambda: one @ other, 5)}


@contextmanager
def peak(cap: float):
    "A dictionary that holds the peak of a GPU's memory, in GiB, when the block ends; more than `cap` fails in it."
    found = {"gib": None}
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory / GIB
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total))
        torch.cuda.reset_peak_memory_stats()
    yield found
    if torch.cuda.is_available():
        found["gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)


def random_rows(count: int, tokens: int) -> list[list[int]]:
    "Rows of random tokens."
    return torch.randint(8, len(make_tokenizer()), (count, tokens), generator=torch.Generator().manual_seed(1)).tolist()


def steps(folder: Path, sizes: Sizes, best: dict, rows: int, train: Callable) -> dict:
    "QLoRA steps over so many rows each: peak memory, tokens per second, and the share of the ceiling of their products."
    clock = []

    def report(*told, **others):
        wait()
        clock.append(time.perf_counter())

    with peak(sizes.cap) as found, TemporaryDirectory() as out:
        model = with_adapter(load_base(folder, "nf4_double"))
        train(model, make_tokenizer(), plan=[[row] for row in range(sizes.steps)], learning_rate=1e-4, out=out,
              micro_batch=1, gradient_checkpointing=True, report=report)
        del model
    speed = rows * sizes.tokens * (len(clock) - 1) / (clock[-1] - clock[0])
    ideal = best["operations_per_second"] / (6 * sizes.shape.parameters)  # forward twice, and backward to the inputs
    return {"peak_gib": found["gib"], "tokens_per_second": round(speed, 1), "share_of_ceiling": round(speed / ideal, 3)}


def training(folder: Path, sizes: Sizes, best: dict) -> dict:
    "A step of supervised fine-tuning on one row."
    rows = random_rows(sizes.steps, sizes.tokens)
    examples = [Example(row, [1] * len(row), number) for number, row in enumerate(rows)]
    return steps(folder, sizes, best, 1, partial(train_with_trl, examples=examples))


def preferring(folder: Path, sizes: Sizes, best: dict) -> dict:
    "A step of preference training on one pair: two rows, of which the second half is the turn. The reference was asked before."
    rows, half = random_rows(2 * sizes.steps, sizes.tokens), sizes.tokens // 2
    mask = [int(place >= half) for place in range(sizes.tokens)]
    pairs = [(Example(first, mask, number), Example([*first[:half], *second[half:]], mask, number))
             for number, (first, second) in enumerate(zip(rows[::2], rows[1::2], strict=True))]
    return steps(folder, sizes, best, 2, partial(train_pairs_with_trl, examples=pairs))


def ideal_rate(sizes: Sizes, rows: int, weight_bytes: float, best: dict) -> float:
    "Tokens per second if a step took no longer than reading weights and caches, or than its products."
    shape, middle = sizes.shape, sizes.context + sizes.written / 2
    linear = shape.linear * weight_bytes + shape.vocabulary * shape.width * 2
    moved = (linear + rows * middle * shape.cache_bytes) / best["bytes_per_second"]
    return rows / max(moved, 2 * rows * shape.parameters / best["operations_per_second"])


def generation(folder: Path, sizes: Sizes, quantization: str, best: dict) -> dict:
    "Tokens per second at each batch size, beside the ceiling; a batch that does not fit is said to."
    words, rows = " ".join(["team"] * (sizes.context - 4)), {}
    tokenizer = make_tokenizer()
    with peak(sizes.cap) as found:
        model = load_base(folder, quantization) if quantization != "none" else load_model(folder)[0]
        for count in sizes.batches:
            engine = LocalEngine(model, tokenizer, batch_size=count, cache_tokens=1)
            engine.stops = engine.stops[:0]  # every row writes to the end
            chats = [[{"role": "user", "content": words}]] * count

            def write(engine=engine, chats=chats):
                return engine.generate([Request(f"c{row}", chat, sizes.written, 1.0, (row,)) for row, chat in enumerate(chats)])
            try:
                speed = count * sizes.written / seconds_of(write, 1)
            except torch.cuda.OutOfMemoryError:
                rows[count] = {"tokens_per_second": None, "share_of_ceiling": None}
                continue
            ideal = ideal_rate(sizes, count, BYTES[quantization], best)
            rows[count] = {"tokens_per_second": round(speed, 1), "share_of_ceiling": round(speed / ideal, 3)}
        del model, engine
    return {"peak_gib": found["gib"], "batches": rows}


def measure(sizes: Sizes | None = None) -> dict:
    "Everything that `optima bench gpu` reports; raises OptimaError where no GPU is seen and none was made small."
    if sizes is None and not torch.cuda.is_available():
        raise OptimaError("bench gpu: no GPU is seen; it needs a CUDA device and a CUDA build of torch")
    sizes = sizes or Sizes()
    best = ceilings(sizes.square)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "random"
        random_model(sizes.shape, folder)
        found = {"training": training(folder, sizes, best), "preferring": preferring(folder, sizes, best)}
        found["generation"] = {name: generation(folder, sizes, name, best) for name in ("nf4", "none")}
    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    about = {"device": card, "parameters": sizes.shape.parameters, "cap_gib": sizes.cap, "training_tokens": sizes.tokens,
             "context": sizes.context, "written": sizes.written}
    return found | {"ceilings": best, "what": about, "machine": machine()}


def table(found: dict) -> str:
    "The report as text."
    what = found["what"]
    lines = [f"{what['device']}, {what['parameters'] / 1e9:.2f}B random weights, at most {what['cap_gib']:g} GiB"]
    for name, title in (("training", "QLoRA step of {} tokens"), ("preferring", "DPO step of a pair of {} tokens each")):
        step = found[name]
        lines.append(f"{title.format(what['training_tokens'])}: peak {step['peak_gib']} GiB, "
                     f"{step['tokens_per_second']:.0f} tokens/s ({step['share_of_ceiling']:.0%} of the ceiling)")
    for name, title in (("nf4", "NF4"), ("none", "16 bits")):
        part = found["generation"][name]
        lines.append(f"generation in {title}: peak {part['peak_gib']} GiB")
        for count, row in part["batches"].items():
            told = "does not fit" if row["tokens_per_second"] is None else (
                f"{row['tokens_per_second']:8.0f} tokens/s ({row['share_of_ceiling']:.0%} of the ceiling)")
            lines.append(f"  batch {count:4}: {told}")
    return "\n".join(lines)
