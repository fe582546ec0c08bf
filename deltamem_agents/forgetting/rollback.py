"""Say what a rollback has taken from a thread, and find what the archive holds of it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.records import Namespace, namespace_key, original_id
from deltamem_agents.archive.tables import messages, records

__all__ = ["RolledBack", "archived_since"]


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Hold what a rollback has left and taken.

    made: when the checkpoint was made that is the newest now. left: ids of the thread's messages. removed: how many
    checkpoints are gone, None if nothing has changed. texts: what they said, and the others do not.
    """

    thread: str
    checkpoint: str
    made: datetime
    left: Collection[str]
    removed: int | None
    texts: Collection[str]

    @property
    def named(self) -> tuple[tuple[str, str, int], ...]:
        """Return thread, checkpoint and number as a plan holds them; nothing if nothing has changed."""
        return () if self.removed is None else ((self.thread, self.checkpoint, self.removed),)


def archived_since(engine: Engine, namespace: Namespace, rolled: RolledBack) -> list[str]:
    """Return the ids of a thread's messages that were archived after its checkpoint was made and are not left in it."""
    named = (messages.c.namespace == namespace_key(namespace)) & (messages.c.thread == rolled.thread)
    joined = messages.join(records, messages.c.record == records.c.id)
    chosen = (
        select(messages.c.message_id, messages.c.hash).select_from(joined).where(named, records.c.created > rolled.made)
    )
    with engine.connect().execution_options(**READ_ONLY) as connection:
        found = {original_id(row.message_id, row.hash) for row in connection.execute(chosen)}
    return sorted(found - set(rolled.left))
