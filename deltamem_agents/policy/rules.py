"""Offer policies that most agents want; each can also be named in a policy file."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from deltamem_agents.policy.decisions import Forget, Present, RedactedSpan, Retain, Retrieve
from deltamem_agents.policy.hooks import MemoryPolicy, PolicyContext, PolicyMessage, RecordLike, Signals
from deltamem_agents.policy.secrets import redact_secrets

__all__ = [
    "Budget",
    "LegalHold",
    "Novelty",
    "PersonalData",
    "Redacting",
    "Roles",
    "Rule",
    "Secrets",
    "TimeToLive",
    "matches",
]

PiiKind = Literal["email", "credit_card", "ip", "mac_address", "url"]
# Loaded by those who use the rule: LangChain takes its time.
_DETECTORS = "langchain.agents.middleware.pii"


class Rule(BaseModel, MemoryPolicy):
    """Be the base of the ready-made policies: their options are checked, and a policy file can set them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def needs(self) -> frozenset[str]:
        """Name the signals that `retain` looks at: none, unless a rule says otherwise."""
        return frozenset()


def matches(source: str, patterns: Iterable[str]) -> bool:
    """Tell whether a source is one of these, where tool:* is every tool."""
    return any(fnmatchcase(source, pattern) for pattern in patterns)


class Redacting(Rule):
    """Be the base of rules that replace spans of a text: when it is kept, when it is searched for, when it is shown."""

    @abstractmethod
    def spans(self, text: str) -> tuple[RedactedSpan, ...]:
        """Return what is to be replaced in a text."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:  # noqa: ARG002
        """Redact the message."""
        spans = self.spans(message.text)
        return Retain(redactions=spans, reason=_found(spans))

    def retrieve(self, query: str, context: PolicyContext) -> Retrieve:  # noqa: ARG002
        """Redact the query, which may go to a provider of embeddings."""
        spans = self.spans(query)
        return Retrieve(redactions=spans, reason=_found(spans))

    def present(self, record: RecordLike, context: PolicyContext) -> Present:  # noqa: ARG002
        """Mask what an older rule let through."""
        spans = self.spans(record.text)
        return Present(action="mask" if spans else "show", redactions=spans, reason=_found(spans))


class Secrets(Redacting):
    """Replace secrets by placeholders before anything else happens to a text, and again when a record is shown."""

    name: ClassVar[str] = "secrets"

    def spans(self, text: str) -> tuple[RedactedSpan, ...]:
        """Return the secrets in a text."""
        return tuple(
            RedactedSpan(kind=found.kind, start=found.span[0], end=found.span[1], placeholder=found.placeholder)
            for found in redact_secrets(text).findings
        )


class Roles(Rule):
    """Choose by source what is written to each tier: user, agent, system, tool:<name>, web, import; * is any."""

    name: ClassVar[str] = "roles"
    working: tuple[str, ...] = ("user", "agent", "tool:*")
    archive: tuple[str, ...] = ("user", "agent", "tool:*", "web", "import")

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:  # noqa: ARG002
        """Write to the tiers that list the message's source."""
        working, archive = matches(message.source, self.working), matches(message.source, self.archive)
        return Retain(working=working, archive=archive, reason=f"source {message.source}")


