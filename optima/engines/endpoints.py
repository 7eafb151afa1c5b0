"One OpenAI-compatible address: what is sent to it, what of its answers can be trusted, and what its errors mean."
import json
import os
import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from optima.base.errors import OptimaError
from optima.engines.replay import FINISHES

PASSING = {408, 409, 425, 429}  # statuses that are worth another attempt, beside 5xx
REFUSED = {401, 403}
SILENT = {"length", "content_filter"}  # finishes of a reply that may hold no text: a model cut while it thinks, a filter
TOO_LONG = re.compile(r"context[ _](length|window|size)|maximum (input|sequence|model)|too long|exceed_context", re.IGNORECASE)


class Fault(Exception):
    "Something that may be over at the next attempt."

    def __init__(self, told: str, rest: float | None = None, usage: dict | None = None):
        super().__init__(told)
        self.rest = rest  # seconds that the server asks for
        self.usage = usage  # what a body without a reply cost


class Unreachable(Fault):
    "Nobody took the connection."


def checked_url(name: str, url: str) -> str:
    "An endpoint's address without its last slash; anything that is no address, or may hold a secret, is an OptimaError."
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # the port, or half an IPv6 address
        parts, good = None, False
    if parts and (parts.username is not None or parts.query or parts.fragment):
        raise OptimaError(f"{name}: leave user, password, query and fragment out of the address; a key comes from the environment "
                          "variable that key_variable names")
    if not good or re.search(r"\s", url):
        raise OptimaError(f"{name} = {url!r}: expected an address such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def read_key(variable: str) -> str:
    "The key that an environment variable holds; nothing where it is not set."
    key = os.environ.get(variable, "")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise OptimaError(f"the environment variable {variable} holds a character that no key has; set it again")
    return key


def read_rest(headers) -> float | None:
    "The seconds that a Retry-After header asks for, as a number or as a date."
    told = headers.get("retry-after")
    if told is None:
        return None
    try:
        return max(float(told), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(told).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def read_usage(body) -> dict | None:
    "What the endpoint says that it cost, where it does."
    told = body.get("usage") if isinstance(body, dict) else None
    counts = [told.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(told, dict) else [None]
    if any(type(count) is not int or count < 0 for count in counts):
        return None
    return {"prompt": counts[0], "completion": counts[1]}


def read_reply(text: str) -> dict:
    "Text, finish, usage and model of a response's body; a Fault where it is not whole."
    usage = None
    try:
        body = json.loads(text)
        usage = read_usage(body)
        choice = body["choices"][0]
        message = choice["message"]
        said = message["content"] if message.get("content") is not None else message.get("refusal")
        if said is None and choice["finish_reason"] in SILENT:
            said = ""
        if choice["finish_reason"] not in FINISHES:
            raise ValueError(f"finish_reason {choice['finish_reason']!r}")
        said.encode()  # half of a surrogate pair is no text
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Fault(f"a malformed body ({type(error).__name__}: {str(error)[:80]})", usage=usage) from None
    return {"text": said, "finish": choice["finish_reason"], "usage": usage, "served": str(body.get("model", ""))}


class Endpoint:
    "One address: its client, how many requests it is working on, and until when it rests."

    def __init__(self, url: str, variable: str, timeout: float):
        try:
            import openai
        except ImportError:
            raise OptimaError("a server as engine needs the openai package: pip install 'optima-literate[server]'") from None
        self.url, self.variable, self.key = url, variable, read_key(variable)
        self.client = openai.OpenAI(api_key=self.key or "none", base_url=url, max_retries=0,
                                    timeout=openai.Timeout(timeout, connect=min(timeout, 10.0)))
        self.busy, self.ready, self.failures = 0, 0.0, 0
        self.answered, self.refusals = False, 0  # whether it ever did; connections that nobody took
        self.limit = "max_tokens"  # what it calls a reply's limit; OpenAI's newer models want another name

    def ask(self, body: dict) -> dict:
        "One attempt: a whole reply, a Fault, or an OptimaError."
        import openai
        sent = {self.limit if name == "max_tokens" else name: value for name, value in body.items()}
        try:
            response = self.client.chat.completions.with_raw_response.create(**sent)
        except openai.APIStatusError as error:
            self.answered = True
            if error.status_code == 400 and "max_tokens" in sent and "max_completion_tokens" in error.response.text:
                self.limit = "max_completion_tokens"
                return self.ask(body)
            raise self.refusal(error, body["model"]) from None
        except openai.APITimeoutError:
            raise Fault("no answer in time") from None
        except openai.APIConnectionError as error:
            kind = Unreachable if type(error.__cause__).__name__ == "ConnectError" else Fault
            raise kind(f"the connection failed ({type(error.__cause__).__name__})") from None
        self.answered = True
        return read_reply(response.http_response.text)

    def refusal(self, error, model: str) -> Exception:
        "What a status means: a Fault that passes, or an OptimaError that says what to do."
        status = error.status_code
        if error.code == "insufficient_quota":
            return OptimaError(f"{self.url}: the account's quota is used up; what was paid for is kept")
        if status in PASSING or status >= 500:
            return Fault(f"status {status}", rest=read_rest(error.response.headers))
        todo = {404: f"check the address (it ends in /v1 as a rule) and the model's name {model!r}"}
        todo |= dict.fromkeys(REFUSED, f"the key comes from the environment variable {self.variable}"
                              + ("" if self.key else ", which is not set"))
        if status == 400 and TOO_LONG.search(error.response.text):
            todo[400] = "where a dialogue outgrows the model's context, lower max_message_tokens or max_rounds (--set NAME=NUMBER)"
        told = "" if status == 401 else self.without_key(error.response.text)
        return OptimaError(f"{self.url}: status {status}{told}; {todo.get(status, 'mend it')}, then run the same command "
                           "again; what was paid for is kept")

    def without_key(self, text: str) -> str:
        "What a server says of an error, short, in one line, and never with the key."
        text = " ".join((text.replace(self.key, "***") if self.key else text).split())
        return f" ({text[:200]})" if text else ""


__all__ = ["Endpoint", "Fault", "Unreachable", "checked_url"]
