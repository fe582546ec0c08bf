"""Say what an entry of the audit log holds, and what checking the log finds."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, computed_field

from backbone import DeltaMemError

__all__ = ["Action", "AuditEntry", "AuditError", "AuditEvent", "AuditHead", "AuditProblem", "AuditReport"]

Action = Literal[
    "write",
    "recall",
    "present",
    "quarantine",
    "approve",
    "reject",
    "refuse",
    "redact",
    "expire",
    "hold",
    "forget",
    "absorb",
    "open",
]


def _storable(text: str) -> str:
    """Refuse what one of the databases would refuse or change."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds NUL or a lone surrogate, which SQL cannot store")
    return text


Line = Annotated[str, AfterValidator(_storable)]


class AuditError(DeltaMemError):
    """Report an audit log that cannot be read."""


class AuditEvent(BaseModel):
    """Hold what is to be recorded: what was done, by whom, why, under which policy, and about what.

    actor: user, agent, tool:<name>, a command or a program. record_digest: SHA-256 of the record's text. checkpoint:
    its id, where it is known. detail: counts, ids and verdicts. No field may hold a message's text. The action "open"
    is the log's own: it notes the first entry of a namespace.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    reason: Annotated[Line, Field(min_length=1)]
    actor: Annotated[Line, Field(min_length=1)]
    policy: Line | None = None
    policy_version: Line | None = None
    record_digest: Line | None = None
    record_id: Line | None = None
    thread: Line | None = None
    checkpoint: Line | None = None
    detail: dict[str, JsonValue] = Field(default_factory=dict)


class AuditEntry(AuditEvent):
    """Hold an event as it stands in the log of its namespace.

    seq: its number, from 1. time: aware, UTC. previous: digest of the entry before it. digest: SHA-256 of everything in
    the entry but its number, in hexadecimal.
    """

    namespace: tuple[str, ...]
    seq: int
    time: datetime
    previous: str
    digest: str


class AuditHead(BaseModel):
    """Hold how long a namespace's log is, and its last digest: kept elsewhere, it proves the log up to there."""

    model_config = ConfigDict(frozen=True)

    namespace: tuple[str, ...]
    entries: int
    digest: str


class AuditProblem(BaseModel):
    """Name one place where the log is not as it was written.

    kind: changed (an entry's fields), removed (entries in between), reordered, renumbered, replaced (an entry is not
    the one that the next was written after), truncated (entries at the end), added (entries that the head does not
    count), head (the row that counts the entries). seq: the number of the entry.
    """

    model_config = ConfigDict(frozen=True)

    namespace: tuple[str, ...]
    kind: Literal["changed", "removed", "reordered", "renumbered", "replaced", "truncated", "added", "head"]
    seq: int
    message: str


class AuditReport(BaseModel):
    """Hold what checking the log has found. heads: of every namespace that was checked, to be kept elsewhere."""

    model_config = ConfigDict(frozen=True)

    entries: int
    heads: tuple[AuditHead, ...] = ()
    problems: tuple[AuditProblem, ...] = ()

    @computed_field  # type: ignore[prop-decorator] # pydantic's documented order
    @property
    def ok(self) -> bool:
        """Tell whether the log is as it was written, as far as the log itself can show."""
        return not self.problems
