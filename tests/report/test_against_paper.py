"The published method in the loop: what its stages share, where its methods differ, and what a preset says of each benchmark."
import json
import shutil
import warnings
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace

import pytest

from optima.agents.messages import read_jsonl
from optima.agents.scheduler import Dialogue
from optima.base.errors import OptimaError
from optima.config.checks import KINDS
from optima.config.settings import load_settings, read_preset
from optima.config.systems import METHODS, PAPER_RECIPE, PAPER_ROWS, SYSTEMS, TRAINED, system_of, systems_where
from optima.config.versions import PAPER_VERSIONS
from optima.rewards.readability import readability_losses
from optima.run import experiments, loop
from optima.run import tree_stages as trees
from optima.run.experiments import run_experiment
from optima.run.loop import give_rewards, reward_settings
from optima.run.stages import Stage, Store
from optima.run.team import Team, adapters_in, hold, settled, student, talk_settings, training_tasks
from optima.run.tree_stages import grow, plan_of, trees_of
from optima.train.pairs import read_pairs
from optima.train.tree import MEANS

SHARING, DEBATE = "toy_2wikimultihopqa", "toy_gsm8k"


def smoke(system, seed=0, **changes):
    "The smallest settings of a system."
    return load_settings(system, "smoke", seed, {"evaluation_tasks": 3, "iteration_tasks": 2} | changes)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    "The paper's three methods, a team with an adapter for each role, and the vote, for real, in one folder."
    runs = tmp_path_factory.mktemp("paper")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = {name: run_experiment(smoke(name), runs) for name in (*TRAINED, "paper_sc", "paper_isft_per_role")}
    return runs, made


def stages(line, name):
    "A line's stages of one name, in order."
    return [key for key in line["settings"]["stages"] if key.startswith(f"{name}-")]


@pytest.mark.slow
def test_the_methods_share_their_first_iteration_and_then_part(lines):
    _, made = lines
    isft, idpo, both = (made[name] for name in TRAINED)
    for kind in ("generate", "rank", "select"):
        assert stages(isft, kind)[::2] == stages(idpo, kind) == stages(both, kind)
    assert len(stages(isft, "train")) == 4 and len(stages(idpo, "train")) == len(stages(idpo, "prefer")) == 2
    assert stages(idpo, "grow") == stages(both, "grow"), "the trees of iteration 2 are grown from the same team"
    assert stages(idpo, "prefer") != stages(both, "prefer"), "one has the chosen turn's own loss, the other has not"


@pytest.mark.slow
def test_trees_give_pairs_and_their_cost_is_counted(lines):
    runs, made = lines
    for stage in stages(made["paper_idpo"], "pair"):
        pairs = read_pairs(runs / stage / "pairs.jsonl")
        assert pairs and all(pair.chosen_value > pair.rejected_value for pair in pairs)
        assert all(pair.conversation[0]["role"] == "system" and "style" not in pair.conversation[0]["content"] for pair in pairs)
    costs = {cost["stage"]: cost for cost in made["paper_idpo"]["cost"]["stages"]}
    assert all(costs["grow"][name] > 0 for name in ("tokens", "flops", "seconds", "dialogues"))
    assert all(costs["prefer"][name] > 0 for name in ("tokens", "flops", "seconds", "steps"))
    assert costs["rank"]["flops"] > 0, "the base reads every dialogue to judge it"
    summary = made["paper_idpo"]["results"]["iterations"][SHARING][1]
    assert summary["trees"] == 4 and summary["generated"] == 4 * 2 * 3 and summary["pairs"] > 0


@pytest.mark.slow
def test_a_debate_restarts_from_the_base_and_an_exchange_goes_on(lines):
    runs, made = lines
    base = json.loads((runs / stages(made["paper_isft"], "train")[0] / "settings.json").read_text())["inputs"][0]
    starts = [json.loads((runs / stage / "settings.json").read_text())["inputs"][:2] for stage in stages(made["paper_isft"], "train")]
    assert starts[0] == starts[2] == starts[3] == [base, ""] and starts[1][1]


