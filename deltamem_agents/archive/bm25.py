"""Score the entries of a namespace against words: BM25 over each text alone and together with its neighbours.

Neighbours are the texts before and after in the same thread: in a conversation the words of a question are often in the
turn before its answer. k1 = 1.2 is the usual choice; b = 0.4 because the length of a turn says little about it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from deltamem_agents.archive.postings import BLOCK, NO_POSITION
from deltamem_agents.archive.tables import blocks, postings, spaces

__all__ = ["Corpus", "Layout", "Occurrences", "load_corpus", "score_words", "with_neighbours"]

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

_K1 = 1.2
_B = 0.4
_REACHES = range(3)
_CACHED = "archive_layout"


@dataclass(frozen=True, slots=True)
class Layout:
    """Hold how the texts of a space lie, by position.

    lengths: [n] terms of each text. links: positions [n] of the previous and the following text in the thread, then of
    the second ones on each side; n where there is none. By reach: `entries` is how many texts there are, and `damping`
    [n] how much a text's length takes from a term in it.
    """

    lengths: Floats
    links: tuple[Positions, Positions, Positions, Positions]
    entries: tuple[int, ...] = field(init=False)
    damping: tuple[Floats, ...] = field(init=False)

    def __post_init__(self) -> None:
        joined = [with_neighbours(self, self.lengths, reach) for reach in _REACHES]
        object.__setattr__(self, "entries", tuple(int(np.count_nonzero(lengths)) for lengths in joined))
        object.__setattr__(self, "damping", tuple(_damping(lengths) for lengths in joined))


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Hold where a term occurs: positions in rising order, and how often at each."""

    at: Positions
    counts: Floats


@dataclass(frozen=True, slots=True)
class Corpus:
    """Hold what a query needs of a space: its layout, and the occurrences of each of its terms that it has."""

    layout: Layout
    terms: Mapping[str, Occurrences]


def load_corpus(connection: Connection, space: int, terms: Sequence[str]) -> Corpus:
    """Read the lengths and links of a space, and the postings of these terms."""
    layout = _known_layout(connection, space)
    return Corpus(layout, _occurrences(connection, space, terms, len(layout.lengths)))


def score_words(corpus: Corpus, reach: int = 0) -> Floats:
    """Return one score [n] for each text, joined with `reach` (at most 2) texts on each side of it in its thread.

    The best score is 1; where no term occurs it is 0.
    """
    layout = corpus.layout
    scores = np.zeros_like(layout.lengths)
    entries, damping = layout.entries[reach], layout.damping[reach]
    for occurrences in corpus.terms.values():
        found = _joined(layout, occurrences, reach)
        rarity = np.log1p((entries - len(found.at) + 0.5) / (len(found.at) + 0.5))
        scores[found.at] += rarity * (_K1 + 1) * found.counts / (found.counts + damping[found.at])
    best = scores.max(initial=0)
    return scores / best if best > 0 else scores


def with_neighbours(layout: Layout, values: Floats, reach: int) -> Floats:
    """Add to each position's value those of the `reach` positions before and after it in its thread."""
    if not reach:
        return values
    padded = np.append(values, np.float32(0))
    total = values.copy()
    for links in layout.links[: 2 * reach]:
        total += padded[links]
    return total


def _joined(layout: Layout, occurrences: Occurrences, reach: int) -> Occurrences:
    """Let a text have what its neighbours have as well."""
    if not reach:
        return occurrences
    links = layout.links[: 2 * reach]
    # A text is reached from its neighbours, and the links lead both ways.
    at = np.concatenate([occurrences.at, *(link[occurrences.at] for link in links)])
    size = len(layout.lengths)
    total = np.bincount(at, np.tile(occurrences.counts, 1 + len(links)), minlength=size + 1)[:size]
    found = np.flatnonzero(total)
    return Occurrences(found, total[found].astype(np.float32))


def _damping(lengths: Floats) -> Floats:
    entries = np.count_nonzero(lengths)
    found: Floats = _K1 * (1 - _B + _B * lengths / (lengths.sum() / entries)) if entries else lengths
    return found


def _known_layout(connection: Connection, space: int) -> Layout:
    """Read the layout of a space, unless this connection of the pool has read the same one before."""
    # Entering takes a position that is never given again, and leaving takes one from `entries`: no pair comes back.
    chosen = select(spaces.c.id, spaces.c.next_position, spaces.c.entries).where(spaces.c.id == space)
    state = connection.execute(chosen).one_or_none()
    known = connection.info.get(_CACHED)
    if known is None or known[0] != state:
        known = connection.info[_CACHED] = (state, _layout(connection, space))
    layout: Layout = known[1]
    return layout


def _layout(connection: Connection, space: int) -> Layout:
    chosen = select(blocks.c.block, blocks.c.lengths, blocks.c.previous).where(blocks.c.space == space)
    rows = connection.execute(chosen.order_by(blocks.c.block)).all()
    size = rows[-1].block * BLOCK + len(rows[-1].lengths) // 2 if rows else 0
    lengths = np.zeros(size, np.float32)
    # One more than there are positions: what has no neighbour is linked to `size`, and so is `size` itself.
    previous, following = np.full(size + 1, size, np.int64), np.full(size + 1, size, np.int64)
    for row in rows:
        here = slice(row.block * BLOCK, row.block * BLOCK + len(row.lengths) // 2)
        lengths[here] = np.frombuffer(row.lengths, "<u2")
        previous[here] = np.frombuffer(row.previous, "<i4")
    previous[previous == NO_POSITION] = size
    linked = np.flatnonzero(previous != size)
    following[previous[linked]] = linked
    links = (previous, following, previous[previous], following[following])
    return Layout(lengths, tuple(link[:size] for link in links))  # type: ignore[arg-type] # four of them


def _occurrences(connection: Connection, space: int, terms: Sequence[str], size: int) -> dict[str, Occurrences]:
    wanted = sorted(set(terms))
    if not wanted:
        return {}
    chosen = select(postings.c.term, postings.c.block, postings.c.data).where(postings.c.space == space)
    parts: dict[str, list[tuple[int, bytes]]] = {}
    for term, block, data in connection.execute(chosen.where(postings.c.term.in_(wanted))):
        parts.setdefault(term, []).append((block, data))
    return {term: _unpacked(sorted(found), size) for term, found in parts.items()}


def _unpacked(parts: Sequence[tuple[int, bytes]], size: int) -> Occurrences:
    codes = np.frombuffer(b"".join(data for _, data in parts), "<u4")
    first = np.repeat([block * BLOCK for block, _ in parts], [len(data) // 4 for _, data in parts])
    at = first + (codes >> 16)
    # Postgres may show postings that were written after the layout was read.
    known = at < size
    return Occurrences(at[known], (codes & 0xFFFF)[known].astype(np.float32))
