"The loop's promises that no reader would learn from: what stages depend on, ablations that are fair, teachers, leaks."
import dataclasses
import json
import random
import shutil
import warnings

import pytest
from plugged import plug

from optima.agents.messages import read_jsonl
from optima.base.errors import OptimaError
from optima.config.settings import load_settings
from optima.config.systems import ABLATIONS, SYSTEMS
from optima.run import team as teams
from optima.run.experiments import refuse_leaks, run_experiment, stage_cost
from optima.run.loop import choose_stage, generate, rank_stage, select_stage, stream, train
from optima.run.stages import Store
from optima.run.team import Team, read_json, teacher, training_tasks
from optima.tasks.catalogue import get_benchmark
from optima.tasks.task import BENCHMARKS, Benchmark

BASE = str(load_settings("single", "smoke").base_folder)
TINY = {"benchmarks": ("toy_humaneval",), "tasks_per_iteration": 4, "evaluation_tasks": 3, "iteration_tasks": 2,
        "development_tasks": 2, "training_steps": 1, "iterations": 1, "strategies": ("none", "brief"),
        "decodings": ("greedy",), "mode": "self", "teacher": BASE}


def tiny(system, seed=0, **changes):
    "The smallest settings of a system."
    return load_settings(system, "smoke", seed, TINY | changes | SYSTEMS.get(system).settings)


@pytest.fixture(autouse=True)
def two_benchmarks(monkeypatch):
    "Two benchmarks, `one` and `two`, of other functions each."
    def loader(offset):
        def load(split, n, seed):
            drawn = get_benchmark("toy_humaneval").load(split, n, seed + offset)
            return [dataclasses.replace(task, id=f"{offset}-{task.id}") for task in drawn]
        return load

    for name, offset in (("one", 1000), ("two", 2000)):
        plug(monkeypatch, BENCHMARKS, name, Benchmark(name, "tests", loader(offset)))


