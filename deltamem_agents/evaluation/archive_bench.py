"""Measure the archive: how long a search takes among many records, how soon a write is found, and bytes on disk."""

import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.messages import HumanMessage
from sqlalchemy import Engine

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.outbox import pending
from deltamem_agents.archive.statistics import statistics as archive_statistics
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.hybrid import HybridMemory

__all__ = ["measure_archive"]

NAMESPACE = ("bench",)
DIMENSIONS = 384  # as all-MiniLM-L6-v2 has
VOCABULARY = 20_000
WORDS = 14  # of a text
QUESTION_WORDS = 6
THREAD_SIZE = 40  # records of a thread, which are each other's neighbours
BATCH = 2_000
WRITES = 5  # whose way into the index is timed


class _RandomVectors(Embeddings):
    """Give each text a vector of its own at no cost worth measuring: the embedding call is not what is timed."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = np.random.default_rng(crc32(text.encode())).normal(size=DIMENSIONS).tolist()
        return vector


def measure_archive(sizes: Sequence[int], questions: int) -> list[dict[str, Any]]:
    """Return a row of figures for each number of records, in SQLite on this machine's disk.

    Times are 95th percentiles in milliseconds over `questions` searches or messages. words_ms: by words alone.
    fts5_ms: the baseline, SQLite's own full-text search over the same texts, ranked by BM25, without neighbours,
    namespaces or filters; ratio: words_ms ÷ fts5_ms. hybrid_ms: by words and vectors, with vectors of 384 numbers that
    cost nothing to make. enqueue_ms: handing a message over, beside an index that is being fed. index_lag_seconds: from
    a write until the index has it, the slowest of five. bytes_per_record, index_bytes_per_record: of the database and
    of the index.
    """
    return [_measure(size, questions) for size in sizes]


def _measure(size: int, questions: int) -> dict[str, Any]:
    draw = np.random.default_rng(size)
    with tempfile.TemporaryDirectory() as folder:
        url, index = f"sqlite:///{folder}/archive.sqlite", Path(folder) / "index"
        with MemoryStore.from_url(url, index, _RandomVectors()) as store:
            _fill(store, draw, size)
            asked = [_text(draw, QUESTION_WORDS) for _ in range(questions)]
            hybrid = _times([partial(store.recall, NAMESPACE, text) for text in asked])
            enqueue = _enqueue(store, draw, questions)
            lag = max(_lag(store, _text(draw, WORDS)) for _ in range(WRITES))
        with MemoryStore.from_url(url) as words_only:
            words = _times([partial(words_only.recall, NAMESPACE, text) for text in asked])
            texts = [record.text for record in words_only.records.list(NAMESPACE, limit=size)]
        fts5 = _full_text_times(texts, asked)
        found = archive_statistics(url, index)
        return {
            "records": size,
            "words_ms": _p95(words),
            "fts5_ms": _p95(fts5),
            "ratio": _p95(words) / _p95(fts5),
            "hybrid_ms": _p95(hybrid),
            "enqueue_ms": _p95(enqueue),
            "index_lag_seconds": lag,
            "bytes_per_record": found["bytes_on_disk"] / found["records"],
            "index_bytes_per_record": found["index_bytes"] / found["records"],
        }


def _fill(store: MemoryStore, draw: np.random.Generator, size: int) -> None:
    for start in range(0, size, BATCH):
        batch = [
            NewRecord(f"{_text(draw, WORDS)} {number}", f"thread-{number // THREAD_SIZE}", str(number))
            for number in range(start, min(size, start + BATCH))
        ]
        store.records.add_all(NAMESPACE, batch)
    store.flush(timeout=600.0)


def _text(draw: np.random.Generator, words: int) -> str:
    """Return words whose frequencies fall as those of a language do (Zipf's law)."""
    return " ".join(f"w{number % VOCABULARY}" for number in draw.zipf(1.2, words))


def _times(calls: Sequence[Callable[[], Any]]) -> list[float]:
    calls[0]()  # opens what is opened at first use
    seconds = []
    for call in calls:
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds


def _full_text_times(texts: Sequence[str], asked: Sequence[str]) -> list[float]:
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(sqlite3.connect(f"{folder}/fts.sqlite")) as plain:
        plain.execute("CREATE VIRTUAL TABLE said USING fts5(text)")
        plain.executemany("INSERT INTO said VALUES (?)", [(text,) for text in texts])
        plain.commit()
        find = "SELECT rowid, text FROM said WHERE said MATCH ? ORDER BY rank LIMIT 10"
        return _times([partial(_fetch, plain, find, " OR ".join(text.split())) for text in asked])


def _fetch(connection: sqlite3.Connection, find: str, words: str) -> list[Any]:
    return connection.execute(find, (words,)).fetchall()


def _enqueue(store: MemoryStore, draw: np.random.Generator, messages: int) -> list[float]:
    with HybridMemory(store, namespace=NAMESPACE) as memory:
        said = [HumanMessage(_text(draw, WORDS), id=f"m{number}") for number in range(messages)]
        seconds = _times([partial(memory.archive, [message], "enqueued") for message in said])
        memory.flush()
    return seconds


def _lag(store: MemoryStore, text: str) -> float:
    begin = time.perf_counter()
    store.records.add(NAMESPACE, NewRecord(text))
    while _waiting(store.engine):
        time.sleep(0.01)
    return time.perf_counter() - begin


def _waiting(engine: Engine) -> int:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        return pending(connection)


def _p95(seconds: Sequence[float]) -> float:
    """Return the 95th percentile in milliseconds."""
    return 1000 * statistics.quantiles(seconds, n=20)[-1]
