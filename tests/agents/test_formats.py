"Formats: the strict reader against jsonschema, the lenient reader on damage."
import itertools
import json
import random

import pytest

from optima.agents.formats import FIELDS, ROLES, SCHEMAS, check, close_json, parse
from optima.agents.messages import Message
from optima.base.errors import OptimaError
from optima.base.files import canonical_json

VALUES = ["", "x", " accept ", "accept", "revise", "Accept", 3, 2.5, None, True, [], ["a"], ["a", ""], ["a", 1], [[]], {},
          {"answer": "x"}, " "]
SHAPES = [(), ("answer",), ("say",), ("verdict",), ("plan",), ("tool",), ("tool", "input"), ("tool", "input", "answer"),
          ("say", "answer"), ("say", "tool", "input"), ("extra", "answer"), ("Answer",), ("plan", "say")]


def objects():
    "Objects of every shape with every value, and values that are no objects."
    yield from VALUES
    for names in SHAPES:
        yield from (dict(zip(names, values)) for values in itertools.product(VALUES, repeat=len(names))
                    if len(names) < 3 or "x" in values[1:])


def stripped(value):
    if isinstance(value, str): return value.strip()
    if isinstance(value, list): return [stripped(item) for item in value]
    return {name: stripped(item) for name, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("role", ROLES)
def test_check_agrees_with_jsonschema(role):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[role])
    validator = jsonschema.Draft202012Validator(SCHEMAS[role])
    cases = list(objects())
    assert len(cases) > 2000
    seen = set()
    for value in cases:
        valid = validator.is_valid(stripped(value))
        assert (check(role, json.dumps(value)) == []) == valid, value
        seen.add(valid)
    assert seen == {True, False}


@pytest.mark.parametrize("content", ["", "accept", "[" * 100_000, '{"answer": "x"} and more', '```{"answer": "x"}```',
                                     '{"answer": "x",}', "{'answer': 'x'}", '{"answer": "a\nb"}', '\ufeff{"answer": "x"}',
                                     '{"answer": NaN}', "1" * 5000])
def test_check_is_strict(content):
    assert check("single", content)


def test_unknown_role_is_a_user_error():
    with pytest.raises(OptimaError, match="choose one of"): check("judge", "{}")


def test_fields_are_those_of_the_schemas():
    options = [option for schema in SCHEMAS.values() for option in schema.get("oneOf", [schema])]
    assert {name for option in options for name in option["properties"]} == set(FIELDS)


BROKEN = {
    '{"answer": "a\nb"}': {"answer": "a\nb"},
    '{"answer": "print("hi")"}': {"answer": 'print("hi")'},
    '{"answer": "print(\\"hi\\")", "say": "x': {"answer": 'print("hi")', "say": "x"},
    '{"say":" hello ,"answer":" x + 1 "}': {"say": "hello", "answer": "x + 1"},
    '{"say":" hello team ","answer":" x + 1 }': {"say": "hello team", "answer": "x + 1 }"},
    '{"say":" hello "," answer":" x "': {"say": "hello", "answer": "x"},
    '{"verdict": "accept",': {"verdict": "accept"},
    '{"verdict": accept}': {"verdict": "accept"},
    '{"plan": ["a", "b"': {"plan": ["a", "b"]},
    '{"plan": ["a", "b': {"plan": ["a", "b"]},
    '{"answer": "a\\': {"answer": "a"},
    "{'tool': 'search', 'input': 'it\\'s'}": {"tool": "search", "input": "it's"},
    "Verdict: revise\nSay: the sum first": {"verdict": "revise", "say": "the sum first"},
    'I use {x}. {"answer": "y"}': {"answer": "y"},
    '[{"answer": "y"}]': {"answer": "y"},
    '{"note": 1} {"answer": "y"}': {"answer": "y"},
    '{"Answer": " y "}': {"answer": "y"},
    '{"answer": "y"}{"answer": "z"}': {"answer": "y"},
    '{"answer": "y"} say: no': {"answer": "y"},
    "accept": {"verdict": "accept"}, " Accept.\n": {"verdict": "accept"}, '"revise"': {"verdict": "revise"}, "I accept it": {},
    "": {}, "{": {}, "}": {}, '"': {}, "null": {}, "[1]": {}, "{}": {}, "just words": {},
}


@pytest.mark.parametrize("text", BROKEN)
def test_parse_understands_damage(text):
    assert parse(text) == BROKEN[text]


def test_parse_never_raises_and_stays_quick():
    rng = random.Random(0)
    alphabet = ['{', '}', '[', ']', '"', "'", ":", ",", "\\", "\n", " ", "answer", "say", "plan", '"answer":"', "é", "\ud800", "0"]
    for _ in range(3000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(40)))
        fields = parse(text)
        assert isinstance(fields, dict)
        canonical_json(fields).encode()
        message = Message("a", rng.choice(ROLES), text)
        assert all(isinstance(value, str) for value in (message.answer, message.say, message.verdict, message.tool))
        assert all(isinstance(step, str) and step for step in message.plan)


@pytest.mark.parametrize("text", ["{" * 20_000, '{"answer":' * 2_000, '"' * 20_000, 'answer: "' * 3_000, " " * 20_000 + "{",
                                  "answer" + " " * 20_000, '{"answer": "' + "x " * 10_000, "[" * 50_000, '{"a":' * 50_000,
                                  'say:"' + ", " * 10_000, 'say:"' + '"   ' * 5_000, "say:'" + "'    " * 5_000])
def test_parse_of_hostile_text_ends_soon(text):
    from time import perf_counter
    start = perf_counter()
    parse(text)
    assert perf_counter() - start < 2


def test_close_json_leaves_whole_json_alone():
    for text in ['{"a": [1, {"b": "}"}]}', '"\\""', '{"a": "\\\\"}']: assert close_json(text) == text
