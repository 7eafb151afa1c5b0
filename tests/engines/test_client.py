"The engine behind a server: every fault played on loopback, nothing lost, nothing paid twice, no key told."
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from stub_server import FAULTS, StubServer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from optima.agents.messages import Message, Trajectory
from optima.base.errors import OptimaError
from optima.engines import client as server
from optima.engines.client import Budget, ServerEngine
from optima.engines.endpoints import checked_url, read_rest
from optima.engines.replay import Replies
from optima.engines.request import Request, encode_conversation

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<assistant>{% endif %}"
QUICK = 0.002  # seconds: the waits of the tests
SECRET = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def tokenizer():
    "Splits at spaces."
    words = ["<unk>", "<pad>", "<system>", "<user>", "<assistant>", "<end>", "heard", *map(str, range(2100))]
    splitter = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    splitter.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=splitter, unk_token="<unk>", pad_token="<pad>", eos_token="<end>",
        additional_special_tokens=["<system>", "<user>", "<assistant>"], chat_template=TEMPLATE)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    "Waits of milliseconds, and no key but what a test sets."
    monkeypatch.setattr(server, "FIRST_WAIT", QUICK)
    monkeypatch.setattr(server, "LONGEST_WAIT", 20 * QUICK)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def make(tokenizer, tmp_path):
    "Makes engines that share one record."
    def build(*urls, model="m", **options):
        return ServerEngine(urls, model, tokenizer, tmp_path / "replies.jsonl", **options)

    return build


def ask(text, noise=0, temperature=1.0, max_tokens=8) -> Request:
    "A request of one message."
    return Request(f"about {text}", [{"role": "user", "content": str(text)}], max_tokens, temperature, (noise,))


def lines(engine) -> list[dict]:
    "What is on record."
    return [json.loads(line) for line in engine.replies.path.read_text().splitlines()]


def stopped(engine, *requests) -> str:
    "The line with which an engine stops."
    with pytest.raises(OptimaError) as caught:
        engine.generate(requests)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_tried_again_and_leaves_no_trace(make, fault):
    with StubServer(lambda body, number: fault if number == 1 else "", late=1.0) as stub:
        engine = make(stub.url, timeout=0.25 if fault == "late" else 10)
        (done,) = engine.generate([ask(7)])
        assert (done.text, done.cut, engine.counters["retries"], sum(stub.tries.values())) == ("heard 7", False, 1, 2)
    assert [line["text"] for line in lines(engine) if "text" in line] == ["heard 7"]


def test_a_completion_is_counted_in_the_students_tokens_and_its_cost_kept_as_told(make, tokenizer):
    with StubServer(lambda body, number: "length" if "8" in str(body["messages"]) else "") as stub:
        engine = make(stub.url)
        whole, cut = engine.generate([ask(7), ask(8)])
    assert engine.token_source == "tokenizer" and whole.prompt_tokens == len(tokenizer.encode("<user> 7 <end> <assistant>"))
    assert tokenizer.decode(whole.token_ids) == "heard 7 <end>" and not whole.cut
    assert tokenizer.decode(cut.token_ids) == "heard 8" and cut.cut
    assert all(line["usage"] == {"prompt": 1, "completion": 2} and line["served"] == "m-0613" for line in lines(engine))
    assert (engine.counters["usage_prompt_tokens"], engine.counters["usage_completion_tokens"]) == (2, 4)


def test_a_server_that_does_not_tell_its_usage_is_counted_at_the_most(make):
    with StubServer(lambda body, number: "no usage") as stub:
        engine = make(stub.url)
        engine.generate([ask(7, max_tokens=6)])
    assert lines(engine)[0]["usage"] == {"prompt": 4, "completion": 6}


