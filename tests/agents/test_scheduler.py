"Many dialogues around one engine: order, errors, caches, and the same words whatever the width."
import random
from dataclasses import dataclass, replace

import pytest
from small_models import make_model, make_tokenizer

from optima.agents.paradigms import ENGLISH, Agent
from optima.agents.scheduler import Dialogue, Live, request_of, run_dialogues, stable_hash
from optima.base.errors import OptimaError
from optima.engines.local import LocalEngine
from optima.engines.request import ScriptedEngine
from optima.tasks.task import Task
from optima.toy.exchange_talk import PROMPTS as PAPER

TASKS = [Task(f"t{i}", "sums", " ".join(str((i + k) % 10) for k in range(5)), answer="1") for i in range(4)]
DIALOGUES = [Dialogue(task, "debate", sample=sample) for task in TASKS for sample in range(3)]
LIMITS = {"max_message_tokens": 10, "max_rounds": 2}


def to_dicts(trajectories):
    return [trajectory.to_dict() for trajectory in trajectories]


@pytest.fixture(scope="module")
def models():
    model = make_model()
    model.config.max_position_embeddings = 4096
    return model, make_tokenizer()


def test_width_and_batch_size_change_no_word(models):
    held = run_dialogues(DIALOGUES, LocalEngine(*models), ENGLISH, seed=3, **LIMITS)
    for width, batch_size in ((1, 4), (5, 3), (100, 8)):
        engine = LocalEngine(*models, batch_size=batch_size)
        other = run_dialogues(DIALOGUES, engine, ENGLISH, seed=3, width=width, **LIMITS)
        assert to_dicts(other) == to_dicts(held)
    assert [(held_.task, held_.sample) for held_ in held] == [(d.task.id, d.sample) for d in DIALOGUES]
    assert to_dicts(run_dialogues(DIALOGUES, LocalEngine(*models), ENGLISH, seed=4, **LIMITS)) != to_dicts(held)


def test_waves_and_the_running_batch_say_the_same(models):
    class Plain:
        "An engine that has generate and release only."

        def __init__(self):
            self.inner = LocalEngine(*models)
            self.generate, self.release = self.inner.generate, self.inner.release

    held = run_dialogues(DIALOGUES, LocalEngine(*models), ENGLISH, **LIMITS)
    assert to_dicts(run_dialogues(DIALOGUES, Plain(), ENGLISH, **LIMITS)) == to_dicts(held)


def test_samples_share_their_prompt_and_caches_are_let_go(models):
    engine = LocalEngine(*models, batch_size=16)
    held = run_dialogues([Dialogue(TASKS[0], "single", sample=i) for i in range(12)], engine, ENGLISH, **LIMITS)
    assert engine.counters["prefill_tokens"] <= held[0].prompt_tokens + 12
    assert not engine.store.entries and not engine.shared.entries


def test_tokens_and_chats_fit_what_training_reads(models):
    trajectory = run_dialogues(DIALOGUES[:1], LocalEngine(*models), ENGLISH, **LIMITS)[0]
    assert all(message.token_source == "engine" and len(message.token_ids) <= 10 for message in trajectory.messages)
    assert trajectory.prompt_tokens > 0 and trajectory.systems["critic"] == ENGLISH.systems["critic"]
    chat = trajectory.conversation("proposer")
    assert [message["role"] for message in chat[:3]] == ["system", "user", "assistant"] and chat[2]["token_ids"]


def test_an_agent_sees_its_own_chat_only():
    seen = {}

    def script(request):
        seen.setdefault(request.conversation.rsplit("/")[-1], []).append(request.messages)
        return '{"verdict": "revise"}' if request.conversation.endswith("critic") else '{"answer": "secret"}'

    run_dialogues(DIALOGUES[:1], ScriptedEngine(script), ENGLISH, max_rounds=2)
    assert len(seen["proposer"]) == 3 and len(seen["critic"]) == 2
    first, second = seen["critic"]
    assert second[: len(first)] == first and second[len(first)]["content"] == '{"verdict": "revise"}'
    assert "secret" in first[1]["content"] and "revise" not in first[1]["content"]


def test_noise_is_named_by_seed_task_sample_and_turn():
    @dataclass
    class Ask:
        agent: Agent
        text: str

    agent = Agent("solver", "single", "", ENGLISH)
    live = Live(0, Dialogue(TASKS[1], "single", sample=7), iter([]), {"solver": ""}, "", ask=Ask(agent, "1"))
    assert request_of(live, 5, 1.0, 9).noise == (5, stable_hash("t1"), 7, 0)
    assert stable_hash("t1") == 8856836013881396066
    assert live.chats["solver"] == [{"role": "user", "content": "1"}]


