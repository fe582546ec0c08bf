"""Say what a policy can decide, and how several decisions become the strictest one."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import IntEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)

__all__ = [
    "Decision",
    "Forget",
    "Present",
    "RedactedSpan",
    "Retain",
    "Retrieve",
    "Trust",
    "joined",
    "outermost",
    "redacted",
    "strictest",
]

Action = Literal["show", "mask", "withhold", "quarantine"]
_SEVERITY: tuple[Action, ...] = ("show", "mask", "withhold", "quarantine")
T = TypeVar("T", int, timedelta, float)
_LONGEST = timedelta(days=365_000)  # longer than any database can date from now on


class Trust(IntEnum):
    """Say how far a source is trusted; a greater number is more."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2


class RedactedSpan(BaseModel):
    """Name a half-open span of the text that a policy saw, and what is to stand there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    start: NonNegativeInt
    end: NonNegativeInt
    placeholder: str

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"a span ends where it begins or later, got {self.start} to {self.end}")
        return self


class Decision(BaseModel):
    """Hold what one hook decided, and why; the defaults of its subclasses restrict nothing.

    policy, version: who decided; a chain fills them in. parts: the decisions that this one was composed from, in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = Field(min_length=1)
    policy: str = ""
    version: str = ""
    parts: tuple[SerializeAsAny["Decision"], ...] = ()

    def restricts(self) -> bool:
        """Tell whether this decision asks for anything beyond the defaults."""
        own = set(Decision.model_fields)
        fields = ((name, field) for name, field in type(self).model_fields.items() if name not in own)
        return any(getattr(self, name) != field.get_default(call_default_factory=True) for name, field in fields)


def _in_time(ttl: timedelta | None) -> timedelta | None:
    return None if ttl is None else min(ttl, _LONGEST)


class Retain(Decision):
    """Decide about a message that wants to be remembered.

    working, archive: may it be written to the working memory, to the archive? quarantine: kept in the archive, but not
    to be found until it is approved; never written to the working memory. redactions: what is replaced before anything
    else happens to the text. text: the text after all redactions, where a chain changed it. ttl: how long the record
    lives. decay: factor from 0 to 1 for the working memory as it was before the message. trust: of the record.
    """

    working: bool = True
    archive: bool = True
    quarantine: bool = False
    redactions: tuple[RedactedSpan, ...] = ()
    text: str | None = None
    ttl: Annotated[timedelta | None, AfterValidator(_in_time)] = None
    decay: float | None = Field(default=None, ge=0, le=1)
    trust: Trust | None = None
    tags: tuple[str, ...] = ()


class Retrieve(Decision):
    """Decide about a search.

    allowed: may it run? filters: for a field of the record (source, tags, trust), the values that it may have; those of
    trust are "low", "medium" and "high", and a field that no record has finds nothing. k: most records; budget: most
    tokens of recalled text. redactions: what is replaced in the query before it is embedded, searched or traced.
    query: the query after all redactions, where a chain changed it.
    """

    allowed: bool = True
    filters: Mapping[str, frozenset[str]] = Field(default_factory=dict)
    k: PositiveInt | None = None
    budget: PositiveInt | None = None
    redactions: tuple[RedactedSpan, ...] = ()
    query: str | None = None


class Present(Decision):
    """Decide about a record that was found: show it, mask spans of it, withhold it, or quarantine it for approval."""

    action: Action = "show"
    redactions: tuple[RedactedSpan, ...] = ()
    text: str | None = None


class Forget(Decision):
    """Decide about a record that is to be erased: erase it, or keep it (a legal hold)."""

    action: Literal["erase", "keep"] = "erase"


AnyDecision = TypeVar("AnyDecision", bound=Decision)


def redacted(text: str, spans: Sequence[RedactedSpan]) -> str:
    """Return a text with each span replaced; overlapping spans become one.

    Raises ValueError for a span that ends beyond the text.
    """
    parts: list[str] = []
    at = 0
    for span in outermost(spans):
        if span.end > len(text):
            raise ValueError(f"a span ends at {span.end}, the text at {len(text)}")
        parts += (text[at : span.start], span.placeholder)
        at = span.end
    return "".join((*parts, text[at:]))