def test_nobody_types_a_special_token_and_token_ids_stay_here(make):
    sent = []
    with StubServer(lambda body, number: sent.append(body) or "") as stub:
        chat = [{"role": "user", "content": "7 <end> <assistant> 8"}, {"role": "assistant", "content": "9", "token_ids": [1]},
                {"role": "user", "content": "10"}]
        make(stub.url).generate([Request("c", chat, 8)])
    assert [set(message) for message in sent[0]["messages"]] == [{"role", "content"}] * 3
    assert sent[0]["messages"][0]["content"] == "7 < end> < assistant> 8" and "seed" not in sent[0]
    assert (sent[0]["max_tokens"], sent[0]["temperature"], sent[0]["top_p"], sent[0]["model"]) == (8, 0.0, 1.0, "m")


def test_a_cut_message_is_not_taught_to_end(make, tokenizer):
    with StubServer(lambda body, number: "length") as stub:
        (done,) = make(stub.url).generate([ask(7)])
    message = Message("solver", "single", done.text, "7", done.token_ids, done.prompt_tokens, done.cut, "tokenizer")
    chat = Trajectory("t", "single", "none", 0, [message], "", {"solver": ""}).conversation("solver")
    ids, mask = encode_conversation(tokenizer, chat, add_generation_prompt=False)
    assert tokenizer.decode([token for token, own in zip(ids, mask) if own]) == "heard 7"


@pytest.mark.parametrize("fault, words", [
    ("400", "status 400 ({\"error\": {\"message\": \"played 400\""), ("401", "environment variable OPENAI_API_KEY, which is not set"),
    ("403", "played 403"), ("404", "ends in /v1 as a rule) and the model's name 'm'"), ("422", "played 422"),
])
def test_what_does_not_pass_stops_at_once_and_keeps_what_was_paid_for(make, fault, words):
    with StubServer(lambda body, number: fault if "bad" in str(body["messages"]) else "") as stub:
        engine = make(stub.url, concurrency=2)
        told = stopped(engine, *map(ask, range(5)), ask("bad"), *map(ask, range(5, 40)))
        assert stub.url in told and words in told and "what was paid for is kept" in told
        assert sum("bad" in question for question in stub.tries.elements()) == 1
        assert len(lines(engine)) == sum(stub.served.values()) < 40


def test_a_used_up_quota_and_a_long_wait_stop_too(make):
    with StubServer(lambda body, number: "429", code="insufficient_quota") as stub:
        assert "quota is used up" in stopped(make(stub.url), ask(1)) and sum(stub.tries.values()) == 1
    with StubServer(lambda body, number: "429 after", after=3600) as stub:
        assert "asks to wait 3600 seconds" in stopped(make(stub.url), ask(1))


def test_a_server_that_never_answers_whole_ends_the_run_after_some_attempts(make):
    with StubServer(lambda body, number: "malformed") as stub:
        engine = make(stub.url)
        assert f"no whole reply in {server.ATTEMPTS} attempts, at last a malformed body" in stopped(engine, ask(1))
        assert sum(stub.tries.values()) == server.ATTEMPTS and not engine.replies.path.exists()


def test_retry_after_is_honoured_by_all_requests_and_only_by_that_server(make):
    after, told = 0.5, []

    def plan(body, number):
        told.append(time.monotonic())
        return "429 after" if len(told) == 1 else ""

    with StubServer(plan, after=after) as stub:
        make(stub.url, concurrency=1).generate([ask(n) for n in range(5)])
        assert told[1] - told[0] >= after and told[-1] - told[1] < after
    with StubServer(lambda body, number: "429 after", after=500) as busy, StubServer() as free:
        assert len(make(busy.url, free.url).generate([ask(n) for n in range(100, 140)])) == 40
        assert sum(free.served.values()) == 40 and sum(busy.tries.values()) <= 16


@pytest.mark.parametrize("header, least, most", [
    ("2", 2, 2), ("0.5", 0.5, 0.5), ("-1", 0, 0), (formatdate(0, usegmt=True), 0, 0),
    ("soon", None, None), (None, None, None)])
def test_retry_after_is_seconds_or_a_date(header, least, most):
    found = read_rest({} if header is None else {"retry-after": header})
    assert found is None if least is None else least <= found <= most


