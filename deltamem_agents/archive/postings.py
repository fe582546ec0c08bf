"""Keep the full-text index in the database: for each term, the positions where it occurs, packed by blocks.

A position is one entry of a space; 1,024 of them make a block. A posting is one uint32: the position in its block in
the upper 16 bits, the number of occurrences in the lower. Everything here runs inside the caller's transaction.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from deltamem_agents.archive.dialects import chunks, insert_into
from deltamem_agents.archive.tables import blocks, postings

__all__ = ["BLOCK", "NO_POSITION", "Posted", "post", "relink", "unpost"]

BLOCK = 1024
NO_POSITION = -1
"""What stands for the position before the first of a thread."""

_MOST = 2**16 - 1


@dataclass(frozen=True, slots=True)
class Posted:
    """Hold an entry as the index sees it: its position, the one before it in its thread, and its terms' counts."""

    position: int
    previous: int
    counts: Mapping[str, int]

    @property
    def length(self) -> int:
        """Return how many terms the entry has."""
        return sum(self.counts.values())


def post(connection: Connection, space: int, entries: Sequence[Posted]) -> None:
    """Add entries, whose positions are greater than all that the space has had."""
    for block, members in _by_block(entries):
        added: dict[str, list[int]] = defaultdict(list)
        for entry in members:
            for term, count in entry.counts.items():
                added[term].append(_packed(entry.position, count))
        old = _stored(connection, space, block, added)
        new = {term: old.get(term, b"") + np.asarray(codes, "<u4").tobytes() for term, codes in added.items()}
        _write_postings(connection, space, block, new)
        lengths, previous = _numbers(connection, space, block)
        size = members[-1].position % BLOCK + 1
        lengths = np.pad(lengths, (0, size - len(lengths)))
        previous = np.pad(previous, (0, size - len(previous)), constant_values=NO_POSITION)
        for entry in members:
            lengths[entry.position % BLOCK] = min(entry.length, _MOST)
            previous[entry.position % BLOCK] = entry.previous
        _write_numbers(connection, space, block, lengths, previous)


def unpost(connection: Connection, space: int, entries: Sequence[Posted]) -> None:
    """Take entries out; a term that occurs nowhere else is gone from the database."""
    for block, members in _by_block(entries):
        places = np.asarray([entry.position % BLOCK for entry in members], "<u4")
        old = _stored(connection, space, block, {term for entry in members for term in entry.counts})
        kept = {}
        for term, data in old.items():
            codes = np.frombuffer(data, "<u4")
            kept[term] = codes[~np.isin(codes >> 16, places)].tobytes()
        _write_postings(connection, space, block, {term: data for term, data in kept.items() if data})
        _drop_postings(connection, space, block, [term for term, data in kept.items() if not data])
        lengths, previous = _numbers(connection, space, block)
        lengths[places], previous[places] = 0, NO_POSITION
        _write_numbers(connection, space, block, lengths, previous)


def relink(connection: Connection, space: int, position: int, previous: int) -> None:
    """Say which position now comes before `position` in its thread."""
    block = position // BLOCK
    lengths, links = _numbers(connection, space, block)
    links[position % BLOCK] = previous
    _write_numbers(connection, space, block, lengths, links)


def _packed(position: int, count: int) -> int:
    return (position % BLOCK) << 16 | min(count, _MOST)


def _by_block(entries: Sequence[Posted]) -> Iterator[tuple[int, list[Posted]]]:
    members: dict[int, list[Posted]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.position):
        members[entry.position // BLOCK].append(entry)
    yield from members.items()


def _stored(connection: Connection, space: int, block: int, terms: Iterable[str]) -> dict[str, bytes]:
    # In order, so that two writers lock rows of Postgres in the same order.
    found: dict[str, bytes] = {}
    here = (postings.c.space == space) & (postings.c.block == block)
    for part in chunks(sorted(terms)):
        chosen = select(postings.c.term, postings.c.data).where(here, postings.c.term.in_(part))
        found |= {row.term: row.data for row in connection.execute(chosen)}
    return found


def _write_postings(connection: Connection, space: int, block: int, data: Mapping[str, bytes]) -> None:
    rows: list[dict[str, Any]] = [
        {"space": space, "block": block, "term": term, "data": data[term]} for term in sorted(data)
    ]
    if rows:
        insert = insert_into(connection, postings)
        changed = {"data": insert.excluded.data}
        connection.execute(insert.on_conflict_do_update(index_elements=["space", "term", "block"], set_=changed), rows)


def _drop_postings(connection: Connection, space: int, block: int, terms: Sequence[str]) -> None:
    here = (postings.c.space == space) & (postings.c.block == block)
    for part in chunks(terms):
        connection.execute(postings.delete().where(here, postings.c.term.in_(part)))


def _numbers(connection: Connection, space: int, block: int) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    here = (blocks.c.space == space) & (blocks.c.block == block)
    row = connection.execute(select(blocks.c.lengths, blocks.c.previous).where(here)).one_or_none()
    lengths, previous = row or (b"", b"")
    return np.frombuffer(lengths, "<u2").copy(), np.frombuffer(previous, "<i4").copy()


def _write_numbers(
    connection: Connection, space: int, block: int, lengths: NDArray[np.uint16], previous: NDArray[np.int32]
) -> None:
    row = {"space": space, "block": block, "lengths": lengths.tobytes(), "previous": previous.tobytes()}
    insert = insert_into(connection, blocks).values(row)
    changed = {"lengths": insert.excluded.lengths, "previous": insert.excluded.previous}
    connection.execute(insert.on_conflict_do_update(index_elements=["space", "block"], set_=changed))
