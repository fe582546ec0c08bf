"""`MemoryStore`: the archive as a LangGraph store, and as a searchable record of what was said."""

import asyncio
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.embeddings import Embeddings
from langgraph.store.base import BaseStore, GetOp, ListNamespacesOp, Op, PutOp, Result, SearchOp, TTLConfig
from langgraph.store.base import validate_op_namespace as require_namespace
from sqlalchemy import Engine

from backbone import ConfigError
from deltamem_agents.archive import items as kept
from deltamem_agents.archive.database import READ_ONLY, open_database
from deltamem_agents.archive.embeddings import resolve_embeddings
from deltamem_agents.archive.filters import RecordFilter
from deltamem_agents.archive.item_search import search_items
from deltamem_agents.archive.rebuild import Progress, Verification, compare, rebuild_at
from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.records import Namespace
from deltamem_agents.archive.rules import Rules
from deltamem_agents.archive.search import Hit, search_records
from deltamem_agents.archive.sweeping import Sweeper
from deltamem_agents.archive.vectors import VectorIndex
from deltamem_agents.policy import MemoryPolicy, PolicyChain

__all__ = ["MemoryStore"]

_EVERY = RecordFilter()
_SWEEP_MINUTES = 5


class MemoryStore(BaseStore):
    """Hold items as every LangGraph store does, and verbatim records that are found by words and by meaning.

    SQL holds everything; the vector index beside it can be rebuilt from it at any time. It is opened by `with`, by
    `async with`, or by its first use, and threads may share it.
    """

    supports_ttl = True

    def __init__(
        self,
        database_url: str,
        index: str | Path | None = None,
        embeddings: Embeddings | str | None = None,
        *,
        fields: Sequence[str] = ("$",),
        ttl: TTLConfig | None = None,
        reranker: BaseCrossEncoder | None = None,
        policy: PolicyChain | MemoryPolicy | None = None,
    ) -> None:
        """Take what `from_url` takes; nothing is opened yet."""
        if embeddings is not None and index is None:
            raise ConfigError("embeddings need an index to keep their vectors in; give `index` as well")
        self._url = database_url
        self._index = index
        self._embeddings = embeddings
        self._fields = tuple(fields)
        self._reranker = reranker
        self._lock = threading.RLock()
        self._open: tuple[Engine, VectorIndex] | None = None
        self._rules = Rules()
        self._sweeper = Sweeper(self._rules)
        self.rule(policy)
        self.ttl_config = ttl

    @classmethod
    def from_url(
        cls,
        database_url: str,
        index: str | Path | None = None,
        embeddings: Embeddings | str | None = None,
        *,
        fields: Sequence[str] = ("$",),
        ttl: TTLConfig | None = None,
        reranker: BaseCrossEncoder | None = None,
        policy: PolicyChain | MemoryPolicy | None = None,
    ) -> Self:
        """Name an archive, to be used with `with` or `async with`.

        database_url: sqlite:///file or postgresql://…. index: a directory for vectors, or the URL of a
        Chroma server; None searches words alone.
        embeddings: LangChain embeddings or "provider:model"; None is all-MiniLM-L6-v2 if the extra `minilm` is there.
        fields: paths of an item's value that are searched. ttl: as LangGraph's stores take it, in minutes; what has
        expired is erased by a later use, every five minutes unless `sweep_interval_minutes` says otherwise. reranker:
        scores the best records again, by reading them beside the question. policy: `rule`s the whole store.

        Opening raises ConfigError for a URL or a model that cannot be used, and IndexMismatchError for an index that
        another model made; an index that is broken or owned by another process is said in the log, and only words are
        searched.
        """
        return cls(database_url, index, embeddings, fields=fields, ttl=ttl, reranker=reranker, policy=policy)

    def __enter__(self) -> Self:
        self._parts()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._parts)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Bring the index up to date as far as that is possible, and close everything."""
        with self._lock:
            if self._open is not None:
                engine, vectors = self._open
                self._open = None
                vectors.close()
                engine.dispose()

    @property
    def engine(self) -> Engine:
        """Return the open database."""
        return self._parts()[0]

    @property
    def records(self) -> RecordStore:
        """Return the record of what was said, to add to and read from."""
        return RecordStore(self._parts()[0], self._rules)

    @property
    def vectors(self) -> VectorIndex:
        """Return the vector index, which says whether it can be used and what is wrong if it cannot."""
        return self._parts()[1]

    def recall(self, namespace: Namespace, query: str, *, where: RecordFilter = _EVERY, limit: int = 10) -> list[Hit]:
        """Return the records of a namespace that suit a question best, with their scores, the best first.

        Raises RecordInvalidError for a namespace that is none, and IndexMismatchError if the embeddings have changed.
        """
        engine, vectors = self._parts()
        return search_records(engine, vectors, namespace, query, where, limit, reranker=self._reranker)

    async def arecall(
        self, namespace: Namespace, query: str, *, where: RecordFilter = _EVERY, limit: int = 10
    ) -> list[Hit]:
        """Do what `recall` does, without blocking the event loop."""
        return await asyncio.to_thread(self.recall, namespace, query, where=where, limit=limit)

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until the index has every write; raises EmbeddingError or VectorIndexError if it cannot."""
        self._parts()[1].flush(timeout)

    def rebuild(self, progress: Progress | None = None) -> int:
        """Make the vector index anew from the record; return how many vectors it has.

        A store that is not open yet can do so with another model than the one that made the index.
        """
        if self._open is None and self._index is not None:
            return rebuild_at(self._url, self._index, self._embeddings, progress).vectors
        return self._parts()[1].rebuild(progress)

    def verify(self) -> Verification:
        """Compare the vector index with the record."""
        engine, vectors = self._parts()
        indexer = vectors.indexer
        if indexer is not None:
            with indexer.paused():
                return compare(engine, indexer.chroma)
        fault = vectors.fault or "it is not open"
        return compare(engine, None, None if vectors.place is None else str(fault))

    def rule(self, policy: PolicyChain | MemoryPolicy | None, namespace: Namespace = ()) -> PolicyChain:
        """Ask a policy too, from now on, about what a program writes to a namespace or below it; () is everywhere.

        What it refuses raises PolicyRefusedError; expired records are erased only if it lets them. Returns the policy
        behind those that rule above. Raises RecordInvalidError for no namespace, ConfigError for no policy.
        """
        return self._rules.add(policy, namespace)

    def sweep_ttl(self) -> int:
        """Delete every item and record that has expired and that no policy keeps; return how many there were."""
        gone = self._sweeper.sweep(self.engine)
        self.vectors.wake()
        return gone

    def sweep_if_due(self) -> None:
        """Do `sweep_ttl` if the last time is `sweep_interval_minutes` ago, five where the store's `ttl` names none."""
        interval = (self.ttl_config or {}).get("sweep_interval_minutes", _SWEEP_MINUTES)
        if self._sweeper.due(interval):
            self.sweep_ttl()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do LangGraph's operations: reads see the state before the writes, and the last write of a key counts."""
        engine, vectors = self._parts()
        results: list[Result] = []
        puts, now = dict[tuple[Namespace, str], PutOp](), datetime.now(UTC)
        for op in ops:
            require_namespace(op)
            if isinstance(op, PutOp):
                puts[op.namespace, op.key] = op
                results.append(None)
            else:
                results.append(self._read(engine, vectors, op, now))
        if puts:
            kept.put_all(engine, puts.values(), self._fields, now, self._rules)
            vectors.wake()
        self.sweep_if_due()
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what `batch` does, without blocking the event loop."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _parts(self) -> tuple[Engine, VectorIndex]:
        with self._lock:
            if self._open is None:
                engine = open_database(self._url)
                try:
                    embedder = None if self._index is None else resolve_embeddings(self._embeddings)
                    self._open = engine, VectorIndex(engine, self._index, embedder)
                except BaseException:
                    engine.dispose()
                    raise
            return self._open

    def _read(self, engine: Engine, vectors: VectorIndex, op: Any, now: datetime) -> Result:
        if isinstance(op, SearchOp):
            if op.query:
                vectors.catch_up()
            found = search_items(engine, vectors, op, now)
            if op.refresh_ttl and found:
                kept.refresh(engine, [(item.namespace, item.key) for item in found], now)
            return list(found)
        if isinstance(op, GetOp):
            with engine.connect().execution_options(**READ_ONLY) as connection:
                item = kept.get(connection, op, now)
            if op.refresh_ttl and item is not None:
                kept.refresh(engine, [(op.namespace, op.key)], now)
            return item
        if isinstance(op, ListNamespacesOp):
            with engine.connect().execution_options(**READ_ONLY) as connection:
                return kept.list_namespaces(connection, op, now)
        raise ConfigError(f"a store knows get, put, search and list operations; got {type(op).__name__}")
