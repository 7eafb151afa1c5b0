"The model families that people train: each one's architecture, shrunk, and a chat template in its manner, through the whole path."
import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from optima.agents.messages import Message, Trajectory
from optima.base.errors import OptimaError
from optima.engines.loading import fitting_dtype, load_model, source
from optima.engines.local import LocalEngine
from optima.engines.request import Request, encode_conversation, fitted
from optima.train.dpo import train_preferences
from optima.train.examples import examples_of
from optima.train.pairs import Pair
from optima.train.sft import train_adapter

LETTERS = [*"0123456789abcdefghijklmnopqrstuvwxyz{}:,", "think", "model", "system", "user", "assistant"]
SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.3, "bos_token_id": None, "pad_token_id": None,
}  # fmt: skip
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m['role'] }}<|tail|> {{ m['content'] | trim }}<|turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|tail|> {% endif %}"
)
QWEN = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
THINKING = (  # shows an empty thought in the last answer only, and where no thinking is asked for: not prefix-stable
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last %}<|think|> <|/think|> "
    "{% endif %}{{ m['content'] }}<|turn|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<|think|> <|/think|> {% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>model\n{% endif %}"
)
MISTRAL = (  # the system prompt stands before the last question: not prefix-stable
    "{{ bos_token }}{% set told = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}<|inst|> {% if loop.last or (loop.nextitem is defined and "
    "loop.revindex == 2) %}{{ told }} {% endif %}{{ m['content'] }}<|/inst|>{% elif m['role'] == 'assistant' %} "
    "{{ m['content'] }}<|turn|>{% endif %}{% endfor %}"
)
FAMILIES = {  # name: architecture, what its configuration adds, template
    "llama3": ("Llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                                             "high_freq_factor": 4.0, "original_max_position_embeddings": 128}}, LLAMA),
    "llama32": ("Llama", {"tie_word_embeddings": True}, LLAMA),
    "qwen25": ("Qwen2", {"tie_word_embeddings": True}, QWEN),
    "qwen3": ("Qwen3", {}, THINKING),
    "gemma": ("Gemma", {}, GEMMA),
    "gemma2": ("Gemma2", {"sliding_window": 64, "query_pre_attn_scalar": 16}, GEMMA),
    "gemma3": ("Gemma3", {"sliding_window": 64, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}, GEMMA),
    "mistral": ("Mistral", {"sliding_window": None}, MISTRAL),
    "mistral_sliding": ("Mistral", {"sliding_window": 64}, MISTRAL),
}
SPECIAL = ["<s>", "<|turn|>", "<|head|>", "<|tail|>", "<|start|>", "<|inst|>", "<|/inst|>", "<|think|>", "<|/think|>"]
pytestmark = pytest.mark.usefixtures("one_thread")
each_family = pytest.mark.parametrize("family", FAMILIES)


def make_tokenizer(template):
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *LETTERS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="<|turn|>")
    made.add_tokens([AddedToken(text, special=True) for text in SPECIAL], special_tokens=True)
    made.chat_template = template
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Each family's model, made when it is first asked for."
    made = {}

    def folder(family):
        if family not in made:
            name, more, template = FAMILIES[family]
            tokenizer, config = make_tokenizer(template), getattr(transformers, f"{name}{'Text' if name == 'Gemma3' else ''}Config")
            torch.manual_seed(2)
            sizes = SIZES | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
            made[family] = tmp_path_factory.mktemp(family) / "base"
            getattr(transformers, f"{name}ForCausalLM")(config(**sizes | more)).save_pretrained(made[family])
            tokenizer.save_pretrained(made[family])
        return made[family]

    return folder


CHAT = [{"role": "system", "content": "m p"}, {"role": "user", "content": "1 2 3"}]


