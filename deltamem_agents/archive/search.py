"""Find records by words and by meaning: BM25 and vectors, over each text and its neighbours, fused into one score.

The weights were chosen by cross-validation over conversations; docs/archive.md says how.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from langchain_core.cross_encoders import BaseCrossEncoder
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Engine, bindparam, case, select

from deltamem_agents.archive.bm25 import Layout, load_corpus, score_words, with_neighbours
from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.records import Namespace, Record, namespace_key
from deltamem_agents.archive.tables import records, spaces
from deltamem_agents.archive.vectors import VectorIndex
from deltamem_agents.terms import terms_of

__all__ = ["DEFAULT_WEIGHTS", "NEAREST", "Hit", "Scores", "SearchWeights", "score_namespace", "search_records"]

Floats = NDArray[np.float32]

NEAREST = 500
"""How many vectors are asked for."""

_SPARE = 6  # how many of the best are looked up in SQL first beyond those that are wanted, at least
_MOST_CANDIDATES = 5_000  # how many at once at most
_RERANKED = 50

# Built once: for a question, building statements costs more than running them.
_SPACE = select(spaces.c.id).where(spaces.c.kind == "record", spaces.c.namespace == bindparam("namespace"))
_RECORDS = select(records).where(
    records.c.space == bindparam("space"), records.c.position.in_(bindparam("places", expanding=True))
)


@dataclass(frozen=True, slots=True)
class SearchWeights:
    """Weigh the ways in which a record can suit a question.

    alone, near, wide: BM25 of the text, with one neighbour on each side, with two; the best of each counts 1.
    meaning: cosine of the text. around: mean cosine of the first neighbours. beyond: that of the second ones.
    """

    alone: float = 0.3
    near: float = 0.25
    wide: float = 0.8
    meaning: float = 0.85
    around: float = 0.25
    beyond: float = 0.5


DEFAULT_WEIGHTS = SearchWeights()


@dataclass(frozen=True, slots=True)
class Hit:
    """Hold a record that was found, and why.

    score: what hits are ordered by. words: its part from BM25. meaning: its cosine similarity, None where vectors were
    not searched or it was not among the nearest.
    """

    record: Record
    score: float
    words: float
    meaning: float | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Hold how well each position [n] of a namespace suits a question, in each way that `SearchWeights` weighs.

    space: the namespace's number. cosines: those of the positions that were among the nearest.
    """

    space: int
    alone: Floats
    near: Floats
    wide: Floats
    meaning: Floats
    around: Floats
    beyond: Floats
    cosines: Mapping[int, float]

    def words(self, weights: SearchWeights) -> Floats:
        """Return the part that comes from words."""
        found: Floats = weights.alone * self.alone + weights.near * self.near + weights.wide * self.wide
        return found

    def fused(self, weights: SearchWeights) -> Floats:
        """Return the whole."""
        meaning = weights.meaning * self.meaning + weights.around * self.around + weights.beyond * self.beyond
        found: Floats = self.words(weights) + meaning
        return found


def search_records(
    engine: Engine,
    vectors: VectorIndex,
    namespace: Namespace,
    query: str,
    chosen: RecordFilter,
    limit: int,
    *,
    weights: SearchWeights = DEFAULT_WEIGHTS,
    reranker: BaseCrossEncoder | None = None,
) -> list[Hit]:
    """Return the best records of a namespace for a question, the best first; see `MemoryStore.recall`."""
    key = namespace_key(namespace)
    question = vectors.embed(query) if query.strip() else None  # while no transaction is open
    with engine.connect().execution_options(**READ_ONLY) as connection:
        scores = _score(connection, vectors, key, query, question)
        if scores is None:
            return []
        words, total = scores.words(weights), scores.fused(weights)
        condition = chosen.findable(key, connection.dialect.name)
        hits = _look_up(connection, scores.space, condition, total, max(limit, _RERANKED if reranker else 0))
    found = [Hit(record, float(total[at]), float(words[at]), scores.cosines.get(at)) for at, record in hits]
    return _rerank(reranker, query, found)[:limit] if reranker else found[:limit]


