"The paper's conversations: who is told what, for any number of agents, and when they end."
import pytest

from optima.agents.formats import check, check_marked, read_marked
from optima.agents.messages import Message
from optima.agents.paradigms import Prompts, start
from optima.tasks.task import Task

WORDS = {name: "" for name in ("propose", "evaluate", "evaluate_again", "revise", "plan", "execute", "tool_result")}
PROMPTS = Prompts(
    systems={role: f"{role} {{name}} of {{partners}}" for role in ("partner", "solver", "adviser")}, strategies={}, **WORDS,
    solve="{passages} {question}", share="{passages} {question} {heard}", share_again="{heard}", advise="{question} {heard}",
    advise_again="{heard}", reconsider="{heard}", heard="{name}={message}", between=" ")
TASK = Task("t", "by_hand", "q", "a", passages=tuple(f"p{i}" for i in range(6)), supporting=(1, 4))


def play(paradigm, reply, **options):
    "A dialogue whose messages a function of their number writes; all messages, and the one that holds the answer."
    dialogue, systems = start(paradigm, TASK, PROMPTS, **options)
    messages, ask = [], next(dialogue)
    while True:
        messages.append(Message(ask.agent.name, ask.agent.role, reply(len(messages)), ask.text))
        try:
            ask = dialogue.send(messages[-1])
        except StopIteration as end:
            return messages, end.value, systems


@pytest.mark.parametrize("paradigm", ["exchange", "solver_critic"])
@pytest.mark.parametrize("agents", [2, 3, 4, 5])
def test_every_message_is_told_once_to_everybody_else(paradigm, agents):
    messages, _, systems = play(paradigm, lambda turn: f"m{turn}", agents=agents, max_rounds=4)
    assert len(messages) == 4 * agents and len(systems) == agents
    for name in systems:
        told = " ".join(message.prompt for message in messages if message.speaker == name)
        last = max(turn for turn, message in enumerate(messages) if message.speaker == name)
        others = [f"{message.speaker}=m{turn}" for turn, message in enumerate(messages[:last]) if message.speaker != name]
        assert [word for word in told.split() if "=" in word] == others


@pytest.mark.parametrize("agents", [2, 3, 4, 5, 6])
def test_passages_are_dealt_once_and_supporting_ones_apart(agents):
    dialogue, _ = start("exchange", TASK, PROMPTS, agents=agents)
    hands, ask = {}, next(dialogue)
    for _ in range(agents):
        hands[ask.agent.name] = ask.agent.passages
        ask = dialogue.send(Message(ask.agent.name, "partner", "nothing"))
    assert sorted(sum(hands.values(), ())) == sorted(TASK.passages)
    assert all(not {"p1", "p4"} <= set(hand) for hand in hands.values())


@pytest.mark.parametrize("agents", [2, 3, 5])
def test_an_exchange_ends_when_the_last_partner_agrees(agents):
    messages, final, _ = play("exchange", lambda turn: "<A>x</A>" if turn == 0 else "<A> X </A> yes", agents=agents)
    assert len(messages) == agents and final.answer == "X"


def test_a_partner_that_repeats_itself_does_not_end_an_exchange():
    messages, final, _ = play("exchange", lambda turn: "<A>x</A>" if turn % 2 == 0 else "no mark", max_rounds=3)
    assert len(messages) == 6 and final.answer == "x" and final.speaker == "alice"


def test_a_change_of_mind_counts():
    replies = ["<A>x</A>", "<A>y</A>", "<A>y</A>"]
    messages, final, _ = play("exchange", replies.__getitem__)
    assert len(messages) == 3 and final.answer == "y"


@pytest.mark.parametrize("agents", [1, 2, 3, 4])
def test_a_debate_ends_when_the_solver_repeats_itself(agents):
    messages, final, _ = play("solver_critic", lambda turn: "<A>7</A>" if turn % agents == 0 else "sure ?", agents=agents)
    assert len(messages) == agents + 1 and final.speaker == "solver" and final.answer == "7"


def test_a_single_solver_sees_every_passage():
    messages, final, systems = play("chain_of_thought", lambda turn: r"so \boxed{1}")
    assert len(messages) == 1 and final.answer == "1" and list(systems) == ["solver"]
    assert all(passage in messages[0].prompt for passage in TASK.passages)


@pytest.mark.parametrize("text, answer", [
    ("<A>x</A>", "x"), ("<A>x</A", "x"), ("<A>x", None), ("<A>a</A> <A>b</A>", "b"), (r"\boxed{a{b}c}", "a{b}c"),
    (r"\boxed{a", None), (r"\boxed{1} <A>2</A>", "2"), (r"<A>2</A> \boxed{1}", "1"), ("<A>two\nlines</A>", None),
    ("<A>" * 5000, None), (r"\boxed{" * 300, None)])
def test_marks_are_read_as_the_paper_reads_them(text, answer):
    fields = read_marked(text)
    assert fields.get("answer") == answer
    assert bool(check_marked(text)) == (answer is None or text in ("<A>a</A> <A>b</A>", r"\boxed{1} <A>2</A>", r"<A>2</A> \boxed{1}"))
    assert check("partner", text) == check_marked(text)