def held(engine, turns=3, max_tokens=8):
    "A chat of some turns: the messages, and the context and reply of each turn as the engine saw them."
    chat, seen = list(CHAT), []
    for turn in range(turns):
        reply = engine.generate([Request("c", chat, max_tokens, 1.0, (turn,))])[0]
        seen.append((encode_conversation(engine.tokenizer, chat)[0], reply.token_ids))
        chat += [{"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}, {"role": "user", "content": "7"}]
    return chat[:-1], seen


@each_family
def test_a_turn_is_trained_on_in_the_context_in_which_it_was_written(family, folders):
    engine = LocalEngine(*load_model(folders(family)))
    chat, seen = held(engine)
    ids, mask = encode_conversation(engine.tokenizer, chat, add_generation_prompt=False)
    context, reply = seen[-1]
    assert ids[:len(context) + len(reply)] == [*context, *reply]
    own = [token for token, mine in zip(ids, mask) if mine]
    assert own[-len(reply):] == reply or own[-len(reply) - 1:] == [*reply, engine.tokenizer.eos_token_id]
    told = engine.tokenizer.decode([token for token, mine in zip(ids, mask) if not mine]).replace(" ", "")
    assert "mp" in told and "123" in told and told.count("7") == 2  # the system prompt and the questions are there, whatever the template takes


@each_family
def test_turns_equal_transformers_generate(family, folders):
    model, tokenizer = load_model(folders(family))
    engine, chat = LocalEngine(model, tokenizer), list(CHAT)
    for _ in range(3):
        ids = torch.tensor([encode_conversation(tokenizer, chat)[0]])
        reply = engine.generate([Request("c", chat, 8)])[0]
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert reply.token_ids == theirs[0, ids.shape[1]:].tolist()
        chat += [{"role": "assistant", "content": reply.text, "token_ids": reply.token_ids}, {"role": "user", "content": "7"}]


def trajectories(engine, count=4):
    "A few dialogues of one agent with itself."
    made = []
    for number in range(count):
        reply = engine.generate([Request(f"c{number}", CHAT, 6, 1.0, (number,))])[0]
        message = Message("proposer", "proposer", reply.text, "1 2 3", reply.token_ids)
        made.append(Trajectory(f"t{number}", "debate", "none", 0, [message], "", {"proposer": "m p"}))
    return made


@each_family
@pytest.mark.parametrize("quantization", ["nf4", "nf4_double", "none"])
def test_an_adapter_is_trained_saved_loaded_and_merged(family, quantization, folders, tmp_path):
    folder = folders(family)
    model, tokenizer = load_model(folder)
    examples = examples_of(trajectories(LocalEngine(model, tokenizer)), tokenizer)
    log = train_adapter(folder, examples, tmp_path / "adapter", seed=0, steps=3, learning_rate=1e-2, rank=4, alpha=8,
                        quantization=quantization)
    assert log["loss"][-1] < log["loss"][0] and log["label_tokens"][0] > 0
    check_merged(folder, tmp_path / "adapter", examples[0].input_ids)


def check_merged(folder, adapter, ids):
    "The adapter, read again, says the same beside its base and merged into it, and something else than the base."
    from peft import PeftModel

    (plain, tokenizer), (merged, _) = load_model(folder), load_model(folder, adapter)
    beside = PeftModel.from_pretrained(load_model(folder)[0], adapter).eval()
    with torch.no_grad():
        before, with_adapter, after = (each(input_ids=torch.tensor([ids])).logits for each in (plain, beside, merged))
    assert torch.allclose(with_adapter, after, atol=1e-3, rtol=1e-3) and not torch.allclose(before, after, atol=1e-2)
    assert LocalEngine(merged, tokenizer).generate([Request("c", CHAT, 4)])[0].token_ids


def sampled_pairs(engine, count=4):
    "At the second turn of a dialogue, two turns that the model itself says when it is heated until they differ."
    made = []
    for number in range(count):
        first, *turns = [engine.generate([Request(f"{number}/{noise}", CHAT, 6, 8.0, (number, noise))])[0] for noise in range(3)]
        spoken = [{"role": "assistant", "content": one.text, "token_ids": one.token_ids} for one in (first, *turns)]
        made.append(Pair(f"t{number}", "alice", [*CHAT, spoken[0], {"role": "user", "content": "7"}], *spoken[1:], 0.9, 0.4))
    return made


@each_family
def test_pairs_are_learnt_from_an_adapter_on(family, folders, tmp_path):
    folder = folders(family)
    engine, settings = LocalEngine(*load_model(folder)), {"seed": 0, "learning_rate": 1e-2, "rank": 4, "alpha": 8}
    pairs = sampled_pairs(engine)
    train_adapter(folder, trajectories(engine), tmp_path / "first", steps=1, **settings)
    log = train_preferences(folder, pairs, tmp_path / "second", steps=3, start_adapter=tmp_path / "first", **settings)
    assert abs(log["margin"][0]) < 1e-3 < log["margin"][-1] and log["loss"][-1] < log["loss"][0]
    ids, _ = encode_conversation(engine.tokenizer, pairs[0].conversation)
    check_merged(folder, tmp_path / "second", ids)


def test_what_a_template_takes_is_left_alone():
    two = [*CHAT, {"role": "user", "content": "4 5"}]
    assert fitted(make_tokenizer(LLAMA), two) == two
    assert fitted(make_tokenizer(GEMMA), two) == [{"role": "user", "content": "m p\n\n1 2 3\n\n4 5"}]
    silent = "{% for m in messages %}{% if m['role'] != 'system' %}[{{ m['content'] }}]{% endif %}{% endfor %}"
    assert fitted(make_tokenizer(silent), CHAT) == [{"role": "user", "content": "m p\n\n1 2 3"}]


@pytest.mark.parametrize("device, bfloat16, expected", [("cpu", False, "float32"), ("cuda", True, "bfloat16"), ("cuda", False, "float16")])
def test_the_type_is_chosen_by_what_the_device_has(device, bfloat16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    assert fitting_dtype(device)[0] == expected


def test_the_type_and_its_reason_are_logged(folders, caplog):
    with caplog.at_level("INFO", logger="optima.engines.loading"):
        load_model(folders("llama3"))
        load_model(folders("llama3"), dtype="bfloat16")
    said = [record.getMessage() for record in caplog.records]
    assert "float32" in said[0] and "fastest" in said[0] and "the settings say so" in said[1]


def test_a_hub_name_may_name_a_revision(tmp_path):
    assert source("owner/name@v1.2") == ("owner/name", {"revision": "v1.2"}) and source("owner/name") == ("owner/name", {})
    assert source(tmp_path) == (str(tmp_path), {})


@pytest.mark.parametrize("name", ["owner/no-such-model", "owner/no-such-model@main"])
def test_a_model_that_cannot_be_had_is_one_clear_line(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OptimaError, match=f"cannot load a model from {name}: .*give a folder with config.json"):
        load_model(name)