def score_namespace(engine: Engine, vectors: VectorIndex, namespace: Namespace, query: str) -> Scores | None:
    """Score every position of a namespace against a question; None if the namespace or the question is empty."""
    question = vectors.embed(query) if query.strip() else None
    with engine.connect().execution_options(**READ_ONLY) as connection:
        return _score(connection, vectors, namespace_key(namespace), query, question)


def _score(
    connection: Connection, vectors: VectorIndex, key: str, query: str, question: Floats | None
) -> Scores | None:
    space = connection.execute(_SPACE, {"namespace": key}).scalar_one_or_none()
    if space is None or not query.strip():
        return None
    nearest = vectors.nearest(space, question, NEAREST)
    corpus = load_corpus(connection, space, terms_of(query))
    cosines = _by_position(connection, space, nearest, len(corpus.layout.lengths)) if nearest else {}
    alone, near, wide = score_words(corpus, reach=2)
    return Scores(space, alone, near, wide, *_meaning(corpus.layout, cosines), cosines)


def _by_position(connection: Connection, space: int, near: Mapping[str, float], size: int) -> dict[int, float]:
    """Turn vector ids into positions below `size`, leaving out what the record does not hold."""
    ids = {vector_id.partition("#")[0]: cosine for vector_id, cosine in near.items()}
    # By id alone: a condition on the space makes SQLite read all of the space.
    chosen = select(records.c.id, records.c.space, records.c.position).where(records.c.id.in_(ids))
    rows = connection.execute(chosen).all()
    return {place: ids[name] for name, owner, place in rows if owner == space and place < size}


def _meaning(layout: Layout, cosines: Mapping[int, float]) -> tuple[Floats, Floats, Floats]:
    """Return each position's cosine, and the means of its first and second neighbours'.

    What is not among the nearest counts as the farthest that is.
    """
    own = np.full_like(layout.lengths, min(cosines.values(), default=0.0))
    if not cosines:
        return own, own, own
    own[list(cosines)] = list(cosines.values())
    first, second = (with_neighbours(layout, own, reach) for reach in (1, 2))
    around: Floats = (first - own) / np.float32(2)
    beyond: Floats = (second - first) / np.float32(2)
    return own, around, beyond


def _look_up(
    connection: Connection, space: int, condition: ColumnElement[bool], total: Floats, limit: int
) -> list[tuple[int, Record]]:
    """Return the best positions whose records the filter lets through, looking further until there are enough."""
    found: list[tuple[int, Record]] = []
    # As a case, so that SQLite takes the index by position, and none of those that the condition could use, which lead
    # to far more rows.
    chosen = _RECORDS.where(case((condition, 1), else_=0) == 1)
    for places in _best_first(total, limit + max(limit // 2, _SPARE)):
        rows = connection.execute(chosen, {"space": space, "places": places}).mappings()
        by_place = {row["position"]: row for row in rows}
        passed = [place for place in places if place in by_place][: limit - len(found)]
        found += [(place, Record.from_row(by_place[place])) for place in passed]
        if len(found) == limit:
            break
    return found


def _best_first(total: Floats, width: int) -> Iterator[list[int]]:
    """Yield the positions that have a score, the best `width` first, then in growing pieces."""
    scored = np.flatnonzero(total > 0)
    # Most questions are answered from the first piece, so only that is sorted at first.
    first = scored
    if len(scored) > width:
        last = np.partition(total[scored], len(scored) - width)[len(scored) - width]
        first = scored[total[scored] >= last]
    order = first[np.argsort(-total[first], kind="stable")]
    yield order[:width].tolist()
    if len(scored) > width:
        rest = scored[np.argsort(-total[scored], kind="stable")][width:]
        start = 0
        while start < len(rest):
            width = min(4 * width, _MOST_CANDIDATES)
            yield rest[start : start + width].tolist()
            start += width


def _rerank(reranker: BaseCrossEncoder, query: str, hits: list[Hit]) -> list[Hit]:
    scores = reranker.score([(query, hit.record.text) for hit in hits]) if hits else []
    ordered = sorted(zip(scores, hits, strict=True), key=lambda pair: -pair[0])
    return [Hit(hit.record, float(score), hit.words, hit.meaning) for score, hit in ordered]
