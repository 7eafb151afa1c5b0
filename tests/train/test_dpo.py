"Preference training: one loss by three hands, the reference, the mask, what trl is told, which bytes come out."
import inspect
import json
import random
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from tiny import all_gradients, all_weights, warm
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOConfig, DPOTrainer

from optima.base.errors import OptimaError
from optima.engines.loading import load_base
from optima.train import dpo
from optima.train.dpo import examples_of_pairs, log_probability, naive_loss, train_pairs_with_trl, train_preferences
from optima.train.pairs import Pair
from optima.train.sft import train_adapter, trainer_settings, with_adapter

pytestmark = pytest.mark.usefixtures("one_thread")


def said(role, *words):
    return {"role": role, "content": " ".join(f"w{word}" for word in words)}


def sampled(*words):
    return said("assistant", *words) | {"token_ids": [*words, 1]}


@pytest.fixture(scope="module")
def pairs():
    "Twelve pairs of turns of 2 to 20 words, in dialogues of all lengths."
    chance = random.Random(1)

    def words(most):
        return [chance.randrange(7, 40) for _ in range(chance.randint(2, most))]

    def pair(number):
        before = [sampled(*words(9)), said("user", *words(2 + 2 * number))]
        return Pair(f"t{number}", "alice", [said("system", 8), said("user", *words(12)), *before], sampled(*words(9)), sampled(*words(20)), 0.9, 0.4)

    return [pair(number) for number in range(12)]


@pytest.fixture(scope="module")
def examples(pairs, tiny_tokenizer):
    return examples_of_pairs(pairs, tiny_tokenizer)


def team(tiny_base, quantization="nf4"):
    return warm(with_adapter(load_base(tiny_base, quantization), rank=4, alpha=8))


def steps_by_trl(model, tiny_tokenizer, examples, plan, out, **settings):
    "Loss, label tokens and gradient (read before the optimiser moves) of each step."
    seen = []
    train_pairs_with_trl(
        model, tiny_tokenizer, examples, plan, 1e-2, out=out, **settings,
        report=lambda loss, label_tokens, **others: seen.append((loss, label_tokens, all_gradients(model))),
    )  # fmt: skip
    return seen


def naive_step(model, examples, nll_weight, beta):
    "Loss and gradient of one step, pair by pair, where the model is its own reference."
    with torch.no_grad():
        reference = [tuple(log_probability(model, example) for example in pair) for pair in examples]
    loss = sum(naive_loss(model, *both, beta, nll_weight) for both in zip(examples, reference, strict=True)) / len(examples)
    loss.backward()
    return loss.item(), all_gradients(model)


@pytest.mark.parametrize("quantization, nll_weight, beta", [("nf4", 1.0, 0.1), ("none", 0.5, 0.1), ("none", 0.0, 0.5)])
def test_a_step_equals_the_naive_loss_in_any_micro_batches(tiny_base, tiny_tokenizer, examples, tmp_path, quantization, nll_weight, beta):
    loss, gradient = naive_step(team(tiny_base, quantization), examples, nll_weight, beta)
    for micro_batch in (1, 6, 24):
        (step,) = steps_by_trl(team(tiny_base, quantization), tiny_tokenizer, examples, [list(range(12))], tmp_path,
                               micro_batch=micro_batch, nll_weight=nll_weight, beta=beta)
        assert step[0] == pytest.approx(loss, rel=1e-5)
        assert step[1] == sum(example.label_tokens for pair in examples for example in pair)
        assert (step[2] - gradient).norm() < 1e-5 * gradient.norm()


