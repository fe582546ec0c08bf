"""Score the entries of a namespace against words: BM25 over each text alone and together with its neighbours.

Neighbours are the texts before and after in the same thread: in a conversation the words of a question are often in the
turn before its answer. k1 = 1.2 is the usual choice; b = 0.4 because the length of a turn says little about it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from deltamem_agents.archive.postings import BLOCK, NO_POSITION
from deltamem_agents.archive.tables import blocks, postings

__all__ = ["Corpus", "load_corpus", "score_words", "with_neighbours"]

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

_K1 = 1.2
_B = 0.4


@dataclass(frozen=True, slots=True)
class Corpus:
    """Hold what a query needs of a space, by position.

    lengths: [n] terms of each text. previous, following: [n] neighbours in the thread, -1 if there is none.
    counts: for each term that occurs, how often in each text [n].
    """

    lengths: Floats
    previous: Positions
    following: Positions
    counts: Mapping[str, Floats]


def load_corpus(connection: Connection, space: int, terms: Sequence[str]) -> Corpus:
    """Read the lengths and links of a space, and the postings of these terms."""
    chosen = select(blocks.c.block, blocks.c.lengths, blocks.c.previous).where(blocks.c.space == space)
    rows = connection.execute(chosen.order_by(blocks.c.block)).all()
    size = rows[-1].block * BLOCK + len(rows[-1].lengths) // 2 if rows else 0
    lengths = np.zeros(size, np.float32)
    previous = np.full(size, NO_POSITION, np.int64)
    for row in rows:
        here = np.frombuffer(row.lengths, "<u2")
        start = row.block * BLOCK
        lengths[start : start + len(here)] = here
        previous[start : start + len(here)] = np.frombuffer(row.previous, "<i4")
    following = np.full(size, NO_POSITION, np.int64)
    linked = np.flatnonzero(previous != NO_POSITION)
    following[previous[linked]] = linked
    return Corpus(lengths, previous, following, _counts(connection, space, terms, size))


def score_words(corpus: Corpus, reach: int = 0) -> Floats:
    """Return one score [n] for each text, joined with `reach` texts on each side of it in its thread.

    The best score is 1; where no term occurs it is 0.
    """
    scores = np.zeros_like(corpus.lengths)
    lengths = with_neighbours(corpus, corpus.lengths, reach)
    for counts in corpus.counts.values():
        _add_term(scores, with_neighbours(corpus, counts, reach), lengths)
    best = scores.max(initial=0)
    return scores / best if best > 0 else scores


def with_neighbours(corpus: Corpus, values: Floats, reach: int) -> Floats:
    """Add to each position's value those of the `reach` positions before and after it in its thread."""
    total = values.copy()
    for links in (corpus.previous, corpus.following):
        at = np.arange(len(values))
        for _ in range(reach):
            at = np.append(links, NO_POSITION)[at]
            total += np.append(values, np.float32(0))[at]
    return total


def _add_term(scores: Floats, counts: Floats, lengths: Floats) -> None:
    found = np.flatnonzero(counts)
    entries = np.count_nonzero(lengths)
    if not len(found) or not entries:
        return
    mean = lengths.sum() / entries
    rarity = np.log1p((entries - len(found) + 0.5) / (len(found) + 0.5))
    often = counts[found]
    scores[found] += rarity * often * (_K1 + 1) / (often + _K1 * (1 - _B + _B * lengths[found] / mean))


def _counts(connection: Connection, space: int, terms: Sequence[str], size: int) -> dict[str, Floats]:
    wanted = sorted(set(terms))
    if not wanted:
        return {}
    chosen = select(postings.c.term, postings.c.block, postings.c.data).where(postings.c.space == space)
    counts: dict[str, Floats] = {}
    for row in connection.execute(chosen.where(postings.c.term.in_(wanted))):
        codes = np.frombuffer(row.data, "<u4")
        dense = counts.setdefault(row.term, np.zeros(size, np.float32))
        dense[row.block * BLOCK + (codes >> 16)] = codes & 0xFFFF
    return counts
