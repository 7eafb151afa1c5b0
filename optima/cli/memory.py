"How much memory and time a model takes, computed from its shape before anything is downloaded."
# Every figure of this module is computed, not measured. Time is scaled from two published measurements on one RTX 4090:
# torchtune's QLoRA training of an 8B model, 2,413 tokens/s; bitsandbytes' decoding of an 8B model in bf16, by batch size.
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optima.base.errors import OptimaError, suggest
from optima.config.settings import Settings

GIB = 2**30
TRAINING_RATE = 2413  # tokens per second, QLoRA, 8B
DECODING_RATES = {1: 47.5, 8: 335.0, 32: 1054.0}  # tokens per second, bf16, 8B, by batch size
ANCHOR = 8.03e9  # parameters of the model that the rates are of
BYTES = {"nf4": 0.5 + 4 / 64, "nf4_double": 0.5 + 1 / 64 + 4 / (64 * 256), "none": 2.0}  # per weight: 64 share a scale
TRAINED = 16  # bytes per weight of an adapter: itself, its gradient and AdamW's two means, in float32


@dataclass(frozen=True)
class Shape:
    "The sizes of a decoder in Llama's manner."
    layers: int
    width: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    tied: bool = False  # one table for reading and writing words
    biases: bool = False  # of queries, keys and values

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        "Inputs and outputs of one layer's linear maps: queries, keys, values, output, gate, up, down."
        queries, keys = self.heads * self.head_width, self.key_value_heads * self.head_width
        ends = ((self.width, queries), (self.width, keys), (self.width, keys), (queries, self.width))
        return *ends, *((self.width, self.feed_forward),) * 2, (self.feed_forward, self.width)

    @property
    def linear(self) -> int:
        "Weights of all layers' linear maps: those that are put into 4 bits."
        return self.layers * sum(rows * columns for rows, columns in self.matrices)

    @property
    def parameters(self) -> int:
        "All weights."
        words = self.vocabulary * self.width * (1 if self.tied else 2)
        biases = self.layers * (self.heads + 2 * self.key_value_heads) * self.head_width * self.biases
        return self.linear + words + biases + (2 * self.layers + 1) * self.width

    def adapter(self, rank: int) -> int:
        "Weights of a LoRA adapter on all linear maps."
        return self.layers * rank * sum(rows + columns for rows, columns in self.matrices)

    @property
    def cache_bytes(self) -> int:
        "Keys and values of one token, in 16 bits."
        return 2 * 2 * self.layers * self.key_value_heads * self.head_width


SHAPES = {  # by hub name, from the models' published configurations
    "meta-llama/Meta-Llama-3-8B-Instruct": Shape(32, 4096, 14336, 32, 8, 128, 128256),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(32, 4096, 14336, 32, 8, 128, 128256),
    "meta-llama/Llama-3.2-3B-Instruct": Shape(28, 3072, 8192, 24, 8, 128, 128256, tied=True),
    "meta-llama/Llama-3.2-1B-Instruct": Shape(16, 2048, 8192, 32, 8, 64, 128256, tied=True),
    "Qwen/Qwen2.5-7B-Instruct": Shape(28, 3584, 18944, 28, 4, 128, 152064, biases=True),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(28, 1536, 8960, 12, 2, 128, 151936, tied=True, biases=True),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(24, 896, 4864, 14, 2, 64, 151936, tied=True, biases=True),
}


def shape_of(
    model: str | Path,  # a model folder, or a hub name in `SHAPES`
) -> Shape:
    "A model's sizes, read off its config.json, or known by name; raises OptimaError for other names."
    path = Path(model, "config.json")
    if path.is_file():
        return config_shape(json.loads(path.read_text(encoding="utf-8")))
    name = str(model).partition("@")[0]
    if name not in SHAPES:
        raise OptimaError(f"{suggest('model', name, SHAPES)}; or bring its folder: its config.json tells the sizes")
    return SHAPES[name]


def config_shape(config: dict) -> Shape:
    "The sizes that a configuration names."
    heads, width = config["num_attention_heads"], config["hidden_size"]
    return Shape(config["num_hidden_layers"], width, config["intermediate_size"], heads,
                 config.get("num_key_value_heads") or heads, config.get("head_dim") or width // heads, config["vocab_size"],
                 bool(config.get("tie_word_embeddings")), config.get("model_type", "").startswith("qwen2"))


def training_memory(
    shape: Shape,
    settings: Settings,
    tokens: int,  # of one forward pass, padding included
) -> dict[str, float]:  # GiB of each part
    "What one QLoRA step holds at its peak."
    words = shape.parameters - shape.linear
    kept = shape.layers * tokens * shape.width * 2
    layer = tokens * 2 * (6 * shape.width + 4 * shape.feed_forward)
    open_layer = layer if settings.gradient_checkpointing else shape.layers * layer
    logits = tokens * shape.vocabulary * (2 + 4 + 4)
    unpacked = max(rows * columns for rows, columns in shape.matrices) * 2 * (settings.quantization != "none")
    parts = {"weights": shape.linear * BYTES[settings.quantization] + words * 2, "adapter": shape.adapter(settings.lora_rank) * TRAINED,
             "activations": kept + open_layer, "logits": logits, "one matrix in 16 bits": unpacked}
    return {name: size / GIB for name, size in parts.items()}


def generation_memory(
    shape: Shape,
    settings: Settings,
    context: int,  # tokens of a row's context and reply
) -> dict[str, float]:  # GiB of each part
    "What generating one batch holds at its peak; caches kept between turns take a quarter of what is left."
    width = 4 if settings.dtype == "float32" else 2
    parts = {"weights": shape.parameters * width, "keys and values": settings.batch_size * context * shape.cache_bytes * width / 2,
             "logits": settings.batch_size * shape.vocabulary * 8}
    return {name: size / GIB for name, size in parts.items()}


def decoding_rate(shape: Shape, batch_size: int) -> float:
    "Tokens per second: between the published rates of the neighbouring batch sizes, scaled by parameters."
    return float(np.interp(batch_size, list(DECODING_RATES), list(DECODING_RATES.values()))) * ANCHOR / shape.parameters


def hours(
    shape: Shape,
    settings: Settings,
    tokens: int,  # written in one dialogue, all agents together
    view: int,  # tokens of one agent's view of a dialogue in training, context included
) -> dict[str, float]:  # of one benchmark: hours to generate, train, evaluate
    "How long one experiment takes on one RTX 4090, per benchmark."
    turns = max(settings.iterations, 0)
    written = turns * settings.tasks_per_iteration * len(settings.strategies) * tokens
    evaluated = (len(settings.decodings) * settings.evaluation_tasks + max(turns - 1, 0) * settings.iteration_tasks) * tokens
    trained = turns * settings.training_steps * settings.batch_dialogues * 2 * view
    rate = decoding_rate(shape, settings.batch_size)
    return {"generate": written / rate / 3600, "evaluate": evaluated / rate / 3600,
            "train": trained / (TRAINING_RATE * ANCHOR / shape.parameters) / 3600}
