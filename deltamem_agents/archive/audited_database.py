"""Hold an archive's database, and read and write the audit log in it."""

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine

from deltamem_agents.archive.database import READ_ONLY, open_database, read_snapshot
from deltamem_agents.archive.logged import rejections, unlogged
from deltamem_agents.archive.records import Namespace
from deltamem_agents.audit import (
    Action,
    AuditEntry,
    AuditEvent,
    AuditHead,
    AuditReport,
    append,
    append_all,
    newest_entries,
    verify,
)

__all__ = ["AuditedDatabase"]


class AuditedDatabase:
    """Hold a database and its audit log, which has a chain of entries for each namespace."""

    def __init__(self, engine: Engine) -> None:
        """Take an engine that `open_database` has opened; `close` closes it."""
        self._engine = engine

    @classmethod
    def from_url(cls, database_url: str) -> Self:
        """Open sqlite:///file or postgresql://…; raises ConfigError and ArchiveError as `open_database` does."""
        return cls(open_database(database_url))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            yield connection

    def rejected(self, namespace: Namespace, thread: str) -> set[str | None]:
        """Return the digests of the texts that were rejected in a thread."""
        with self._reading() as connection:
            return {entry.record_digest for entry in rejections(connection, namespace, thread)}

    def rejected_messages(self, namespace: Namespace, thread: str) -> set[str]:
        """Return the ids of the messages of a thread that were rejected."""
        with self._reading() as connection:
            return {str(entry.detail["message"]) for entry in rejections(connection, namespace, thread)}

    def audit_new(self, namespace: Namespace, events: Sequence[AuditEvent]) -> None:
        """Append events about messages without a record, except those that the log has of the same text and reason."""
        if events:
            with self._engine.begin() as connection:
                append_all(connection, namespace, unlogged(connection, namespace, events))

    def audit(self, namespace: Namespace, event: AuditEvent) -> AuditEntry:
        """Append an event to a namespace's audit log, in a transaction of its own."""
        with self._engine.begin() as connection:
            return append(connection, namespace, event)

    def audit_all(self, namespace: Namespace, events: Sequence[AuditEvent]) -> list[AuditEntry]:
        """Append events in their order, all or none."""
        with self._engine.begin() as connection:
            return append_all(connection, namespace, events)

    def audit_entries(
        self, namespace: Namespace, *, action: Action | None = None, thread: str | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Return the newest entries of a namespace's audit log first; raises AuditError for one that is unreadable."""
        with self._reading() as connection:
            return newest_entries(connection, namespace, action=action, thread=thread, limit=limit)

    def verify_audit(self, namespace: Namespace | None = None, *, noted: Sequence[AuditHead] = ()) -> AuditReport:
        """Find what was changed, removed, reordered or truncated in one namespace's audit log, or in all of them.

        noted: heads of earlier reports, kept elsewhere; see `deltamem_agents.audit.verify`.
        """
        with read_snapshot(self._engine) as connection:
            return verify(connection, namespace, noted=noted)
