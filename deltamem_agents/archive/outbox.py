"""Read what the vector index has to be told, and what the record knows of the index."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.dialects import insert_into
from deltamem_agents.archive.tables import items, outbox, records, settings, spaces

__all__ = [
    "Change",
    "KnownIndex",
    "acknowledge",
    "all_entries",
    "changes",
    "entry_texts",
    "existing_spaces",
    "known_index",
    "last_change",
    "pending",
    "remember_index",
    "vector_ids",
]

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Change:
    """Name an entry that was written or deleted; `vectors` is how many vectors it has or had."""

    seq: int
    space: int
    entry: str
    vectors: int


@dataclass(frozen=True, slots=True)
class KnownIndex:
    """Hold what the record knows of its index: which it is, and how many batches it has acknowledged."""

    id: str
    generation: int


def vector_ids(entry: str, count: int) -> list[str]:
    """Return the ids of an entry's vectors."""
    return [f"{entry}#{number}" for number in range(count)]


def changes(connection: Connection, limit: int) -> list[Change]:
    """Return the oldest writes that the index has not acknowledged."""
    rows = connection.execute(select(outbox).order_by(outbox.c.seq).limit(limit)).mappings()
    return [Change(**row) for row in rows]


def pending(connection: Connection) -> int:
    """Return how many writes the index has not acknowledged."""
    return connection.execute(select(func.count()).select_from(outbox)).scalar_one()


def last_change(connection: Connection) -> int:
    """Return the number of the newest write in the outbox, 0 if it is empty."""
    return connection.execute(select(func.max(outbox.c.seq))).scalar_one() or 0


def acknowledge(connection: Connection, known: KnownIndex, seqs: Sequence[int]) -> None:
    """Take writes out of the outbox, since the index has them, and remember its generation."""
    connection.execute(outbox.delete().where(outbox.c.seq.in_(seqs)))
    remember_index(connection, known)


def remember_index(connection: Connection, known: KnownIndex, *, up_to: int = 0) -> None:
    """Remember an index, which has every write up to the number `up_to`."""
    value = json.dumps({"id": known.id, "generation": known.generation})
    insert = insert_into(connection, settings).values(name="index", value=value)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
    connection.execute(outbox.delete().where(outbox.c.seq <= up_to))


def known_index(connection: Connection) -> KnownIndex | None:
    """Return what the record knows of its index."""
    value = connection.execute(select(settings.c.value).where(settings.c.name == "index")).scalar_one_or_none()
    return None if value is None else KnownIndex(**json.loads(value))


def existing_spaces(connection: Connection) -> set[int]:
    """Return the spaces that hold anything."""
    return set(connection.execute(select(spaces.c.id)).scalars())


def entry_texts(connection: Connection, entries: Iterable[str]) -> dict[str, list[str]]:
    """Return the texts of those entries that exist, one for each vector."""
    wanted = list(entries)
    said = select(records.c.id, records.c.text).where(records.c.id.in_(wanted))
    found = {row.id: [row.text] for row in connection.execute(said)}
    kept = select(items.c.id, items.c.texts).where(items.c.id.in_(wanted))
    return found | {row.id: json.loads(row.texts) for row in connection.execute(kept)}


def all_entries(engine: Engine) -> Iterator[list[tuple[int, str, list[str]]]]:
    """Yield every entry as (space, id, texts), in pages that are read in transactions of their own."""
    for table in (records, items):
        after = ""
        while True:
            chosen = select(table).where(table.c.id > after).order_by(table.c.id).limit(_PAGE)
            with engine.connect().execution_options(**READ_ONLY) as connection:
                rows = connection.execute(chosen).all()
            if not rows:
                break
            after = rows[-1].id
            yield [(row.space, row.id, [row.text] if table is records else json.loads(row.texts)) for row in rows]
