"""Search the items of a LangGraph store: newest first without a question, best first with one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from langgraph.store.base import SearchItem, SearchOp
from sqlalchemy import Connection, Engine, RowMapping, select

from deltamem_agents.archive.bm25 import load_corpus, score_words
from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.items import alive, below, item_of
from deltamem_agents.archive.tables import items, spaces
from deltamem_agents.archive.values import matches
from deltamem_agents.archive.vectors import VectorIndex
from deltamem_agents.terms import terms_of

__all__ = ["search_items"]

_CHUNK = 5_000
_FIRST = 64
_GROWTH = 8


def search_items(engine: Engine, vectors: VectorIndex, op: SearchOp, now: datetime) -> list[SearchItem]:
    """Return the items below a namespace prefix that pass the filter.

    With a question they are ordered by the best cosine similarity of their texts, or by BM25 where vectors cannot be
    searched; items without a score come last. Without a question the newest writes come first.
    """
    with engine.connect().execution_options(**READ_ONLY) as connection:
        if not op.query:
            return _newest(connection, op, now)
        chosen = select(spaces.c.id).where(spaces.c.kind == "item", below(spaces.c.namespace, op.namespace_prefix))
        owners = connection.execute(chosen).scalars().all()
    question = vectors.embed(op.query)
    wanted = op.offset + op.limit
    width = max(_FIRST, 2 * wanted)
    while True:
        if question is None:
            scores, complete = _by_words(engine, owners, op.query, width)
        else:
            scores, complete = _by_meaning(vectors, owners, question, width)
            if vectors.indexer is None:  # it failed just now
                question = None
                continue
        with engine.connect().execution_options(**READ_ONLY) as connection:
            found = _scored(connection, op, scores, now)
            if complete and len(found) < wanted:
                found += _unscored(connection, op, {item.key_and_namespace for item in found}, wanted, now)
        if complete or len(found) >= wanted:
            return [item.found for item in found[op.offset : wanted]]
        width *= _GROWTH


class _Scored:
    """An item with its score, before paging."""

    def __init__(self, row: RowMapping, score: float | None) -> None:
        fields = item_of(row)
        self.key_and_namespace = (fields["namespace"], fields["key"])
        self.found = SearchItem(**fields, score=score)


def _by_meaning(
    vectors: VectorIndex, owners: Sequence[int], question: Any, width: int
) -> tuple[dict[str, float], bool]:
    """Return the best cosine of each item among the `width` nearest vectors of each space, and whether that is all."""
    scores: dict[str, float] = {}
    complete = True
    for space in owners:
        near = vectors.nearest(space, question, width)
        complete = complete and len(near) < width
        for vector_id, cosine in near.items():
            item = vector_id.partition("#")[0]
            scores[item] = max(cosine, scores.get(item, -1.0))
    return scores, complete


def _by_words(engine: Engine, owners: Sequence[int], query: str, width: int) -> tuple[dict[str, float], bool]:
    """Return the BM25 scores of each space's `width` best items, the best being 1, and whether that is all."""
    scores: dict[str, float] = {}
    complete = True
    terms = terms_of(query)
    with engine.connect().execution_options(**READ_ONLY) as connection:
        for space in owners:
            (dense,) = score_words(load_corpus(connection, space, terms))
            order = np.argsort(-dense, kind="stable")
            order = order[dense[order] > 0]
            complete = complete and len(order) <= width
            places = [int(place) for place in order[:width]]
            chosen = select(items.c.id, items.c.position).where(items.c.space == space, items.c.position.in_(places))
            scores |= {row.id: float(dense[row.position]) for row in connection.execute(chosen)}
    return scores, complete


def _scored(connection: Connection, op: SearchOp, scores: dict[str, float], now: datetime) -> list[_Scored]:
    ordered = sorted(scores, key=lambda item: -scores[item])
    found: list[_Scored] = []
    for start in range(0, len(ordered), _CHUNK):
        ids = ordered[start : start + _CHUNK]
        # The prefix is asked for again: what the index says is never trusted to stay within a namespace.
        mine = below(items.c.namespace, op.namespace_prefix)
        rows = connection.execute(select(items).where(items.c.id.in_(ids), mine, alive(now))).mappings()
        by_id = {row["id"]: row for row in rows}
        found += [_Scored(by_id[item], scores[item]) for item in ids if item in by_id]
    return [item for item in found if matches(item.found.value, op.filter)]


def _unscored(connection: Connection, op: SearchOp, seen: set[Any], wanted: int, now: datetime) -> list[_Scored]:
    rest = (_Scored(row, None) for row in _rows(connection, op, now))
    unseen = (item for item in rest if item.key_and_namespace not in seen and matches(item.found.value, op.filter))
    return [item for item, _ in zip(unseen, range(wanted - len(seen)), strict=False)]


def _newest(connection: Connection, op: SearchOp, now: datetime) -> list[SearchItem]:
    if not op.filter:
        page = _newest_first(op, now).limit(op.limit).offset(op.offset)
        return [SearchItem(**item_of(row)) for row in connection.execute(page).mappings()]
    passing = (
        item for row in _rows(connection, op, now) if matches((item := _Scored(row, None)).found.value, op.filter)
    )
    return [item.found for item, _ in zip(passing, range(op.offset + op.limit), strict=False)][op.offset :]


def _rows(connection: Connection, op: SearchOp, now: datetime) -> Any:
    return connection.execute(_newest_first(op, now)).mappings()


def _newest_first(op: SearchOp, now: datetime) -> Any:
    mine = below(items.c.namespace, op.namespace_prefix)
    return select(items).where(mine, alive(now)).order_by(items.c.updated.desc(), items.c.id.desc())
