"Paradigms: every path through the generators, what each role is shown, refusals, the plain call."
import pytest
from plugged import plug

from optima.agents.formats import SCHEMAS, check
from optima.agents.messages import Message
from optima.agents.paradigms import (
    ENGLISH,
    PARADIGMS,
    PLACEHOLDERS,
    Agent,
    Paradigm,
    Prompts,
    call_tool,
    debate_paradigm,
    describe_tools,
    fill,
    multi_step,
    start,
)
from optima.agents.strategies import PAPER_ENGLISH
from optima.base.errors import OptimaError
from optima.config.settings import load_settings
from optima.run.team import talk_settings
from optima.tasks.task import Task

TASK = Task("t", "b", "QUESTION", passages=["PASSAGE-1", "PASSAGE-2"])
WORDS = dict.fromkeys(PLACEHOLDERS, "")


def drive(dialogue, replies):
    "Messages and what the dialogue returned; replies must be used up exactly."
    messages, ask, replies = [], next(dialogue), iter(replies)
    while True:
        messages.append(Message(ask.agent.name, ask.agent.role, next(replies), ask.text))
        try: ask = dialogue.send(messages[-1])
        except StopIteration as end:
            assert next(replies, None) is None, "the dialogue ended early"
            return messages, end.value


def run(paradigm, *replies, **limits): return drive(start(paradigm, TASK, ENGLISH, **limits)[0], replies)


def names(messages): return [message.speaker for message in messages]


ACCEPT, REVISE = '{"verdict":"accept"}', '{"verdict":"revise"}'


def answer(text): return f'{{"answer":"{text}"}}'


def test_single():
    messages, final = run("single", answer("x"))
    assert names(messages) == ["solver"] and final is messages[0]


@pytest.mark.parametrize("replies, rounds, result", [
    ([answer("a"), ACCEPT], 5, "a"),
    ([answer("a"), REVISE, answer("b"), ACCEPT], 5, "b"),
    ([answer("a"), REVISE, answer("b")], 1, "b"),
    ([answer("a")], 0, "a"),
    ([answer("a"), "gibberish", answer("b"), "accept"], 5, "b"),
    ([answer("a"), *[REVISE, answer("b")] * 5], 5, "b"),
])
def test_debate(replies, rounds, result):
    messages, final = run("debate", *replies, max_rounds=rounds)
    assert final.answer == result and final.role == "proposer"
    assert names(messages) == (["proposer", "critic"] * 6)[:len(messages)]


def test_debate_shows_each_side_what_is_new():
    messages, _ = run("debate", answer("P1"), '{"say":"C1","verdict":"revise"}', answer("P2"), ACCEPT)
    first, judged, revised, again = (message.prompt for message in messages)
    assert "QUESTION" in first and "PASSAGE-2" in first
    assert all(word in judged for word in ("QUESTION", "PASSAGE-2", "P1"))
    assert "C1" in revised and "P1" not in revised and "QUESTION" not in revised
    assert "P2" in again and "P1" not in again and "QUESTION" not in again


def test_multi_step_shares_the_steps():
    messages, final = run("multi_step", '{"plan":["S1","S2","S3"]}', answer("A1"), answer("A2"), answer("A3"))
    assert names(messages) == ["planner", "executor_1", "executor_2", "executor_1"] and final.answer == "A3"
    assert "QUESTION" in messages[0].prompt and "PASSAGE" not in messages[0].prompt
    assert ENGLISH.nothing in messages[1].prompt and "S1" in messages[1].prompt
    assert all(word in messages[2].prompt for word in ("S2", "A1"))
    assert all(word in messages[3].prompt for word in ("S3", "A2")) and "PASSAGE" not in messages[3].prompt


def test_executors_are_dealt_the_passages():
    task = Task("t", "b", "QUESTION", passages=["P-1", "P-2", "P-3", "P-4"], supporting=(2, 0))
    messages, _ = drive(start("multi_step", task, ENGLISH)[0], ['{"plan":["S1","S2"]}', answer("A1"), answer("A2")])
    held = [{passage for passage in task.passages if passage in message.prompt} for message in messages]
    assert held[0] == set() and "P-3" in held[1] and "P-1" in held[2]
    assert held[1] | held[2] == set(task.passages) and not held[1] & held[2]


