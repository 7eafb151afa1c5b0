"Training: what a token weighs, what trl is told, which bytes come out."
import inspect
import json
import random
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny import VOCABULARY, all_gradients, all_weights, warm
from transformers import BitsAndBytesConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTConfig, SFTTrainer

from optima.base.errors import OptimaError
from optima.engines.loading import compute_dtype, load_base, quantization_settings
from optima.train import sft as training
from optima.train.examples import Example
from optima.train.sft import naive_training, plan_steps, train_adapter, train_with_trl, with_adapter

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def examples():
    "Sixteen dialogues of two views, from 6 to 60 tokens long."
    chance, made = random.Random(1), []
    for dialogue in range(16):
        for view in range(2):
            length = 6 + 3 * dialogue + view
            ids = [chance.randrange(3, VOCABULARY) for _ in range(length)]
            made.append(Example(ids, [int(place > length // 3) for place in range(length)], dialogue))
    return made


def one_step(tiny_base, tiny_tokenizer, examples, tmp_path, micro_batch, quantization):
    "Gradient (read before the optimiser moves), loss and label tokens of one step; and the weights after it."
    model, seen = warm(with_adapter(load_base(tiny_base, quantization), rank=4, alpha=8)), []

    def report(loss, label_tokens):
        seen.extend([all_gradients(model), loss, label_tokens])

    plan = [list(range(len(examples)))]
    train_with_trl(model, tiny_tokenizer, examples, plan, 1e-2, out=tmp_path, micro_batch=micro_batch, report=report)
    return *seen, all_weights(model)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_step_does_not_depend_on_its_micro_batches(tiny_base, tiny_tokenizer, examples, tmp_path, quantization):
    results = [one_step(tiny_base, tiny_tokenizer, examples, tmp_path, size, quantization) for size in (4, 8, 32)]
    start = all_weights(warm(with_adapter(load_base(tiny_base, quantization), rank=4, alpha=8)))
    gradient, loss, label_tokens, after = results[0]
    assert label_tokens == sum(example.label_tokens for example in examples)
    for other_gradient, other_loss, other_tokens, other_after in results[1:]:
        assert (other_gradient - gradient).norm() < 1e-5 * gradient.norm()
        assert (other_after - after).abs().mean() < 1e-3 * (after - start).abs().mean()
        assert other_loss == pytest.approx(loss, rel=1e-5) and other_tokens == label_tokens


def trl_gradient(tiny_base, tiny_tokenizer, examples, tmp_path, batch, accumulation, scaled=True):
    "The adapter's gradient at one step of trl's own trainer, with its own accumulation."

    class Recorder(SFTTrainer):
        def _send_telemetry(self):
            pass

        def training_step(self, model, inputs, num_items_in_batch=None):
            return super().training_step(model, inputs, num_items_in_batch if scaled else None)

        def _clip_grad_norm(self, model):
            self.gradient = all_gradients(model)
            return super()._clip_grad_norm(model)

    settings = training.trainer_settings(tmp_path, 0, 1, 1e-3) | training.SFT_SETTINGS
    settings |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    settings |= {"train_sampling_strategy": "sequential"}
    model = warm(with_adapter(load_base(tiny_base), rank=4, alpha=8))
    exact = {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
    rows = [{"input_ids": example.input_ids, "labels": example.labels} for example in examples]
    trainer = Recorder(
        model=model, args=SFTConfig(**settings), train_dataset=Dataset.from_list(rows), processing_class=tiny_tokenizer,
        data_collator=DataCollatorForLanguageModeling(pad_token_id=0),
    )  # fmt: skip
    for name, weight in model.named_parameters():
        if name in exact:
            weight.data = exact[name]
    trainer.train()
    return trainer.gradient


def test_trl_accumulates_by_tokens_when_peft_wraps_a_4_bit_model(tiny_base, tiny_tokenizer, examples, tmp_path):
    whole = trl_gradient(tiny_base, tiny_tokenizer, examples, tmp_path, 32, 1)
    for batch, accumulation in ((4, 8), (8, 4)):
        split = trl_gradient(tiny_base, tiny_tokenizer, examples, tmp_path, batch, accumulation)
        assert (split - whole).norm() < 1e-4 * whole.norm()
    mean_of_means = trl_gradient(tiny_base, tiny_tokenizer, examples, tmp_path, 4, 8, scaled=False)
    assert (mean_of_means - whole).norm() > 0.02 * whole.norm()


def test_trl_equals_the_naive_loop(tiny_base, tiny_tokenizer, examples, tmp_path):
    plan, reported = plan_steps(examples, 4, 5, seed=2), []
    naive, by_trl = (with_adapter(load_base(tiny_base), rank=4, alpha=8) for _ in range(2))
    losses = naive_training(naive, [[examples[row] for row in step] for step in plan], 5e-3)
    train_with_trl(
        by_trl, tiny_tokenizer, examples, plan, 5e-3, out=tmp_path, micro_batch=3,
        report=lambda loss, label_tokens: reported.append(loss),
    )  # fmt: skip
    assert reported == pytest.approx(losses, rel=1e-5)
    assert (all_weights(naive) - all_weights(by_trl)).abs().max() < 1e-4


def test_the_adapter_stays_in_float32(tiny_base, tiny_tokenizer, examples, tmp_path):
    model = with_adapter(load_base(tiny_base), rank=4, alpha=8)
    train_with_trl(model, tiny_tokenizer, examples, [[0, 1]], 1e-3, out=tmp_path)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}


SETTINGS = {
    "seed": 1, "steps": 3, "learning_rate": 5e-3, "batch_dialogues": 6, "micro_batch": 4, "rank": 4, "alpha": 8
}  # fmt: skip


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_same_seed_gives_the_same_bytes(tiny_base, examples, tmp_path, quantization):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_adapter(tiny_base, examples, tmp_path / name, **SETTINGS | {"seed": seed, "quantization": quantization})
    first, again, other = (
        [(tmp_path / name / file).read_bytes() for file in ("adapter_model.safetensors", "adapter_config.json", "README.md")]
        for name in "abc"
    )
    assert first == again and first[0] != other[0]
    assert str(tmp_path) not in first[1].decode() and str(tiny_base) not in first[1].decode()


def test_a_continued_adapter_is_not_rounded(tiny_base, examples, tmp_path):
    train_adapter(tiny_base, examples, tmp_path / "a", **SETTINGS)
    train_adapter(tiny_base, examples, tmp_path / "b", **SETTINGS | {"learning_rate": 0.0}, start_adapter=tmp_path / "a")
    before, after = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "ab")
    assert before == after


def test_what_cannot_be_trained_is_refused(tiny_base, examples, tmp_path):
    blank = replace(examples[0], mask=[0] * len(examples[0].mask))
    only_first = replace(examples[0], mask=[1] + [0] * (len(examples[0].mask) - 1))
    for wrong in ([], [blank], [examples[1], only_first]):
        with pytest.raises(OptimaError):
            train_adapter(tiny_base, wrong, tmp_path / "a", **SETTINGS)
    with pytest.raises(OptimaError, match="nf4, nf4_double, none"):
        train_adapter(tiny_base, examples, tmp_path / "a", **SETTINGS, quantization="int3")
    with pytest.raises(OptimaError, match="adapter_model.safetensors"):
        train_adapter(tiny_base, examples, tmp_path / "a", **SETTINGS, start_adapter=tmp_path)
    with pytest.raises(OptimaError, match="steps"):
        train_adapter(tiny_base, examples, tmp_path / "a", **SETTINGS | {"steps": 0})
    with pytest.raises(OptimaError, match="not finite"):
        train_adapter(tiny_base, examples, tmp_path / "a", **SETTINGS | {"learning_rate": float("inf")})
    assert not (tmp_path / "a" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    "taker, settings",
    [
        (SFTConfig, training.trainer_settings("out", 0, 1, 1e-3) | training.SFT_SETTINGS),
        (LoraConfig, training.adapter_settings(4, 8, 0.0)),
        (BitsAndBytesConfig, quantization_settings(torch.float32)),
        (SFTTrainer, dict.fromkeys(["model", "args", "train_dataset", "processing_class", "data_collator", "optimizers"])),
        (DataCollatorForLanguageModeling, {"pad_token_id": 0}),
    ],
)
def test_every_keyword_that_we_pass_is_known(taker, settings):
    known = inspect.signature(taker.__init__).parameters
    assert set(settings) <= set(known), f"{taker.__name__} does not know {sorted(set(settings) - set(known))}"


def test_trl_is_told_what_its_defaults_would_get_wrong(tmp_path):
    config = SFTConfig(**training.trainer_settings(tmp_path, 0, 1, 1e-3))
    assert config.gradient_checkpointing is False and config.bf16 is (compute_dtype() == torch.bfloat16)
    assert config.report_to == [] and config.max_length is None
    assert SFTConfig(**training.trainer_settings(tmp_path, 0, 1, 1e-3, gradient_checkpointing=True)).gradient_checkpointing


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_checkpointing_changes_memory_only(tiny_base, tiny_tokenizer, examples, tmp_path, checkpointing):
    reported = []
    model = with_adapter(load_base(tiny_base), rank=4, alpha=8)
    train_with_trl(
        model, tiny_tokenizer, examples, [[0, 1, 8, 9]] * 2, 1e-2, out=tmp_path, gradient_checkpointing=checkpointing,
        report=lambda loss, label_tokens: reported.append(loss),
    )  # fmt: skip
    naive = with_adapter(load_base(tiny_base), rank=4, alpha=8)
    batch = [examples[row] for row in (0, 1, 8, 9)]
    assert reported == pytest.approx(naive_training(naive, [batch] * 2, 1e-2), rel=1e-5)


@pytest.mark.parametrize("method", ["training_step", "get_train_dataloader", "log", "_send_telemetry"])
def test_what_we_override_still_exists(method):
    assert callable(getattr(SFTTrainer, method))


def test_nothing_is_sent_over_the_network(tiny_base, examples, tmp_path, monkeypatch):
    import socket

    from trl.trainer import base_trainer

    sent = []
    monkeypatch.setenv("CI", "")
    monkeypatch.setattr(base_trainer, "send_telemetry", lambda **keywords: sent.append(keywords))
    monkeypatch.setattr(socket.socket, "connect", lambda *address: sent.append(address))
    train_adapter(tiny_base, examples, tmp_path / "a", **SETTINGS)
    assert not sent


def test_plans_are_fair(examples):
    odd = [example for example in examples if example.dialogue != 3 or example.dialogue % 2]
    plan = plan_steps(odd, 32, 7, seed=0)
    drawn = [sorted({odd[row].dialogue for row in step}) for step in plan]
    assert all(len(step) == 7 for step in drawn)
    counts = [sum(dialogue in step for step in drawn) for dialogue in range(16)]
    assert sum(counts) == 32 * 7 and max(counts) - min(counts) <= 1
    assert plan == plan_steps(odd, 32, 7, seed=0) != plan_steps(odd, 32, 7, seed=1)
    assert all(sorted(step) == list(range(32)) for step in plan_steps(examples, 3, 99, seed=0))


def test_progress_and_log(tiny_base, examples, tmp_path):
    seen = []
    log = train_adapter(tiny_base, examples, tmp_path / "a", **SETTINGS, progress=lambda *now: seen.append(now))
    assert [(step, steps) for step, steps, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert len(log["loss"]) == len(log["label_tokens"]) == 3
    assert json.dumps(log) and log["trained_weights"] > 0 and log["examples"] == len(examples)