def test_a_prefix_is_played_again_token_for_token(models):
    class Recorded(LocalEngine):
        "An engine that keeps what it was asked."

        def converse(self, requests, follow):
            def keep(request, completion):
                self.asked[request.noise] = (request.conversation.split("/", 1)[1], request.messages)
                return follow(request, completion)

            self.asked = {}
            super().converse(requests, keep)

    engine = Recorded(*models)
    held = run_dialogues(DIALOGUES, engine, ENGLISH, seed=3, **LIMITS)
    asked = engine.asked
    assert {len(trajectory.messages) for trajectory in held} >= {5}
    assert all(turn["token_ids"] for _, chat in asked.values() for turn in chat if turn["role"] == "assistant")
    for cut in (1, 2, 4):
        begun = [replace(dialogue, prefix=tuple(trajectory.messages[:cut])) for dialogue, trajectory in zip(DIALOGUES, held)]
        assert to_dicts(run_dialogues(begun, engine, ENGLISH, seed=3, width=7, **LIMITS)) == to_dicts(held)
        assert engine.asked == {noise: value for noise, value in asked.items() if noise[3] >= cut}
    whole = [replace(DIALOGUES[0], prefix=tuple(held[0].messages))]
    assert to_dicts(run_dialogues(whole, engine, ENGLISH, seed=3, **LIMITS)) == to_dicts(held[:1]) and not engine.asked
    assert not engine.store.entries


@pytest.mark.parametrize("paradigm", ["single", "debate", "multi_step", "exchange", "solver_critic", "chain_of_thought"])
def test_every_paradigm_goes_on_from_any_of_its_turns(paradigm):
    said = ['{"verdict": "revise"}', '{"plan": ["a", "b"]}', '{"tool": "upper", "input": "x"}', '{"answer": "1"}', "<A>1</A>", "<A>2</A>", "hm"]
    script = ScriptedEngine(lambda request: random.Random(str(request.noise)).choice(said))
    settings = {"seed": 2, "max_rounds": 3, "tools": {"upper": str.upper}}
    task = replace(TASKS[0], passages=("one", "two", "three"))
    dialogues = [Dialogue(task, paradigm, sample=sample) for sample in range(12)]
    prompts = PAPER if paradigm in ("exchange", "solver_critic", "chain_of_thought") else ENGLISH
    held = run_dialogues(dialogues, script, prompts, **settings)
    for cut in range(1, max(len(trajectory.messages) for trajectory in held) + 1):
        begun = [replace(dialogue, prefix=tuple(trajectory.messages[:cut])) for dialogue, trajectory in zip(dialogues, held)]
        assert to_dicts(run_dialogues(begun, script, prompts, **settings)) == to_dicts(held)


def test_a_prefix_of_something_else_is_refused():
    script = ScriptedEngine(lambda request: '{"verdict": "accept"}')
    held = run_dialogues(DIALOGUES[:1], script, ENGLISH)[0].messages
    for wrong in ((held[1],), (replace(held[0], prompt="another"),), (*held, held[0])):
        with pytest.raises(OptimaError, match=f"sums/t0/debate/none/0: turn {len(wrong)} of the prefix"):
            run_dialogues([replace(DIALOGUES[0], prefix=wrong)], script, ENGLISH)


def test_errors_carry_the_dialogue():
    def broken(request):
        raise OptimaError("the script is broken")

    def buggy(number):
        raise ZeroDivisionError("bug")

    call = '{"tool": "divide", "input": "1"}'
    planned = ScriptedEngine(lambda request: '{"plan": ["a"]}' if request.conversation.endswith("planner") else call)
    with pytest.raises(ZeroDivisionError) as caught:
        run_dialogues([Dialogue(TASKS[2], "multi_step")], planned, ENGLISH, tools={"divide": buggy})
    assert any("sums/t2/multi_step" in note for note in caught.value.__notes__)
    with pytest.raises(OptimaError, match="the script is broken"):
        run_dialogues(DIALOGUES[:1], ScriptedEngine(broken), ENGLISH)
    with pytest.raises(OptimaError, match="unknown strategy 'ters'"):
        run_dialogues([Dialogue(TASKS[0], "debate", "ters")], planned, ENGLISH)
    with pytest.raises(OptimaError, match="width=0"):
        run_dialogues(DIALOGUES, planned, ENGLISH, width=0)


def test_on_done_hears_of_each_once():
    ended = []
    script = ScriptedEngine(lambda request: '{"verdict": "accept", "answer": "1"}')
    held = run_dialogues(DIALOGUES, script, ENGLISH, width=2, on_done=ended.append)
    assert sorted(map(id, ended)) == sorted(map(id, held)) and len(held) == 12
    assert run_dialogues([], script, ENGLISH) == []
    assert all(message.token_source == "tokenizer" for message in held[0].messages)