def test_retry_after_may_be_a_date_to_come():
    assert 2900 <= read_rest({"retry-after": formatdate(time.time() + 3000, usegmt=True)}) <= 3000


def test_waits_double_and_are_drawn_at_random(make, monkeypatch):
    waits = []
    monkeypatch.setattr(server, "STREAK", float("inf"))
    with StubServer(lambda body, number: "503") as stub:
        engine = make(stub.url, concurrency=1)
        monkeypatch.setattr(engine, "pause", lambda seconds: seconds and waits.append(seconds))
        for n in range(20):
            stopped(engine, ask(n))
    longest = [max(waits[attempt::server.ATTEMPTS]) for attempt in range(server.ATTEMPTS)]
    bounds = [min(QUICK * 2**attempt, 20 * QUICK) for attempt in range(server.ATTEMPTS)]
    assert all(bound / 2 < found <= bound for found, bound in zip(longest, bounds)) and len(set(waits)) == len(waits)


def test_two_thousand_requests_under_mixed_faults(make):
    "Nothing lost, nothing paid twice, no more under way than allowed, and a second run asks nothing."
    def plan(body, number):
        draw = random.Random(f"{body['messages'][-1]['content']} {number}")
        fault = draw.choice(FAULTS) if draw.random() < 0.25 and number < server.ATTEMPTS else ""
        return "" if fault == "late" and draw.random() < 0.9 else fault  # each holds a thread for a while

    requests = [ask(n) for n in range(2000)]
    with StubServer(plan, seconds=0.01, late=1.0) as stub:
        began, engine = time.monotonic(), make(stub.url, concurrency=16, timeout=0.8)
        done = engine.generate(requests)
        seconds = time.monotonic() - began
        assert [one.text for one in done] == [f"heard {n}" for n in range(2000)]
        assert set(stub.served.values()) == {1} and len(stub.served) == 2000 and 8 <= stub.most <= 16
        assert engine.counters["retries"] == sum(stub.tries.values()) - 2000 > 300
        assert len({line["key"] for line in lines(engine) if "text" in line}) == 2000
        again = make(stub.url)
        assert again.generate(requests) == done and again.counters["replayed"] == 2000
        assert len(stub.served) == sum(stub.served.values()) == 2000
    assert seconds < 60, "a busy machine; alone it takes about ten"


def test_no_more_are_under_way_than_allowed(make):
    with StubServer(seconds=0.05) as stub:
        make(stub.url, concurrency=5).generate([ask(n) for n in range(40)])
        assert stub.most == 5


def test_several_servers_share_the_load_and_a_dead_one_is_left_alone(make):
    with StubServer(seconds=0.01) as one, StubServer(seconds=0.01) as two:
        make(one.url, two.url, one.url + "/").generate([ask(n) for n in range(60)])
        assert min(sum(stub.served.values()) for stub in (one, two)) > 15
        dead = "http://127.0.0.1:9/v1"
        engine = make(dead, one.url)
        assert len(engine.generate([ask(n) for n in range(60, 160)])) == 100


def test_a_slow_dialogue_keeps_no_other_waiting(make):
    order, last = [], threading.Event()

    def follow(request, completion):
        order.append(completion.text)
        number = int(completion.text.split()[1])
        if number == 5:
            last.set()
        return [ask(number + 1)] if number < 5 else []

    def plan(body, number):
        if "100" in str(body["messages"]):
            last.wait(20)
        return ""

    with StubServer(plan) as stub:
        make(stub.url).converse([ask(100), ask(1)], follow)
    assert order == [f"heard {n}" for n in (1, 2, 3, 4, 5, 100)]


