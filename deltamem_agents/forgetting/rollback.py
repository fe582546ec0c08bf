"""Find what the archive holds of a thread beyond a point in time."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Engine, select

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.records import Namespace, namespace_key
from deltamem_agents.archive.tables import messages, records

__all__ = ["archived_since"]


def archived_since(
    engine: Engine, namespace: Namespace, thread: str, since: datetime, left: Collection[str]
) -> list[str]:
    """Return the ids of a thread's messages that were archived after a time and are not among those left."""
    named = (messages.c.namespace == namespace_key(namespace)) & (messages.c.thread == thread)
    joined = messages.join(records, messages.c.record == records.c.id)
    chosen = select(messages.c.message_id).select_from(joined).where(named, records.c.created > since)
    with engine.connect().execution_options(**READ_ONLY) as connection:
        found = {name.partition("#")[0] for name in connection.execute(chosen).scalars()}
    return sorted(found - set(left))
