"""Find where the audit log is not as it was written."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection, RowMapping, select

from deltamem_agents.audit.events import AuditHead, AuditProblem, AuditReport
from deltamem_agents.audit.log import Namespace, key_of, namespace_of
from deltamem_agents.audit.tables import FIRST, REGISTRY, audit, digest_of, heads

__all__ = ["verify"]

Kind = Literal["changed", "removed", "reordered", "renumbered", "replaced", "truncated", "added", "head"]


def verify(
    connection: Connection, namespace: Namespace | None = None, *, noted: Sequence[AuditHead] = ()
) -> AuditReport:
    """Check every entry of one namespace's log, or of all; the connection's transaction should be a snapshot.

    noted: heads of earlier reports, kept where nobody who can write to the database can: the log must still hold the
    entries that they end with. Without them, whoever writes to the whole database can write a new log.
    """
    keys = _keys(connection) if namespace is None else [key_of(namespace)]
    checks = [_check(connection, key) for key in keys]
    problems = [problem for check in checks for problem in check.problems]
    problems += [p for head in noted if namespace in {None, head.namespace} for p in _compare(connection, head)]
    if namespace is None:
        problems += _unregistered(connection)
    found = [AuditHead(namespace=_name(c.key), entries=c.entries, digest=c.digest) for c in checks]
    return AuditReport(
        entries=sum(check.entries for check in checks if check.key != REGISTRY),
        heads=tuple(found),
        problems=tuple(problems),
    )


@dataclass(slots=True)
class _Check:
    """Walk along one log. last, digest: of the newest entry seen; entries: how many there are."""

    connection: Connection
    key: str
    last: int = 0
    digest: str = FIRST
    entries: int = 0
    problems: list[AuditProblem] = field(default_factory=list)

    def step(self, row: RowMapping) -> None:
        """Compare one entry with itself and with the one before it."""
        seq, follows = row["seq"], row["previous"] == self.digest
        if not isinstance(seq, int):
            self.found("changed", self.last + 1, "an entry's number is none any more")
            return
        if row["digest"] != digest_of(row):
            self.found("changed", seq, f"entry {seq} is not as it was written")
        elif seq > self.last + 1 and follows:
            self.found("renumbered", seq, f"entry {seq} follows entry {self.last} and was numbered anew")
        elif seq == self.last + 1 and not follows:
            self._out_of_place(row)
        if seq > self.last + 1 and not follows:
            self.found("removed", self.last + 1, f"entries {self.last + 1} to {seq - 1} are gone")
        self.last, self.digest, self.entries = seq, row["digest"], self.entries + 1

    def end(self, head: RowMapping | None) -> None:
        """Compare the end of the log with its head."""
        if head is None:
            if self.entries:
                self.found("head", self.last, "the row that counts this log's entries is gone")
        elif not isinstance(head["entries"], int):
            self.found("head", self.last, "the row that counts this log's entries holds no number")
        elif head["entries"] > self.last:
            self.found("truncated", self.last + 1, f"entries {self.last + 1} to {head['entries']} are gone")
        elif head["entries"] < self.last:
            first = head["entries"] + 1
            self.found("added", first, f"entries {first} to {self.last} are not counted")
        elif head["digest"] != self.digest:
            self.found("replaced", self.last, f"entry {self.last} is not the one that was written last")

    def found(self, kind: Kind, seq: int, message: str) -> None:
        """Note a problem."""
        self.problems.append(AuditProblem(namespace=_name(self.key), kind=kind, seq=seq, message=message))

    def _out_of_place(self, row: RowMapping) -> None:
        """Say whether the entry that this one was written after is elsewhere now, or is no longer there."""
        seq = row["seq"]
        where = select(audit.c.seq).where(audit.c.namespace == self.key, audit.c.digest == row["previous"])
        at = self.connection.execute(where.limit(1)).scalar_one_or_none()
        if at is not None:
            self.found("reordered", seq, f"entry {seq} was written after what is now entry {at}")
        elif row["previous"] == FIRST:
            self.found("reordered", seq, f"entry {seq} was written first")
        else:
            self.found("replaced", seq - 1, f"entry {seq} was written after another one than what is now {seq - 1}")


def _check(connection: Connection, key: str) -> _Check:
    check = _Check(connection, key)
    head = connection.execute(select(heads).where(heads.c.namespace == key)).mappings().one_or_none()
    for row in _rows(connection, key):
        check.step(row)
    check.end(head)
    return check


def _rows(connection: Connection, key: str) -> Iterator[RowMapping]:
    chosen = select(audit).where(audit.c.namespace == key).order_by(audit.c.seq)
    # Pages, because a second query runs in between where something is wrong.
    last, size = -(2**63), 500
    while True:
        page = connection.execute(chosen.where(audit.c.seq > last).limit(size)).mappings().all()
        yield from page
        if len(page) < size:
            return
        last = page[-1]["seq"]


def _keys(connection: Connection) -> list[str]:
    """Return the keys of all logs that have an entry or a head."""
    named = select(audit.c.namespace).union(select(heads.c.namespace))
    return sorted(connection.execute(named).scalars(), key=str)  # bytes, where someone has put them there


def _unregistered(connection: Connection) -> list[AuditProblem]:
    """Compare the logs with the registry, which has one entry for each."""
    opened = set(_opened(connection))
    existing = {_name(key) for key in _keys(connection)} - {()}
    gone = [
        AuditProblem(namespace=name, kind="removed", seq=1, message="the whole log is gone")
        for name in sorted(opened - existing)
    ]
    return gone + [
        AuditProblem(namespace=name, kind="added", seq=1, message="the log was never opened")
        for name in sorted(existing - opened)
    ]


def _opened(connection: Connection) -> Iterator[Namespace]:
    for row in _rows(connection, REGISTRY):
        # A detail that was tampered with is a changed entry, and then a log that was never opened.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            named = tuple(json.loads(row["detail"])["namespace"])
            if all(isinstance(part, str) for part in named):
                yield named


def _name(key: str) -> Namespace:
    """Return the namespace that a key stands for; a key that was tampered with stands for itself."""
    try:
        return namespace_of(key)
    except (ValueError, TypeError):
        return (str(key),)


def _compare(connection: Connection, noted: AuditHead) -> Iterator[AuditProblem]:
    if not noted.entries:
        return
    this = (audit.c.namespace == key_of(noted.namespace)) & (audit.c.seq == noted.entries)
    digest = connection.execute(select(audit.c.digest).where(this)).scalar_one_or_none()
    if digest is None:
        message = f"entry {noted.entries}, which was noted, is gone"
        yield AuditProblem(namespace=noted.namespace, kind="truncated", seq=noted.entries, message=message)
    elif digest != noted.digest:
        message = f"entry {noted.entries} is not the one that was noted"
        yield AuditProblem(namespace=noted.namespace, kind="replaced", seq=noted.entries, message=message)
