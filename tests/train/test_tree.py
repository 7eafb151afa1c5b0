"The tree of turns on a hand-made tree, turn by turn; and the same trees whatever runs beside them."
from collections import Counter
from functools import partial
from math import exp, isclose

import pytest
from small_models import make_model, make_tokenizer

from optima.agents.messages import Message, Trajectory
from optima.agents.paradigms import ENGLISH
from optima.agents.scheduler import run_dialogues
from optima.base.errors import OptimaError
from optima.engines.local import LocalEngine
from optima.engines.request import ScriptedEngine
from optima.report.tree_figure import layout, tree_figure
from optima.tasks.task import Task
from optima.train.tree import (
    Tree,
    add_rollout,
    back_propagate,
    choose,
    eligible,
    grow_trees,
    pairs_of,
    random_pairs,
    read_trees,
    rivals,
    siblings,
    token_scale,
    twin,
    unlike_expanded,
    write_trees,
)

ACCEPT, FIRST, NEAR, EDGE = '{"verdict": "accept"}', "a" * 20, "a" * 19 + "b", "a" * 18 + "cc"
ROLLOUTS = [  # what is said, from the first turn on, and what it earns; a debate has one round
    (FIRST, "b1 says wrong", "final one", 1.0), (NEAR, "some other remark", "final two", 0.0), (FIRST, ACCEPT, 0.6),
    (FIRST, "b1 says wrong", "final one", 0.6), (FIRST, ACCEPT, 0.2), (FIRST, "yet another thing", "final six", 0.7),
    (EDGE, "remark nine", "final nine", 0.5), ("zzzz", "remark ten", "final ten", 0.9), (NEAR, "b1 says wrong!", "final one", 0.86),
    ("zzzz", "remark ten", "final ten", 0.9), ("zzzz", ACCEPT, 0.1), ("zzzz", "and now eleven", "final eleven", 0.8),
]  # fmt: skip
TASKS = [Task(f"t{i}", "sums", " ".join(str((i + k) % 10) for k in range(5)), answer="1") for i in range(3)]


def grown(expansions, mean="children", asked=None):
    "The hand-made tree after so many expansions."

    def script(request):
        if asked is not None:
            asked.append(request)
        return ROLLOUTS[request.noise[2]][request.noise[3]]

    hold = partial(run_dialogues, engine=ScriptedEngine(script), prompts=ENGLISH, max_rounds=1)
    return grow_trees(TASKS[:1], hold, lambda done: [ROLLOUTS[one.sample][-1] for one in done], paradigm="debate",
                      expansions=expansions, mean=mean)[0]


def spoken(*texts, speakers=("proposer", "critic")):
    messages = [Message(name, name, text, "") for name, text in zip(speakers * len(texts), texts)]
    return Trajectory("t", "debate", "none", 0, messages, "", {})


def hung(*rollouts):
    tree = Tree("t", "debate")
    for *texts, reward in rollouts:
        add_rollout(tree, spoken(*texts), reward)
    back_propagate(tree)
    return tree


def texts(tree, places):
    return [tree.text(place) for place in places]


def values(tree, *places):
    return [round(tree.nodes[place].value, 6) for place in places]


def test_the_first_expansion_merges_what_is_nearly_the_same():
    tree = grown(1)
    assert texts(tree, range(7)) == ["", FIRST, "b1 says wrong", "final one", "some other remark", "final two", ACCEPT]
    assert tree.nodes[0].children == [1] and tree.nodes[1].children == [2, 4, 6] and tree.nodes[1].visits == 3
    assert [message.content for message in tree.said(5)] == [NEAR, "some other remark", "final two"]
    assert values(tree, 2, 4, 6, 1, 0) == [1.0, 0.0, 0.6, 0.533333, 0.533333]
    assert eligible(tree) == [0, 1] and unlike_expanded(tree, eligible(tree)) == [1]


def test_the_second_goes_on_from_the_only_new_node_and_asks_for_the_rest_only():
    asked = []
    tree = grown(2, asked=asked)
    assert [rollout.origin for rollout in tree.rollouts] == [0, 0, 0, 1, 1, 1]
    assert [request.noise[2:] for request in asked if request.noise[2] >= 3] == [(3, 1), (4, 1), (5, 1), (3, 2), (5, 2)]
    assert texts(tree, tree.nodes[1].children) == ["b1 says wrong", "some other remark", ACCEPT, "yet another thing"]
    assert values(tree, 3, 2, 6, 7) == [0.8, 0.8, 0.4, 0.7] and values(tree, 1) == [0.475]
    assert values(grown(2, "rollouts"), 2, 6, 1, 0) == [0.8, 0.4, round(3.1 / 6, 6), round(3.1 / 6, 6)]
    assert unlike_expanded(tree, eligible(tree)) == [] and choose(tree, seed=5) == 0


