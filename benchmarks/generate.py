"""Tokens per second of the local engine on scripted debates, against transformers' generate; CPU time of one thread.

python benchmarks/generate.py [--dialogues 256] [--batch 64 128 256]

Every agent's prompts and the length of every reply are fixed beforehand, so that each way does the same work: an
opening of 60-100 tokens, then 4 turns of 5-40 generated tokens, each answered by 10-30 new ones. The weights are
random, and shaped like the toy world's base. Ratios within one run mean something; seconds on a shared machine do not.
"""
import argparse
import time

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from optima.engines import LocalEngine, Request, encode_conversation

SPECIAL = ["<unk>", "<pad>", "<system>", "<user>", "<assistant>", "<end>"]
WORDS = [*SPECIAL, *(f"w{i}" for i in range(244))]
TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}<assistant>"
TURNS = 4


def make_model():
    "The toy base's shape, random weights."
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, eos_token_id=None,
        bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def make_tokenizer():
    "Words at white space."
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", eos_token="<end>",
                                   additional_special_tokens=SPECIAL[2:5], chat_template=TEMPLATE)  # fmt: skip


def scripts(count):
    "Per dialogue: the texts that the agent is shown, and how long each reply is."
    random = np.random.default_rng(0)

    def text(low, high):
        return " ".join(random.choice(WORDS[6:], random.integers(low, high)))

    shown = [[text(60, 100), *(text(10, 30) for _ in range(TURNS - 1))] for _ in range(count)]
    return list(zip(shown, random.integers(5, 40, (count, TURNS)).tolist()))


def request(number, messages, lengths, turn):
    "A turn whose reply has a fixed length."
    return Request(str(number), messages, lengths[turn], 1.0, (number, turn))


def by_engine(engine, debates):
    "Our engine: turns join the running batch, caches are kept."
    engine.stops = np.array([-1])
    turns = dict.fromkeys(map(str, range(len(debates))), 0)

    def follow(done, reply):
        turn = turns[done.conversation] = turns[done.conversation] + 1
        if turn == TURNS:
            engine.release([done.conversation])
            return []
        texts, lengths = debates[int(done.conversation)]
        own = {"role": "assistant", "content": reply.text, "token_ids": [*reply.token_ids, 5]}
        messages = [*done.messages, own, {"role": "user", "content": texts[turn]}]
        return [request(int(done.conversation), messages, lengths, turn)]

    opening = ([{"role": "user", "content": texts[0]}] for texts, _ in debates)
    engine.converse([request(i, messages, debates[i][1], 0) for i, messages in enumerate(opening)], follow)


@torch.inference_mode()
def by_generate(model, tokenizer, debates, batch):
    "transformers: turns in lockstep, padded, everything read afresh, each batch as long as its longest reply."
    chats = [[] for _ in debates]
    for turn in range(TURNS):
        for start in range(0, len(debates), batch):
            part = range(start, min(start + batch, len(debates)))
            for i in part:
                chats[i].append({"role": "user", "content": debates[i][0][turn]})
            contexts = [encode_conversation(tokenizer, chats[i])[0] for i in part]
            width = max(map(len, contexts))
            ids = torch.tensor([[1] * (width - len(context)) + context for context in contexts])
            real = torch.tensor([[0] * (width - len(context)) + [1] * len(context) for context in contexts])
            longest = max(debates[i][1][turn] for i in part)
            out = model.generate(ids, attention_mask=real, do_sample=True, top_k=0, max_new_tokens=longest,
                                 pad_token_id=1)  # fmt: skip
            for i, written in zip(part, out[:, width:].tolist()):
                own = [*written[: debates[i][1][turn]], 5]
                chats[i].append({"role": "assistant", "content": "", "token_ids": own})


def clocked(function, *arguments):
    "CPU seconds of a call."
    began = time.process_time()
    function(*arguments)
    return time.process_time() - began


def shares(engine, debates):
    "Where the time goes: shares of weights, attention, other tensor work, and Python."
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        by_engine(engine, debates)
    total, spent = (time.perf_counter() - began) * 1e6, {"weights": 0, "attention": 0, "other tensor work": 0}
    for event in profiler.key_averages():
        kind = "weights" if event.key == "aten::mm" else "attention" if any(
            name in event.key for name in ("bmm", "attention", "softmax")) else "other tensor work"  # fmt: skip
        spent[kind] += event.self_cpu_time_total
    return {**{kind: value / total for kind, value in spent.items()}, "Python": 1 - sum(spent.values()) / total}


def main():
    "Print one line per way."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogues", type=int, default=256)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--shares", action="store_true", help="profile the engine at the last batch size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer, debates = make_model(), make_tokenizer(), scripts(arguments.dialogues)
    tokens = sum(sum(lengths) for _, lengths in debates)
    by_engine(LocalEngine(model, tokenizer), debates[:8])
    few = debates[:8]
    alone = sum(sum(lengths) for _, lengths in few) / clocked(by_generate, model, tokenizer, few, 1)
    print(f"{len(debates)} agents, {TURNS} turns, {tokens} tokens written")
    print(f"transformers generate, batch 1: {alone:.0f} tokens/s")
    for batch in arguments.batch:
        ours = tokens / clocked(by_engine, LocalEngine(model, tokenizer, batch_size=batch), debates)
        theirs = tokens / clocked(by_generate, model, tokenizer, debates, batch)
        ratios = f"{ours / alone:.1f} x batch 1, {ours / theirs:.2f} x lockstep generate"
        print(f"batch {batch}: engine {ours:.0f} tokens/s, {ratios}")
    if arguments.shares:
        parts = shares(LocalEngine(model, tokenizer, batch_size=arguments.batch[-1]), debates)
        print(", ".join(f"{name} {share:.0%}" for name, share in parts.items()))


if __name__ == "__main__":
    main()