@pytest.mark.slow
def test_roles_have_adapters_of_their_own_and_learn_their_own_turns(lines):
    runs, made = lines
    sharing, debate = (adapters_in(runs / stages(made["paper_isft_per_role"], "train")[place]) for place in (1, 3))
    assert sharing.keys() == {"alice", "bob"} and debate.keys() == {"solver", "critic"}
    assert all((folder / "adapter_model.safetensors").is_file() for folder in (*sharing.values(), *debate.values()))


@pytest.mark.slow
def test_a_role_that_is_alone_speaks_with_its_adapter(lines, tmp_path):
    runs, made = lines
    kept = adapters_in(runs / stages(made["paper_isft_per_role"], "train")[0])["alice"]
    shutil.copytree(kept, tmp_path / "adapter-solver")
    settings = smoke("paper_tuned_single", adapters="per_role")
    team = Team(settings.base_folder, settings, adapter=SimpleNamespace(folder=tmp_path, key="x"))
    assert team.engine.roles == ("solver",)


@pytest.mark.slow
def test_a_vote_costs_all_its_samples(lines):
    _, made = lines
    columns = made["paper_sc"]["results"]["evaluation"][DEBATE]
    assert list(columns) == ["vote"] and len(columns["vote"]["score"]) == 3
    assert min(columns["vote"]["turns"]) == smoke("paper_sc").votes
    samples = made["paper_isft"]["results"]["samples"][SHARING]
    assert [len(values) for values in samples["tokens"]] == [3, 3, 3], "of three tasks, three samples each"


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_a_lost_line_is_the_same_again(lines, tmp_path):
    runs, made = lines
    before = sorted(path.name for path in runs.iterdir())
    assert run_experiment(smoke("paper_idpo"), runs) == made["paper_idpo"]
    (runs / "registry.jsonl").unlink()
    again = run_experiment(smoke("paper_idpo"), runs)
    assert {name: again[name] for name in ("settings", "results")} == {name: made["paper_idpo"][name] for name in ("settings", "results")}
    assert sorted(path.name for path in runs.iterdir()) == before


def test_trees_do_not_depend_on_how_many_grow_together(tmp_path):
    made = []
    for batch in (64, 3):
        settings = smoke("paper_idpo", batch_size=batch, pilot_dialogues=3).on(SHARING, passages=True)
        trees = trees_of(grow(Store(tmp_path), student(settings), SHARING, 2))
        made.append([[message.content for message in rollout.trajectory.messages] for tree in trees for rollout in tree.rollouts])
    assert made[0] == made[1] and len(made[0]) == 4 * 2 * 3


def test_trees_leave_out_what_could_not_be_judged(tmp_path, monkeypatch):
    judge = trees.give_rewards

    def sometimes(team, tasks, dialogues, scale=None):
        flops = judge(team, tasks, dialogues, scale)
        for one in dialogues[::2]: one.rewards["status"] = "unsupported"
        return flops

    monkeypatch.setattr(trees, "give_rewards", sometimes)
    settings = smoke("paper_idpo", pilot_dialogues=3, tree_tasks=1, expansions=1).on(SHARING, passages=True)
    tree, = trees_of(grow(Store(tmp_path), student(settings), SHARING, 2))
    assert [rollout.reward is None for rollout in tree.rollouts] == [True, False, True] and tree.nodes[0].visits == 1


def test_how_a_node_is_valued_is_a_setting(tmp_path):
    tiny = smoke("paper_idpo", pilot_dialogues=3, tree_tasks=1).on(SHARING, passages=True)
    grown = {mean: grow(Store(tmp_path), student(replace(tiny, node_mean=mean)), SHARING, 2) for mean in MEANS}
    assert grown["rollouts"].settings["node_mean"] == "rollouts" and "node_mean" not in grown["children"].settings
    tree, = trees_of(grown["rollouts"])
    assert tree.nodes[0].value == pytest.approx(fmean(rollout.reward for rollout in tree.rollouts))
    assert tree.nodes[0].value != trees_of(grown["children"])[0].nodes[0].value


