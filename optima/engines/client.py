"An engine behind any OpenAI-compatible endpoint: asked patiently, answered once, paid once."
# Text goes out and text comes back; rewards and tables count it with the student's tokenizer, and what the endpoint says
# that it cost is kept beside it. Every whole reply is on file before anybody uses it: see optima.engines.replay.
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

from optima.base.errors import OptimaError
from optima.base.files import digest
from optima.engines.endpoints import Endpoint, Fault, Unreachable, checked_url
from optima.engines.replay import FINISHES, Replies
from optima.engines.request import Completion, Engine, Request, encode_conversation, fitted, neutralise

ATTEMPTS = 10  # of one request, before the run stops
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between two attempts, doubled each time and drawn at random below
LONGEST_REST = 600.0  # seconds that a server may ask for before the run rather stops
STREAK = 3  # faults of one server, with no answer between, after which it rests; or connections that a server refused before it ever answered


class Stopped(Exception):
    "The run ends while this request still waits for its next attempt."


@dataclass(frozen=True)
class Budget:
    "What a model's replies may cost, over all runs of one record; 0 is no limit."
    tokens: int = 0  # prompt and completion together, as the endpoint counts them
    money: float = 0.0
    price_in: float = 0.0  # money per million prompt tokens
    price_out: float = 0.0  # money per million completion tokens

    def cost(self, prompt: int, completion: int) -> float:
        "The money that so many tokens cost."
        return (prompt * self.price_in + completion * self.price_out) / 1e6

    def exceeded(self, prompt: int, completion: int) -> str:
        "Which limit so many tokens exceed, in words; nothing where they fit."
        if self.tokens and prompt + completion > self.tokens:
            return f"budget_tokens = {self.tokens}"
        if self.money and self.cost(prompt, completion) > self.money:
            return f"budget_money = {self.money:g}"
        return ""


@dataclass
class Question:
    "A request as it is sent and recorded, and everybody who wants its answer."
    key: str
    body: dict
    context: int  # prompt tokens as the student's tokenizer counts them
    requests: list[Request] = field(default_factory=list)
    future: Future | None = None