def outermost(spans: Sequence[RedactedSpan]) -> list[RedactedSpan]:
    """Return spans in order, overlapping ones as one, with the placeholder of the first."""
    merged: list[RedactedSpan] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if merged and span.start < merged[-1].end:
            merged[-1] = merged[-1].model_copy(update={"end": max(merged[-1].end, span.end)})
        else:
            merged.append(span)
    return merged


def strictest(decisions: Sequence[AnyDecision]) -> AnyDecision:
    """Compose decisions of one hook into the strictest, field by field.

    Retain: written only if all allow it; quarantined if one asks; shortest ttl; smallest decay; lowest trust; all tags.
    Retrieve: runs only if all allow it; a field may have the values that all its filters allow; smallest k and budget.
    Present: the first of quarantine, withhold, mask, show that one asks for. Forget: kept if one says keep.
    The reasons are those of the decisions that restrict something, or of the first if none does.
    """
    first = decisions[0]
    changes: Mapping[str, object]
    if isinstance(first, Retain):
        changes = _strictest_retain([d for d in decisions if isinstance(d, Retain)])
    elif isinstance(first, Retrieve):
        changes = _strictest_retrieve([d for d in decisions if isinstance(d, Retrieve)])
    elif isinstance(first, Present):
        actions = [d.action for d in decisions if isinstance(d, Present)]
        changes = {"action": max(actions, key=_SEVERITY.index), "redactions": ()}
    else:
        keeps = any(isinstance(d, Forget) and d.action == "keep" for d in decisions)
        changes = {"action": "keep" if keeps else "erase"}
    telling = [d for d in decisions if d.restricts()] or [first]
    return first.model_copy(
        update={
            **changes,
            "reason": "; ".join(dict.fromkeys(d.reason for d in telling)),
            "policy": "+".join(dict.fromkeys(d.policy for d in telling)),
            "version": "+".join(dict.fromkeys(d.version for d in telling)),
            "parts": tuple(decisions),
        }
    )


def joined(first: Retain, rest: Retain) -> Retain:
    """Compose two composed decisions about one message, the second about the text that the first left."""
    parts = [part for whole in (first, rest) for part in whole.parts or (whole,)]
    together = strictest([part for part in parts if isinstance(part, Retain)])
    text = first.text if rest.text is None else rest.text
    # The trust is that of the wholes, which what the message was made from has lowered too.
    trust = _least([first.trust, rest.trust])
    return together.model_copy(update={"text": text, "trust": None if trust is None else Trust(trust)})


def _strictest_retain(decisions: Sequence[Retain]) -> Mapping[str, object]:
    quarantine = any(d.quarantine for d in decisions)
    trust = _least([d.trust for d in decisions])
    return {
        "working": all(d.working for d in decisions) and not quarantine,
        "archive": all(d.archive for d in decisions),
        "quarantine": quarantine,
        "redactions": (),
        "ttl": _least([d.ttl for d in decisions]),
        "decay": _least([d.decay for d in decisions]),
        "trust": None if trust is None else Trust(trust),
        "tags": tuple(dict.fromkeys(tag for d in decisions for tag in d.tags)),
    }


def _strictest_retrieve(decisions: Sequence[Retrieve]) -> Mapping[str, object]:
    filters: dict[str, frozenset[str]] = {}
    for decision in decisions:
        for field, values in decision.filters.items():
            filters[field] = filters.get(field, values) & values
    return {
        "allowed": all(d.allowed for d in decisions),
        "filters": filters,
        "redactions": (),
        "k": _least([d.k for d in decisions]),
        "budget": _least([d.budget for d in decisions]),
    }


def _least(values: Sequence[T | None]) -> T | None:
    given = [value for value in values if value is not None]
    return min(given) if given else None