def test_what_the_base_reads_before_a_turn_is_a_setting():
    settings = smoke("paper_isft").on(SHARING, passages=True)
    team, alone = student(settings), replace(settings, loss_conditioned=False)
    tasks, losses = training_tasks(settings, SHARING, 1)[:1], {}
    held = hold(team, [Dialogue(tasks[0], settings.paradigm)], 0, 0.7)
    for own in (settings, alone):
        give_rewards(replace(team, settings=own), tasks, held)
        losses[own.loss_conditioned] = held[0].rewards["loss"]
    assert losses[True] == readability_losses(team.engine, held)[0] != losses[False] == readability_losses(team.engine, held, conditioned=False)[0]
    assert "loss_conditioned" not in reward_settings(settings) and reward_settings(alone)["loss_conditioned"] is False


def test_the_pool_is_drawn_from_once_and_then_left(tmp_path):
    from optima.run.loop import dialogues_of
    settings = smoke("paper_isft", samples=40, strategies=["none", "brief", "check"]).on(SHARING, passages=True)
    tasks = training_tasks(settings, SHARING, 1)
    first, later = (dialogues_of(settings, tasks, iteration) for iteration in (1, 2))
    assert {one.strategy for one in first} == {"none", "brief", "check"} and {one.strategy for one in later} == {"none"}
    assert len(first) == len(later) == 40 * len(tasks) and first == dialogues_of(settings, tasks, 1)


def test_a_paradigm_is_chosen_by_what_there_is_to_share():
    settings = load_settings("paper_isft")
    assert settings.paradigm == "by_task"
    assert [settled(settings, name).paradigm for name in settings.benchmarks] == ["exchange"] * 2 + ["solver_critic"] * 2
    assert settled(load_settings("paper_cot"), SHARING).paradigm == "chain_of_thought"


@pytest.mark.parametrize("preset", ["smoke", "toy"])
def test_the_single_agent_is_trained_in_the_loop_of_its_team(preset):
    alone, team = (load_settings(system, preset) for system in ("paper_tuned_single", "paper_isft"))
    loops = {name: [settled(one, name).continue_adapter for one in (alone, team)] for name in alone.benchmarks}
    assert all(single == together for single, together in loops.values()) and {both[0] for both in loops.values()} == {True, False}


def test_rounds_of_imitation_and_preferences_are_whole():
    made = {system: load_settings(f"paper_{system}", "toy").iterations for system in ("isft", "isft_dpo", "isft_dpo_without_loss")}
    assert made == {"isft": 3, "isft_dpo": 4, "isft_dpo_without_loss": 4} and METHODS.get("isft_dpo").step(4) == "compare"
    assert load_settings("paper_isft_dpo", "paper").iterations == 6
    assert load_settings("paper_isft_dpo", "toy", overrides={"iterations": 3}).iterations == 3


@pytest.mark.parametrize("pairs, epochs, plan", [
    (3, 1, (1, 3)), (32, 1, (1, 32)), (33, 1, (2, 17)), (64, 1, (2, 32)), (250, 1, (8, 32)), (3, 4, (4, 3)), (33, 2, (4, 17))])
def test_training_on_pairs_goes_over_each_as_often_as_is_asked_for(pairs, epochs, plan):
    found = plan_of(pairs, load_settings("paper_isft_dpo", "toy", overrides={"preference_epochs": epochs}))
    assert (found["steps"], found["batch_pairs"]) == plan


