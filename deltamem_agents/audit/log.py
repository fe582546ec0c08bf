"""Append to the audit log inside a transaction that the caller has begun, and read it."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, select
from sqlalchemy.dialects import postgresql, sqlite

from backbone import ConfigError
from deltamem_agents.audit.events import Action, AuditEntry, AuditError, AuditEvent
from deltamem_agents.audit.tables import FIRST, REGISTRY, audit, digest_of, heads

__all__ = ["append", "append_all", "entry_of", "key_of", "namespace_of", "newest_entries", "read_entries"]

Namespace = tuple[str, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE = 500


def append(connection: Connection, namespace: Namespace, event: AuditEvent) -> AuditEntry:
    """Add one event to a namespace's log, and keep other writers of that log waiting until the transaction ends.

    Raises ConfigError for a namespace that is not a non-empty tuple of labels.
    """
    return append_all(connection, namespace, [event])[0]


def append_all(connection: Connection, namespace: Namespace, events: Sequence[AuditEvent]) -> list[AuditEntry]:
    """Add events in their order, as `append` does.

    A transaction that writes to several namespaces takes them in sorted order, or two of them may wait for each other.
    """
    if not _is_namespace(namespace):
        raise ConfigError(f"a namespace is a non-empty tuple of non-empty labels; got {namespace!r}")
    return _append(connection, key_of(namespace), events)


def read_entries(connection: Connection, namespace: Namespace | None = None) -> Iterator[AuditEntry]:
    """Yield the entries of one namespace, or of all of them one after the other, oldest first.

    The log's own list of namespaces is left out. Raises AuditError for an entry that cannot be read.
    """
    chosen = select(audit).where(audit.c.namespace != REGISTRY if namespace is None else _mine(namespace))
    ordered = chosen.order_by(audit.c.namespace, audit.c.seq).execution_options(yield_per=_PAGE)
    for row in connection.execute(ordered).mappings():
        yield entry_of(row)


def newest_entries(
    connection: Connection,
    namespace: Namespace,
    *,
    action: Action | None = None,
    thread: str | None = None,
    limit: int = 100,
) -> list[AuditEntry]:
    """Return the newest entries of a namespace first, of one action or thread if it is given.

    Raises AuditError for an entry that cannot be read.
    """
    chosen = select(audit).where(_mine(namespace))
    for column, value in ((audit.c.action, action), (audit.c.thread, thread)):
        if value is not None:
            chosen = chosen.where(column == value)
    rows = connection.execute(chosen.order_by(audit.c.seq.desc()).limit(limit)).mappings()
    return [entry_of(row) for row in rows]


def entry_of(row: RowMapping | dict[str, Any]) -> AuditEntry:
    """Read a row of the table `audit`; raises AuditError for one that nothing here has written."""
    try:
        values = dict(row)
        values["namespace"] = namespace_of(values["namespace"])
        values["time"] = _EPOCH + timedelta(microseconds=values["time"])
        values["detail"] = json.loads(values["detail"])
        return AuditEntry(**values)
    except (ValueError, TypeError, OverflowError) as error:
        raise AuditError(
            f"entry {row['seq']} of the audit log cannot be read; `deltamem audit verify` says more"
        ) from error


def key_of(namespace: Namespace) -> str:
    """Return the one text that stands for a namespace; () is the log's own list of namespaces."""
    return json.dumps(namespace, ensure_ascii=False, separators=(",", ":"))


def namespace_of(key: str) -> Namespace:
    """Return the namespace that a key stands for; raises ValueError for a text that is no key."""
    labels = json.loads(key)
    if not isinstance(labels, list):
        raise ValueError(f"{key!r} is no namespace")
    return tuple(labels)


def _mine(namespace: Namespace) -> ColumnElement[bool]:
    return audit.c.namespace == key_of(namespace)


def _append(connection: Connection, key: str, events: Sequence[AuditEvent]) -> list[AuditEntry]:
    if not events:
        return []
    head = _locked_head(connection, key)
    rows: list[dict[str, Any]] = []
    previous = head.digest
    for seq, event in enumerate(events, head.entries + 1):
        row = event.model_dump(include=set(AuditEvent.model_fields))
        row["detail"] = json.dumps(row["detail"], sort_keys=True, separators=(",", ":"))
        row |= {"namespace": key, "seq": seq, "time": _now(), "previous": previous}
        row["digest"] = previous = digest_of(row)
        rows.append(row)
    connection.execute(audit.insert(), rows)
    this = heads.update().where(heads.c.namespace == key)
    connection.execute(this.values(entries=head.entries + len(rows), digest=previous))
    return [entry_of(row) for row in rows]


def _is_namespace(given: object) -> bool:
    return isinstance(given, tuple) and bool(given) and all(isinstance(label, str) and label for label in given)


def _locked_head(connection: Connection, key: str) -> Any:
    """Lock a log's head; make it, and note the namespace, if this is its first entry."""
    chosen = select(heads.c.entries, heads.c.digest).where(heads.c.namespace == key).with_for_update()
    found = connection.execute(chosen).one_or_none()
    if found is not None:
        return found
    if key != REGISTRY:
        # The registry is locked before the head is made, so that two first entries do not wait for each other.
        _locked_head(connection, REGISTRY)
        if connection.execute(chosen).one_or_none() is None:
            about = AuditEvent(
                action="open", reason="first entry", actor="audit", detail={"namespace": list(namespace_of(key))}
            )
            _append(connection, REGISTRY, [about])
    insert = postgresql.insert(heads) if connection.dialect.name == "postgresql" else sqlite.insert(heads)
    connection.execute(insert.on_conflict_do_nothing().values(namespace=key, entries=0, digest=FIRST))
    return connection.execute(chosen).one()


def _now() -> int:
    return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)