def test_trls_own_trainer_agrees_where_it_sees_one_pair_at_a_time(tiny_base, tiny_tokenizer, examples, tmp_path):
    "Its reference is a second adapter, asked at every step; its second term a mean over a micro-batch's tokens."
    seen = []

    class Recorder(DPOTrainer):
        def _prepare_dataset(self, dataset, *others):
            return dataset

        def _send_telemetry(self):
            pass

        def _get_train_sampler(self, dataset=None):
            return None

        def training_step(self, *inputs):
            seen.append([float(super().training_step(*inputs))])
            return torch.tensor(seen[-1][0])

        def _clip_grad_norm(self, model):
            seen[-1].append(all_gradients(model))
            return super()._clip_grad_norm(model)

    model, settings = team(tiny_base, "none"), trainer_settings(tmp_path, 0, 3, 1e-2)
    trainer = Recorder(
        model=model, args=DPOConfig(**settings, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5], beta=0.2, disable_dropout=False),
        train_dataset=Dataset.from_list([dpo.pair_row(*pair) for pair in examples[:3]]), processing_class=tiny_tokenizer,
        data_collator=DataCollatorForPreference(pad_token_id=0), optimizers=dpo.optimizer_and_schedule(model, 1e-2, 3),
    )  # fmt: skip
    trainer.train()
    ours = steps_by_trl(team(tiny_base, "none"), tiny_tokenizer, examples, [[0], [1], [2]], tmp_path, nll_weight=0.5, beta=0.2)
    for (loss, gradient), (our_loss, _, our_gradient) in zip(seen, ours, strict=True):
        assert our_loss == pytest.approx(loss, rel=1e-5)
        assert (our_gradient - gradient).norm() < 1e-4 * gradient.norm()


def test_only_the_last_turn_is_learnt_in_the_tokens_that_were_sampled(pairs, tiny_tokenizer):
    odd = replace(pairs[0], chosen={"role": "assistant", "content": "w9", "token_ids": [9, 9, 1]},
                  rejected={"role": "assistant", "content": "w9 w8"})
    silent = replace(odd, conversation=[*odd.conversation, {"role": "assistant", "content": ""}, said("user", 7)])
    for pair in (odd, silent):
        for example, own in zip(examples_of_pairs([pair], tiny_tokenizer)[0], ([9, 9, 1], [9, 8, 1]), strict=True):
            assert example.input_ids[-len(own):] == own and sum(example.mask) == len(own) == sum(example.mask[-len(own):])


def test_what_cannot_be_compared_is_refused(tiny_base, tiny_tokenizer, pairs, examples, tmp_path):
    first, nothing = pairs[0], {"role": "assistant", "content": ""}
    wrongs = [([], "no pair"), ([replace(first, rejected=nothing)], "rejected turn .* no tokens"),
              ([pairs[1], replace(first, chosen=nothing)], "pair 1: the chosen turn .* no tokens"), ([replace(first, rejected=first.chosen)], "same tokens")]
    for wrong, words in wrongs:
        with pytest.raises(OptimaError, match=words):
            train_preferences(tiny_base, wrong, tmp_path / "a", **SETTINGS)
    with pytest.raises(OptimaError, match="before the two turns differently"):
        dpo.check_pairs([(examples[0][0], examples[1][1])])
    with pytest.raises(OptimaError, match="steps"):
        train_preferences(tiny_base, pairs, tmp_path / "a", **SETTINGS | {"steps": 0})
    with pytest.raises(OptimaError, match="not finite"):
        train_preferences(tiny_base, pairs, tmp_path / "a", **SETTINGS | {"learning_rate": float("inf")})
    assert not (tmp_path / "a" / "adapter_model.safetensors").exists()


