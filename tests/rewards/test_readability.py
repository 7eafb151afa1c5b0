"The paper's reward: R_loss against the model's own logits, the worst turn, siblings, and the numbers of equation 1."
import random

import pytest

from optima.agents.messages import Message, Trajectory
from optima.base.errors import OptimaError
from optima.base.files import canonical_json
from optima.rewards.readability import paper_reward, rank_like_the_paper, readability_losses, token_share, turn_losses
from optima.tasks.task import Task

TASK = Task("nile/1", "b", "q", answer="Nile")
OTHER = Task("mire/1", "b", "q", answer="Mire", metric="f1")


@pytest.fixture(scope="module")
def engine(one_thread):
    from optima.config.models import toy_base
    from optima.engines.loading import load_model
    from optima.engines.local import LocalEngine

    return LocalEngine(*load_model(toy_base(0)))


def turn(speaker, content, ids=(), prompt="boss ana ben", **about):
    return Message(speaker, speaker, content, prompt, list(ids), **about)


def dialogue(*turns, task="nile/1", answer="Nile", sample=0):
    systems = {"proposer": "you propose", "critic": "you judge"}
    return Trajectory(task, "debate", "none", sample, list(turns), answer, systems)


def talk():
    return dialogue(turn("proposer", "boss ana ben . city ben"), turn("critic", "city ben nora", prompt="they say ben"),
                    turn("proposer", "nora nora", prompt="city ben nora"))


def long(tokens, **about):
    return dialogue(turn("proposer", "", [0] * tokens), **about)


def mean_loss(engine, words, own):
    "The mean loss of the last `own` of some words, straight from the model's logits."
    import torch

    ids = torch.tensor([engine.tokenizer.convert_tokens_to_ids(words.split())])
    with torch.no_grad():
        chances = engine.model(ids).logits[0].double().log_softmax(-1)
    return -sum(chances[at - 1, ids[0, at]].item() for at in range(ids.shape[1] - own, ids.shape[1])) / own


def by_hand(engine):
    first = "<system> you propose <end> <user> boss ana ben <end> <assistant> boss ana ben . city ben <end>"
    critic = "<system> you judge <end> <user> they say ben <end> <assistant> city ben nora <end>"
    second = f"{first} <user> city ben nora <end> <assistant> nora nora <end>"
    return [mean_loss(engine, first, 7), mean_loss(engine, second, 3), mean_loss(engine, critic, 4)]


def test_each_turn_is_scored_after_the_prompt_the_task_and_the_history(engine):
    chats = [talk().conversation(speaker) for speaker in ("proposer", "critic")]
    (first, second), (critic,) = turn_losses(engine, chats)
    assert [first, second, critic] == pytest.approx(by_hand(engine), rel=1e-4)


def test_the_worst_turn_counts(engine):
    losses = by_hand(engine)
    assert readability_losses(engine, [talk()]) == pytest.approx([max(losses)], rel=1e-4)
    assert max(losses) > 1.2 * sorted(losses)[1]


def test_a_message_alone_is_scored_after_nothing(engine):
    alone = [mean_loss(engine, f"<assistant> {text} <end>", len(text.split()) + 1)
             for text in ("boss ana ben . city ben", "city ben nora", "nora nora")]
    assert readability_losses(engine, [talk()], conditioned=False) == pytest.approx([max(alone)], rel=1e-4)


def test_sampled_ids_are_scored_as_they_are_and_a_cut_turn_without_an_end(engine):
    ids = engine.tokenizer.convert_tokens_to_ids(["nora", "ben"])
    told = "<system> you propose <end> <user> boss ana ben <end> <assistant> nora ben"
    cut = dialogue(turn("proposer", "nora ben", ids, cut=True))
    whole = dialogue(turn("proposer", "nora ben", [*ids, engine.tokenizer.eos_token_id]))
    wanted = [mean_loss(engine, told, 2), mean_loss(engine, f"{told} <end>", 3)]
    assert readability_losses(engine, [cut, whole]) == pytest.approx(wanted, rel=1e-4)