def test_multi_step_keeps_the_last_answer_there_is():
    messages, final = run("multi_step", '{"plan":["S1","S2","S3"]}', answer("A1"), "hm", answer("A3"))
    assert "A1" in messages[3].prompt and final.answer == "A3"


@pytest.mark.parametrize("plan", ["", "no plan", '{"plan":[]}', '{"plan":["", " "]}', '{"plan":{}}', '{"plan":'])
def test_no_plan_makes_the_question_the_step(plan):
    messages, _ = run("multi_step", plan, answer("A"))
    assert messages[1].prompt.count("QUESTION") == 2


def test_long_plans_are_cut_and_one_executor_does_all():
    messages, _ = run("multi_step", '{"plan":["1","2","3","4"]}', answer("A"), answer("B"), executors=1, max_steps=2)
    assert names(messages) == ["planner", "executor_1", "executor_1"]


def double(text):
    """Doubles a number.

    More that nobody needs to read."""
    return str(2 * int(text))


CALL = '{"tool":"double","input":"21"}'


def test_tools():
    messages, final = run("multi_step", '{"plan":["S"]}', CALL, answer("42"), tools={"double": double})
    assert messages[2].speaker == "executor_1" and "42" in messages[2].prompt and final.answer == "42"


def test_tool_calls_have_an_end():
    messages, final = run("multi_step", '{"plan":["S"]}', CALL, CALL, CALL, tools={"double": double})
    assert len(messages) == 4 and final.answer == ""


def test_an_answer_beats_a_tool_and_an_empty_tool_is_none():
    run("multi_step", '{"plan":["S"]}', '{"tool":"double","input":"1","answer":"2"}', tools={"double": double})
    run("multi_step", '{"plan":["S"]}', '{"tool":"","input":""}')


@pytest.mark.parametrize("content, words", [
    ('{"tool":"oracle","input":"1"}', "no tool oracle; tools: double"), ('{"tool":"double","input":"one"}', "an error: invalid literal"),
    ('{"tool":"double"}', "an error"), (CALL, "42")])
def test_call_tool(content, words):
    assert words in call_tool(Message("e", "executor", content), {"double": double}, ENGLISH)


def test_a_bug_in_a_tool_is_not_hidden():
    with pytest.raises(ZeroDivisionError): call_tool(Message("e", "executor", CALL), {"double": lambda text: 1 / 0}, ENGLISH)


def test_tools_are_described_to_executors_only():
    assert describe_tools({"double": double, "bare": lambda text: text}) == "double: Doubles a number.\nbare"
    _, systems = start("multi_step", TASK, ENGLISH, tools={"double": double})
    assert ["Doubles" in text for text in systems.values()] == [False, True, True]
    assert start("multi_step", TASK, ENGLISH)[1]["executor_1"] == ENGLISH.systems["executor"]


def test_fill_reads_no_placeholder_in_a_value():
    assert fill("{a} {b}", a="{b}", b="{a}") == "{b} {a}"
    assert fill('{"answer": {a}} {c}', a="1") == '{"answer": 1} {c}'
    assert fill("x\n{a}\ny {a}\nz", a="") == "x\ny \nz"
    assert fill("{a}\\1", a="\\g<0>") == "\\g<0>\\1"


def test_a_models_text_never_fills_a_template():
    messages, _ = run("debate", answer("{question}{passages}"), ACCEPT)
    assert "{question}{passages}" in messages[1].prompt


def test_start_keeps_the_strategy_out_of_the_system():
    for words, paradigms in ((ENGLISH, ("single", "debate", "multi_step")), (PAPER_ENGLISH, ["exchange", "solver_critic", "chain_of_thought"])):
        assert not any(text and text in system for text in words.strategies.values()
                       for paradigm in paradigms for system in start(paradigm, TASK, words)[1].values())