class TimeToLive(Rule):
    """Let records expire, and older working memory fade.

    seconds: how long a record lives; None is forever. sources, tags: seconds for a source (tool:* is every tool) or a
    tag; the shortest counts. decay: factor for the working memory at each message; None leaves it.
    """

    name: ClassVar[str] = "ttl"
    seconds: PositiveInt | None = None
    sources: Mapping[str, PositiveInt] = Field(default_factory=dict)
    tags: Mapping[str, PositiveInt] = Field(default_factory=dict)
    decay: float | None = Field(default=None, ge=0, le=1)

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:  # noqa: ARG002
        """Give the record its time."""
        ttl = self._ttl(message.source, message.tags)
        reason = "lives forever" if ttl is None else f"lives {int(ttl.total_seconds())} s"
        return Retain(ttl=ttl, decay=self.decay, reason=reason)

    def present(self, record: RecordLike, context: PolicyContext) -> Present:
        """Withhold a record whose time is over, should it still be there; a text said again lives longer."""
        ttl = self._ttl(record.source, record.tags)
        expires = record.created + ttl if record.expires is None and ttl is not None else record.expires
        if expires is not None and context.now > expires:
            return Present(action="withhold", reason="expired")
        return Present(reason="not expired")

    def _ttl(self, source: str, tags: Iterable[str]) -> timedelta | None:
        times = [seconds for pattern, seconds in self.sources.items() if matches(source, [pattern])]
        times += [seconds for tag, seconds in self.tags.items() if tag in tags]
        times += [] if self.seconds is None else [self.seconds]
        return timedelta(seconds=min(times)) if times else None


class Novelty(Rule):
    """Do not write again what is already there.

    similarity: a message at least this near to a record is not archived. surprise: a message that the working memory
    predicts with a smaller error is not written to it. A signal that is not known decides nothing.
    """

    name: ClassVar[str] = "novelty"
    similarity: float = Field(default=0.98, gt=0, le=1)
    surprise: float = Field(default=0.0, ge=0)

    @property
    def needs(self) -> frozenset[str]:
        """Name similarity, and surprise where a threshold is set."""
        return frozenset({"similarity", "surprise"} if self.surprise > 0 else {"similarity"})

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:  # noqa: ARG002
        """Compare the signals with the thresholds."""
        known = signals.similarity is not None and signals.similarity >= self.similarity
        expected = signals.surprise is not None and signals.surprise < self.surprise
        told = [f"similarity {signals.similarity:.2f}"] if known else []
        told += [f"surprise {signals.surprise:.2f}"] if expected else []
        return Retain(working=not expected, archive=not known, reason="; ".join(told) or "new")


class Budget(Rule):
    """Bound what a namespace of the archive holds: records, and bytes of text with every version.

    HybridMemory makes room after a write: the least trusted go first, then the oldest.
    """

    name: ClassVar[str] = "budget"
    records: PositiveInt = 100_000
    bytes: PositiveInt = 256 * 2**20

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:  # noqa: ARG002
        """Refuse a message that no room could be made for."""
        size = len(message.text.encode("utf-8", "surrogatepass"))
        fits = size <= self.bytes
        return Retain(archive=fits, reason="within budget" if fits else f"{size} bytes exceed the budget")


class LegalHold(Rule):
    """Keep records with one of these tags, whoever asks to forget them."""

    name: ClassVar[str] = "hold"
    tags: tuple[str, ...] = ("legal-hold",)

    def forget(self, record: RecordLike, context: PolicyContext) -> Forget:  # noqa: ARG002
        """Keep what is held."""
        held = sorted(set(self.tags) & set(record.tags))
        return Forget(action="keep", reason=f"held: {', '.join(held)}") if held else Forget(reason="not held")


class PersonalData(Redacting):
    """Redact personal data found by LangChain's PII detectors."""

    name: ClassVar[str] = "personal-data"
    kinds: tuple[PiiKind, ...] = ("email", "credit_card", "ip", "mac_address")

    def model_post_init(self, context: Any) -> None:  # noqa: ARG002
        """Load the detectors, which a hook might not be given the time for."""
        import_module(_DETECTORS)

    def spans(self, text: str) -> tuple[RedactedSpan, ...]:
        """Return the data of these kinds in a text."""
        pii = import_module(_DETECTORS)
        return tuple(
            RedactedSpan(kind=kind, start=found["start"], end=found["end"], placeholder=f"[redacted:{kind}]")
            for kind in self.kinds
            for found in getattr(pii, f"detect_{kind}")(text)
        )


def _found(spans: Iterable[RedactedSpan]) -> str:
    return ", ".join(sorted({span.kind for span in spans})) or "nothing to redact"
