"Selection: a function of dialogues and seed, and a control of the same size."
import random
from collections import Counter

import pytest

from optima.agents.messages import Trajectory
from optima.base.errors import OptimaError
from optima.train.selection import (
    above_threshold,
    best_first,
    best_of_n,
    by_task,
    diverse,
    kept_count,
    reward_of,
    select,
    top_share,
)

STRATEGIES = ("none", "brief", "check", "list", "chatty", "guess")


def earned(task, sample, total, strategy="none"):
    return Trajectory(task, "debate", strategy, sample, [], "", {}, rewards={"task": 0.0, "total": total})


def world(tasks=40, samples=8, seed=0, levels=6):
    rng = random.Random(seed)
    return [earned(f"t/{task}", sample, rng.randrange(levels) / levels, rng.choice(STRATEGIES))
            for task in range(tasks) for sample in range(samples)]


def names(trajectories):
    return [(one.task, one.sample) for one in trajectories]


@pytest.mark.parametrize("how", ["reward", "random"])
@pytest.mark.parametrize("diversity", [True, False])
def test_a_selection_depends_on_dialogues_and_seed_only(how, diversity):
    made = world()
    settings = {"threshold": 0.3, "keep_share": 0.6, "how": how, "diversity": diversity}
    first = names(select(made, seed=3, **settings))
    for order in range(5):
        shuffled = list(made)
        random.Random(order).shuffle(shuffled)
        random.seed(order)
        assert names(select(shuffled, seed=3, **settings)) == first
    assert any(names(select(made, seed=seed, **settings)) != first for seed in range(4, 8))


def test_inputs_are_left_alone():
    made = world()
    before = names(made), [dict(one.rewards) for one in made]
    select(made, threshold=0.3, keep_share=0.5, seed=0)
    assert (names(made), [one.rewards for one in made]) == before


@pytest.mark.parametrize("threshold", [-1, 0.0, 0.5, 0.8, 0.9, 2])
@pytest.mark.parametrize("keep_share", [0.01, 0.33, 0.6, 1.0])
@pytest.mark.parametrize("diversity", [True, False])
def test_the_control_has_the_same_count_and_one_dialogue_per_task(threshold, keep_share, diversity):
    for seed in range(5):
        made = world(seed=seed)
        settings = {"threshold": threshold, "keep_share": keep_share, "diversity": diversity, "seed": seed}
        by_reward, at_random = select(made, how="reward", **settings), select(made, how="random", **settings)
        assert len(by_reward) == len(at_random)
        for chosen in (by_reward, at_random):
            assert len({one.task for one in chosen}) == len(chosen)
            assert set(names(chosen)) <= set(names(made))


@pytest.mark.parametrize("diversity", [True, False])
def test_a_row_is_given_as_many_as_another_wherever_its_threshold_is(diversity):
    pool = world()
    full = select(pool, threshold=0.6, keep_share=0.7, seed=3, diversity=diversity)
    for count in (0, 1, len(full), 40):
        matched = select(pool, threshold=5.0, keep_share=0.1, seed=3, diversity=diversity, count=count)
        assert len(matched) == count == len({one.task for one in matched})
        blind = select(pool, threshold=5.0, keep_share=0.1, seed=3, diversity=diversity, count=count, how="random")
        assert len(blind) == count
    same = select(pool, threshold=5.0, keep_share=0.1, seed=3, diversity=diversity, count=len(full))
    assert [reward_of(one) for one in same] == [reward_of(one) for one in full] or diversity
    assert len(select(pool, threshold=5.0, keep_share=0.1, seed=3, diversity=diversity, count=400)) == 40


def test_the_control_is_blind_to_rewards():
    made = world()
    blind = names(select(made, threshold=-1, keep_share=0.5, seed=1, how="random"))
    for one in made:
        one.rewards["total"] = 1 - one.rewards["total"]
    assert names(select(made, threshold=-1, keep_share=0.5, seed=1, how="random")) == blind


def test_the_control_draws_every_ordinary_sample_alike():
    made = [earned(f"t/{task}", sample, 0.5, "none" if sample < 4 else "guess") for task in range(10) for sample in range(8)]
    drawn = Counter(one.sample for seed in range(200) for one in
                    select(made, threshold=-1, keep_share=1.0, seed=seed, how="random"))
    assert set(drawn) == set(range(4)) and all(400 < drawn[sample] < 600 for sample in range(4))


def test_a_task_that_has_no_ordinary_dialogue_gives_any_to_the_control():
    made = [earned("a", sample, 0.5, "brief") for sample in range(4)] + [earned("b", 0, 0.5, "none")]
    drawn = [names(select(made, threshold=-1, keep_share=1.0, seed=seed, how="random")) for seed in range(50)]
    assert all(len(chosen) == 2 for chosen in drawn) and len({name for chosen in drawn for name in chosen}) == 5


def test_reward_keeps_the_best_of_each_task_above_the_threshold():
    made = world()
    best = {group[0].task: max(one.rewards["total"] for one in group) for group in by_task(made)}
    for chosen in select(made, threshold=0.5, keep_share=0.7, seed=0):
        assert chosen.rewards["total"] == best[chosen.task] > 0.5