def test_equal_requests_are_asked_once_and_other_noise_is_another_request(make):
    with StubServer(seconds=0.05) as stub:
        engine = make(stub.url)
        done = engine.generate([ask(7, noise=1), ask(7, noise=1), ask(7, noise=2), ask(7, 3, 0.0), ask(7, 4, 0.0)])
        assert len(done) == 5 and sum(stub.served.values()) == 3 and engine.counters["asked"] == 3
        assert len({json.loads(question).get("seed") for question in stub.served}) == 3
        engine.generate([ask(7, noise=1, max_tokens=9), ask(7, noise=1, temperature=0.5)])
        make(stub.url, model="n").generate([ask(7, noise=1)])
        assert sum(stub.served.values()) == 6
        assert engine.counters["usage_completion_tokens"] == 2 * 5


def test_a_budget_is_never_exceeded_and_a_larger_one_pays_the_rest_only(make):
    requests = [ask(n) for n in range(30)]  # 3 tokens each by the stub's count, 12 at the most by ours
    with StubServer(seconds=0.005) as stub:
        told = stopped(make(stub.url, budget=Budget(tokens=60)), *requests)
        paid = sum(stub.served.values())
        assert "budget_tokens = 60 is used up: m has cost" in told and "may take 12 more" in told
        assert paid == 17  # of 3 tokens each; another might take 12, and 51 + 12 > 60
        assert len(lines(make())) == paid
        assert "is used up" in stopped(make(stub.url, budget=Budget(tokens=60)), *requests)
        assert sum(stub.served.values()) == paid
        assert len(make(stub.url, budget=Budget(tokens=1000)).generate(requests)) == 30
        assert set(stub.served.values()) == {1} and len(stub.served) == 30


def test_a_budget_in_money(make):
    budget = Budget(money=0.001, price_in=10.0, price_out=50.0)  # a reply costs 0.00011, and at the most 0.00044
    with StubServer() as stub:
        told = stopped(make(stub.url, budget=budget), *[ask(n) for n in range(30)])
        assert "budget_money = 0.001 is used up" in told and "0.00 of money" in told
        assert sum(stub.served.values()) == 6


def test_what_a_spoilt_body_cost_counts_too(make):
    with StubServer(lambda body, number: "no content" if number <= 5 else "") as stub:
        engine = make(stub.url)
        engine.generate([ask(1)])
        assert engine.replies.spent("m") == (6, 12) == make().replies.spent("m")


def test_paid_retries_stay_within_the_budget(make):
    "Each fault of 3 tokens is paid for; many at a time must not pay more together than the budget holds."
    def plan(body, number): return "no content" if number <= 9 else ""

    with StubServer(plan) as stub:
        engine = make(stub.url, budget=Budget(tokens=60), concurrency=16)
        assert "budget_tokens = 60 is used up" in stopped(engine, *[ask(n) for n in range(16)])
        assert 60 - 12 < sum(engine.replies.spent("m")) == 3 * sum(stub.tries.values()) <= 60
        done = make(stub.url, budget=Budget(tokens=1000)).generate([ask(n) for n in range(16)])
        assert [one.text for one in done] == [f"heard {n}" for n in range(16)]


@pytest.mark.parametrize("fault", ["length in thought", "content_filter"])
def test_a_reply_without_text_that_says_why_is_a_reply(make, fault):
    with StubServer(lambda body, number: fault) as stub:
        engine = make(stub.url)
        (done,) = engine.generate([ask(7)])
        assert (done.text, done.token_ids, done.cut, engine.counters["retries"]) == ("", [], True, 0)
        assert lines(engine)[0]["finish"] == fault.split()[0] and make().generate([ask(7)]) == [done]


NOBODY = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize("urls", [[NOBODY], [NOBODY, "http://127.0.0.1:10/v1"]])
def test_where_nobody_ever_answered_a_run_stops_soon(make, urls, monkeypatch):
    monkeypatch.setattr(server, "LONGEST_WAIT", 30.0)
    began, engine = time.monotonic(), make(*urls)
    told = stopped(engine, *[ask(n) for n in range(8)])
    assert told.startswith(", ".join(urls)) and "(ConnectError), 3 times and no answer ever; start the server or correct the address" in told
    assert time.monotonic() - began < 5


