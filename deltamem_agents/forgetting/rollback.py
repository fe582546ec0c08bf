"""Take a thread back to a checkpoint, and find what the archive holds of what was said after it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from backbone import DeltaMemError
from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.records import Namespace, namespace_key, original_id
from deltamem_agents.archive.tables import messages, records
from deltamem_agents.forgetting.plan import Rolled
from deltamem_agents.forgetting.rows import DROPPED, Change, CheckpointRows, Moved

__all__ = ["RolledBack", "archived_since", "goes_on", "take_back"]


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Hold what a rollback takes and leaves.

    thread, checkpoint: the thread, and the checkpoint that is its newest then. made: when that was made. left: ids of
    the messages that stay. named: as a plan holds it; nothing if nothing changes. texts: what is said in the
    checkpoints that go, and not in the others.
    """

    thread: str
    checkpoint: str
    made: datetime
    left: Collection[str]
    named: tuple[Rolled, ...]
    texts: Collection[str]


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


def take_back(rows: CheckpointRows, rolled: Rolled) -> None:
    """Remove what is newer than a checkpoint, and what tasks wrote after it, unless that was done before.

    Raises DeltaMemError if the thread goes on meanwhile.
    """
    stored = rows.load(rolled.thread)
    newer = [(one.space, one.id) for one in stored if one.id > rolled.checkpoint]
    # All of them go at once, so what is there without the newest has come since.
    if not any(one.id == rolled.newest for one in stored) or (newer and rolled.newest == rolled.checkpoint):
        return
    last = [one for one in stored if one.id == rolled.checkpoint and one.writes]
    changes = {(one.space, one.id): Change(writes={write.key: DROPPED for write in one.writes}) for one in last}
    try:
        rows.save(rolled.thread, stored, changes)
    except Moved:
        raise goes_on(rolled.thread) from None
    if newer:
        rows.remove(rolled.thread, newer)
    if any(one.id > rolled.checkpoint for one in rows.load(rolled.thread)):
        raise goes_on(rolled.thread)


def goes_on(thread: str) -> DeltaMemError:
    """Make the error that says that a thread is in use."""
    return DeltaMemError(f"thread {thread!r} goes on while it is rolled back; stop its agent, and roll back again")