def test_with_nothing_left_the_root_comes_again_and_near_words_are_passed_over():
    tree = grown(4)
    assert tree.expanded == [0, 1, 12] and [rollout.origin for rollout in tree.rollouts[6:]] == [0] * 3 + [12] * 3
    assert texts(tree, tree.nodes[0].children) == [FIRST, EDGE, "zzzz"]  # a distance of exactly 0.1 is no merger
    assert 9 in eligible(tree) and unlike_expanded(tree, eligible(tree)) == []  # within 0.25 of an expanded turn
    assert values(tree, 2, 1, 9, 13, 15, 16, 12) == [0.82, 0.48, 0.5, 0.9, 0.1, 0.8, 0.6]
    assert [node.visits for node in tree.nodes[:3]] == [12, 7, 3]


def test_exactly_the_right_pairs_come_out():
    tree = grown(4)
    assert set(rivals(tree)) == {(2, 4), (2, 6), (7, 4), (7, 6), (13, 15), (16, 15)}
    assert rivals(tree, "best_worst") == [(2, 4), (13, 15)]
    assert rivals(tree, threshold=0.9) == [] and rivals(tree, threshold=0.39, difference=0.35)[-3:] == [(6, 4), (13, 15), (16, 15)]
    kept = pairs_of(tree)
    assert [(pair.chosen["content"], pair.rejected["content"]) for pair in kept] == \
        [("remark ten", ACCEPT), ("b1 says wrong", "some other remark"), ("b1 says wrong", ACCEPT)]
    assert [pair.speaker for pair in kept] == ["critic"] * 3
    assert len(pairs_of(tree, "best_worst")) == 1 and len(pairs_of(tree, share=1.0)) == 6


def test_pairs_by_coin_are_as_many_of_any_siblings_and_either_turn_is_chosen():
    tree, drawn = grown(4), Counter()
    for seed in range(600):
        pairs = random_pairs(tree, len(pairs_of(tree)), seed)
        assert len(pairs) == 3 and pairs == random_pairs(tree, 3, seed)
        drawn.update((pair.chosen["content"], pair.rejected["content"]) for pair in pairs)
    assert len(drawn) == 2 * len(siblings(tree)) > 2 * len(rivals(tree)), "also siblings that are no rivals"
    assert all(45 < count < 110 for count in drawn.values()), "each of the 24 about 75 times"
    assert len(random_pairs(tree, 1000, 0)) == len(siblings(tree)) and random_pairs(tree, 0, 0) == []


def test_a_pair_carries_the_conversation_of_its_better_turn():
    pair = pairs_of(grown(4))[1]
    system, told = pair.conversation
    assert system == {"role": "system", "content": ENGLISH.systems["critic"]}
    assert FIRST in told["content"] and NEAR not in told["content"]  # the rejected turn answered NEAR
    assert pair.chosen == {"role": "assistant", "content": "b1 says wrong"} and isclose(pair.margin, 0.82)


@pytest.mark.parametrize("rollouts", [[("one", 0.9)], [("one", 0.9), ("three", 0.9)], [("one", 0.9), ("three", 0.7)],
                                      [("one", 0.4), ("three", 0.1)], [("one", 0.9), ("one", 0.1)], [("one", 0.9), ("", 0.1)],
                                      [("", 0.9), ("three", 0.1)]],
                         ids=["no sibling", "a tie", "just the difference", "just the threshold", "one and the same",
                              "a silent loser", "a silent winner"])
@pytest.mark.parametrize("which", ["all", "best_worst"])
def test_no_pair(rollouts, which):
    assert pairs_of(hung(*rollouts), which) == []


def test_a_turn_that_ended_its_own_dialogue_is_not_played_on_from():
    tree = hung(("one", "stop here and now", 0.5), ("one", "stop here and now!", "more of it", "the end", 0.9))
    assert len(tree.nodes) == 5 and eligible(tree) == [0, 1] and values(tree, 2) == [0.7]


def test_leaves_and_what_has_only_leaves_below_are_not_eligible():
    tree = hung(("one", "end", 0), ("one", "three", "two", "end", 0), ("seven", "end", 0))
    assert texts(tree, eligible(tree)) == ["", "one", "three"] and eligible(Tree("t", "debate")) == [0]


def test_what_could_not_be_judged_is_in_no_value_and_no_pair(tmp_path):
    code = "def f(): yield from g()  # " + "x" * 20
    tree = hung(("one", code, "end a", 0.9), ("one", "three", "end b", 0.2), ("one", "generators", "end c", None), ("one", "lambda x", None),
                ("seven", "eight", "nine", "end", None))
    assert [node.value for node in (tree.nodes[place] for place in (6, 8, 9))] == [None] * 3 and tree.nodes[0].visits == 2
    assert values(tree, 0, 1) == [0.55, 0.55], "a rollout that nobody could judge is not a wrong one"
    assert set(rivals(tree)) == {(2, 4)} and rivals(tree, "best_worst") == [(2, 4)] and rivals(tree, threshold=-9, difference=-9) == [(2, 4)]
    assert texts(tree, eligible(tree)) == ["", "one"], "nothing is expanded of which nothing is known"
    assert "?" in repr(tree) and "5 rollouts" in tree_figure(tree).alt
    write_trees(tmp_path / "trees.jsonl", [tree])
    assert read_trees(tmp_path / "trees.jsonl") == [tree]


