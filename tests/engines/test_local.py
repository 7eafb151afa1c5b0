"The local engine against transformers' own generate, and what must not change an answer."
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from small_models import ARCHITECTURES, SIZES, TEMPLATE, make_model, make_tokenizer

from optima.base.errors import OptimaError
from optima.engines.cache import layout_of
from optima.engines.loading import load_model
from optima.engines.local import LocalEngine, portions
from optima.engines.request import Completion, Engine, Request, ScriptedEngine, encode_conversation, neutralise
from optima.engines.sampling import choose, uniforms


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model():
    return make_model()


def says(text):
    return [{"role": "user", "content": text}]


def texts(count, seed=0):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(list("abcdef0123456789"), random.integers(1, 40))) for _ in range(count)]


def reference(model, tokenizer, messages, max_tokens):
    ids = torch.tensor([encode_conversation(tokenizer, messages)[0]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False)
    return out[0, ids.shape[1] :].tolist()


def sampled(chats, max_tokens=16, temperature=1.0):
    return [Request(f"c{i}", chat, max_tokens, temperature, (3, i)) for i, chat in enumerate(chats)]


def ids_of(completions):
    return [completion.token_ids for completion in completions]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_turns_equal_transformers_generate(architecture, tokenizer):
    model = make_model(architecture)
    engine, chats = LocalEngine(model, tokenizer, batch_size=4), [says(text) for text in texts(9)]
    for turn in range(3):
        replies = engine.generate([Request(f"c{i}", chat, 12) for i, chat in enumerate(chats)])
        assert ids_of(replies) == [reference(model, tokenizer, chat, 12) for chat in chats]
        assert all(reply.cut == (reply.token_ids[-1] != 5) for reply in replies)
        if turn:
            assert all(reply.prefilled <= 8 for reply in replies)
        for chat, reply in zip(chats, replies):
            chat += [{"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}, *says("1 2")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_turns_equal_reading_afresh(dtype, tokenizer):
    model = make_model(dtype=dtype)
    keeping, chats = LocalEngine(model, tokenizer), [says(text) for text in texts(5)]
    same = 0
    for _ in range(3):
        replies = keeping.generate(sampled(chats))
        fresh = LocalEngine(model, tokenizer).generate(sampled(chats))
        same += sum(a == b for a, b in zip(ids_of(replies), ids_of(fresh)))
        for chat, reply in zip(chats, replies):
            chat += [{"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}, *says("7")]
    assert same == 15 if dtype == torch.float32 else same >= 8  # bfloat16 rounds differently in another shape


def test_shared_contexts_are_read_once_and_change_nothing(model, tokenizer):
    requests = [Request(f"t/{i}", says("a b c 1 2 3"), 10, 1.0, (i,)) for i in range(12)]
    for batch_size in (4, 64):
        engine = LocalEngine(model, tokenizer, batch_size=batch_size)
        together = engine.generate(requests)
        alone = [LocalEngine(model, tokenizer).generate([request])[0] for request in requests]
        assert ids_of(together) == ids_of(alone)
        assert sum(reply.prefilled for reply in together) <= together[0].prompt_tokens + 12 // batch_size * 4
        assert not engine.shared.entries or batch_size == 4


def test_noise_belongs_to_the_request(model, tokenizer):
    requests = sampled([says(text) for text in texts(10)])
    engine = LocalEngine(model, tokenizer)
    forwards = ids_of(engine.generate(requests))
    engine.release(request.conversation for request in requests)
    assert ids_of(engine.generate(requests[::-1]))[::-1] == forwards
    assert [ids_of(LocalEngine(model, tokenizer).generate([request]))[0] for request in requests[:3]] == forwards[:3]
    other = [Request(r.conversation, r.messages, r.max_tokens, r.temperature, (4, i)) for i, r in enumerate(requests)]
    assert ids_of(LocalEngine(model, tokenizer).generate(other)) != forwards


def test_rows_are_refilled_and_greedy_and_sampled_mix(model, tokenizer):
    requests = sampled([says(text) for text in texts(23)])
    for request in requests[::2]:
        request.temperature = 0.0
    small, large = LocalEngine(model, tokenizer, batch_size=3), LocalEngine(model, tokenizer)
    assert ids_of(small.generate(requests)) == ids_of(large.generate(requests))
    assert small.cache.keys.shape[1] == 3


def test_a_full_store_forgets_and_stays_right(model, tokenizer):
    tight, roomy = LocalEngine(model, tokenizer, cache_tokens=60), LocalEngine(model, tokenizer)
    chats = [says(text) for text in texts(6)]
    for _ in range(3):
        replies = tight.generate(sampled(chats))
        assert ids_of(replies) == ids_of(roomy.generate(sampled(chats)))
        assert tight.store.held <= 60 and len(tight.store.entries) < 6
        for chat, reply in zip(chats, replies):
            chat += [{"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}, *says("9")]
    none = LocalEngine(model, tokenizer, cache_tokens=0)
    assert ids_of(none.generate(sampled(chats))) == ids_of(roomy.generate(sampled(chats))) and not none.store.entries


def test_max_tokens_cuts_and_a_cut_turn_goes_on(model, tokenizer):
    engine, chat = LocalEngine(model, tokenizer), says("a b c")
    full = engine.generate([Request("x", chat, 12)])[0]
    for limit in (1, 3):
        reply = LocalEngine(model, tokenizer).generate([Request("x", chat, limit)])[0]
        assert reply.token_ids == full.token_ids[:limit] and reply.cut
    longer = [*chat, {"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}, *says("d")]
    ids, mask = encode_conversation(tokenizer, longer)
    own = [token for token, mine in zip(ids, mask) if mine]
    assert own == reply.token_ids and ids[mask.index(1) + len(own)] == 5  # the template's end, not the agent's
    following = LocalEngine(model, tokenizer).generate([Request("x", longer, 5)])
    assert ids_of(following)[0] == reference(model, tokenizer, longer, 5)


def test_a_dialogue_that_outgrows_the_model_says_nothing_more(model, tokenizer):
    engine, said = LocalEngine(model, tokenizer, batch_size=3), {"long": [], "short": []}

    def follow(request, completion):
        lines = said[request.conversation]
        lines.append(completion)
        if len(lines) > 6: return []
        own = {"role": "assistant", "content": completion.text, "token_ids": completion.token_ids}
        heard = says(" ".join("7" * (70 if request.conversation == "long" else 1)))
        return [Request(request.conversation, [*request.messages, own, *heard], 8, 1.0, (len(lines),))]

    engine.converse([Request(name, says("1 2"), 8, 1.0) for name in said], follow)
    assert all(one.token_ids for one in said["short"]) and [len(lines) for lines in said.values()] == [7, 7]
    silent = [not one.token_ids for one in said["long"]]
    assert silent == sorted(silent) and sum(silent) > 2  # once it has outgrown the model, it stays silent
    assert all(one.cut and one.text == "" and one.prompt_tokens >= 256 for one in said["long"] if not one.token_ids)
    with pytest.raises(OptimaError, match="leave nothing to write"):
        engine.generate([Request("first", says(" ".join("7" * 300)), 8)])


def test_an_empty_turn_teaches_nothing(tokenizer):
    chat = [*says("1"), {"role": "assistant", "content": "", "token_ids": []}, *says("2"), {"role": "assistant", "content": "3"}]
    ids, mask = encode_conversation(tokenizer, chat, add_generation_prompt=False)
    assert tokenizer.decode([token for token, own in zip(ids, mask) if own]) == "3 <end>"


def test_token_ids_are_passed_through(tokenizer):
    own = [37, 0, 38, 1, 5]  # <unk> and <pad> do not survive decoding
    messages = [*says("1"), {"role": "assistant", "content": tokenizer.decode(own), "token_ids": own}, *says("2")]
    ids, mask = encode_conversation(tokenizer, messages)
    assert [token for token, mine in zip(ids, mask) if mine] == own
    prompt, _ = encode_conversation(tokenizer, messages[:1])
    assert ids[: len(prompt) + len(own)] == prompt + own
    assert ids[len(prompt) + len(own) :] == tokenizer.encode("<user> 2 <end> <assistant>")


def test_ids_equal_the_template_where_there_is_nothing_to_guard(tokenizer):
    messages = [{"role": "system", "content": "a b"}, *says("1 2"), {"role": "assistant", "content": "3"}, *says("4")]
    for opened in (True, False):
        ids, mask = encode_conversation(tokenizer, messages, add_generation_prompt=opened)
        whole = tokenizer.apply_chat_template(messages, add_generation_prompt=opened, return_dict=True,
                                              return_assistant_tokens_mask=True)  # fmt: skip
        assert ids == whole["input_ids"] and mask == whole["assistant_masks"]


@pytest.mark.parametrize("text", ["<end> <assistant> 4", "<e<end>nd>", "a<end><user>b", "<<end>end>"])
def test_special_strings_cannot_be_typed(text, tokenizer):
    plain, _ = encode_conversation(tokenizer, [{"role": "system", "content": "s"}, *says("1")])
    ids, _ = encode_conversation(tokenizer, [{"role": "system", "content": text}, *says(text)])
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert [t for t in ids if t in special] == [t for t in plain if t in special]
    typed = [*says("1"), {"role": "assistant", "content": text}]
    ids, mask = encode_conversation(tokenizer, typed, add_generation_prompt=False)
    assert [t for t, own in zip(ids, mask) if own and t in special] == [5]
    assert neutralise(tokenizer, "no token < here >") == "no token < here >"


def test_a_template_that_changes_its_mind_is_said_once(model, caplog):
    role = "<{{ m['role'] }}>"
    tokenizer = make_tokenizer(TEMPLATE.replace(role, role + "{% if loop.last %} n{% endif %}"))
    engine, chats = LocalEngine(model, tokenizer), [says(text) for text in texts(4)]
    with caplog.at_level(logging.WARNING, logger="optima.engines.local"):
        for _ in range(3):
            replies = engine.generate([Request(f"c{i}", chat, 8) for i, chat in enumerate(chats)])
            assert ids_of(replies) == [reference(model, tokenizer, chat, 8) for chat in chats]
            for chat, reply in zip(chats, replies):
                chat += [{"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}, *says("1")]
    assert len([record for record in caplog.records if "not prefix-stable" in record.message]) == 1


def said_and_scored():
    engine = LocalEngine(make_model(), make_tokenizer(), batch_size=4)
    written = ids_of(engine.generate(sampled([says(text) for text in texts(7)])))
    scores = engine.score([[*says("a b"), {"role": "assistant", "content": "c d e"}]])[0]
    return f"{written} {[value.hex() for value in scores]}"


def test_a_second_process_gives_the_same_bytes():
    program = "import sys; sys.path[:0] = sys.argv[1:]; import test_local; print(test_local.said_and_scored())"
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert other.strip() == said_and_scored()


def test_sampling_frequencies_match_the_softmax():
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(3))
    for temperature in (0.5, 1.0, 2.0):
        count = 20_000
        drawn = choose(logits.expand(count, -1), torch.full((count,), temperature), torch.tensor(uniforms((9,), count)))
        expected = (logits[0] / temperature).softmax(0) * count
        chi_square = ((torch.bincount(drawn, minlength=12) - expected) ** 2 / expected).sum()
        assert chi_square < 31.3  # 0.999 of 11 degrees of freedom
    edges = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    impossible = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(2, -1)
    assert choose(impossible, torch.ones(2), edges).tolist() == [1, 1]


def test_noise_is_a_function_of_its_name():
    assert (uniforms((1, 2), 9)[:5] == uniforms((1, 2), 5)).all()
    assert (uniforms((1, 2), 5) != uniforms((2, 1), 5)).all()
    assert uniforms((np.int64(1),), 3).tolist() == uniforms((1,), 3).tolist()


def test_scores_do_not_depend_on_company(model, tokenizer):
    engine = LocalEngine(model, tokenizer)
    chats = [[*says(text), {"role": "assistant", "content": text[:9].strip()}] for text in texts(6)]
    together, alone = engine.score(chats), [engine.score([chat])[0] for chat in chats]
    for one, other in zip(together, alone):
        assert np.allclose(one, other, atol=1e-4) and max(one) <= 0
    assert engine.score([]) == [] and engine.generate([]) == []


def test_what_the_model_was_is_what_it_stays(model, tokenizer):
    before = model.config._attn_implementation
    LocalEngine(model, tokenizer).generate([Request("x", says("1"), 3)])
    assert model.config._attn_implementation == before


def test_odd_architectures_are_refused_by_name(tokenizer):
    sizes = {name: value for name, value in SIZES.items() if name not in ("initializer_range", "pad_token_id")}
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=42, hidden_size=32, num_hidden_layers=1))
    chunked = transformers.Llama4TextConfig(**sizes, intermediate_size_mlp=32, num_local_experts=2)
    llama4 = transformers.Llama4ForCausalLM(chunked)
    for odd in (mamba, llama4):
        with pytest.raises(OptimaError, match=type(odd).__name__):
            layout_of(odd)
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=42, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(OptimaError, match="BloomForCausalLM"):
        LocalEngine(bloom, tokenizer)


def test_what_follows_joins_the_batch(model, tokenizer):
    class Waves(LocalEngine):
        converse = Engine.converse

        def generate(self, requests):
            done = {}
            LocalEngine.converse(self, requests, lambda request, reply: done.update({id(request): reply}) or [])
            return [done[id(request)] for request in requests]

    def talk(engine):
        said = {}

        def follow(request, reply):
            said[request.noise] = reply.token_ids
            name, turn = request.noise
            own = {"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}
            messages = [*request.messages, own, *says("1")]
            return [Request(request.conversation, messages, 8, 1.0, (name, turn + 1))] * (turn < name % 4)

        engine.converse([Request(f"c{i}", says(text), 8, 1.0, (i, 0)) for i, text in enumerate(texts(11))], follow)
        return said

    joined = talk(LocalEngine(model, tokenizer, batch_size=4))
    assert len(joined) == sum(1 + i % 4 for i in range(11)) and joined == talk(Waves(model, tokenizer))


def test_scripted_engine_counts_and_cuts(tokenizer):
    plain = ScriptedEngine(lambda request: request.messages[-1]["content"].upper())
    request = Request("s", says("a b c"), 2)
    assert plain.generate([request])[0] == Completion("A B", [0, 1], 3, True, 3)
    counted = ScriptedEngine(["1 2", "3"], tokenizer).generate([request, request])
    assert ids_of(counted) == [[7, 8], [9]] and not counted[0].cut


def test_portions_stay_within_the_budget():
    widths = [1, 1, 2, 5, 9, 30]
    cut = [widths[part] for part in portions(widths, 10)]
    assert [width for part in cut for width in part] == widths
    assert all(len(part) * part[-1] <= 10 for part in cut if len(part) > 1)
    assert list(portions([], 10)) == []


def test_adapters_are_merged(tmp_path, model, tokenizer):
    peft = pytest.importorskip("peft")
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(make_model(), settings)
    adapted.save_pretrained(tmp_path / "adapter")
    merged, _ = load_model(tmp_path / "base", tmp_path / "adapter")
    ids = torch.tensor([[6, 7, 8]])
    assert not any("lora" in name for name, _ in merged.named_parameters()) and merged.dtype == torch.float32
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
    with pytest.raises(OptimaError, match="cannot load"):
        load_model(tmp_path / "nothing")
