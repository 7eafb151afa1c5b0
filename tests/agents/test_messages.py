"Messages: fields of other types, views, byte stability, dialogues from elsewhere."
import pytest

from optima.agents.messages import Message, Trajectory, read_jsonl, valid_share, write_jsonl
from optima.base.errors import OptimaError
from optima.base.files import canonical_json


def test_message_fields_of_other_types():
    message = Message("a", "single", '{"answer": 42, "plan": "1. look\\n2) count\\n- say", "verdict": " Accept. ", "say": null}')
    assert (message.answer, message.plan, message.accepts, message.say) == ("42", ["look", "count", "say"], True, "")
    assert Message("a", "single", '{"answer": ["x", 1], "plan": {"a": 1}}').answer == '["x", 1]'
    assert Message("a", "planner", '{"plan": [" a ", "", 3]}').plan == ["a", "3"]
    assert Message("a", "planner", '{"plan": {"1": "a", "2": "b"}}').plan == ["a", "b"]
    assert Message("a", "planner", "no plan").plan == Message("a", "planner", '{"plan": {}}').plan == []


def test_fields_of_a_strict_message_are_read_once(monkeypatch):
    message = Message("a", "single", '{"answer": "x"}')
    assert message.fields is message.fields and message.valid
    assert Message("a", "single", '{"answer": "x"}') == message


def test_ids_are_passed_only_where_an_engine_sampled_them():
    own = {source: Message("a", "single", "x", "p", [1, 2], token_source=source) for source in ("engine", "tokenizer")}
    views = {source: Trajectory("t", "single", "none", 0, [message], "", {}).conversation("a") for source, message in own.items()}
    assert views["engine"] == [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x", "token_ids": [1, 2]}]
    assert views["tokenizer"][1] == {"role": "assistant", "content": "x"}


def test_jsonl_round_trip_keeps_odd_text(tmp_path):
    odd = ["\ud800", "a\u2028b\x85c\r\n", "\x00", "é🙂", '"\\', ""]
    dialogues = [Trajectory(text, "single", "none", i, [Message("a", "single", text, text, [1, 2])], text, {"a": text})
                 for i, text in enumerate(odd)]
    dialogues[0].rewards = {"total": 0.1 + 0.2, "status": "passed"}
    write_jsonl(tmp_path / "deep" / "a.jsonl", dialogues)
    back = read_jsonl(tmp_path / "deep" / "a.jsonl")
    assert back == dialogues
    write_jsonl(tmp_path / "b.jsonl", back)
    data = (tmp_path / "b.jsonl").read_bytes()
    assert data == (tmp_path / "deep" / "a.jsonl").read_bytes() and data.count(b"\n") == len(odd)
    assert "é🙂".encode() in data


def test_jsonl_does_not_depend_on_the_order_of_keys(tmp_path):
    one, two = (Trajectory("t", "p", "s", 0, [], "", systems) for systems in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}))
    for name, dialogue in (("one", one), ("two", two)): write_jsonl(tmp_path / name, [dialogue])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("line", ["{", "[]", "1", '{"task": "t"}', '{"messages": [{"nobody": 1}]}', ""])
def test_jsonl_names_the_bad_line(tmp_path, line):
    write_jsonl(tmp_path / "a.jsonl", [Trajectory("t", "p", "s", 0, [], "", {})])
    with open(tmp_path / "a.jsonl", "a") as file: file.write(line + "\n")
    with pytest.raises(OptimaError, match="a.jsonl, line 2"): read_jsonl(tmp_path / "a.jsonl")


def test_nan_is_refused():
    with pytest.raises(ValueError): canonical_json({"a": float("nan")})


def test_recorded_counts_as_told():
    told = Trajectory.from_messages([{"content": "a b", "token_count": 9}, {"content": "c"}])
    assert told.tokens == 9 and told.answer == "c" and told.messages[0].token_source == "reported"
    counted = Trajectory.from_messages([{"content": "a b", "token_count": 9}], encode=lambda text: [1] * len(text.split()))
    assert counted.tokens == 2 and counted.messages[0].token_source == "tokenizer"
    ours = Trajectory.from_messages([{"speaker": "critic", "role": "critic", "content": '{"verdict":"accept"}', "token_ids": [5, 6]}])
    assert (ours.tokens, ours.valid_share, ours.messages[0].token_source) == (2, 1.0, "engine")
    assert Trajectory.from_dict(told.to_dict()) == told


def test_recorded_prompts_hold_what_is_new_to_each_speaker():
    turns = [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4"), ("a", "5")]
    made = Trajectory.from_messages([{"role": "system", "content": "be kind"}, {"role": "user", "content": "q"}]
                                    + [{"speaker": name, "content": text} for name, text in turns])
    assert [message.prompt for message in made.messages] == ["q", "q\na: 1", "q\na: 1\nb: 2", "b: 2\nc: 3", ""]
    assert made.systems == dict.fromkeys("abc", "be kind")


def test_empty_dialogue():
    nothing = Trajectory.from_messages([])
    assert (nothing.answer, nothing.tokens, nothing.valid_share, nothing.speakers) == ("", 0, 0.0, [])
    assert valid_share([]) == 0.0
