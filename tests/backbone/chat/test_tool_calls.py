import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.chat.tool_calls import Event, InvalidToolCall, ReasoningDelta, TextDelta, ToolCall, ToolCallParser

OSLO = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
BRACES = '<tool_call>\n{"name": "run", "arguments": {"code": "if x { return \\"}\\" } </b> é"}}\n</tool_call>'
WEATHER = ToolCall("get_weather", {"city": "Oslo"})
CODE = ToolCall("run", {"code": 'if x { return "}" } </b> é'})


def parse(pieces: Sequence[str], **options: bool) -> list[Event]:
    """Feed the pieces and return the events, adjacent deltas of one kind joined."""
    parser = ToolCallParser(**options)
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            joined[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            joined[-1] = ReasoningDelta(last.text + event.text)
        else:
            joined.append(event)
    return joined


REPLIES: dict[str, tuple[str, list[Event]]] = {
    "text": ("Hello, you.\n", [TextDelta("Hello, you.\n")]),
    "nothing": ("", []),
    "call": (OSLO, [WEATHER]),
    "two calls": (f"{OSLO}\n{BRACES}", [WEATHER, CODE]),
    "text and call": (f"Let me see.\n\n{OSLO}\n", [TextDelta("Let me see."), WEATHER]),
    "text after a call": (f"{OSLO}\nDone.", [WEATHER, TextDelta("Done.")]),
    "reasoning": ("<think>\nHm,  hm.\n</think>\n\nHi.", [ReasoningDelta("Hm,  hm."), TextDelta("Hi.")]),
    "empty reasoning": ("<think>\n\n</think>\n\nHi.", [TextDelta("Hi.")]),
    "reasoning, text, calls": (
        f"<think>\nx\n</think>\n\nSee:\n{OSLO}\n{OSLO}",
        [ReasoningDelta("x"), TextDelta("See:"), WEATHER, WEATHER],
    ),
    "reasoning without end": ("<think>\nHm, hm", [ReasoningDelta("Hm, hm")]),
    "call in reasoning": (f"<think>{OSLO}</think>ok", [ReasoningDelta(OSLO), TextDelta("ok")]),
    "call without end tag": (OSLO.removesuffix("</tool_call>"), [WEATHER]),
    "first call without end tag": (OSLO.removesuffix("</tool_call>") + BRACES, [WEATHER, CODE]),
    "tag in prose": ("Write <tool_call> first.", [TextDelta("Write <tool_call> first.")]),
    "tag in prose before a call": (f"A <tool_call> is:\n{OSLO}", [TextDelta("A <tool_call> is:"), WEATHER]),
    "part of a tag": ("a < b <tool_c", [TextDelta("a < b <tool_c")]),
    "end tag alone": ("ok </tool_call> ok", [TextDelta("ok </tool_call> ok")]),
    "no arguments": ('<tool_call>{"name": "now"}</tool_call>', [ToolCall("now", {})]),
    "null arguments": ('<tool_call>{"name": "now", "arguments": null}</tool_call>', [ToolCall("now", {})]),
    "arguments as text": (
        '<tool_call>{"name": "now", "arguments": "{\\"zone\\": 1}"}</tool_call>',
        [ToolCall("now", {"zone": 1})],
    ),
    "line break in a string": (
        '<tool_call>{"name": "say", "arguments": {"a": "x\ny"}}</tool_call>',
        [ToolCall("say", {"a": "x\ny"})],
    ),
    "tag in an argument": (
        '<tool_call>{"name": "say", "arguments": {"a": "<tool_call>"}}</tool_call>',
        [ToolCall("say", {"a": "<tool_call>"})],
    ),
}

MISTAKES = {
    "cut off": ('<tool_call>\n{"name": "get_weather", "arguments": {"ci', "get_weather", "Unterminated string"),
    "not JSON": ("<tool_call>\nget_weather(Oslo)\n</tool_call>", None, "Expecting value"),
    "nothing": ("<tool_call></tool_call>", None, "Expecting value"),
    "two objects": ('<tool_call>{"name": "a"} {"name": "b"}</tool_call>', "a", "Extra data"),
    "a list": ('<tool_call>[{"name": "a"}]</tool_call>', "a", "a JSON object is expected, got list"),
    "no name": ('<tool_call>{"arguments": {}}</tool_call>', None, '"name" must be a string'),
    "empty name": ('<tool_call>{"name": "", "arguments": {}}</tool_call>', None, '"name" must be a string'),
    "arguments as a list": (
        '<tool_call>{"name": "a", "arguments": [1]}</tool_call>',
        "a",
        '"arguments" must be a JSON',
    ),
    "not a number": ('<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', "a", "NaN is not JSON"),
    "half a character": ('<tool_call>{"name": "a", "arguments": {"x": "\\ud800"}}</tool_call>', "a", "surrogates"),
    "too deep": ('<tool_call>{"name": "a", "arguments": ' + "[" * 100_000 + "</tool_call>", "a", "recursion"),
    "too many digits": (
        '<tool_call>{"name": "a", "arguments": {"x": ' + "9" * 5000 + "}}</tool_call>",
        "a",
        "4300 digits",
    ),
    "end tag in a string": ('<tool_call>{"name": "a", "arguments": {"x": "</tool_call>"}}', "a", "Unterminated string"),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_gives_its_events(name: str) -> None:
    """Whole or letter by letter, a reply gives the same reasoning, text and calls."""
    reply, events = REPLIES[name]
    assert parse([reply]) == events
    assert parse(list(reply)) == events


@pytest.mark.parametrize("name", MISTAKES)
def test_a_malformed_call_comes_out_as_such(name: str) -> None:
    """A call that cannot be read keeps its text and says what is wrong; nothing is raised."""
    reply, called, reason = MISTAKES[name]
    call = parse([reply])[0]
    assert isinstance(call, InvalidToolCall)
    assert call.name == called
    assert call.raw == reply.removeprefix("<tool_call>").split("</tool_call>")[0].strip()
    assert reason in call.reason


def test_what_follows_a_malformed_call_is_not_lost() -> None:
    """Text and calls after a mistake come out as if it were not there."""
    events = parse([f"<tool_call>\noops\n</tool_call>\n{OSLO}\nDone."])
    assert isinstance(events[0], InvalidToolCall)
    assert events[1:] == [WEATHER, TextDelta("Done.")]


def test_a_call_comes_as_soon_as_its_tag_closes() -> None:
    """Text streams at once, a call at its closing tag, and only a possible tag is held back."""
    parser = ToolCallParser()
    assert parser.feed("Let me ") == [TextDelta("Let me")]
    assert parser.feed("see. <tool") == [TextDelta(" see.")]
    assert parser.feed("_call>") == []
    assert parser.feed(OSLO.removeprefix("<tool_call>").removesuffix("call>")) == []
    assert parser.feed("call>") == [WEATHER]
    assert parser.finish() == []


def test_reasoning_may_begin_in_the_prompt() -> None:
    """Where the prompt ended with <think>, the reply begins inside the reasoning."""
    assert parse(["Hm.\n</think>\n\nHi."], reasoning_open=True) == [ReasoningDelta("Hm."), TextDelta("Hi.")]
    assert parse(["Hm.\n</think>\n\nHi."]) == [TextDelta("Hm.\n</think>\n\nHi.")]


PARTS = [reply for reply, _ in REPLIES.values()] + [
    reply for name, (reply, *_) in MISTAKES.items() if name not in ("too deep", "too many digits")
]


@given(
    reply=st.lists(
        st.sampled_from([*PARTS, " ", "\n", "<", "<think>", "</think>", "text"]) | st.text(max_size=8), max_size=6
    ),
    cuts=st.lists(st.integers(0, 400)),
    reasoning_open=st.booleans(),
)
def test_any_split_gives_the_same_events(reply: list[str], cuts: list[int], reasoning_open: bool) -> None:
    """However a reply is cut into pieces, the events are the same, and none is lost to an exception."""
    text = "".join(reply)
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    assert parse(pieces, reasoning_open=reasoning_open) == parse([text], reasoning_open=reasoning_open)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(arguments=st.dictionaries(st.text(max_size=8), JSON, max_size=4), ascii_only=st.booleans())
def test_any_arguments_come_through(arguments: dict[str, object], ascii_only: bool) -> None:
    """What a template would print for a call is read back as that call."""
    body = json.dumps({"name": "f", "arguments": arguments}, ensure_ascii=ascii_only)
    assert parse(["<tool_call>\n", body, "\n</tool_call>"]) == [ToolCall("f", arguments)]


def test_many_stray_tags_are_only_text() -> None:
    """Thousands of opening tags neither fail nor get lost."""
    text = "<tool_call>" * 3000
    assert parse([text]) == [TextDelta(text)]
