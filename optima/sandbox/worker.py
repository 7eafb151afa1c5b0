"What runs inside the second sandbox: a candidate, or the tests that judge it. Standard library only."
# Run as a script, in an interpreter of its own (`optima.sandbox.bubblewrap` starts it), with a pipe to read from and one to write to.
# A frame is a nonce, a length, one letter that says what it is, and a body of JSON; a reply carries the nonce of its question.
# The host reads nonce, length and letter, and of the body at most a text to show: values are made by one worker and read by
# the other one.
# Letters: h up, s begin, c call, v value, r raised, e end; o odd value, m memory, l left, u arguments that cannot cross,
# x unreadable answer; p passed, f failed, t the tests raised.
import json
import math
import os
import resource
import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from types import ModuleType

HEADER = struct.Struct(">16sIc")
MOST_BYTES = 10_000_000  # in a frame
MOST_ITEMS = 1_000_000  # in a value, every place of a shared one counted
MOST_DEEP = 200
START_BYTES = 64_000_000  # of address space that the interpreter itself may take
FILES, FILE_BYTES = 32, 1_000_000
TOO_LARGE, TOO_DEEP = "value too large to cross", "value nested too deep to cross"
VALUES = (b"c", b"v", b"r")  # frames with a value in their body; the others have a text
ROWS = {kind.__name__: kind for kind in (tuple, set, frozenset)}
MAPS = (dict, Counter, defaultdict, OrderedDict)


class Odd(Exception):
    "A value that cannot cross the border, and why."