@pytest.fixture(scope="module")
def shuffled_teacher(tmp_path_factory):
    "The base with its words numbered otherwise: it says the same, in other token ids."
    import torch

    from optima.engines.loading import load_model
    from optima.toy.models import SPECIAL
    folder = tmp_path_factory.mktemp("teacher") / "base"
    model, tokenizer = load_model(BASE)
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
    settings = tiny("optima_debate", mode="teacher", teacher=str(shuffled_teacher))
    line = run_experiment(settings, tmp_path)
    assert line["results"]["iterations"]["toy_humaneval"][0]["label_tokens"] > 0
    run_experiment(tiny("teacher_debate", mode="teacher", teacher=str(shuffled_teacher)), tmp_path / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(settings.base_folder)
    for stages in ("generate-*/shard-*.jsonl", "teacher/evaluate-*/shard-*.jsonl"):
        said = [message for path in tmp_path.glob(stages) for done in read_jsonl(path) for message in done.messages]
        assert said and {message.token_source for message in said} == {"tokenizer"}
        for message in said:
            assert tokenizer.decode(message.token_ids) == f"{message.content} <end>" and "<unk>" not in message.content
        assert any(message.answer for message in said)


def test_the_same_tokenizer_passes_a_teachers_tokens_through(tmp_path):
    shutil.copytree(BASE, tmp_path / "copy")
    settings = tiny("optima_debate", mode="teacher", teacher=str(tmp_path / "copy"))
    stage = generate(Store(tmp_path), Team(settings.base_folder, settings), "one", 1)
    assert {m.token_source for path in stage.shards() for done in read_jsonl(path) for m in done.messages} == {"engine"}


def test_a_teachers_dialogues_depend_on_the_students_tokenizer_and_on_nothing_else_of_it(shuffled_teacher, tmp_path):
    shutil.copytree(BASE, tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes(b"other weights")
    keys = [teacher(tiny("teacher_single", base=str(base))).key for base in (BASE, tmp_path / "other", shuffled_teacher)]
    assert keys[0] != keys[2] and len({teacher(tiny("teacher_single", base=str(tmp_path / "other"), seed=seed)).key
                                       for seed in (0, 1)} | {keys[1]}) == 1


def test_a_restart_shares_the_first_iteration_and_begins_the_second_from_the_base(tmp_path):
    two = {"iterations": 2, "evaluation_tasks": 1}
    go_on = run_experiment(tiny("optima_debate", **two), tmp_path)["settings"]["stages"]
    restarted = run_experiment(tiny("optima_debate", **two, continue_adapter=False), tmp_path)["settings"]["stages"]
    assert [key.split("-")[0] for key in go_on] == ["generate", "rank", "select", "train", "evaluate_iteration",
                                                    "generate", "rank", "select", "train", "evaluate"]
    assert go_on[:8] == restarted[:8] and go_on[8] != restarted[8]


def test_a_team_makes_room_before_it_is_trained(tmp_path):
    store, settings = Store(tmp_path), tiny("optima_debate")
    team = Team(settings.base_folder, settings)
    generated = generate(store, team, "one", 1)
    assert "engine" in vars(team)
    selected = select_stage(store, settings, 1, rank_stage(store, team, "one", 1, generated))
    assert train(store, team, "one", 1, selected).adapter and "engine" not in vars(team)


@pytest.fixture(scope="module")
def ablations(tmp_path_factory):
    "The line of every row of the ablations, and of the main table's, for real in one folder; weights that can fail."
    runs = tmp_path_factory.mktemp("ablations")
    changes = {"mode": "teacher", "iterations": 2, "threshold": -1.0, "keep_share": 0.5, "max_acceptable_tokens": 40}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return {system: run_experiment(tiny(system, **changes), runs) for system in ("optima_multi_step", *ABLATIONS)}


def stages(line, name):
    "A line's stages of one name, in order."
    return [key for key in line["settings"]["stages"] if key.startswith(f"{name}-")]


@pytest.mark.slow
def test_every_ablation_trains_on_as_many_dialogues_and_steps_from_the_same_first_dialogues(ablations):
    first = {stages(line, "generate")[0] for line in ablations.values()}
    assert len(first) == 1  # without_teacher's too: here the teacher is the student
    for system, line in ablations.items():
        iterations = line["results"]["iterations"]["toy_humaneval"]
        assert {one["selected"] for one in iterations} == {2} and {one["generated"] for one in iterations} == {8}
        assert len(iterations) == (1 if system == "without_iteration" else 2)
        assert sum(len(one["loss"]) for one in iterations) == 2


@pytest.mark.slow
def test_ablations_share_what_they_have_in_common_and_nothing_else(ablations):
    full = ablations["full"]
    assert full["settings"]["stages"] == ablations["optima_multi_step"]["settings"]["stages"]
    assert stages(ablations["without_iteration"], "select") == stages(full, "select")[:1]
    assert stages(ablations["random_selection"], "rank")[0] == stages(full, "rank")[0]
    for system in set(ABLATIONS) - {"full", "without_teacher"}:
        assert stages(ablations[system], "train")[0] != stages(full, "train")[0]


@pytest.mark.slow
def test_the_curve_ends_with_the_first_tasks_of_the_evaluation(ablations):
    results = ablations["full"]["results"]
    curve, whole = results["iteration_evaluation"]["toy_humaneval"], results["evaluation"]["toy_humaneval"]["greedy"]
    assert [one["task"] for one in curve] == 2 * [whole["task"][:2]] and curve[1]["tokens"] == whole["tokens"][:2]
    assert results["evaluation_strategy"] == {"toy_humaneval": "none"}
    assert len(ablations["without_iteration"]["results"]["iteration_evaluation"]["toy_humaneval"]) == 1


def test_the_curve_is_greedy_whatever_is_evaluated(tmp_path):
    line = run_experiment(tiny("optima_debate", decodings=("sampled",)), tmp_path)
    (last,) = line["results"]["iteration_evaluation"]["toy_humaneval"]
    assert len(last["task"]) == 2 and len(stages(line, "evaluate_iteration")) == 1


def test_a_benchmarks_stages_know_nothing_of_the_others(tmp_path):
    both = run_experiment(tiny("optima_debate", benchmarks=("one", "two")), tmp_path)
    second = run_experiment(tiny("optima_debate", benchmarks=("two",)), tmp_path)
    half = len(both["settings"]["stages"]) // 2
    assert both["settings"]["stages"][half:] == second["settings"]["stages"]
    assert not set(both["settings"]["stages"][:half]) & set(second["settings"]["stages"])
    for kind, by_benchmark in both["results"].items():
        assert list(by_benchmark) == ["one", "two"] and by_benchmark["two"] == second["results"][kind]["two"]
    assert len(stages(both, "train")) == 2


def test_tasks_of_one_text_and_another_metric_are_other_tasks(tmp_path, monkeypatch):
    def other(split, n, seed):
        return [dataclasses.replace(task, metric="math") for task in get_benchmark("one").load(split, n, seed)]
    plug(monkeypatch, BENCHMARKS, "other", Benchmark("other", "math", other))
    settings = tiny("optima_debate")
    keys = {generate(Store(tmp_path), Team(settings.base_folder, settings), name, 1).key for name in ("one", "other")}
    assert len(keys) == 2


def test_the_rewards_metric_does_not_touch_the_evaluation(tmp_path):
    lines = [run_experiment(tiny("single", question_metric=metric), tmp_path) for metric in ("f1", "exact_match")]
    assert lines[0]["settings"]["stages"] == lines[1]["settings"]["stages"] and lines[0]["key"] != lines[1]["key"]


def test_the_best_prompt_is_chosen_by_reward_benchmark_by_benchmark(tmp_path):
    settings = tiny("terse_debate", benchmarks=("one", "two"), strategies=("none", "polite", "brief", "polite"))
    line = run_experiment(settings, tmp_path)
    chosen = line["results"]["evaluation_strategy"]
    for key, benchmark in zip(stages(line, "choose"), ("one", "two")):
        choice = read_json(tmp_path / key / "choice.json")
        assert list(choice["rewards"]) == ["brief", "polite"] and chosen[benchmark] == choice["strategy"]
        assert choice["rewards"][choice["strategy"]] == max(choice["rewards"].values())
    said = {done.strategy for key in stages(line, "evaluate") for path in (tmp_path / key).glob("shard-*")
            for done in read_jsonl(path)}
    assert said == set(chosen.values()) and line["results"]["iteration_evaluation"] == {"one": [], "two": []}


def test_a_choice_goes_on_from_the_shards_that_are_there(tmp_path, monkeypatch):
    settings = tiny("terse_debate", strategies=("none", "brief", "polite"), shard_dialogues=2)
    team, run_shard, runs = Team(settings.base_folder, settings), teams.run_shard, []

    def interrupted(*arguments):
        runs.append(arguments)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return run_shard(*arguments)

    monkeypatch.setattr(teams, "run_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        choose_stage(Store(tmp_path / "again"), team, "one")
    stages = [choose_stage(Store(tmp_path / name), team, "one") for name in ("again", "whole")]
    assert len(runs) == 2 + 1 + 2  # stopped, the rest, and all
    for name in ("choice.json", "shard-00000.jsonl", "shard-00001.jsonl"):
        assert stages[0].file(name).read_bytes() == stages[1].file(name).read_bytes()


def test_other_weights_choose_again_from_the_same_team(tmp_path):
    store, keys = Store(tmp_path), set()
    for weight in (0.3, 3.0):
        settings = tiny("terse_debate", efficiency_weight=weight)
        keys.add(choose_stage(store, Team(settings.base_folder, settings), "one").key)
    assert len(keys) == 2


def test_a_task_that_is_trained_or_chosen_on_and_evaluated_stops_the_run(monkeypatch):
    leaky = Benchmark("leaky", "tests", lambda split, n, seed: get_benchmark("one").load("train", n, seed))
    plug(monkeypatch, BENCHMARKS, "leaky", leaky)
    for system in ("optima_debate", "terse_debate"):
        with pytest.raises(OptimaError):
            refuse_leaks(tiny(system), "leaky")
        refuse_leaks(tiny(system), "one")
    refuse_leaks(tiny("untrained_debate"), "leaky")


def test_no_training_task_comes_twice():
    settings = tiny("optima_debate", tasks_per_iteration=40)
    drawn = [task.key for iteration in (1, 2, 3) for task in training_tasks(settings, "one", iteration)]
    assert len(set(drawn)) == len(drawn) == 120


def test_every_seed_purpose_and_iteration_has_its_own_stream():
    settings = [tiny("optima_debate", seed) for seed in range(4)]
    drawn = [stream(s, purpose, i) for s in settings for purpose in ("select", "train") for i in range(1, 5)]
    assert len(set(drawn)) == len(drawn)


def test_a_stage_says_what_it_cost_and_who_made_it(tmp_path):
    settings = tiny("optima_debate", shard_dialogues=4)
    stage = generate(Store(tmp_path), Team(settings.base_folder, settings), "one", 1)
    cost = stage_cost(stage)
    assert cost["dialogues"] == 4 * len(settings.strategies) == sum(len(read_jsonl(path)) for path in stage.shards())
    assert len(stage.shards()) == len(settings.strategies) and cost["seconds"] > 0 and cost["flops"] > 1e6
    assert isinstance(cost["commits"], list) and isinstance(cost["clean"], bool)