class ServerEngine(Engine):
    "Completions from the servers of one model; recorded ones from the record."
    token_source = "tokenizer"

    def __init__(
        self,
        urls: list[str],  # OpenAI-compatible endpoints that share the load; none: recorded replies only
        model: str,  # the model's name at the servers
        tokenizer,  # the student's, with a chat template: it counts
        record: Path,  # JSON Lines file of all replies
        identity: str = "",  # stands for the model in the record; "" is its name
        concurrency: int = 16,  # most requests under way at a time
        budget: Budget | None = None,  # what the replies may cost; None is no limit
        key_variable: str = "OPENAI_API_KEY",  # the environment variable that holds the key
        timeout: float = 600.0,  # seconds without a sign of the server before another attempt
    ):
        self.model, self.tokenizer, self.identity = model, tokenizer, identity or model
        self.replies, self.concurrency, self.budget = Replies(record), concurrency, budget or Budget()
        urls = dict.fromkeys(checked_url("base_url", url) for url in urls)
        self.endpoints = [Endpoint(url, key_variable, timeout) for url in urls]
        self.counters, self.used, self.lock, self.ending = Counter(), set(), Lock(), Event()
        self.open: dict[str, Question] = {}  # those that may be paid for next: the budget holds all of them

    def question(self, request: Request) -> Question:
        "A request as it is sent; the sampling noise makes another question of the same prompt."
        chat = [{"role": message["role"], "content": neutralise(self.tokenizer, message["content"])}
                for message in fitted(self.tokenizer, request.messages)]
        body = {"messages": chat, "max_tokens": request.max_tokens, "temperature": request.temperature, "top_p": 1.0}
        noise = list(map(int, request.noise)) if request.temperature > 0 else []
        if noise:
            body["seed"] = int(digest(noise)[:7], 16)  # for servers that can sample by it
        context = len(encode_conversation(self.tokenizer, request.messages)[0])
        key = digest({"model": self.identity, "noise": noise} | body)
        return Question(key, {"model": self.model} | body, context)

    def completion(self, question: Question, reply: dict) -> Completion:
        "A reply in the student's tokens, which are made here, once."
        text, cut = reply["text"], FINISHES[reply["finish"]]
        if cut:
            ids = self.tokenizer.encode(neutralise(self.tokenizer, text), add_special_tokens=False)
        else:
            chat = [{"role": "user", "content": ""}, {"role": "assistant", "content": text}]
            ids, own = encode_conversation(self.tokenizer, chat, add_generation_prompt=False)
            ids = [token for token, mine in zip(ids, own) if mine]
        return Completion(text, list(ids), question.context, cut, 0)

    def generate(self, requests: list[Request]) -> list[Completion]:
        "Complete every request, in order."
        done = {}
        self.converse(requests, lambda request, completion: done.update({id(request): completion}) or [])
        return [done[id(request)] for request in requests]

    def converse(self, requests: list[Request], follow: Callable[[Request, Completion], list[Request]]) -> None:
        "Complete requests and all that follow from them; as many are under way as may be."
        waiting, flying = deque(requests), {}
        with self.pool() as pool:
            while waiting or flying:
                self.launch(pool, waiting, flying, follow)
                wait([question.future for question in flying.values()], return_when=FIRST_COMPLETED)
                for question in [one for one in flying.values() if one.future.done()]:
                    reply = flying.pop(question.key).future.result()
                    for request in question.requests:
                        waiting += self.take(request, question, reply, follow)

    @contextmanager
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        "Threads that ask; at the end, however it comes, nobody tries again, and answers on their way are recorded."
        self.ending.clear()
        try:
            with ThreadPoolExecutor(self.concurrency, "optima-server") as pool:
                try:
                    yield pool
                finally:
                    self.ending.set()
        finally:
            self.open.clear()
            self.replies.flush()

    def launch(self, pool: ThreadPoolExecutor, waiting: deque, flying: dict[str, Question], follow):
        "Answer from the record what is there, and ask the servers as much of the rest as may be under way."
        while waiting and len(flying) < self.concurrency:
            question = self.question(waiting[0])
            if question.key in flying:
                flying[question.key].requests.append(waiting.popleft())
            elif reply := self.replies.get(question.key):
                self.counters["replayed"] += 1
                waiting += self.take(waiting.popleft(), question, reply, follow)
            elif self.affordable(question):
                question.requests.append(waiting.popleft())
                question.future = pool.submit(self.ask, question)
                flying[question.key] = question
            else:
                return

    def take(self, request: Request, question: Question, reply: dict, follow) -> list[Request]:
        "Hand a reply on; what it cost is counted once, whenever it was paid."
        if question.key not in self.used:
            self.used.add(question.key)
            self.counters["usage_prompt_tokens"] += reply["usage"]["prompt"]
            self.counters["usage_completion_tokens"] += reply["usage"]["completion"]
        return follow(request, self.completion(question, reply))

    def affordable(self, question: Question) -> bool:
        "Whether the budget holds a request beside those that are open, and if so opens it; where it never will, an OptimaError."
        with self.lock:
            prompt, completion = self.replies.spent(self.identity)
            spent = self.budget.cost(prompt, completion), prompt + completion
            for one in (self.open | {question.key: question}).values():
                prompt, completion = prompt + one.context, completion + one.body["max_tokens"]
            limit, others = self.budget.exceeded(prompt, completion), set(self.open) - {question.key}
            if not limit:
                self.open[question.key] = question
        if limit and not others:
            money = f" and {spent[0]:.2f} of money" if self.budget.money else ""
            raise OptimaError(f"{limit} is used up: {self.model} has cost {spent[1]} tokens{money}, and the next request "
                              f"may take {question.context + question.body['max_tokens']} more; what was paid for is "
                              "kept and never asked again: raise the budget, and the same command goes on")
        return not limit

    def settle(self, question: Question):
        "A question's attempt is over: what it cost is on record."
        with self.lock:
            self.open.pop(question.key, None)

    def ask(self, question: Question) -> dict:
        "Ask until a whole reply is there, and record it before anybody sees it."
        if not self.endpoints:
            raise OptimaError(f"{self.replies.path} holds no reply to this request of {self.model}: "
                              f"{question.requests[0].conversation}; name a server to ask")
        endpoint = None
        for attempt in range(ATTEMPTS):
            while not self.affordable(question):  # a spoilt body was paid for too
                self.pause(FIRST_WAIT)
            try:
                endpoint = self.choose(endpoint)
                return self.attempt(endpoint, question)
            except Fault as problem:
                fault = problem
            finally:
                self.settle(question)
            self.pause(random.uniform(0, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)))
        raise OptimaError(f"{endpoint.url}: no whole reply in {ATTEMPTS} attempts, at last {fault}; see to the server, "
                          "and run the same command again; what was paid for is kept")

    def attempt(self, endpoint: Endpoint, question: Question) -> dict:
        "Ask once: a reply on record, or a Fault whose cost is."
        try:
            return self.keep(endpoint, question, endpoint.ask(question.body))
        except Fault as fault:
            self.note(endpoint, question, fault)
            raise
        finally:
            with self.lock:
                endpoint.busy -= 1

    def choose(self, last: Endpoint | None) -> Endpoint:
        "The endpoint that is ready first and has least to do, another than the last where there is one."
        with self.lock:
            now = time.monotonic()
            endpoint = min(self.endpoints, key=lambda one: (max(one.ready, now), one is last, one.busy))
            endpoint.busy += 1
            rest = endpoint.ready - now
        try:
            self.pause(rest + random.uniform(0, FIRST_WAIT) if rest > 0 else 0)
        except Stopped:
            with self.lock:
                endpoint.busy -= 1
            raise
        return endpoint

    def pause(self, seconds: float):
        "Wait, unless the run ends."
        if self.ending.wait(seconds):
            raise Stopped

    def note(self, endpoint: Endpoint, question: Question, fault: Fault):
        "Count a fault and what it cost, and let the endpoint rest as long as it asks, or after a streak of faults."
        if fault.usage:
            self.replies.add({"key": question.key, "model": self.identity, "usage": fault.usage})
        if (fault.rest or 0) > LONGEST_REST:
            raise OptimaError(f"{endpoint.url}: {fault}, and it asks to wait {fault.rest:.0f} seconds; run the same command "
                              "again then; what was paid for is kept")
        with self.lock:
            self.counters["retries"] += 1
            endpoint.failures += 1
            streak = min(FIRST_WAIT * 2 ** (endpoint.failures - STREAK), LONGEST_WAIT) if endpoint.failures >= STREAK else 0
            endpoint.ready = max(endpoint.ready, time.monotonic() + max(fault.rest or 0, streak))
            endpoint.refusals += isinstance(fault, Unreachable)
            nobody = all(one.refusals >= STREAK and not one.answered for one in self.endpoints)
        if nobody:
            urls = ", ".join(one.url for one in self.endpoints)
            raise OptimaError(f"{urls}: {fault}, {STREAK} times and no answer ever; start the server or correct the address, "
                              "and run the same command again")

    def keep(self, endpoint: Endpoint, question: Question, reply: dict) -> dict:
        "Record a reply; one whose cost nobody tells is counted at the most that it can be."
        with self.lock:
            self.counters["asked"] += 1
            endpoint.failures = 0
        most = {"prompt": question.context, "completion": question.body["max_tokens"]}
        return self.replies.add(reply | {"key": question.key, "model": self.identity, "usage": reply["usage"] or most})


__all__ = ["Budget", "ServerEngine"]
