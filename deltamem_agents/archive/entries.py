"""Let entries into a namespace's indexes and out of them, in the transaction that writes or deletes them."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, collate, func, select

from deltamem_agents.archive.dialects import insert_into
from deltamem_agents.archive.errors import RecordConflictError
from deltamem_agents.archive.postings import NO_POSITION, Posted, post, unpost
from deltamem_agents.archive.tables import blocks, outbox, postings, records, spaces
from deltamem_agents.terms import terms_of

__all__ = ["Entry", "Space", "enter", "last_position", "leave", "lock_namespace", "lock_spaces", "locked_space"]

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold what the indexes need of a record or an item; `vectors` is how many vectors it has."""

    id: str
    position: int
    text: str
    previous: int = NO_POSITION
    vectors: int = 1

    def posted(self) -> Posted:
        """Return the entry as full-text search sees it."""
        return Posted(self.position, self.previous, Counter(terms_of(self.text)))


@dataclass(frozen=True, slots=True)
class Space:
    """Name a namespace's indexes: their number, and the position that the next entry takes."""

    id: int
    next_position: int


def locked_space(connection: Connection, kind: str, namespace: str) -> Space:
    """Find or make the space of a namespace, and keep other writers out of it until the transaction ends."""
    values = {"kind": kind, "namespace": namespace, "next_position": 0, "entries": 0}
    this = (spaces.c.kind == kind) & (spaces.c.namespace == namespace)
    for _ in range(_ATTEMPTS):
        connection.execute(insert_into(connection, spaces).on_conflict_do_nothing().values(values))
        chosen = select(spaces.c.id, spaces.c.next_position).where(this).with_for_update()
        row = connection.execute(chosen).one_or_none()
        # None: another writer has deleted the namespace's last entry, and with it the space, in between.
        if row is not None:
            return Space(row.id, row.next_position)
    raise RecordConflictError("the namespace is being deleted over and over by another writer; try again")


def lock_spaces(connection: Connection, ids: Collection[int]) -> None:
    """Keep other writers out of these spaces until the transaction ends.

    They are taken in the order of their namespaces' bytes, in which a batch of writes takes them one by one, or the two
    would wait for each other.
    """
    if connection.dialect.name != "postgresql":
        return  # SQLite has one writer at a time
    chosen = select(spaces.c.id).where(spaces.c.id.in_(ids)).order_by(collate(spaces.c.namespace, "C"))
    connection.execute(chosen.with_for_update())


def lock_namespace(connection: Connection, kind: str, namespace: str) -> None:
    """Keep other writers out of a namespace until the transaction ends; whoever locks more begins with this."""
    this = (spaces.c.kind == kind) & (spaces.c.namespace == namespace)
    connection.execute(select(spaces.c.id).where(this).with_for_update())


def enter(connection: Connection, space: int, entries: Sequence[Entry]) -> None:
    """Index entries for full-text search, and tell the vector index of them."""
    if not entries:
        return
    post(connection, space, [entry.posted() for entry in entries])
    counted = {
        "next_position": max(entry.position for entry in entries) + 1,
        "entries": spaces.c.entries + len(entries),
    }
    connection.execute(spaces.update().where(spaces.c.id == space).values(counted))
    _announce(connection, space, entries)


def leave(connection: Connection, space: int, entries: Sequence[Entry], *, keep_space: bool = False) -> None:
    """Take entries out of full-text search, and tell the vector index; an empty space is deleted, unless it is kept."""
    if not entries:
        return
    unpost(connection, space, [entry.posted() for entry in entries])
    this = spaces.c.id == space
    connection.execute(spaces.update().where(this).values(entries=spaces.c.entries - len(entries)))
    if not keep_space and connection.execute(spaces.delete().where(this, spaces.c.entries == 0)).rowcount:
        connection.execute(blocks.delete().where(blocks.c.space == space))
        connection.execute(postings.delete().where(postings.c.space == space))
    _announce(connection, space, entries)


def last_position(connection: Connection, space: int, thread: str | None, *, below: int) -> int:
    """Return the last position of a thread before `below`."""
    if thread is None:
        return NO_POSITION
    earlier = (records.c.space == space) & (records.c.thread == thread) & (records.c.position < below)
    found = connection.execute(select(func.max(records.c.position)).where(earlier)).scalar_one()
    return NO_POSITION if found is None else int(found)


def _announce(connection: Connection, space: int, entries: Sequence[Entry]) -> None:
    rows = [{"space": space, "entry": entry.id, "vectors": entry.vectors} for entry in entries if entry.vectors]
    if rows:
        connection.execute(outbox.insert(), rows)