def test_a_server_that_answered_once_may_restart(make):
    engine = make(NOBODY)
    engine.endpoints[0].answered = True
    assert f"no whole reply in {server.ATTEMPTS} attempts" in stopped(engine, ask(2))


def test_a_dialogue_that_outgrows_the_context_says_what_to_lower(make):
    for says in ("This model's maximum context length is 8192 tokens.", "the request exceeds the available context size"):
        with StubServer(lambda body, number: "400", says=says) as stub:
            told = stopped(make(stub.url), ask(1))
        assert says in told and "lower max_message_tokens or max_rounds" in told


def test_a_model_that_calls_the_limit_otherwise_is_asked_in_its_words(make):
    sent = []

    def plan(body, number):
        sent.append(body)
        return "400" if "max_tokens" in body else ""

    says = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    with StubServer(plan, says=says) as stub:
        engine = make(stub.url, concurrency=1)
        assert len(engine.generate([ask(n) for n in range(3)])) == 3
    assert [body.get("max_completion_tokens") for body in sent] == [None, 8, 8, 8]
    assert len(make().generate([ask(n) for n in range(3)])) == 3  # the record knows no difference


def test_the_key_is_sent_and_never_told(make, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    told = []
    with StubServer(lambda body, number: str(body["messages"][0]["content"]), echoes=True) as stub:
        for status in ("400", "401", "403", "404"):
            told.append(stopped(make(stub.url, key_variable="MY_KEY"), ask(status)))
        assert {headers.get("authorization") for headers in stub.headers} == {f"Bearer {SECRET}"}
    with StubServer(lambda body, number: "503" if number == 1 else "", echoes=True) as stub:
        engine = make(stub.url, key_variable="MY_KEY")
        engine.generate([ask(1)])
    assert "***" in told[0] and "MY_KEY" in told[1]
    assert not any(SECRET in text for text in [*told, caplog.text, engine.replies.path.read_text(), repr(engine.endpoints)])


def test_a_key_with_odd_characters_is_refused_without_telling_it(make, monkeypatch):
    for odd in ("\n", " x", "ä"):
        monkeypatch.setenv("OPENAI_API_KEY", SECRET + odd)
        with pytest.raises(OptimaError, match="OPENAI_API_KEY holds a character") as caught:
            make("http://127.0.0.1:9/v1")
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://a b/v1", "http://[::1", ""])
def test_an_address_that_is_none(url):
    with pytest.raises(OptimaError, match="base_url = .*: expected an address such as http://"):
        checked_url("base_url", url)


@pytest.mark.parametrize("url", ["https://me:secret@host/v1", "https://secret@host/v1", "https://host/v1?key=secret",
                                 "https://host/v1#secret"])
def test_an_address_that_may_hold_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(OptimaError, match="leave user, password, query and fragment out") as caught:
        checked_url("base_url", url)
    assert "secret" not in str(caught.value)


def test_the_package_is_needed_to_ask_and_not_to_replay(make, monkeypatch):
    with StubServer() as stub:
        done = make(stub.url).generate([ask(1)])
        monkeypatch.setitem(sys.modules, "openai", None)
        with pytest.raises(OptimaError, match=re.escape("pip install 'optima-literate[server]'")):
            make(stub.url)
    offline = make()
    assert offline.generate([ask(1)]) == done
    assert "holds no reply to this request of m: about 2" in stopped(offline, ask(2))


def test_an_error_in_a_dialogue_loses_no_reply_on_its_way(make):
    def follow(request, completion):
        raise OptimaError("the dialogue broke")

    everyone = threading.Barrier(4)  # the first is answered when all have been asked, the others a little later

    def answer(body, number):
        everyone.wait(30)
        time.sleep(0 if "1" in str(body["messages"]) else 0.2)
        return ""

    with StubServer(answer) as stub:
        engine = make(stub.url, concurrency=4)
        with pytest.raises(OptimaError, match="the dialogue broke"):
            engine.converse([ask(n) for n in range(1, 5)], follow)
        assert len(lines(engine)) == sum(stub.served.values()) == 4


def reply_line(key, text="heard"):
    "A line of the record."
    return {"key": key, "model": "m", "text": text, "finish": "stop", "usage": {"prompt": 1, "completion": 2}}


def test_a_line_that_was_cut_anywhere_costs_that_line_only(tmp_path):
    whole = Replies(tmp_path / "whole.jsonl")
    for key in "abc":
        whole.add(reply_line(key, "höchst ☃"))
    data = whole.path.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(data)):
        path = tmp_path / f"torn-{end}.jsonl"
        path.write_bytes(data[:end])
        torn = Replies(path)
        assert set(torn.found) == {"a", "b"} and path.read_bytes() == data[:end]
        torn.add(reply_line("d"))
        assert [json.loads(line)["key"] for line in path.read_bytes().splitlines()] == ["a", "b", "d"]
        assert set(Replies(path).found) == {"a", "b", "d"}


