"""Score the entries of a namespace against words: BM25 over each text alone and together with its neighbours.

Neighbours are the texts before and after in the same thread: in a conversation the words of a question are often in the
turn before its answer. k1 = 1.2 is the usual choice; b = 0.4 because the length of a turn says little about it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, select

from deltamem_agents.archive.dialects import chunks
from deltamem_agents.archive.postings import BLOCK, NO_POSITION
from deltamem_agents.archive.tables import blocks, postings, spaces

__all__ = ["Corpus", "Layout", "Occurrences", "load_corpus", "score_words", "with_neighbours"]

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

_K1 = 1.2
_B = 0.4
_REACHES = range(3)
_RARE = 25  # a term that less than one text in so many has
_CACHED = "archive_layout"

# Built once: for a question, building statements costs more than running them.
_STATE = select(spaces.c.id, spaces.c.next_position, spaces.c.entries).where(spaces.c.id == bindparam("space"))
_POSTINGS = select(postings.c.term, postings.c.block, postings.c.data).where(
    postings.c.space == bindparam("space"), postings.c.term.in_(bindparam("terms", expanding=True))
)


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


def score_words(corpus: Corpus, reach: int = 0) -> list[Floats]:
    """Return, for 0 to `reach` (at most 2) texts on each side, one score [n] for each text joined with these.

    Neighbours are those in its thread. The best score is 1; where no term occurs it is 0.
    """
    layout = corpus.layout
    found = [np.zeros_like(layout.lengths) for _ in range(reach + 1)]
    own = np.zeros(len(layout.lengths) + 1, np.float32)  # the last one stands for a neighbour that is not there
    for occurrences in corpus.terms.values():
        own[occurrences.at] = occurrences.counts
        places = _reached(layout, occurrences.at, reach)
        counts = own[:-1][places].copy()
        for side in range(reach + 1):
            for links in layout.links[2 * side - 2 : 2 * side] if side else ():
                counts += own[links[places]]
            texts = np.count_nonzero(counts)
            rarity = np.log1p((layout.entries[side] - texts + 0.5) / (texts + 0.5))
            found[side][places] += np.float32(rarity * (_K1 + 1)) * (counts / (counts + layout.damping[side][places]))
        own[occurrences.at] = 0
    return [scores / best if (best := scores.max(initial=0)) > 0 else scores for scores in found]


def _reached(layout: Layout, at: Positions, reach: int) -> Positions | slice:
    """Return these positions and those of their neighbours; or all, where picking out so many takes longer."""
    if len(at) * _RARE > len(layout.lengths):
        return slice(None)
    reached = np.zeros(len(layout.lengths) + 1, np.bool_)
    reached[at] = True
    for links in layout.links[: 2 * reach]:
        reached[links[at]] = True
    return np.flatnonzero(reached[:-1])


def with_neighbours(layout: Layout, values: Floats, reach: int) -> Floats:
    """Add to each position's value those of the `reach` positions before and after it in its thread."""
    if not reach:
        return values
    padded = np.append(values, np.float32(0))
    total = values.copy()
    for links in layout.links[: 2 * reach]:
        total += padded[links]
    return total


def _damping(lengths: Floats) -> Floats:
    entries = np.count_nonzero(lengths)
    found: Floats = _K1 * (1 - _B + _B * lengths / (lengths.sum() / entries)) if entries else np.ones_like(lengths)
    return found


def _known_layout(connection: Connection, space: int) -> Layout:
    """Read the layout of a space, unless this connection of the pool has read the same one before."""
    # Entering takes a position that is never given again, and leaving takes one from `entries`: no pair comes back.
    state = connection.execute(_STATE, {"space": space}).one_or_none()
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
    parts: dict[str, list[tuple[int, bytes]]] = {}
    for wanted in chunks(sorted(set(terms))):
        for term, block, data in connection.execute(_POSTINGS, {"space": space, "terms": wanted}):
            parts.setdefault(term, []).append((block, data))
    return {term: _unpacked(sorted(found), size) for term, found in parts.items()}


def _unpacked(parts: Sequence[tuple[int, bytes]], size: int) -> Occurrences:
    codes = np.frombuffer(b"".join(data for _, data in parts), "<u4")
    first = np.repeat([block * BLOCK for block, _ in parts], [len(data) // 4 for _, data in parts])
    at = first + (codes >> 16)
    # Postgres may show postings that were written after the layout was read.
    known = at < size
    return Occurrences(at[known], (codes & 0xFFFF)[known].astype(np.float32))
