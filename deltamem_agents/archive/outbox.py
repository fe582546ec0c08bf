"""Read what the vector index has to be told, and what the record knows of the index."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Engine, func, select

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.dialects import chunks, insert_into
from deltamem_agents.archive.directory import Manifest
from deltamem_agents.archive.tables import items, outbox, records, settings, spaces

__all__ = [
    "Change",
    "KnownIndex",
    "Waiting",
    "acknowledge",
    "all_entries",
    "announce",
    "belongs",
    "changes",
    "entry_texts",
    "existing_spaces",
    "known_index",
    "pending",
    "pending_numbers",
    "remember_index",
    "vector_ids",
]

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Waiting:
    """Name an entry that the index has still to look at; `vectors` is how many vectors it has or had."""

    space: int
    entry: str
    vectors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Waiting):
    """Name an entry that was written or deleted, by the number of its line in the outbox."""

    seq: int


@dataclass(frozen=True, slots=True)
class KnownIndex:
    """Hold what the record knows of its index: which it is, and how many batches it has acknowledged."""

    id: str
    generation: int


def vector_ids(entry: str, count: int) -> list[str]:
    """Return the ids of an entry's vectors."""
    return [f"{entry}#{number}" for number in range(count)]


def changes(connection: Connection, limit: int, *, besides: Collection[str] = ()) -> list[Change]:
    """Return the oldest writes that the index has not acknowledged, without those of some entries."""
    # An entry is written once and deleted once.
    chosen = select(outbox).order_by(outbox.c.seq).limit(limit + 2 * len(besides))
    found = (Change(**row) for row in connection.execute(chosen).mappings())
    return [change for change in found if change.entry not in besides][:limit]


def pending(connection: Connection) -> int:
    """Return how many writes the index has not acknowledged."""
    return connection.execute(select(func.count()).select_from(outbox)).scalar_one()


def pending_numbers(connection: Connection) -> list[int]:
    """Return the numbers of the writes that the index has not acknowledged."""
    return list(connection.execute(select(outbox.c.seq)).scalars())


def acknowledge(connection: Connection, known: KnownIndex, seqs: Sequence[int]) -> None:
    """Take writes out of the outbox, since the index has them, and remember its generation."""
    for part in chunks(seqs):
        connection.execute(outbox.delete().where(outbox.c.seq.in_(part)))
    remember_index(connection, known)


def announce(connection: Connection, entries: Iterable[Waiting]) -> None:
    """Put entries that the index lacks into the outbox, where they are not there already."""
    there = set(connection.execute(select(outbox.c.entry)).scalars())
    rows = [asdict(entry) for entry in entries if entry.entry not in there]
    if rows:
        connection.execute(outbox.insert(), rows)


def remember_index(connection: Connection, known: KnownIndex) -> None:
    """Remember an index."""
    value = json.dumps({"id": known.id, "generation": known.generation})
    insert = insert_into(connection, settings).values(name="index", value=value)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": value}))


def known_index(connection: Connection) -> KnownIndex | None:
    """Return what the record knows of its index."""
    value = connection.execute(select(settings.c.value).where(settings.c.name == "index")).scalar_one_or_none()
    return None if value is None else KnownIndex(**json.loads(value))


def belongs(manifest: Manifest, known: KnownIndex | None) -> bool:
    """Say whether an index is the record's, and not an older copy; the last batch may be one that was cut off."""
    if known is None:
        return manifest.generation == 0
    return manifest.id == known.id and manifest.generation - known.generation in {0, 1}


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
