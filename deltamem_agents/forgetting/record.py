"""Erase records and items inside one transaction, together with the entries of the audit log that say so."""

from pydantic import JsonValue
from sqlalchemy import Connection, select

from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.items import remove_where
from deltamem_agents.archive.tables import items, messages, records
from deltamem_agents.archive.writes import delete_where
from deltamem_agents.audit import AuditEvent, append_all
from deltamem_agents.forgetting.plan import Plan
from deltamem_agents.forgetting.receipt import AuditReference
from deltamem_agents.forgetting.traces import erase_traces

__all__ = ["erase_record"]


def erase_record(connection: Connection, plan: Plan) -> Plan:
    """Erase what a plan names, and return the plan with the audit entry of it.

    What is gone already is no error: an earlier call may have been cut off.
    """
    for ids in chunks(plan.records):
        delete_where(connection, records.c.id.in_(ids))
    erase_traces(connection, plan)
    for record, thread in plan.detached:
        _detach(connection, record, thread)
    for ids in chunks(plan.items):
        remove_where(connection, items.c.id.in_(ids))
    entry = append_all(connection, plan.owner, _events(plan))[-1]
    reference = AuditReference(namespace=entry.namespace, seq=entry.seq, digest=entry.digest)
    return plan.model_copy(update={"audit": reference})


def _detach(connection: Connection, record: str, thread: str) -> None:
    """Let a record be what another thread has said, and no longer what this one has."""
    mine = messages.c.record == record
    connection.execute(messages.delete().where(mine, messages.c.thread == thread))
    other = (
        connection.execute(select(messages).where(mine).order_by(messages.c.thread).limit(1)).mappings().one_or_none()
    )
    if other is not None:
        said = {"thread": other["thread"], "message_id": other["message_id"]}
        connection.execute(records.update().where(records.c.id == record, records.c.thread == thread).values(said))


def _events(plan: Plan) -> list[AuditEvent]:
    """Return an event for each text that goes or is kept, one for each call that began this, and one for all of it."""
    events = [
        AuditEvent(
            action="forget",
            actor=one.actor or plan.actor,
            reason=one.reason or plan.reason,
            policy=one.policy or None,
            policy_version=one.version or None,
            record_digest=one.digest,
            record_id=one.record,
            thread=one.thread,
            detail={"verdict": "erase"},
        )
        for one in plan.erased
    ]
    events += [
        AuditEvent(
            action="forget",
            actor=plan.actor,
            reason=held.reason,
            policy=held.policy or None,
            record_digest=held.digest,
            record_id=held.id,
            detail={"verdict": "keep"},
        )
        for held in plan.held
    ]
    events += [
        AuditEvent(action="forget", actor=actor, reason=reason, detail={"resumed": True})
        for actor, reason in plan.begun
    ]
    because = AuditEvent(action="forget", actor=plan.actor, reason=plan.reason)
    for one in plan.rolled:
        rolled: dict[str, JsonValue] = {"verdict": "rolled back", "checkpoints": one.removed}
        place = {"thread": one.thread, "checkpoint": one.checkpoint}
        events.append(because.model_copy(update={**place, "detail": rolled}))
    counts = {"records": len(plan.records), "items": len(plan.items), "held": len(plan.held)}
    said = {"messages": sum(map(len, plan.messages.values())), "threads": len(plan.threads)}
    detail: dict[str, JsonValue] = {**counts, **said, "secure": plan.secure}
    return [*events, because.model_copy(update={"detail": detail})]
