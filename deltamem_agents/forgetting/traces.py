"""Erase that messages were archived: what is left of them where their records have expired or were deleted."""

import json
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, select

from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.records import namespace_key, original_id
from deltamem_agents.archive.tables import messages, records
from deltamem_agents.forgetting.plan import Plan
from deltamem_agents.forgetting.selection import Wanted

__all__ = ["erase_traces", "find_traces"]

Trace = tuple[str, str, str]
"""The key of a namespace, a thread, and the id that a message has there."""


def find_traces(connection: Connection, wanted: Wanted) -> tuple[Trace, ...]:
    """Return the messages that are asked for and have no record any more; a query or a subject cannot find them."""
    if wanted.query is not None or wanted.subject is not None:
        return ()
    left = exists(select(records.c.id).where(records.c.id == messages.c.record))
    chosen = select(messages).where(~left)
    if wanted.thread is not None:
        chosen = chosen.where(messages.c.thread == wanted.thread)
    if wanted.namespace is None:
        chosen = chosen.where(messages.c.namespace == namespace_key(wanted.owner))
    rows = connection.execute(chosen)
    return tuple((row.namespace, row.thread, row.message_id) for row in rows if _is_wanted(row, wanted))


def erase_traces(connection: Connection, plan: Plan) -> None:
    """Remove what says that a plan's records were messages, and its messages that have no record any more."""
    for ids in chunks(plan.records):
        connection.execute(messages.delete().where(messages.c.record.in_(ids)))
    this = (
        (messages.c.namespace == bindparam("space"))
        & (messages.c.thread == bindparam("said"))
        & (messages.c.message_id == bindparam("name"))
    )
    if plan.traces:
        rows = [{"space": space, "said": thread, "name": name} for space, thread, name in plan.traces]
        connection.execute(messages.delete().where(this), rows)


def _is_wanted(row: Row[Any], wanted: Wanted) -> bool:
    within = wanted.namespace is None or tuple(json.loads(row.namespace))[: len(wanted.namespace)] == wanted.namespace
    names = {row.message_id, original_id(row.message_id, row.hash)}
    return within and (wanted.ids is None or bool(wanted.ids & names))