def test_a_loss_depends_on_its_dialogue_only(engine):
    rng, words = random.Random(0), ("boss", "ana", "ben", "city", "nora", ".", "they", "say")
    made = [dialogue(*(turn(speaker, " ".join(rng.choices(words, k=rng.randint(1, 20)))) for speaker in ("proposer", "critic")))
            for _ in range(12)]
    order = rng.sample(range(12), 12)
    straight, mixed = readability_losses(engine, made), readability_losses(engine, [made[at] for at in order])
    assert mixed == pytest.approx([straight[at] for at in order], rel=1e-4)
    assert readability_losses(engine, made[3:4]) == pytest.approx(straight[3:4], rel=1e-4)


def test_turns_without_tokens_are_passed_over(engine):
    heard = talk()
    heard.messages.append(turn("critic", "", prompt="nora nora", cut=True))
    assert readability_losses(engine, [heard, dialogue(turn("proposer", "", cut=True)), dialogue()]) == [
        pytest.approx(max(by_hand(engine)), rel=1e-4), None, None]
    assert readability_losses(engine, []) == []


@pytest.mark.parametrize("task, tokens, most, loss, weights, wanted", [
    (1.0, 30, 120, 2.0, (0.6, 1.0), 1 - 0.15 + 0.5), (0.0, 120, 120, 4.0, (0.6, 1.0), -0.6 + 0.25),
    (0.5, 60, 120, 0.5, (0.4, 0.9), 0.5 - 0.2 + 1.8), (1.0, 180, 120, 1.0, (0.5, 0.7), 1 - 0.75 + 0.7),
    (1.0, 30, 120, 2.0, (0.0, 1.0), 1.5), (1.0, 30, 120, 2.0, (0.6, 0.0), 0.85), (0.0, 0, 0, None, (0.6, 1.0), 0.0)])
def test_equation_1(task, tokens, most, loss, weights, wanted):
    assert paper_reward(task, tokens, most, loss, *weights) == pytest.approx(wanted)


def test_a_model_that_is_certain_earns_a_finite_reward():
    assert paper_reward(0.0, 0, 1, 0.0) == paper_reward(0.0, 0, 1, -1e-9) == 2.0**23
    assert paper_reward(1.0, 0, 1, 0.0, loss_weight=0.0) == 1.0


def test_lengths_are_shares_of_the_longest_sibling():
    held = [long(30), long(120, sample=1), long(50, task="mire/1", answer="the Mire river"), long(0, task="none/1", answer="")]
    tasks = {task.id: task for task in (TASK, OTHER, Task("none/1", "b", "q", answer="x"))}
    rank_like_the_paper(tasks, held, [2.0, 4.0, 1.0, None], 0.6, 1.0, "f1")
    assert [one.rewards["tokens"] for one in held] == [0.25, 1.0, 1.0, 0.0]
    assert [one.rewards["total"] for one in held] == pytest.approx([1.35, 0.65, 2 / 3 - 0.6 + 1, 0.0])
    assert held[1].rewards == {"task": 1.0, "tokens": 1.0, "loss": 4.0, "total": pytest.approx(0.65), "status": "ok"}
    assert '"loss":null' in canonical_json(held[3].rewards)


def test_the_order_of_dialogues_does_not_matter():
    rng = random.Random(1)
    held = [long(rng.randint(1, 200), task=rng.choice(("nile/1", "mire/1")), answer="Nile", sample=at) for at in range(20)]
    losses, tasks = [rng.uniform(0.1, 4) for _ in held], {"nile/1": TASK, "mire/1": OTHER}
    rank_like_the_paper(tasks, held, losses)
    before, order = [one.rewards for one in held], rng.sample(range(20), 20)
    rank_like_the_paper(tasks, [held[at] for at in order], [losses[at] for at in order])
    assert [one.rewards for one in held] == before


def test_a_scale_takes_the_siblings_place_and_shares_may_pass_one():
    held = [long(30), long(120, sample=1)]
    rank_like_the_paper({"nile/1": TASK}, held, [2.0, 2.0], scale=60)
    assert [one.rewards["tokens"] for one in held] == [0.5, 2.0] and token_share(120, 60) == 2.0
    with pytest.raises(OptimaError, match="scale is 0"):
        rank_like_the_paper({"nile/1": TASK}, held, [2.0, 2.0], scale=0)


def test_a_missing_loss_or_task_is_no_zero():
    with pytest.raises(ValueError, match="zip"):
        rank_like_the_paper({"nile/1": TASK}, [long(3), long(4)], [2.0])
    with pytest.raises(OptimaError, match="task 'nile/1': no task of this id"):
        rank_like_the_paper({}, [long(3)], [2.0])
