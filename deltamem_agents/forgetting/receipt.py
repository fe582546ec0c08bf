"""Say what was forgotten, and what proves it."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["AuditReference", "ForgetReceipt", "Held", "Scan", "Tier", "TierName"]

TierName = Literal["checkpoints", "working_memory", "record", "index", "items", "bytes", "prefix_caches"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tier(_Model):
    """Say what was done to one tier.

    erased: how many went (of a dry run: would go): messages of checkpoints, working memories made anew, versions of
    records, vectors, items of a store, pages of prefix caches. reached: False where it could not be done; note says
    why, or what there is to know.
    """

    erased: int = 0
    reached: bool = True
    note: str = ""


class Held(_Model):
    """Name what a policy keeps: the record or message, its digest, and why."""

    id: str
    digest: str
    reason: str
    policy: str


class Scan(_Model):
    """Hold what was found when every file of the databases and indexes was read, byte by byte.

    hits: places that still hold a piece of a text that was erased, though nothing that is kept says it. kept: texts
    that are found only because a kept record, item or message, or another thread, says the same. short: texts under 8
    bytes, which are not looked for. unread: what is not read, such as the files of a Postgres server, or encrypted
    checkpoints.
    """

    files: int
    bytes: int
    texts: int
    hits: int
    kept: int = 0
    short: int = 0
    found_in: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


class AuditReference(_Model):
    """Name the entry of the audit log that records this."""

    namespace: tuple[str, ...]
    seq: int
    digest: str


class ForgetReceipt(_Model):
    """Say what was forgotten, from which tiers, and what proves it; it holds no text.

    complete: nothing is left to do; otherwise calling again goes on. Threads are left to do until their checkpointer is
    given.
    resumed: work that an earlier call had begun was finished. threads: those whose checkpoints were rewritten or
    removed. digests: SHA-256 of each erased text. held: what a policy keeps.
    """

    namespace: tuple[str, ...]
    reason: str
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    dry_run: bool = False
    secure: bool = True
    complete: bool = False
    resumed: bool = False
    threads: tuple[str, ...] = ()
    tiers: dict[TierName, Tier] = Field(default_factory=dict)
    digests: tuple[str, ...] = ()
    held: tuple[Held, ...] = ()
    scan: Scan | None = None
    audit: AuditReference | None = None

    def to_json(self) -> str:
        """Return the receipt as JSON."""
        return self.model_dump_json(indent=2)