@pytest.mark.parametrize("make, words", [
    (lambda: PARADIGMS.get("debat"), "choose one of: debate"),
    (lambda: start("multi_step", TASK, ENGLISH, executors=0), "executors is 0"),
    (lambda: start("debate", TASK, ENGLISH, max_rounds=-1), "max_rounds is -1"),
    (lambda: start("multi_step", TASK, ENGLISH, max_steps=0), "max_steps is 0"),
    (lambda: start("debate", TASK, Prompts({"proposer": "p"}, {}, **WORDS)), "no system text for role 'critic'"),
    (lambda: Prompts({"judge": ""}, {}, **WORDS), "unknown role 'judge'"),
    (lambda: Prompts({}, {}, **{**WORDS, "solve": "{step}"}), "template 'solve': unknown placeholder 'step'"),
    (lambda: Prompts({}, {"none": "be brief"}, **WORDS), "'none' stands for no text"),
    (lambda: ENGLISH.strategy("terse"), "unknown strategy 'terse'"),
])
def test_refusals(make, words):
    with pytest.raises(OptimaError, match=words): make()


def test_english_covers_every_role_and_six_strategies():
    assert set(ENGLISH.systems) == set(SCHEMAS)
    texts = [text for name, text in ENGLISH.strategies.items() if name != "none"]
    assert len(set(texts)) == len(texts) >= 6 and all(texts) and ENGLISH.strategies["none"] == ""


def test_prompts_do_not_change_the_callers_table():
    strategies = {"terse": "be terse"}
    assert Prompts({}, strategies, **WORDS).strategy("none") == "" and strategies == {"terse": "be terse"}


def test_generators_are_independent():
    first, second = (start("debate", TASK, ENGLISH)[0] for _ in range(2))
    next(first), next(second)
    first.send(Message("proposer", "proposer", answer("one")))
    assert "two" in second.send(Message("proposer", "proposer", answer("two"))).text


def test_multi_step_needs_no_tools_argument():
    planner = Agent("planner", "planner", "", ENGLISH)
    messages, _ = drive(multi_step(TASK, planner, [Agent("e", "executor", "", ENGLISH)]), ['{"plan":["S"]}', CALL, answer("x")])
    assert "no tool double" in messages[2].prompt


def test_plain_call():
    heard = []

    def proposer(text):
        heard.append(text)
        return "Paris" if len(heard) == 1 else "The Hague"

    def critic(text): return "Accept." if "The Hague" in text else "revise"

    assert debate_paradigm(proposer, critic, "Where does the Dutch government sit?") == "The Hague"
    assert "Paris" in heard[1] and "revise" in heard[1] and heard[1].count("Dutch") == 1
    assert debate_paradigm(lambda text: answer("x"), lambda text: "never", TASK, max_rounds=3) == "x"


def test_the_schemas_in_the_prompts_are_the_ones_we_check():
    import json
    for role, text in ENGLISH.systems.items(): assert json.loads(text[text.index("{"):]) == SCHEMAS[role]
    assert check("executor", CALL) == []


@pytest.fixture
def mine(monkeypatch):
    "A paradigm of one's own, registered for one test."
    return plug(monkeypatch, PARADIGMS, "mine", PARADIGMS.get("debate"))


def test_a_registered_paradigm_is_known_to_all(mine):
    overrides = {"paradigm": "mine"}
    assert names(run("mine", answer("a"), ACCEPT)[0]) == ["proposer", "critic"]
    assert load_settings("untrained_debate", overrides=overrides).paradigm == "mine"
    other = Paradigm(mine.cast, PARADIGMS.get("single").run)
    assert PARADIGMS.add("mine", other) is PARADIGMS.get("mine")


def test_its_number_of_agents_decides_its_stages(mine):
    def key(paradigm, agents): return talk_settings(load_settings("untrained_debate", overrides={"paradigm": paradigm, "agents": agents}), [TASK])
    assert key("mine", 2) != key("mine", 3) and key("debate", 2) == key("debate", 3)


@pytest.mark.parametrize("name", ["single", "debate", "multi_step", "exchange", "solver_critic", "chain_of_thought", "by_task"])
def test_the_packages_paradigms_are_not_replaced(name):
    with pytest.raises(OptimaError, match="is a paradigm of the package"): PARADIGMS.add(name, PARADIGMS.get("single"))


def test_an_unknown_paradigm_is_no_setting():
    with pytest.raises(OptimaError, match="unknown value of paradigm: 'mine'; choose one of"): load_settings("untrained_debate", overrides={"paradigm": "mine"})