def test_without_diversity_nothing_better_is_left_behind():
    made = world(levels=50)
    chosen = select(made, threshold=-1, keep_share=0.5, seed=0, diversity=False)
    left = [one for one in best_of_n(by_task(made), random.Random(0)) if one.task not in {two.task for two in chosen}]
    assert min(one.rewards["total"] for one in chosen) >= max(one.rewards["total"] for one in left)


def test_the_threshold_is_strict():
    assert names(above_threshold([earned("a", 0, 0.5), earned("b", 0, 0.51)], 0.5)) == [("b", 0)]


@pytest.mark.parametrize("how", ["reward", "random"])
def test_empty_selections_are_empty_lists(how):
    assert select([], threshold=0, keep_share=0.5, seed=0, how=how) == []
    assert select(world(), threshold=1.0, keep_share=0.5, seed=0, how=how) == []


def test_empty_parts():
    rng = random.Random(0)
    assert by_task([]) == best_of_n([], rng) == top_share([], 0.5, rng) == diverse([], 3, rng) == above_threshold([], 0) == []
    assert diverse([earned("a", 0, 1.0)], 0, rng) == []


def test_one_dialogue_is_kept_where_there_is_one():
    assert len(select([earned("a", 0, 0.5)], threshold=0, keep_share=0.01, seed=0)) == 1


@pytest.mark.parametrize("available, share, wanted", [(0, 0.5, 0), (1, 0.1, 1), (160, 0.6, 96), (100, 0.55, 55), (10, 0.7, 7), (7, 1, 7)])
def test_counts(available, share, wanted):
    assert kept_count(available, share) == wanted


@pytest.mark.parametrize("share", [0, -0.1, 1.01, 60, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(OptimaError, match="keep_share"):
        select(world(), threshold=0, keep_share=share, seed=0)


def test_an_unknown_way_lists_the_valid_ones():
    with pytest.raises(OptimaError, match="unknown selection 'rewards'; choose one of: reward, random"):
        select(world(), threshold=0, keep_share=0.5, seed=0, how="rewards")


def test_dialogues_that_were_not_ranked_are_a_bug():
    made = world()
    made[3].rewards = None
    for how in ("reward", "random"):
        with pytest.raises(ValueError, match="'t/0'.*rank it first"):
            select(made, threshold=0, keep_share=0.5, seed=0, how=how)


def test_every_strategy_stays_covered_while_there_is_room():
    for seed in range(20):
        pool = [one for one in world(tasks=60, samples=1, seed=seed, levels=50)]
        for count in range(1, 40):
            chosen = diverse(pool, count, random.Random(seed))
            strategies = {one.strategy for one in pool}
            assert len(chosen) == count
            assert len({one.strategy for one in chosen}) == min(count, len(strategies))
            taken = Counter(one.strategy for one in chosen)
            held = Counter(one.strategy for one in pool)
            assert all(taken[a] >= min(taken[b] - 1, held[a]) for a in strategies for b in strategies)


def test_a_strategy_gives_its_best_first():
    pool = world(tasks=60, samples=1, levels=50)
    chosen = diverse(pool, 20, random.Random(0))
    for one in chosen:
        same = [two for two in pool if two.strategy == one.strategy and two not in chosen]
        assert all(two.rewards["total"] <= one.rewards["total"] for two in same)


def test_diverse_gives_what_there_is():
    pool = world(tasks=5, samples=1)
    assert sorted(names(diverse(pool, 100, random.Random(0)))) == sorted(names(pool))


def test_ties_go_to_everyone_in_turn():
    group = [earned("a", sample, 0.5) for sample in range(4)]
    wins = Counter(best_of_n([group], random.Random(seed))[0].sample for seed in range(400))
    assert all(60 < wins[sample] < 140 for sample in range(4))
    assert [one.rewards["total"] for one in best_first(world(), random.Random(0))] == \
        sorted((one.rewards["total"] for one in world()), reverse=True)


def test_the_reward_that_chooses_separates_from_the_control():
    made = world(levels=50)
    settings = {"threshold": -1, "keep_share": 0.5, "seed": 0}
    mean = {how: sum(one.rewards["total"] for one in select(made, how=how, **settings)) / 20 for how in ("reward", "random")}
    assert mean["reward"] > mean["random"] + 0.2


@pytest.mark.parametrize("total", [lambda rng: 0.0, lambda rng: rng.random(), lambda rng: 1.0], ids=["none", "some", "all"])
def test_without_a_threshold_every_reward_selects_as_many(total):
    rng = random.Random(1)
    made = [earned(f"t/{task}", sample, total(rng), rng.choice(STRATEGIES)) for task in range(96) for sample in range(8)]
    chosen = {how: select(made, threshold=-1.0, keep_share=0.5, seed=0, how=how) for how in ("reward", "random")}
    assert [len({one.task for one in chosen[how]}) for how in chosen] == [48, 48]


@pytest.mark.parametrize("how", ["reward", "random"])
def test_what_no_sandbox_could_judge_is_never_selected(how):
    for seed in range(5):
        made = world(seed=seed)
        for one in made[::2]:
            one.rewards |= {"status": "unsupported", "total": 1.0}
        chosen = select(made, threshold=-1, keep_share=1.0, seed=seed, how=how)
        assert len(chosen) == 40 and {one.rewards.get("status") for one in chosen} == {None}
        assert select(made[::2], threshold=-1, keep_share=1.0, seed=seed, how=how) == []