SETTINGS = {"seed": 1, "steps": 3, "learning_rate": 5e-3, "batch_pairs": 5, "micro_batch": 4, "rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def start(tiny_base, examples, tmp_path_factory):
    "An adapter that has been trained before."
    folder = tmp_path_factory.mktemp("start")
    train_adapter(tiny_base, [chosen for chosen, _ in examples], folder, seed=0, steps=2, learning_rate=1e-2, rank=4, alpha=8)
    return folder


def test_the_reference_is_the_team_where_it_starts(tiny_base, pairs, start, tmp_path):
    still = SETTINGS | {"learning_rate": 0.0, "start_adapter": start}
    log = train_preferences(tiny_base, pairs, tmp_path / "a", **still)
    assert max(map(abs, log["margin"])) < 1e-4
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == (start / "adapter_model.safetensors").read_bytes()
    moved = train_preferences(tiny_base, pairs, tmp_path / "b", **SETTINGS | {"start_adapter": start})
    assert abs(moved["margin"][0]) < 1e-4 and abs(moved["margin"][-1]) > 0.01


def test_dropout_is_in_the_team_and_not_in_its_reference(tiny_base, tiny_tokenizer, examples, tmp_path):
    def margins(dropout):
        seen, model = [], warm(with_adapter(load_base(tiny_base, "none"), rank=4, alpha=8, dropout=dropout))
        train_pairs_with_trl(model, tiny_tokenizer, examples, [[0, 1]], 0.0, out=tmp_path,
                             report=lambda loss, tokens, margin, accuracy: seen.append(margin))
        return seen[0]

    assert abs(margins(0.0)) < 1e-5 and abs(margins(0.5)) > 1e-4


def test_the_same_seed_gives_the_same_bytes_and_nothing_else(tiny_base, pairs, start, tmp_path, monkeypatch):
    import socket

    from trl.trainer import base_trainer

    sent = []
    monkeypatch.setenv("CI", "")
    monkeypatch.setattr(base_trainer, "send_telemetry", lambda **keywords: sent.append(keywords))
    monkeypatch.setattr(socket.socket, "connect", lambda *address: sent.append(address))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        log = train_preferences(tiny_base, pairs, tmp_path / name, **SETTINGS | {"seed": seed, "start_adapter": start})
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"]
    assert set(files[0]) == {"README.md", "adapter_model.safetensors", "adapter_config.json"} and not sent
    assert files[0] == files[1] and files[0]["adapter_model.safetensors"] != files[2]["adapter_model.safetensors"]
    assert {len(log[name]) for name in ("loss", "label_tokens", "margin", "accuracy")} == {3} and log["pairs"] == 12
    assert json.dumps(log) and log["trained_weights"] > 0 and log["flops"] > 0


def test_gradient_checkpointing_changes_memory_only_and_the_adapter_stays_in_float32(tiny_base, tiny_tokenizer, examples, tmp_path):
    plain, saving = team(tiny_base), team(tiny_base)
    for model, checkpointing in ((plain, False), (saving, True)):
        steps_by_trl(model, tiny_tokenizer, examples, [[0, 1, 10]] * 2, tmp_path, gradient_checkpointing=checkpointing)
        assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert torch.allclose(all_weights(plain), all_weights(saving), atol=1e-6)


@pytest.mark.parametrize(
    "taker, settings",
    [
        (DPOConfig, trainer_settings("out", 0, 1, 1e-3) | dpo.preference_settings(0.1)),
        (DPOTrainer, dict.fromkeys(["model", "args", "train_dataset", "processing_class", "data_collator", "optimizers"])),
        (DataCollatorForPreference, {"pad_token_id": 0}),
    ],
)
def test_every_keyword_that_we_pass_is_known(taker, settings):
    known = inspect.signature(taker.__init__).parameters
    assert set(settings) <= set(known), f"{taker.__name__} does not know {sorted(set(settings) - set(known))}"


@pytest.mark.parametrize("method, known", [
    ("training_step", None), ("get_train_dataloader", None), ("log", None), ("_send_telemetry", None), ("_prepare_dataset", None),
    ("compute_loss", {"model", "inputs", "return_outputs", "num_items_in_batch"}), ("compute_ref_log_probs", {"model", "inputs"}),
])  # fmt: skip
def test_what_we_override_or_call_still_exists(method, known):
    assert (known or set()) <= set(inspect.signature(getattr(DPOTrainer, method)).parameters)
