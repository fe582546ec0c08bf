"""Full-text search in the database: terms, postings and BM25, against their plain definitions."""

import math
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from deltamem_agents.archive.bm25 import load_corpus, score_words
from deltamem_agents.archive.database import open_database
from deltamem_agents.archive.postings import BLOCK
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.tables import blocks, postings, records, spaces
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.terms import MAX_TERM_CHARACTERS, terms_of

NS = ("n",)
WORDS = ("apple", "banana", "cherry", "date")
SAID = st.lists(
    st.tuples(
        st.sampled_from(["s", "t", None]), st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), st.booleans()
    ),
    min_size=1,
    max_size=10,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cats are running!", ["cat", "run"]),
        ("Straße ＡＢＣ", ["strass", "abc"]),
        ("see ERR_4711-b", ["see", "err_4711", "err", "4711", "b"]),
        ("東京都 x", ["東京", "京都", "x"]),
        ("is it the one?", ["one"]),
        ("' OR 1=1 --; %_", ["1", "1", "_"]),
        ("", []),
    ],
)
def test_terms_are_folded_stemmed_words(text: str, expected: list[str]) -> None:
    """Case, width, endings and common words make no difference; identifiers are found whole and in parts."""
    assert terms_of(text) == expected


def test_a_term_has_a_greatest_length() -> None:
    """A blob without spaces does not become one endless key of the index."""
    assert [len(term) for term in terms_of("x" * 1000)] == [MAX_TERM_CHARACTERS]


def naive_scores(texts: Sequence[str], groups: Sequence[Sequence[int]], question: str) -> list[float]:
    """Score documents, each the texts of one group joined, by BM25 as it is defined; divided by the best."""
    documents = [Counter(term for number in group for term in terms_of(texts[number])) for group in groups]
    lengths = [sum(document.values()) for document in documents]
    mean = sum(lengths) / len(lengths)
    scores = [0.0] * len(documents)
    for term in set(terms_of(question)):
        found = sum(term in document for document in documents)
        rarity = math.log(1 + (len(documents) - found + 0.5) / (found + 0.5))
        for number, document in enumerate(documents):
            often = document[term]
            scores[number] += rarity * often * 2.2 / (often + 1.2 * (0.6 + 0.4 * lengths[number] / mean))
    best = max(scores) or 1.0
    return [score / best for score in scores]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=SAID, question=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))
def test_scores_are_those_of_the_definition(store: RecordStore, said: list[Any], question: list[str]) -> None:
    """After any additions and deletions, each field scores as BM25 over the texts left and their neighbours."""
    store.delete(NS, [record.id for record in store.list(NS)])
    run, kept = uuid.uuid4().hex, []  # a message is archived once, also where its record was deleted since
    for number, (thread, words, stays) in enumerate(said):
        named = {} if thread is None else {"thread": thread, "message_id": f"{run}-{number}"}
        record = store.add(NS, NewRecord(f"{' '.join(words)} _{number}", **named))
        kept += [record] if stays else []
    store.delete(NS, {record.id for record in store.list(NS)} - {record.id for record in kept})  # type: ignore[arg-type]
    if not kept:
        return
    numbers = range(len(kept))
    threads = [[n for n in numbers if kept[n].thread == kept[m].thread] if kept[m].thread else [m] for m in numbers]
    before = [[n for n in thread if n < m] for m, thread in enumerate(threads)]
    after = [[n for n in thread if n > m] for m, thread in enumerate(threads)]
    groups = {reach: [[m, *before[m][::-1][:reach], *after[m][:reach]] for m in numbers] for reach in (0, 1, 2)}
    engine = store._engine
    with engine.connect() as connection:
        space = connection.execute(select(spaces.c.id).where(spaces.c.namespace == '["n"]')).scalar_one()
        places = dict(connection.execute(select(records.c.id, records.c.position)).all())  # type: ignore[arg-type]
        corpus = load_corpus(connection, space, terms_of(" ".join(question)))
    for reach, members in groups.items():
        expected = naive_scores([record.text for record in kept], members, " ".join(question))
        found = score_words(corpus, reach)[-1][[places[record.id] for record in kept]]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def counts(engine: Engine) -> list[int]:
    """Return how many rows the index has in its tables."""
    with engine.connect() as connection:
        tables = (spaces, blocks, postings)
        return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]


def test_an_emptied_namespace_leaves_nothing_behind(url: str) -> None:
    """Deleting the last record deletes every row of its index, the namespace's name included."""
    with RecordStore.from_url(url) as store:
        ids = [record.id for record in store.add_all(NS, [NewRecord("one apple"), NewRecord("two apples")])]
        store.delete(NS, ids[:1])
        engine = open_database(url)
        assert counts(engine) == [1, 1, 2]
        store.delete(NS, ids)
        assert counts(engine) == [0, 0, 0]
        engine.dispose()


def test_a_space_grows_over_many_blocks(sqlite_url: str) -> None:
    """Positions beyond the first block are found, scored and deleted like those in it."""
    texts = [NewRecord(f"filler number{n}", "t", str(n)) for n in range(BLOCK - 1)]
    with RecordStore.from_url(sqlite_url) as store:
        store.add_all(NS, texts)
        last = store.add_all(NS, [NewRecord(f"apple {n}", "t", f"x{n}") for n in range(3)])
        engine = store._engine
        with engine.connect() as connection:
            corpus = load_corpus(connection, 1, ["appl"])
        (scores,) = score_words(corpus)
        assert np.flatnonzero(scores).tolist() == [BLOCK - 1, BLOCK, BLOCK + 1]
        previous, following, second, _ = corpus.layout.links
        assert previous[[0, BLOCK - 1, BLOCK, BLOCK + 1]].tolist() == [BLOCK + 2, BLOCK - 2, BLOCK - 1, BLOCK]
        assert following[[BLOCK - 1, BLOCK + 1]].tolist() == [BLOCK, BLOCK + 2]
        assert second[BLOCK] == BLOCK - 2
        store.delete(NS, [last[0].id])
        with engine.connect() as connection:
            corpus = load_corpus(connection, 1, ["appl"])
        assert np.flatnonzero(score_words(corpus)[0]).tolist() == [BLOCK, BLOCK + 1]
        assert corpus.layout.links[0][BLOCK] == BLOCK - 2


def test_a_question_may_be_longer_than_a_statement(store: RecordStore) -> None:
    """A text with more different words than a statement takes parameters finds what shares one with it."""
    store.add(NS, NewRecord("apple pie"))
    question = " ".join(["apple", *(f"word{number}" for number in range(70_000))])
    with store._engine.connect() as connection:
        space = connection.execute(select(spaces.c.id)).scalar_one()
        (scores,) = score_words(load_corpus(connection, space, terms_of(question)))
    assert scores.tolist() == [1]