def test_a_turn_is_learnt_in_words_that_could_be_judged():
    first = "m" * 40
    tree = hung((first, "end", None), (first[1:] + "k", "end", 0.9), (first[2:] + "kk", "end", 0.3), ("three", "end", 0.1))
    assert tree.text(1) == first[1:] + "k" and [pair.chosen["content"] for pair in pairs_of(tree)] == [first[1:] + "k"]
    assert values(tree, 1) == [0.6]


def test_a_tree_of_which_nothing_could_be_judged_grows_from_its_root():
    hold = partial(run_dialogues, engine=ScriptedEngine(lambda request: ROLLOUTS[request.noise[2]][request.noise[3]]), prompts=ENGLISH, max_rounds=1)
    tree, = grow_trees(TASKS[:1], hold, lambda done: [None] * len(done), paradigm="debate", expansions=3)
    assert tree.expanded == [0] and pairs_of(tree, threshold=-9, difference=-9) == [] and tree.nodes[0].value is None


def test_the_nearest_sibling_of_the_same_speaker_takes_a_turn():
    first = "m" * 40
    tree = hung(("k" + first[1:], 0), ("kkkkk" + first[5:], 0))
    assert twin(tree, 0, Message("proposer", "proposer", "kkkk" + first[4:])) == 2
    assert twin(tree, 0, Message("critic", "critic", "kkkk" + first[4:])) is None
    assert twin(tree, 0, Message("proposer", "proposer", "")) is None


def test_siblings_of_two_speakers_are_no_pair():
    tree = hung(("one", 0.0))
    add_rollout(tree, spoken("three", speakers=("critic",)), 1.0)
    back_propagate(tree)
    assert rivals(tree) == rivals(tree, "best_worst") == siblings(tree) == random_pairs(tree, 5, 0) == []


def test_the_ten_best_draw_lots_by_their_values():
    names = [letter * 8 for letter in "abcdefghijkl"]
    tree = hung(*((name, f"{name} then", f"{name} end", place / 4) for place, name in enumerate(names)))
    drawn = Counter(tree.text(choose(tree, seed)) for seed in range(4000))
    weights = [exp(place / 4) for place in range(2, 12)]
    assert set(drawn) == set(names[2:])
    for name, weight in zip(names[2:], weights):
        assert abs(drawn[name] / 4000 - weight / sum(weights)) < 0.03
    before = [choose(tree, seed) for seed in range(20)]
    add_rollout(tree, tree.rollouts[0].trajectory, 0.0)
    assert [choose(tree, seed) for seed in range(20)] != before


def model_trees(models, width, batch_size, tasks=TASKS):
    hold = partial(run_dialogues, engine=LocalEngine(*models, batch_size=batch_size), prompts=ENGLISH, width=width,
                   max_message_tokens=4, max_rounds=2)
    return grow_trees(tasks, hold, lambda done: [sum(map(ord, one.answer or one.messages[-1].content)) % 97 / 97 for one in done],
                      paradigm="debate", expansions=3, rollouts=2, seed=1)


def test_a_tree_is_the_same_whatever_grows_beside_it(tmp_path):
    model = make_model()
    model.config.max_position_embeddings = 4096
    models = model, make_tokenizer()
    trees = model_trees(models, 256, 16)
    assert any(len(tree.expanded) > 1 for tree in trees) and trees[0].rollouts != trees[1].rollouts
    assert model_trees(models, 1, 4) == trees and model_trees(models, 3, 8, TASKS[1:]) == trees[1:]
    write_trees(tmp_path / "trees.jsonl", trees)
    assert read_trees(tmp_path / "trees.jsonl") == trees
    for tree in trees:
        for rollout in tree.rollouts:
            before = tree.nodes[rollout.origin].depth
            assert rollout.trajectory.messages[:before] == list(tree.said(rollout.origin))
        assert tree.tokens <= sum(rollout.trajectory.tokens for rollout in tree.rollouts)


def test_what_cannot_be_grown_or_read_says_so(tmp_path):
    (tmp_path / "trees.jsonl").write_text('{"task": "t"}\n')
    with pytest.raises(OptimaError, match="line 1: not a tree"):
        read_trees(tmp_path / "trees.jsonl")
    with pytest.raises(OptimaError, match="unknown mean 'means'; choose one of: children, rollouts"):
        grown(1, "means")
    with pytest.raises(OptimaError, match="no pilot dialogues"):
        token_scale([])
    with pytest.raises(ValueError, match="zip"):
        grow_trees(TASKS, lambda asked: [spoken("one")] * len(asked), lambda done: [0.0], paradigm="debate")


def test_the_figure_stands_whatever_a_model_wrote():
    tree = hung(("$\\frac{", "a\nb <&>", 0.9), ("\\boxed{7$", "y", 0.1), ("x", "$$", 0.5))
    places = layout(tree)
    assert len(set(places.values())) == len(tree.nodes) == 7
    figure = tree_figure(tree)
    assert figure.svg == tree_figure(tree).svg and "a b &lt;&amp;&gt;" in figure.svg
    assert "3 rollouts, 6 turns on 2 levels, 1 nodes expanded, 3 pairs of turns" in figure.alt
