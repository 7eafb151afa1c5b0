"The Llama's own forward: the numbers of transformers' forward, for every kind of head and of angle that it takes."
import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from optima.engines.llama import LlamaForward, Rotary, is_llama
from optima.engines.local import LocalEngine
from optima.toy.models import make_tokenizer, vocabulary

SIZES = {"vocab_size": 60, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 2048}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
KINDS = {
    "one_key_head": HEADS | {"num_key_value_heads": 1},
    "shared_key_heads": HEADS,
    "as_many_key_heads": HEADS | {"num_key_value_heads": 4},
    "wide_heads": HEADS | {"head_dim": 20},
    "biased": HEADS | {"attention_bias": True, "mlp_bias": True},
    "llama3_angles": HEADS | {"rope_parameters": LLAMA3},
    "linear_angles": HEADS | {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
}


def llama(**more):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES | more)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "bias" in name:
                weight += torch.rand_like(weight)  # ones and zeros would hide a norm or a bias that is left out
    return model


def causal(rows, length, dtype=torch.float32):
    return torch.full((rows, 1, length, length), torch.finfo(dtype).min, dtype=dtype).triu(1)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_whole_texts_and_single_steps_give_what_transformers_gives(kind):
    model = llama(**KINDS[kind])
    assert is_llama(model)
    ids, places, mask = torch.randint(60, (3, 40)), torch.arange(40).repeat(3, 1), causal(3, 40)
    forward, cache, expected = LlamaForward(model), DynamicCache(), model(ids).logits
    assert torch.allclose(forward(ids[:, :39], places[:, :39], mask[:, :, :39, :39], cache), expected[:, 38], atol=1e-4)
    assert torch.allclose(forward(ids[:, 39:], places[:, 39:], mask[:, :, 39:], cache), expected[:, 39], atol=1e-4)


@torch.inference_mode()
def test_half_precision_is_as_near_as_the_models_own():
    model = llama(**KINDS["shared_key_heads"])
    ids, places = torch.randint(60, (2, 20)), torch.arange(20).repeat(2, 1)
    exact = model(ids).logits[:, -1]
    model = model.bfloat16()
    theirs = (model(ids).logits[:, -1] - exact).norm()
    ours = (LlamaForward(model)(ids, places, causal(2, 20, torch.bfloat16), DynamicCache()) - exact).norm()
    assert ours < 2 * theirs


@torch.inference_mode()
def test_tables_grow_with_the_text():
    rotary = Rotary(llama(**KINDS["llama3_angles"]))
    rotary.reach(10)
    few = rotary.cosines.clone()
    rotary.reach(700)
    assert len(few) == 512 and len(rotary.cosines) == 1024 and torch.equal(rotary.cosines[:512], few)


def test_other_models_keep_their_own_forward():
    qwen = Qwen2ForCausalLM(Qwen2Config(**SIZES, num_attention_heads=4, num_key_value_heads=2))
    growing = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert not is_llama(qwen)
    assert not is_llama(llama(num_attention_heads=4, rope_parameters=growing))
    assert not is_llama(llama(num_attention_heads=4, hidden_act="gelu"))


def test_an_engine_compares_it_with_the_model_first(monkeypatch):
    from optima.base.errors import OptimaError
    model = llama(num_attention_heads=4, vocab_size=len(vocabulary()))
    assert LocalEngine(model, make_tokenizer()).forward is not None
    monkeypatch.setattr("optima.engines.llama.turn", lambda states, angles: states)
    with pytest.raises(OptimaError, match="its answers differ"):
        LocalEngine(model, make_tokenizer())
