"The loop's promises that no reader would learn from: teachers with other tokenizers, restarts, leaks, named random streams."
import dataclasses
import json
import random

import pytest

from optima.errors import OptimaError
from optima.loop import Team, generate, refuse_leaks, run_experiment, stage_cost, stream, training_tasks
from optima.messages import read_jsonl
from optima.settings import load_settings
from optima.store import Store
from optima.tasks import Benchmark
from optima.toyworld import load_functions

TINY = {"tasks_per_iteration": 4, "evaluation_tasks": 2, "training_steps": 1, "iterations": 1, "decodings": ("greedy",)}


@pytest.fixture(scope="module")
def shuffled_teacher(tmp_path_factory):
    "The base with its words numbered otherwise: it says the same, in other token ids."
    import torch

    from optima.engines import load_model
    from optima.toymodels import SPECIAL
    folder = tmp_path_factory.mktemp("teacher") / "base"
    model, tokenizer = load_model(load_settings("optima_debate", "smoke").base_folder)
    first, size = len(SPECIAL), len(tokenizer)
    order = list(range(first)) + random.Random(0).sample(range(first, size), size - first)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(model.get_input_embeddings().weight[order].clone())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    core = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer.convert_ids_to_tokens(order)
    core["model"]["vocab"] = {word: i for i, word in enumerate(words)}
    (folder / "tokenizer.json").write_text(json.dumps(core))
    return folder


def test_a_teachers_dialogues_are_counted_and_trained_in_the_students_tokens(shuffled_teacher, tmp_path):
    from transformers import AutoTokenizer
    ours = {"mode": "teacher", "teacher": str(shuffled_teacher)}
    settings = load_settings("optima_debate", "smoke", overrides=TINY | ours)
    line = run_experiment(settings, tmp_path)
    assert line["results"]["iterations"][0]["label_tokens"] > 0
    tokenizer = AutoTokenizer.from_pretrained(settings.base_folder)
    taught = [message for path in tmp_path.glob("generate-*/shard-*.jsonl") for done in read_jsonl(path) for message in done.messages]
    assert taught and {message.token_source for message in taught} == {"tokenizer"}
    for message in taught:
        assert tokenizer.decode(message.token_ids) == f"{message.content} <end>" and "<unk>" not in message.content
    assert any(message.answer for message in taught)


def test_the_same_tokenizer_passes_a_teachers_tokens_through(tmp_path):
    base = str(load_settings("optima_debate", "smoke").base_folder)
    settings = load_settings("optima_debate", "smoke", overrides=TINY | {"mode": "teacher", "teacher": base})
    stage = generate(Store(tmp_path), Team(settings.base_folder, settings), 1)
    assert {m.token_source for path in stage.shards() for done in read_jsonl(path) for m in done.messages} == {"engine"}


def test_a_restart_shares_the_first_iteration_and_begins_the_second_from_the_base(tmp_path):
    two = TINY | {"iterations": 2, "evaluation_tasks": 1}
    go_on = run_experiment(load_settings("optima_debate", "smoke", overrides=two), tmp_path)["settings"]["stages"]
    restart = load_settings("optima_debate", "smoke", overrides=two | {"continue_adapter": False})
    restarted = run_experiment(restart, tmp_path)["settings"]["stages"]
    assert go_on[:7] == restarted[:7] and [key.split("-")[0] for key in go_on[:4]] == ["generate", "rank", "select", "train"]
    assert go_on[7] != restarted[7] and go_on[7].startswith("train")


def test_a_task_that_is_trained_on_and_evaluated_stops_the_run(monkeypatch):
    leaky = Benchmark("toy_humaneval", "tests", lambda split, n, seed: load_functions("train", n, seed))
    monkeypatch.setattr("optima.loop.get_benchmark", lambda name: leaky)
    with pytest.raises(OptimaError):
        refuse_leaks(load_settings("optima_debate", "smoke"))
    refuse_leaks(load_settings("untrained_debate", "smoke"))


def test_two_tasks_of_one_name_are_refused():
    settings = load_settings("optima_debate", "smoke")
    twice = dataclasses.replace(settings, benchmarks=settings.benchmarks * 2)
    with pytest.raises(OptimaError, match="two training tasks are called"):
        training_tasks(twice, 1)


def test_every_seed_purpose_and_iteration_has_its_own_stream():
    settings = [load_settings("optima_debate", "smoke", seed=seed) for seed in range(4)]
    drawn = [stream(s, purpose, i) for s in settings for purpose in ("select", "train") for i in range(1, 5)]
    assert len(set(drawn)) == len(drawn)


def test_a_stage_says_what_it_cost_and_who_made_it(tmp_path):
    settings = load_settings("optima_debate", "smoke", overrides=TINY | {"shard_dialogues": 4})
    stage = generate(Store(tmp_path), Team(settings.base_folder, settings), 1)
    cost = stage_cost(stage)
    assert cost["dialogues"] == 4 * len(settings.strategies) == sum(len(read_jsonl(path)) for path in stage.shards())
    assert len(stage.shards()) == len(settings.strategies) and cost["seconds"] > 0 and cost["flops"] > 1e6
    assert isinstance(cost["commits"], list) and isinstance(cost["clean"], bool)
