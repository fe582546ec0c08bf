"""Score the entries of a namespace against words: BM25 over each text alone and together with its neighbours.

k1 = 1.2 and b = 0.75, as in Lucene. A neighbour is the text before or after in the same thread: in a conversation the
words of a question are often in the turn before its answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from deltamem_agents.archive.postings import BLOCK, NO_POSITION
from deltamem_agents.archive.tables import blocks, postings

__all__ = ["DEFAULT_FIELDS", "Corpus", "FieldWeights", "load_corpus", "score_words", "with_neighbours"]

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]

_K1 = 1.2
_B = 0.75


@dataclass(frozen=True, slots=True)
class FieldWeights:
    """Weigh a text alone, with the one before it, and with both neighbours; each divided by its best."""

    alone: float = 0.5
    pair: float = 0.7
    both: float = 0.5


DEFAULT_FIELDS = FieldWeights()


@dataclass(frozen=True, slots=True)
class Corpus:
    """Hold what a query needs of a space, by position.

    lengths: [n] terms of each text. previous, following: [n] neighbours in the thread, -1 if there is none.
    occurrences: for each term that occurs, the positions [m] and how often [m].
    """

    lengths: Floats
    previous: Positions
    following: Positions
    occurrences: Mapping[str, tuple[Positions, Floats]]


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
    return Corpus(lengths, previous, following, _occurrences(connection, space, terms))


def score_words(corpus: Corpus, weights: FieldWeights) -> Floats:
    """Return one score for each position: 0 where no term occurs, at most the sum of the weights."""
    total = np.zeros_like(corpus.lengths)
    counts = {term: _dense(len(total), *found) for term, found in corpus.occurrences.items()}
    for weight, before, after in ((weights.alone, 0, 0), (weights.pair, 1, 0), (weights.both, 1, 1)):
        if not weight:
            continue
        lengths = with_neighbours(corpus, corpus.lengths, before, after)
        scores = np.zeros_like(total)
        for dense in counts.values():
            _add_term(scores, with_neighbours(corpus, dense, before, after), lengths)
        best = scores.max(initial=0)
        if best > 0:
            total += weight / best * scores
    return total


def with_neighbours(corpus: Corpus, values: Floats, before: float, after: float) -> Floats:
    """Add to each position's value those of the positions before and after it, times these factors."""
    if not before and not after:
        return values
    padded = np.append(values, np.float32(0))  # what position -1 has
    return (values + before * padded[corpus.previous] + after * padded[corpus.following]).astype(np.float32)


def _add_term(scores: Floats, counts: Floats, lengths: Floats) -> None:
    found = np.flatnonzero(counts)
    entries = np.count_nonzero(lengths)
    if not len(found) or not entries:
        return
    mean = lengths.sum() / entries
    rarity = np.log1p((entries - len(found) + 0.5) / (len(found) + 0.5))
    often = counts[found]
    scores[found] += rarity * often * (_K1 + 1) / (often + _K1 * (1 - _B + _B * lengths[found] / mean))


def _dense(size: int, positions: Positions, counts: Floats) -> Floats:
    dense = np.zeros(size, np.float32)
    dense[positions] = counts
    return dense


def _occurrences(connection: Connection, space: int, terms: Sequence[str]) -> dict[str, tuple[Positions, Floats]]:
    wanted = sorted(set(terms))
    if not wanted:
        return {}
    chosen = select(postings.c.term, postings.c.block, postings.c.data).where(postings.c.space == space)
    gathered: dict[str, list[NDArray[np.int64]]] = {}
    for row in connection.execute(chosen.where(postings.c.term.in_(wanted))):
        codes = np.frombuffer(row.data, "<u4").astype(np.int64)
        gathered.setdefault(row.term, []).append(codes + (row.block * BLOCK << 16))
    joined = {term: np.concatenate(codes) for term, codes in gathered.items()}
    return {term: (codes >> 16, (codes & 0xFFFF).astype(np.float32)) for term, codes in joined.items()}
