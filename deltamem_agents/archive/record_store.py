"""Keep records in SQL: every write is one transaction, and every call names its namespace."""

import builtins
import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from sqlalchemy import ColumnElement, Connection, Engine, Select, func, or_, select

from deltamem_agents.archive import writes
from deltamem_agents.archive.database import READ_ONLY, empty_log, open_database, read_snapshot
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.records import Namespace, Record, namespace_key
from deltamem_agents.archive.tables import records
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.audit import (
    Action,
    AuditEntry,
    AuditEvent,
    AuditHead,
    AuditReport,
    append,
    newest_entries,
    verify,
)

__all__ = ["RecordStore"]

_EVERY = RecordFilter()


class RecordStore:
    """Hold verbatim texts, once per namespace, with their versions and times to live.

    An id that a method has returned can be read from then on by every process, or the method has raised. Threads may
    share a store; after a fork, open another one.
    """

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

    def add(self, namespace: Namespace, new: NewRecord) -> Record:
        """Store a text unless the namespace holds it already, and return the record that holds it.

        A text that is there keeps its first source, trust and tags, and lives as long as the longer-lived of the two
        asked for. A message (thread and message id) that was added before returns its record of then. Raises
        RecordInvalidError for what cannot be stored, and RecordConflictError for a known message with another text.
        """
        return self.add_all(namespace, [new])[0]

    def add_all(self, namespace: Namespace, new: Sequence[NewRecord]) -> builtins.list[Record]:
        """Store texts as `add` does, all or none; their order is the order in which they were said."""
        key = namespace_key(namespace)
        if not new:
            return []
        with self._engine.begin() as connection:
            return writes.add(connection, key, new, datetime.now(UTC))

    def update(self, namespace: Namespace, record_id: str, text: str, *, expected_version: int) -> Record:
        """Replace a record's text by a new version, which supersedes it under an id of its own; return the new one.

        The old version stays readable by its id. Raises RecordNotFoundError for an id that the namespace does not
        hold, VersionConflictError if the record has been replaced or is at another version, and RecordConflictError
        if another record holds the text already.
        """
        key = namespace_key(namespace)
        with self._engine.begin() as connection:
            return writes.update(connection, key, record_id, text, expected_version, datetime.now(UTC))

    def get(self, namespace: Namespace, record_id: str) -> Record | None:
        """Return a record of any version, or None if the namespace does not hold it or it has expired."""
        in_time = or_(records.c.expires.is_(None), records.c.expires > datetime.now(UTC))
        mine = (records.c.namespace == namespace_key(namespace)) & (records.c.id == record_id)
        found = self._select(select(records).where(mine, in_time))
        return found[0] if found else None

    def list(
        self, namespace: Namespace, chosen: RecordFilter = _EVERY, *, limit: int = 100, offset: int = 0
    ) -> builtins.list[Record]:
        """Return the newest records first, of those that the filter lets through."""
        ordered = select(records).where(self._condition(namespace, chosen))
        ordered = ordered.order_by(records.c.created.desc(), records.c.position.desc())
        return self._select(ordered.limit(limit).offset(offset))

    def count(self, namespace: Namespace, chosen: RecordFilter = _EVERY) -> int:
        """Return how many records the filter lets through."""
        counted = select(func.count()).select_from(records).where(self._condition(namespace, chosen))
        with self._reading() as connection:
            return connection.execute(counted).scalar_one()

    def delete(self, namespace: Namespace, record_ids: Sequence[str]) -> int:
        """Delete every version of these records, as far as the namespace holds them; return how many versions went.

        Their bytes are overwritten in SQLite's file, and its log is emptied as soon as no reader needs it.
        """
        key = namespace_key(namespace)
        with self._engine.begin() as connection:
            ids = writes.whole_records(connection, key, record_ids)
            gone = writes.delete_where(connection, records.c.id.in_(ids) & (records.c.namespace == key))
        return self._erased(gone)

    def sweep(self) -> int:
        """Delete what has expired, in every namespace; return how many versions went."""
        with self._engine.begin() as connection:
            gone = writes.delete_where(connection, records.c.expires <= datetime.now(UTC))
        return self._erased(gone)

    def audit(self, namespace: Namespace, event: AuditEvent) -> AuditEntry:
        """Append an event to a namespace's audit log, in a transaction of its own."""
        with self._engine.begin() as connection:
            return append(connection, namespace, event)

    def audit_entries(
        self, namespace: Namespace, *, action: Action | None = None, thread: str | None = None, limit: int = 100
    ) -> builtins.list[AuditEntry]:
        """Return the newest entries of a namespace's audit log first; raises AuditError for one that is unreadable."""
        with self._reading() as connection:
            return newest_entries(connection, namespace, action=action, thread=thread, limit=limit)

    def verify_audit(self, namespace: Namespace | None = None, *, noted: Sequence[AuditHead] = ()) -> AuditReport:
        """Find what was changed, removed, reordered or truncated in one namespace's audit log, or in all of them.

        noted: heads of earlier reports, kept elsewhere; see `deltamem_agents.audit.verify`.
        """
        with read_snapshot(self._engine) as connection:
            return verify(connection, namespace, noted=noted)

    def _erased(self, gone: int) -> int:
        if gone:
            empty_log(self._engine)
        return gone

    def _condition(self, namespace: Namespace, chosen: RecordFilter) -> ColumnElement[bool]:
        return chosen.condition(namespace_key(namespace), self._engine.dialect.name)

    def _select(self, chosen: Select[tuple[object, ...]]) -> builtins.list[Record]:
        with self._reading() as connection:
            return [Record.from_row(row) for row in connection.execute(chosen).mappings()]
