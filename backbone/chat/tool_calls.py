"""Read a reply as it is written: reasoning, text, and tool calls in the Hermes form of Qwen, SmolLM and others.

A call is `{"name": ..., "arguments": {...}}` between `<tool_call>` and `</tool_call>`; reasoning is between `<think>`
and `</think>`.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from transformers.utils.chat_parsing import ResponseParser

__all__ = ["Event", "InvalidToolCall", "ReasoningDelta", "TextDelta", "ToolCall", "ToolCallParser"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class TextDelta:
    """Hold more of the reply's text."""

    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """Hold more of the reply's reasoning."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """Hold a complete tool call."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class InvalidToolCall:
    """Hold what stands where a tool call should be, without its tags, and why it is none; name if that is clear."""

    name: str | None
    raw: str
    reason: str


Event = TextDelta | ReasoningDelta | ToolCall | InvalidToolCall


# transformers' own entry for this form parses the JSON itself and raises on a bad call, losing what comes after it; so
# its parser only finds the regions here, and what stands in a call's region is judged below.
_REGIONS = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning": {"open": "<think>", "close": "</think>", "content": "text", "repeats": True},
        "call": {"open": _OPEN, "close": _CLOSE, "content": "text", "repeats": True},
        "content": {"content": "text", "repeats": True},
    },
}


class ToolCallParser:
    """Turn the pieces of one reply into events.

    Any way of cutting the reply up gives the same events, once adjacent deltas of one kind are joined. Whitespace
    between text, reasoning and calls belongs to the form and is dropped. A tool call comes out when it is complete.
    Nothing raises: what is no proper call comes out as InvalidToolCall, or as text if it was only a mention.
    """

    def __init__(self, *, reasoning_open: bool = False) -> None:
        """Start a reply; reasoning_open says that the prompt itself ended with `<think>`."""
        self._parser = ResponseParser(_REGIONS, prefix="<think>" if reasoning_open else "")
        self._call = ""
        self._space = ""  # whitespace that may turn out to separate text from a call
        self._at_start = False  # of a part whose leading whitespace is only form

    def feed(self, text: str) -> list[Event]:
        """Take more of the reply and return what has become certain."""
        return self._translate(self._parser.feed(text), ended=False)

    def finish(self) -> list[Event]:
        """Return what is left at the end of the reply; a call whose closing tag is missing counts if it is complete."""
        events = self._translate(self._parser.finalize()[1], ended=True)
        if self._space:
            events.append(TextDelta(self._space))
            self._space = ""
        return events

    def _translate(self, regions: list[dict[str, Any]], *, ended: bool) -> list[Event]:
        events: list[Event] = []
        for region in regions:
            kind, field = region["type"], region["field"]
            if field == "call":
                if kind == "region_chunk":
                    self._call += region["text"]
                elif kind == "region_close":
                    events += self._judge(self._call, closed=not ended)
                    self._call = ""
            elif kind == "region_chunk":
                events += self._say(region["text"], reasoning=field == "reasoning")
            elif field == "reasoning":
                self._start_part()
        return events

    def _say(self, text: str, *, reasoning: bool = False) -> list[Event]:
        text = self._space + text
        if self._at_start:
            text = text.lstrip()
        said = text.rstrip()
        self._space = text[len(said) :]
        if not said:
            return []
        self._at_start = False
        return [ReasoningDelta(said) if reasoning else TextDelta(said)]

    def _start_part(self) -> None:
        self._space = ""
        self._at_start = True

    def _judge(self, body: str, *, closed: bool) -> list[Event]:
        """Tell what stands between a call's tags: a call, several that were never closed, a mention, or a mistake."""
        call = _read_call(body)
        if isinstance(call, InvalidToolCall) and _OPEN in body:
            *unclosed, last = body.split(_OPEN)
            events = [event for part in unclosed for event in self._judge(part, closed=False)]
            return events + self._judge(last, closed=closed)
        if isinstance(call, InvalidToolCall) and not closed and not body.lstrip().startswith("{"):
            return self._say(_OPEN + body)
        self._start_part()
        return [call]


def _read_call(body: str) -> ToolCall | InvalidToolCall:
    """Read the JSON of a call; control characters inside strings are let through, as models write them."""
    try:
        call = _load(body)
        # A lone surrogate passes JSON, but no database or terminal would take it.
        json.dumps(call, ensure_ascii=False).encode()
        if not isinstance(call, dict):
            raise ValueError(f"a JSON object is expected, got {type(call).__name__}")
        name, arguments = call.get("name"), call.get("arguments")
        if not isinstance(name, str) or not name:
            raise ValueError(f'"name" must be a string that is not empty, got {name!r}')
        if isinstance(arguments, str):
            arguments = _load(arguments)
        if arguments is not None and not isinstance(arguments, dict):
            raise ValueError(f'"arguments" must be a JSON object, got {type(arguments).__name__}')
    except (ValueError, RecursionError) as error:
        named = re.search(r'"name"\s*:\s*"([^"\\]+)"', body)
        return InvalidToolCall(named[1] if named else None, body.strip(), str(error))
    return ToolCall(name, arguments or {})


def _load(text: str) -> Any:
    return json.loads(text, strict=False, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