@pytest.mark.slow
def test_the_steps_that_an_experiment_took_on_pairs_are_one_pass(lines):
    runs, made = lines
    for line in (made["paper_idpo"], made["paper_isft_dpo"]):
        costs = [entry for entry in line["cost"]["stages"] if entry["stage"] == "prefer"]
        assert costs and max(entry["pairs"] for entry in costs) > 4  # more than one batch of preset smoke
        assert [entry["steps"] for entry in costs] == [-(-entry["pairs"] // 4) for entry in costs]
        read = [json.loads((runs / stage / "log.json").read_text()) for stage in stages(line, "prefer")]
        assert sorted(len(log["loss"]) for log in read) == sorted(entry["steps"] for entry in costs)


def test_a_new_version_of_preferring_leaves_imitation_its_keys(monkeypatch):
    def keys(): return {system: load_settings(system, "toy").key for system in ("optima_debate", "paper_untrained", *TRAINED)}
    before = keys()
    monkeypatch.setitem(PAPER_VERSIONS, "prefer", PAPER_VERSIONS["prefer"] + 1)
    after = keys()
    assert [system for system in before if before[system] != after[system]] == ["paper_idpo", "paper_isft_dpo"]


@pytest.mark.parametrize("method", METHODS)
def test_a_preset_says_what_differs_by_paradigm_method_and_benchmark(method):
    settings = load_settings(f"paper_{method}", "paper")
    sharing, sums = settings.on("hotpotqa", passages=True), settings.on("math", passages=False)
    assert (sharing.continue_adapter, sums.continue_adapter) == (True, False) and sums.strategies == ("none",)
    expected = {"isft": (0.6, 1.0, 0.4, 0.9), "idpo": (0.6, 1.0, 0.5, 0.7), "isft_dpo": (0.6, 1.0, 0.4, 0.9)}[method]
    assert (sharing.token_weight, sharing.loss_weight, sums.token_weight, sums.loss_weight) == expected
    assert sharing.nll_weight == (0.0 if method == "isft_dpo" else 1.0) and not sharing.by


def test_every_paper_preset_holds_for_each_of_its_benchmarks():
    for preset in ("smoke", "toy", "gpu24", "paper"):
        for system in systems_where(family="paper"):
            settings = load_settings(system, preset)
            for benchmark in settings.benchmarks:
                for passages in (True, False): assert settings.on(benchmark, passages).reward == "paper"


def test_the_order_of_the_methods():
    orders = {method: [METHODS.get(method).step(iteration) for iteration in range(1, 5)] for method in METHODS}
    imitate, compare = "imitate", "compare"
    assert orders == {"isft": [imitate] * 4, "idpo": [imitate, compare, compare, compare], "isft_dpo": [imitate, compare, imitate, compare]}
    assert KINDS["method"] is METHODS and set(PAPER_ROWS) < set(systems_where(family="paper"))


@pytest.mark.parametrize("system, changes, message", [
    ("optima_debate", {"method": "idpo"}, 'method = "idpo" grows trees under the paper\'s reward: set reward = "paper"'),
    ("paper_idpo", {"adapters": "per_role"}, 'adapters = "per_role" is for method = "isft"'),
    ("paper_idpo", {"tree_tasks": 5}, "tree_tasks = 5: expected at most tasks_per_iteration, 4"),
    ("paper_untrained", {"paradigm": "exchange", "agents": 1}, "agents = 1: an exchange takes two or more"),
    ("paper_idpo", {"pair_share": 0.0}, "pair_share = 0 keeps nothing"),
    ("paper_idpo", {"pairs": "best"}, "best_worst"),
    ("paper_isft", {"by": {"gsm9k": {}}}, "unknown paradigm, method or benchmark 'gsm9k'"),
    ("paper_isft", {"by": {"gsm8k": {"token_wait": 1.0}}}, "by.gsm8k: unknown setting 'token_wait'"),
    ("paper_isft", {"by": {"gsm8k": {"isfd": {}}}}, "by.gsm8k: unknown method 'isfd'"),
    ("paper_isft", {"by": {"gsm8k": 3}}, "by.gsm8k = 3: expected a table of settings")])
def test_a_combination_without_a_meaning_is_refused(system, changes, message):
    with pytest.raises(OptimaError, match="(?s)" + message.replace("(", r"\(").replace(".", r"\.")):
        load_settings(system, "smoke", overrides=changes)


def test_no_pair_and_no_dialogue_leave_the_team_as_it_is(tmp_path):
    settings = smoke("paper_idpo", benchmarks=[DEBATE], pair_threshold=1000.0, threshold=1000.0)
    with pytest.warns(UserWarning, match="no pair of turns is far enough apart") as heard:
        line = run_experiment(settings, tmp_path)
    assert any("no dialogue reached the threshold" in str(one.message) for one in heard)
    assert not stages(line, "train") and not stages(line, "prefer") and line["results"]["evaluation"][DEBATE]["greedy"]["score"]


def test_older_experiments_keep_their_keys():
    "The published registry was made before the paper's settings: they must not change what names its lines."
    kept = load_settings("optima_debate").to_dict()
    assert not kept.keys() & {"method", "token_weight", "by", "tree_tasks"}
    assert load_settings("paper_idpo").to_dict()["method"] == "idpo"
    assert not load_settings("paper_idpo").to_dict().keys() & {"loss_conditioned", "node_mean"}
    assert read_preset("toy").get("samples") is None and read_preset("toy", PAPER_RECIPE)["samples"] == 8


def test_dialogues_are_rewarded_by_the_base_and_not_by_the_trained_team(tmp_path):
    settings = smoke("paper_isft", benchmarks=[SHARING], iterations=1, training_steps=8)
    line = run_experiment(settings, tmp_path)
    ranked = read_jsonl(tmp_path / stages(line, "rank")[0] / "ranked.jsonl")
    assert all(one.rewards["loss"] > 0 and 0 < one.rewards["tokens"] <= 1 for one in ranked)
    team = student(settings.on(SHARING, passages=True))
    assert team.judge is team


def test_every_row_has_an_untrained_one_beside_it():
    for system in SYSTEMS:
        settings = load_settings(system)
        beside = load_settings(system_of(system).untrained or system)
        assert (beside.paradigm, beside.agents, beside.iterations) == (settings.paradigm, settings.agents, 0)


@pytest.mark.slow
def test_dialogues_abroad_are_not_taken_for_a_teams_own(tmp_path):
    settings = smoke("paper_isft", benchmarks=[SHARING, "toy_cbt"], iterations=1)
    line = run_experiment(settings, tmp_path)
    assert line["results"]["transfer"].keys() == {SHARING, "toy_cbt"}
    assert len(stages(line, "evaluate")) == len(stages(line, "transfer")) == 2
    assert [tested for tested in line["results"]["transfer"][SHARING]] == ["toy_cbt"]


def test_a_team_abroad_is_spoken_to_as_teams_are_there(tmp_path, monkeypatch):
    asked = []

    def evaluate_stage(store, team, benchmark, decoding, kind):
        asked.append((benchmark, team))
        return loop.evaluate_stage(store, team, benchmark, decoding, kind=kind)

    monkeypatch.setattr(experiments, "evaluate_stage", evaluate_stage)
    monkeypatch.setattr(experiments, "read_columns", lambda stage: stage.settings["prompts"])
    monkeypatch.setattr(Stage, "make", lambda stage, *others, **more: stage)
    differ = {DEBATE: {"prompts": "maths_paper", "max_rounds": 2, "strategies": ["none"]}, "toy_arc": {"prompts": "english_paper", "strategies": ["none"]}}
    settings = smoke("paper_isft", benchmarks=[SHARING, DEBATE, "toy_arc"], by=differ)
    adapter, own = SimpleNamespace(key="x"), settled(settings, "toy_arc")
    course = experiments.Course(Team(own.base_folder, own, adapter), "toy_arc")
    told = experiments.transferred(Store(tmp_path), settings, course)
    (tested, guest), = asked
    assert tested == DEBATE and guest.adapter is adapter and (guest.settings.prompts, guest.settings.max_rounds) == ("maths_paper", 2)
    assert told == {DEBATE: talk_settings(settled(settings, DEBATE), [])["prompts"]} and course.team.settings.prompts == "english_paper"
