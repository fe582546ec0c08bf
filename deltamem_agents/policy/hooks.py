"""Define a policy: four hooks, and what they are told."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from deltamem_agents.policy.decisions import Forget, Present, Retain, Retrieve, Trust

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

__all__ = [
    "EVERY_SIGNAL",
    "MemoryPolicy",
    "PolicyContext",
    "PolicyMessage",
    "RecordLike",
    "Signals",
    "as_left",
    "describe",
    "source_of",
]

EVERY_SIGNAL = frozenset({"surprise", "similarity"})
_SOURCES = {"human": "user", "user": "user", "ai": "agent", "assistant": "agent", "system": "system"}


class RecordLike(Protocol):
    """Describe what a policy sees of a stored record."""

    @property
    def id(self) -> str:
        """Name the record."""

    @property
    def text(self) -> str:
        """Give its text, verbatim."""

    @property
    def source(self) -> str:
        """Say where it came from: user, agent, system, tool:<name>, web, import or item (of a store)."""

    @property
    def trust(self) -> int:
        """Give its trust as a number of Trust."""

    @property
    def tags(self) -> Sequence[str]:
        """List its tags."""

    @property
    def created(self) -> datetime:
        """Say when it was said; aware."""

    @property
    def expires(self) -> datetime | None:
        """Say when its time is over; aware, None is never or not known."""


@dataclass(frozen=True, slots=True)
class PolicyContext:
    """Say in which run a hook is called.

    namespace: whose memory it is. thread: the conversation, if there is one. now: aware, UTC. run: the graph's run
    context; empty outside a graph. records: how many the namespace holds, where room is made for a budget.
    """

    namespace: tuple[str, ...] = ()
    thread: str | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    run: Mapping[str, Any] = field(default_factory=dict)
    records: int | None = None


@dataclass(frozen=True, slots=True)
class PolicyMessage:
    """Hold what a policy sees of a message: text, role, source, and the lowest trust of what it was made from.

    calls: the names of the tools that it calls.
    """

    text: str
    source: str = "user"
    id: str = ""
    trust: Trust = Trust.HIGH
    tags: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    calls: tuple[str, ...] = ()

    @property
    def role(self) -> str:
        """Give the role that the source speaks in: user, assistant, system or tool."""
        if self.source == "agent":
            return "assistant"
        return self.source if self.source in {"user", "system"} else "tool"


@dataclass(frozen=True, slots=True)
class Signals:
    """Hold what is known of a message beside its text; None is not known.

    surprise: how badly the working memory predicts the message, ‖v - S k‖ / ‖v‖ as mean over its tokens and the layers;
    0 is known, 1 new, above 1 contradicts. gate: its mean write gate, 0 to 1. similarity: of the nearest record in the
    archive, 0 to 1; 1 is the same text.
    """

    surprise: float | None = None
    gate: float | None = None
    similarity: float | None = None
    context: PolicyContext = field(default_factory=PolicyContext)


class MemoryPolicy:
    """Decide what is kept, found, shown and erased; override the hooks that matter, as `def` or `async def`.

    A hook that is not overridden restricts nothing. name and version are written beside every decision.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"

    @property
    def needs(self) -> frozenset[str]:
        """Name the signals that `retain` looks at: "surprise" (with the gate) and "similarity".

        Each costs something; say less if yours needs less. A class without a `retain` of its own needs none.
        """
        return frozenset() if type(self).retain is MemoryPolicy.retain else EVERY_SIGNAL

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain | Awaitable[Retain]:  # noqa: ARG002
        """Decide whether a message is written to the working memory and to the archive, and how."""
        return Retain(reason="no objection")

    def retrieve(self, query: str, context: PolicyContext) -> Retrieve | Awaitable[Retrieve]:  # noqa: ARG002
        """Decide whether a search may run, and how far."""
        return Retrieve(reason="no objection")

    def present(self, record: RecordLike, context: PolicyContext) -> Present | Awaitable[Present]:  # noqa: ARG002
        """Decide whether a record that was found is shown to the model."""
        return Present(reason="no objection")

    def forget(self, record: RecordLike, context: PolicyContext) -> Forget | Awaitable[Forget]:  # noqa: ARG002
        """Decide whether a record that is to be erased may be."""
        return Forget(reason="no objection")


def describe(message: "BaseMessage", *, trust: Trust = Trust.HIGH) -> PolicyMessage:
    """Return what policies see of a LangChain message; a tool's messages have the source tool:<name>.

    trust: the lowest trust of what the message was made from.
    """
    calls = tuple(call["name"] for call in getattr(message, "tool_calls", ()))
    return PolicyMessage(str(message.text), source_of(message), message.id or "", trust, calls=calls)


def as_left(message: PolicyMessage, decision: Retain) -> PolicyMessage:
    """Return a message as the policies that were asked so far have left it."""
    text = message.text if decision.text is None else decision.text
    return replace(message, text=text, tags=tuple(dict.fromkeys((*message.tags, *decision.tags))))


def source_of(message: "BaseMessage") -> str:
    """Return the source of a LangChain message.

    What a program says in the user's place is not the user's: a summary is the agent's, as LangChain marks it, and
    what another feature reports counts as a tool's.
    """
    kind = getattr(message, "role", message.type).removesuffix("MessageChunk").lower()
    source = _SOURCES.get(kind, f"tool:{message.name or 'unknown'}")
    made_by = message.additional_kwargs.get("lc_source")
    if source != "user" or made_by is None:
        return source
    return "agent" if made_by == "summarization" else f"tool:{made_by}"
