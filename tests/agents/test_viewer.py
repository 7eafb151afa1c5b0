"What the viewer shows, and what it never lets through."
import itertools
import json
from html.parser import HTMLParser

import pytest

from optima.agents.formats import MARKED, ROLES
from optima.agents.messages import Message, Trajectory
from optima.agents.viewer import annotated, escaped, side_by_side, slider, tokens_view, trajectory_html, why_ended
from optima.base.errors import OptimaError

SCRIPT = '<script>alert("x")</script>'
ATTACKS = [SCRIPT, '<img src=x onerror=alert(1)>', '"\' onmouseover="alert(1)" style="', '</div></details></u>', "\ud800" + SCRIPT]
TAGS = {"div", "span", "b", "u", "code", "details", "summary"}
ATTRIBUTES = {(), ("style",), ("aria-label", "role", "style", "tabindex")}


def hostile(attack):
    contents = [attack, json.dumps({"answer": attack}), json.dumps({attack: attack, "answer": "x"}), json.dumps({"plan": [attack]}),
                json.dumps({"answer": {attack: attack}}), json.dumps({"verdict": attack})]
    messages = [Message(attack + str(i), role, content, attack, [1, 2], cut=True)
                for i, (content, role) in enumerate(itertools.product(contents, (*ROLES, *MARKED, attack)))]
    return Trajectory(attack, attack, attack, attack, messages, attack, {attack: attack}, rewards={attack: attack, "total": attack})


def views(attack):
    talk = hostile(attack)
    return [talk._repr_html_(), side_by_side({attack: talk, "b": talk}).html, slider({attack: talk, "b": talk}).html,
            annotated(talk, {attack: [attack] * talk.turns}).html, tokens_view([attack, attack], [0, 1], attack).html]


class Page(HTMLParser):
    "The tags and attributes of a page, and whether each tag is closed in order."

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.styles, self.open, self.text = set(), set(), set(), [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)
        self.attributes.add(tuple(sorted(name for name, _ in attrs)))
        self.styles |= {value or "" for name, value in attrs if name == "style"}

    def handle_endtag(self, tag): assert self.open.pop() == tag
    def handle_data(self, data): self.text += data


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_was_said_becomes_html(attack):
    plain = [Page(page) for page in views("harmless")]
    for page, calm in zip(views(attack), plain):
        found = Page(page)
        assert found.tags <= TAGS and found.attributes <= ATTRIBUTES
        assert found.styles <= calm.styles
        assert attack.encode("utf-8", "replace").decode() in found.text
        page.encode()


@pytest.mark.parametrize("attack", ATTACKS[:2] + ATTACKS[3:4])
def test_an_unescaped_field_would_be_noticed(attack, monkeypatch):
    monkeypatch.setattr("optima.agents.viewer.escaped", str)
    for page in views(attack):
        with pytest.raises((AssertionError, IndexError)):
            found = Page(page)
            assert found.tags <= TAGS and found.attributes <= ATTRIBUTES


def test_styles_are_those_that_jupyterlab_keeps():
    "Of an output that was not run here, JupyterLab drops every other property (the strip's snapping among them)."
    kept = {"background-color", "border-left", "border-radius", "display", "flex", "flex-wrap", "align-items", "gap", "font-size", "height",
            "line-height", "margin", "margin-top", "max-height", "max-width", "min-width", "opacity", "overflow-wrap", "overflow-x",
            "overflow-y", "padding", "padding-bottom", "white-space", "width"}
    styles = set().union(*(Page(page).styles for page in views("harmless")))
    used = dict(part.split(":", 1) for style in styles for part in style.split(";"))
    assert used.keys() - kept == {"scroll-snap-align", "scroll-snap-type"}
    assert used["overflow-wrap"] == "break-word"


def test_no_text_stands_in_an_attribute():
    for page in views("harmless"):
        assert "harmless" not in "".join(Page(page).styles) and '="harmless' not in page


def talk(paradigm, *turns, systems=("a", "b"), cut=False):
    messages = [Message(speaker, role, content, cut=cut) for speaker, role, content in turns]
    return Trajectory("t", paradigm, "none", 0, messages, "", dict.fromkeys(systems, ""))


PROPOSAL, REVISE, ACCEPT = (("p", "proposer", '{"answer": "1"}'), ("c", "critic", '{"verdict": "revise"}'),
                            ("c", "critic", '{"verdict": "accept"}'))
