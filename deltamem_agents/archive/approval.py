"""Put records into quarantine, and approve and reject them, inside a transaction that the caller has begun."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, and_, select

from deltamem_agents.archive.entries import lock_namespace
from deltamem_agents.archive.errors import RecordNotFoundError
from deltamem_agents.archive.logged import log_holds
from deltamem_agents.archive.records import Added, NewRecord, Record
from deltamem_agents.archive.tables import messages, records
from deltamem_agents.archive.writes import delete_where, whole_records
from deltamem_agents.audit import AuditEvent, append, append_all
from deltamem_agents.audit.log import namespace_of
from deltamem_agents.policy import Forget
from deltamem_agents.policy.trust import QUARANTINED

__all__ = ["approve", "quarantine", "reject", "said_by_person"]


def approve(connection: Connection, namespace: str, record_id: str, event: AuditEvent) -> Record:
    """Take a record out of quarantine; its source and trust stay what they were.

    Raises RecordNotFoundError if the namespace has no such record in quarantine.
    """
    row = _waiting(connection, namespace, record_id)
    return _tag(connection, row, [tag for tag in row["tags"] if tag != QUARANTINED], event)


def quarantine(connection: Connection, namespace: str, record_id: str, event: AuditEvent) -> Record | None:
    """Put a record into quarantine; return it, or None if it is there already or the namespace does not hold it."""
    row = _locked(connection, namespace, record_id)
    if row is None or QUARANTINED in row["tags"]:
        return None
    return _tag(connection, row, [*row["tags"], QUARANTINED], event)


def reject(
    connection: Connection, namespace: str, record_id: str, event: AuditEvent, held: Sequence[tuple[Record, Forget]]
) -> int:
    """Delete a record in quarantine with its other versions; return how many versions went.

    Every message that had become the record is logged as rejected. held: what policies keep of it, for which it stays
    in quarantine as a whole. Raises RecordNotFoundError if the namespace has no such record in quarantine.
    """
    row = _waiting(connection, namespace, record_id)
    ids = whole_records(connection, namespace, [record_id])
    said = connection.execute(select(messages.c.thread, messages.c.message_id).where(messages.c.record.in_(ids))).all()
    gone = 0 if held else delete_where(connection, and_(records.c.id.in_(ids), records.c.namespace == namespace))
    log_holds(connection, held)
    facts = {"record_id": record_id, "record_digest": row["hash"]}
    events = [
        event.model_copy(update={**facts, "thread": thread, "detail": {**event.detail, "message": message}})
        for thread, message in [(row.thread, row.message_id) for row in said] or [(None, None)]
    ]
    append_all(connection, namespace_of(namespace), events)
    return gone


def said_by_person(
    connection: Connection, namespace: str, new: Sequence[NewRecord], added: Sequence[Added]
) -> dict[str, Record]:
    """Let through what waits in quarantine and has just been said by a person too; return it by its id.

    A person whom the policies trust no more than whoever said it first approves of nothing by repeating it.
    """
    event, let_through = AuditEvent(action="approve", reason="a person says it too", actor="user"), dict[str, Record]()
    for one, (record, how) in zip(new, added, strict=True):
        if record is None or how != "merged" or QUARANTINED not in record.tags or record.id in let_through:
            continue
        if one.source == "user" and QUARANTINED not in one.tags and one.trust > record.trust:
            let_through[record.id] = approve(connection, namespace, record.id, event)
    return let_through


def _tag(connection: Connection, row: RowMapping, tags: list[str], event: AuditEvent) -> Record:
    """Give a record these tags, and log the event about it."""
    change = records.update().where(records.c.id == row["id"]).values(tags=tags).returning(records)
    record = Record.from_row(connection.execute(change).mappings().one())
    facts = {"record_id": record.id, "record_digest": record.hash, "thread": record.thread}
    detail = {**event.detail, "message": record.message_id, "trust": record.trust.name.lower()}
    append(connection, record.namespace, event.model_copy(update={**facts, "detail": detail}))
    return record


def _locked(connection: Connection, namespace: str, record_id: str) -> RowMapping | None:
    lock_namespace(connection, "record", namespace)
    mine = (records.c.namespace == namespace) & (records.c.id == record_id)
    return connection.execute(select(records).where(mine)).mappings().one_or_none()


def _waiting(connection: Connection, namespace: str, record_id: str) -> RowMapping:
    row = _locked(connection, namespace, record_id)
    if row is None or QUARANTINED not in row["tags"]:
        raise RecordNotFoundError(f"the namespace holds no record {record_id!r} in quarantine")
    return row