@pytest.mark.parametrize("bad", ["{", "[]", '{"key": 1}', '{"key": "k", "model": "m", "text": "x", "finish": "stop"}',
                                 '{"key": "k", "model": "m", "text": 1, "finish": "stop", "usage": {"prompt": 1, "completion": 1}}'])
def test_a_damaged_line_is_named(tmp_path, bad):
    path = tmp_path / "replies.jsonl"
    path.write_text(f"{json.dumps(reply_line('a'))}\n{bad}\n")
    with pytest.raises(OptimaError, match=re.escape(f"{path}, line 2: ")) as caught:
        Replies(path)
    assert "take the line out" in str(caught.value) and "\n" not in str(caught.value)


def test_two_records_of_one_file_take_turns_and_the_first_reply_counts(tmp_path):
    records = [Replies(tmp_path / "replies.jsonl") for _ in range(2)]

    def write(record, number):
        for key in range(100):
            record.add(reply_line(str(key), f"{number} {'x' * 5000}"))

    threads = [threading.Thread(target=write, args=(record, number)) for number, record in enumerate(records)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fresh = Replies(tmp_path / "replies.jsonl")
    assert fresh.found == records[0].found == records[1].found and len(fresh.found) == 100
    assert fresh.spent("m") == (200, 400)  # both were paid for


KILLED = """
import sys
from optima.engines.request import Request
from optima.engines.client import ServerEngine
from transformers import AutoTokenizer
engine = ServerEngine([sys.argv[1]], "m", AutoTokenizer.from_pretrained(sys.argv[2]), sys.argv[3], concurrency=4)
print("up", flush=True)
engine.generate([Request(str(n), [{"role": "user", "content": str(n)}], 8) for n in range(int(sys.argv[4]))])
print("done", flush=True)
"""


def test_kill_9_loses_no_more_than_what_was_under_way(make, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with StubServer(seconds=0.002) as stub:
        command = [sys.executable, "-c", KILLED, stub.url, tmp_path / "tokenizer", tmp_path / "replies.jsonl", "200"]
        for kills, at in enumerate((30, 90, 150), start=1):
            started = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(server.__file__).parents[2])
            started.stdout.readline()
            while sum(stub.served.values()) < at:
                time.sleep(0.001)
            os.kill(started.pid, signal.SIGKILL)
            started.wait()
            time.sleep(0.1)
            before = sum(stub.served.values())
            kept = len(Replies(tmp_path / "replies.jsonl").found)
            assert before - 4 * kills <= kept <= before
        engine = make(stub.url)
        done = engine.generate([ask(n, temperature=0.0) for n in range(200)])
        assert [one.text for one in done] == [f"heard {n}" for n in range(200)]
        assert engine.counters["replayed"] == kept and engine.counters["asked"] == 200 - kept
        assert sum(stub.served.values()) - 200 <= 3 * 4
    assert len(lines(engine)) == 200
