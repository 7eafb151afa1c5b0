"An adapter per role on one base: every turn as if that role's adapter had been merged, whoever spoke before."
import pytest
import torch
from peft import LoraConfig, get_peft_model

from optima.agents.paradigms import Prompts
from optima.agents.scheduler import Dialogue, run_dialogues
from optima.base.errors import OptimaError
from optima.config.models import toy_base
from optima.engines.adapters import RoleEngine, role_of
from optima.engines.loading import load_model
from optima.engines.local import LocalEngine
from optima.engines.request import Request
from optima.tasks.catalogue import get_benchmark
from optima.toy.talk import TOY_PROMPTS


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    made = {}
    for seed, role in enumerate(("proposer", "critic")):
        torch.manual_seed(seed)
        settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        made[role] = tmp_path_factory.mktemp(role)
        get_peft_model(load_model(toy_base(0))[0], settings).save_pretrained(made[role])
    return made


def test_turns_are_written_as_if_each_adapter_were_merged(adapters):
    roles = ("proposer", "critic", "executor_1")
    apart = {role: LocalEngine(*load_model(toy_base(0), adapters.get(role))) for role in roles}
    together = RoleEngine(toy_base(0), adapters, batch_size=4)
    chats = {(role, number): [{"role": "user", "content": f"sum {number} 3"}] for number in range(3) for role in roles}
    for turn in range(3):
        asked = [Request(f"t/{number}/{role}", list(chat), 10, float(turn % 2), (turn, number)) for (role, number), chat in chats.items()]
        replies = together.generate(asked)
        for request, (role, _), reply in zip(asked, chats, replies):
            assert reply.token_ids == apart[role].generate([request])[0].token_ids
            if turn: assert reply.prefilled < reply.prompt_tokens / 2  # what the role said before was kept
        for chat, reply in zip(chats.values(), replies):
            chat += [{"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}, {"role": "user", "content": "more"}]


def test_roles_change_what_a_team_says(adapters):
    tasks = get_benchmark("toy_math").tasks("development", 4)
    def held(engine): return run_dialogues([Dialogue(task, "debate") for task in tasks], engine, Prompts(**TOY_PROMPTS), temperature=0.0, max_message_tokens=24)
    plain, team = held(LocalEngine(*load_model(toy_base(0)))), held(RoleEngine(toy_base(0), adapters))
    assert [one.messages[0].content for one in plain] != [one.messages[0].content for one in team]
    alone = held(RoleEngine(toy_base(0), {"critic": adapters["critic"]}))
    assert [one.messages[0].content for one in plain] == [one.messages[0].content for one in alone]


def test_a_role_is_read_off_the_key():
    assert [role_of(key) for key in ("a/0/critic", "a/b/2/executor_12", "solver")] == ["critic", "executor", "solver"]
    with pytest.raises(OptimaError, match="use LocalEngine"):
        RoleEngine(toy_base(0), {})
