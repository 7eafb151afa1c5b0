"Computed sizes: against the published counts, against models that transformers builds, and how they move."
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config

from optima.base.errors import OptimaError
from optima.cli.memory import SHAPES, config_shape, decoding_rate, generation_memory, hours, shape_of, training_memory
from optima.config.settings import load_settings

PUBLISHED = {  # parameters, as the models' pages give them
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248, "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824, "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512, "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
}  # fmt: skip
EIGHT = SHAPES["meta-llama/Meta-Llama-3-8B-Instruct"]


@pytest.fixture
def settings():
    return load_settings("optima_debate", "toy")


def test_parameters_are_those_that_were_published():
    assert {name: shape.parameters for name, shape in SHAPES.items()} == PUBLISHED


@pytest.mark.parametrize("config", [
    LlamaConfig(vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2),
    LlamaConfig(vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
                tie_word_embeddings=True),
    Qwen2Config(vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2),
])  # fmt: skip
def test_a_folders_shape_counts_what_transformers_builds(config, tmp_path):
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert shape_of(tmp_path).parameters == model.num_parameters()
    assert config_shape(config.to_dict()) == shape_of(tmp_path)


def test_an_adapter_has_the_weights_that_peft_makes():
    from peft import LoraConfig, get_peft_model
    config = LlamaConfig(vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2)
    with torch.device("meta"):
        model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert config_shape(config.to_dict()).adapter(8) == trained


def test_an_unknown_model_is_one_clear_line():
    with pytest.raises(OptimaError, match="choose one of.*config.json"):
        shape_of("meta-llama/Llama-9-900B")
    assert shape_of("Qwen/Qwen2.5-0.5B-Instruct@abc") == SHAPES["Qwen/Qwen2.5-0.5B-Instruct"]


def test_memory_moves_with_what_it_is_made_of(settings):
    def training(tokens=2048, **changes): return sum(training_memory(EIGHT, replace(settings, **changes), tokens).values())
    double, plain, full = (training(quantization=name, gradient_checkpointing=True) for name in ("nf4_double", "nf4", "none"))
    assert 0.25 < plain - double < 0.4 and full > plain + 9  # 0.37 bits of 7 billion weights; 12 bits
    assert training(gradient_checkpointing=True) < training(gradient_checkpointing=False) - 8
    assert training(4096, gradient_checkpointing=True) > training(2048, gradient_checkpointing=True) + 2

    def generating(**changes): return generation_memory(EIGHT, replace(settings, dtype="bfloat16", **changes), 2048)
    assert sum(generating(batch_size=16).values()) > sum(generating(batch_size=8).values())
    assert generating(batch_size=8)["keys and values"] == pytest.approx(2.0)  # 128 KiB a token
    assert generating()["weights"] == pytest.approx(PUBLISHED["meta-llama/Meta-Llama-3-8B-Instruct"] * 2 / 2**30)


def test_time_is_the_published_rates_scaled(settings):
    assert decoding_rate(EIGHT, 32) == pytest.approx(1054, rel=0.01) and decoding_rate(EIGHT, 20) == pytest.approx((335 + 1054) / 2, rel=0.01)
    assert decoding_rate(EIGHT, 512) == decoding_rate(EIGHT, 32)  # nothing is promised beyond what was measured
    one = replace(settings, iterations=1, tasks_per_iteration=100, strategies=("none",), batch_size=32, evaluation_tasks=1, decodings=("greedy",))
    spent = hours(EIGHT, one, tokens=1000, view=500)
    assert spent["generate"] * 3600 == pytest.approx(100_000 / 1054, rel=0.01)
    assert spent["train"] * 3600 == pytest.approx(16 * 24 * 2 * 500 / 2413, rel=0.01)
    assert hours(SHAPES["Qwen/Qwen2.5-0.5B-Instruct"], one, 1000, 500)["train"] < spent["train"] / 15