ENDS = [
    (talk("debate", PROPOSAL, ACCEPT), "the critic accepted"),
    (talk("debate", PROPOSAL, REVISE, PROPOSAL), "the rounds ran out"),
    (talk("debate", PROPOSAL), "the rounds ran out"),
    (talk("single", ("s", "single", '{"answer": "1"}')), "one turn was asked for"),
    (talk("multi_step", ("e", "executor", '{"answer": "1"}')), "the last step was answered"),
    (talk("multi_step", ("e", "executor", '{"tool": "x", "input": "y"}')), "the last step was left without an answer"),
    (talk("exchange", ("a", "partner", "<A>1</A>"), ("b", "partner", "so <A> 1 </A>")), "all agreed"),
    (talk("exchange", ("a", "partner", "<A>1</A>"), ("b", "partner", "<A>2</A>")), "the rounds ran out"),
    (talk("exchange", ("a", "partner", "<A>1</A>")), "the rounds ran out"),
    (talk("solver_critic", ("s", "solver", "<A>1</A>"), ("c", "adviser", "hm"), ("s", "solver", "<A>1</A>")), "the answer was repeated"),
    (talk("solver_critic", ("s", "solver", "<A>1</A>"), ("c", "adviser", "hm"), ("s", "solver", "<A>2</A>")), "the rounds ran out"),
    (talk("recorded", ("s", "single", "x")), ""),
    (talk("recorded", ("s", "single", "x"), cut=True), "the last message was cut at its limit of tokens"),
    (talk("debate", PROPOSAL, REVISE, PROPOSAL, cut=True), "the rounds ran out; the last message was cut at its limit of tokens"),
    (talk("debate"), ""),
]


@pytest.mark.parametrize("dialogue, reason", ENDS, ids=lambda value: value if isinstance(value, str) else value.paradigm)
def test_why_a_dialogue_ended(dialogue, reason):
    assert why_ended(dialogue) == reason
    assert (f"ended: {reason}" in trajectory_html(dialogue)) == bool(reason)


def test_each_message_says_what_it_cost():
    messages = [Message("a", "single", '{"answer": "1"}', token_ids=[0] * count) for count in (3, 1)]
    page = Page(trajectory_html(Trajectory("t", "single", "none", 0, messages, "1", {})))
    assert "3 tokens (75%)" in page.text and "1 token (25%)" in page.text and "4 tokens" in page.text
    uncounted = Page(trajectory_html(talk("single", ("a", "single", "x")))).text
    assert "%" not in uncounted and "0 tokens" not in uncounted and "1 message · tokens not counted" in uncounted


def test_notes_stand_beside_their_messages():
    dialogue = talk("debate", PROPOSAL, ACCEPT)
    found = Page(annotated(dialogue, {"loss": [1.5, 2.25]}).html).text
    assert found.index("loss 1.50") < found.index("verdict") < found.index("answer: ", found.index("loss 2.25"))
    with pytest.raises(OptimaError, match="'loss': 1 numbers for 2 messages"): annotated(dialogue, {"loss": [1.0]})


def test_the_mask_is_more_than_a_colour():
    view = tokens_view(["a", "b\n", "<c>"], [0, 1, 0], "x")
    assert view.html.count("<u ") == 1 and "↵" in view.html and repr(view) == "x: 1 of 3 tokens are learnt (underlined)"
    with pytest.raises(OptimaError, match="3 tokens and a mask of 2"): tokens_view(["a", "b", "c"], [0, 1])


def test_dialogues_stand_in_the_order_given():
    one = talk("debate", PROPOSAL, ACCEPT)
    for view in (side_by_side({"z": one, "a": one}), slider({"z": one, "a": one})):
        assert view.html.index("z</b>") < view.html.index("a</b>")
        assert [line[0] for line in repr(view).split("\n")] == ["z", "a"]


def test_empty_dialogue_is_shown():
    nothing = Trajectory.from_messages([])
    assert "0 messages" in nothing._repr_html_() and slider({"nothing": nothing}).html and slider({}).html


def test_escaped_is_fit_for_a_file():
    assert escaped("\ud800<&\"'>") == "?&lt;&amp;&quot;&#x27;&gt;"