def encode(value, depth: int = 0, room: list | None = None):
    "A value of exact built-in types as JSON, all but lists and plain atoms under a tag; raises `Odd`."
    kind, room = type(value), room or [MOST_ITEMS]
    room[0] -= 1
    if room[0] < 0 or depth > MOST_DEEP:
        raise Odd(TOO_LARGE if room[0] < 0 else TOO_DEEP)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is complex:
        return {"complex": [encode(value.real), encode(value.imag)]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if any(kind is one for one in MAPS):  # `in` would ask a metaclass
        return {"dict": [[encode(key, depth + 1, room), encode(item, depth + 1, room)] for key, item in value.items()]}
    if kind is not list and not any(kind is one for one in ROWS.values()):
        raise Odd(kind.__name__[:60])
    items = [encode(item, depth + 1, room) for item in value]
    return items if kind is list else {kind.__name__: items}


TAGS = {
    "int": lambda text: int(text, 16), "float": float, "bytes": bytes.fromhex,
    "complex": lambda parts: complex(*map(decode, parts)),
    "dict": lambda pairs: {decode(key): decode(item) for key, item in pairs},
    **{name: lambda items, kind=kind: kind(map(decode, items)) for name, kind in ROWS.items()},
}  # fmt: skip


def decode(node):
    "The value that `encode` wrote; whatever else arrives raises, or is a value all the same."
    if type(node) is list:
        return [decode(item) for item in node]
    if type(node) is not dict:
        return node
    ((tag, content),) = node.items()
    return TAGS[tag](content)


def read_value(body: bytes):
    "The value in a frame's body; raises one of several errors where it holds none."
    return decode(json.loads(body))


class Border:
    "A worker's side of the two pipes."

    def __init__(self, source: int, target: int):
        self.source, self.target, self.nonce = source, target, bytes(16)

    def read(self, size: int) -> bytes:
        "Exactly so many bytes; the process ends where the host has gone."
        parts, missing = [], size
        while missing:
            parts.append(os.read(self.source, missing))
            missing -= len(parts[-1])
            if not parts[-1]:
                os._exit(0)
        return b"".join(parts)

    def receive(self) -> tuple[bytes, bytes]:
        "The next frame's letter and body."
        self.nonce, size, letter = HEADER.unpack(self.read(HEADER.size))
        return letter, self.read(size)

    def send(self, letter: bytes, content=None):
        "A frame under the nonce of the last one that came."
        body = json.dumps(content, allow_nan=False).encode() if letter in VALUES else str(content)[:300].encode("utf-8", "replace")
        if len(body) > MOST_BYTES:
            letter, body = b"o", TOO_LARGE.encode()
        waiting = memoryview(HEADER.pack(self.nonce, len(body), letter) + body)
        while waiting:
            waiting = waiting[os.write(self.target, waiting):]


def limit(seconds: int, memory: int):
    "Bind this process; none of it can be undone."
    limits = {"AS": START_BYTES + memory, "CPU": seconds, "FSIZE": FILE_BYTES, "NOFILE": FILES, "NPROC": 0, "CORE": 0}
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def line_of(error: BaseException) -> str:
    "An exception in a line."
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except Exception:  # noqa: BLE001 - a candidate's exception may not even have a text
        return type(error).__name__


def named(error: BaseException) -> dict:
    "An exception by the names of its built-in types, the nearest first, and its arguments."
    names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
    try:
        return {"names": names, "args": encode(list(error.args)), "line": line_of(error)}
    except Odd:
        return {"names": names, "args": [line_of(error)], "line": line_of(error)}


def raised(told: dict) -> Exception:
    "The nearest built-in exception to one that the candidate raised."
    import builtins

    for name in told["names"]:
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(*decode(told["args"]))
            except TypeError:  # such as UnicodeDecodeError, which wants five arguments
                continue
    raise ValueError("no exception of this name")


def outcome(function) -> tuple[bytes, object]:
    "What a piece of candidate code led to: a letter, and a body."
    try:
        return b"v", encode(function())
    except Odd as odd:
        return b"o", str(odd)
    except MemoryError:
        return b"m", "MemoryError"
    except Exception as error:  # noqa: BLE001 - it goes to the tests
        return b"r", named(error)
    except BaseException as error:  # noqa: BLE001 - an exit is an answer, too
        return b"l", type(error).__name__


def module(name: str, code: str, **names) -> dict:
    "The namespace of some code that runs as a module of that name."
    made = sys.modules[name] = ModuleType(name)
    vars(made).update(names)
    if "random" in code:
        import random

        random.seed(0)
    exec(compile(code, f"<{name}>", "exec", dont_inherit=True), vars(made))  # noqa: S102 - what this sandbox is for
    return vars(made)


def candidate(border: Border, code: str, entry_point: str):
    "Define the candidate, then answer calls until the host goes."
    found = {}

    def load():
        found["function"] = module("candidate", code)[entry_point]

    letter, told = outcome(load)
    border.send(*((b"t", told["line"]) if letter == b"r" else (letter, told)))
    while True:
        letter, body = border.receive()
        if letter == b"e":
            border.send(b"e", "")
            continue
        args, kwargs = read_value(body)
        border.send(*outcome(lambda args=args, kwargs=kwargs: found["function"](*args, **kwargs)))


class Proxy:
    "The candidate as the tests see it."

    def __init__(self, border: Border):
        self.border, self.error = border, None

    def __call__(self, *args, **kwargs):
        try:
            call = encode([list(args), kwargs])
        except Odd as odd:
            self.leave(b"u", str(odd))
        self.border.send(b"c", call)
        letter, body = self.border.receive()
        try:
            value = read_value(body) if letter == b"v" else raised(json.loads(body))
        except Exception as error:  # noqa: BLE001 - whatever was written there, it was no value
            self.leave(b"x", line_of(error))
        if letter == b"v":
            return value
        self.error = value
        raise value

    def leave(self, letter: bytes, text: str):
        "End the tests in a way that they cannot catch."
        self.border.send(letter, text)
        os._exit(0)


def tests(border: Border, code: str, entry_point: str):
    "Run the tests against the candidate on the other side, and say how they ended."
    proxy = Proxy(border)
    try:
        module("tests", code, candidate=proxy, **{entry_point: proxy})
        border.send(b"p", "")
    except MemoryError:
        border.send(b"m", "the tests met the memory limit")
    except BaseException as error:  # noqa: BLE001 - tests end in an exception, that is their verdict
        failed = isinstance(error, AssertionError) and error is not proxy.error
        border.send(b"f" if failed else b"t", str(error) if failed else line_of(error))


def main(role: str, source: str, target: str):
    "Say that the interpreter is up, take the limits and the code, and begin."
    os.dup2(1, 2)
    os.environ.clear()
    border = Border(int(source), int(target))
    border.send(b"h", "")
    told = json.loads(border.receive()[1])
    limit(told["seconds"], told["memory"])
    {"candidate": candidate, "tests": tests}[role](border, told["code"], told["entry_point"])


if __name__ == "__main__":
    main(*sys.argv[1:])
