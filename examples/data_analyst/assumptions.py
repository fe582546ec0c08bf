"""Say where each assumption of a tool call came from, by what stood in the prompt that the call was written from."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from deltamem_agents import HybridMemory, recalled_text

from .statements import ASSUMED, Assumed, cited, mentions, newest_record, newest_statement, states

__all__ = [
    "ASSUMPTIONS_KEY",
    "Assumption",
    "Prompt",
    "as_lines",
    "kept_group",
    "stated_unit",
    "trace",
    "unkept_group",
]

ASSUMPTIONS_KEY = "assumptions"
_PASSAGE = re.compile(r"^\[m:([0-9a-f]+)\] (\d{4}-\d\d-\d\d) ", re.MULTILINE)
_MEASURED = "amounts|costs|figures|measurements|money|numbers|prices|values"
_UNITS = (
    re.compile(
        rf"\b(?:{_MEASURED}) (?:is|are) (?:(?:all|given|measured|reported|shown) )?in ([^\s.,;!?]+)", re.IGNORECASE
    ),
    re.compile(rf"\b(?:report|show|give) (?:all )?(?:{_MEASURED}) in ([^\s.,;!?]+)", re.IGNORECASE),
    re.compile(r"\bthe (?:currency|unit) is ([^\s.,;!?]+)", re.IGNORECASE),
)

Source = Literal[
    "this message",
    "the prompt",
    "an earlier call",
    "a cited record",
    "working memory",
    "the filter",
    "no filter",
    "the archive",
    "unknown",
]


@dataclass(frozen=True)
class Assumption:
    """Hold one assumption, and where it came from; citation and said name the record that states it, if one does."""

    name: str
    value: str
    source: Source
    citation: str | None = None
    said: str | None = None

    def __str__(self) -> str:
        where = {
            "this message": "said in this message",
            "the prompt": "said earlier, and still in the prompt",
            "an earlier call": "as in an earlier call that is still in the prompt",
            "a cited record": "quoted to the model from the archive",
            "working memory": "from the working memory",
            "the filter": "chosen by filter_rows earlier in this thread",
            "no filter": "that was said, but no filter_rows of this thread has chosen it",
            "the archive": "said earlier; the tools convert nothing",
            "unknown": "nothing you said states it; the model may have made it up",
        }[self.source]
        record = f", [m:{self.citation}] of {self.said}" if self.citation else ""
        return f"{self.name} {self.value} ({where}{record})"

    def as_data(self) -> dict[str, str | None]:
        """Return plain data for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class Prompt:
    """Hold what a call was written from.

    messages: those of the request, the recalled block among them. text: the prompt as the model saw it, which older
    messages have left; None if the model saw all messages.
    """

    messages: Sequence[BaseMessage]
    text: str | None

    def has(self, text: str) -> bool:
        """Tell whether a text stood in the prompt."""
        return self.text is None or text in self.text


def trace(argument: str, value: str, prompt: Prompt, memory: HybridMemory) -> Assumption:
    """Say where the value of an argument came from: the first place of these that states it.

    This message; another message in the prompt; a passage that the archive gave to the prompt; an earlier call in the
    prompt; otherwise the working memory, if the archive has a message of the user's that states the value, and if it
    has none, nobody knows. It is a statement about where the words stood, not about what went on in the model.
    """
    assumed = ASSUMED[argument]
    people = [
        m for m in prompt.messages if isinstance(m, HumanMessage | AIMessage) and m.text and not recalled_text([m])
    ]
    newest = max((at for at, message in enumerate(people) if isinstance(message, HumanMessage)), default=-1)
    if newest >= 0 and mentions(people[newest].text, value):
        return Assumption(assumed.name, value, "this message")
    if any(states(m.text, value, assumed) and prompt.has(m.text) for m in people):
        return Assumption(assumed.name, value, "the prompt")
    for citation, said, text in _passages(recalled_text(prompt.messages)):
        if states(text, value, assumed):
            return Assumption(assumed.name, value, "a cited record", citation, said)
    if _called(argument, value, prompt):
        return Assumption(assumed.name, value, "an earlier call")
    record = _statement(value, assumed, memory)
    return Assumption(assumed.name, value, "unknown" if record is None else "working memory", *(record or ()))


def kept_group(group: str, memory: HybridMemory) -> Assumption:
    """Describe the subgroup that a filter of the thread keeps, with the newest record that states it."""
    assumed = ASSUMED["group"]
    return Assumption(assumed.name, group, "the filter", *(_statement(group, assumed, memory) or ()))


def unkept_group(groups: str, memory: HybridMemory) -> Assumption | None:
    """Say that all rows were used though the user has stated a subgroup; groups: those of the table, as an expression.

    None where nothing was said. Whether a filter of the thread has chosen one is for the caller to know.
    """
    found = newest_statement(ASSUMED["group"], groups, memory)
    if found is None:
        return None
    group, record = found
    return Assumption(ASSUMED["group"].name, f"all rows, not {group}", "no filter", *cited(record))


def stated_unit(prompt: Prompt, memory: HybridMemory) -> Assumption | None:
    """Return the unit that numbers are in, if a person has said so: in the prompt, else in the archive, the newest.

    No tool takes a unit, so this is how to read the numbers, and not what a call was told.
    """
    said = [str(m.text) for m in prompt.messages if isinstance(m, HumanMessage) and not recalled_text([m])]
    for text in reversed(said):
        if (unit := _unit_in(text)) and prompt.has(text):
            return Assumption("unit", unit, "this message" if text is said[-1] else "the prompt")
    quoted = _passages(recalled_text(prompt.messages))
    for citation, day, text in sorted(quoted, key=lambda passage: passage[1], reverse=True):
        if text.startswith("user: ") and (unit := _unit_in(text)):
            return Assumption("unit", unit, "a cited record", citation, day)
    words = f"currency unit {_MEASURED.replace('|', ' ')}"
    record = newest_record(words, memory, lambda text: _unit_in(text) is not None)
    return None if record is None else Assumption("unit", str(_unit_in(record.text)), "the archive", *cited(record))


def _unit_in(text: str) -> str | None:
    found = [match for pattern in _UNITS for match in pattern.finditer(text)]
    return None if not found or text.rstrip().endswith("?") else max(found, key=lambda match: match.start())[1]


def _called(argument: str, value: str, prompt: Prompt) -> bool:
    calls = (call for m in prompt.messages if isinstance(m, AIMessage) for call in m.tool_calls)
    return any(call["args"].get(argument) == value for call in calls) and prompt.has(
        json.dumps({argument: value}, ensure_ascii=False)[1:-1]
    )


def _passages(block: str) -> list[tuple[str, str, str]]:
    """Split a recalled block into (citation, date, text)."""
    parts = _PASSAGE.split(block)[1:]
    return list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))


def _statement(value: str, assumed: Assumed, memory: HybridMemory) -> tuple[str, str] | None:
    """Return citation and date of the newest archived message in which the user states the value."""
    record = newest_record(value, memory, lambda text: states(text, value, assumed))
    return None if record is None else cited(record)


def as_lines(notes: Sequence[Mapping[str, Any]]) -> str:
    """Return what a person reads about the assumptions of an answer."""
    return "\n".join(f"  {Assumption(**note)}" for note in notes) or "  none"
