"""The vector index as a store uses it: fed by a thread, and allowed to be absent, busy or broken."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from backbone import ConfigError
from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.embeddings import Embedder
from deltamem_agents.archive.errors import (
    EmbeddingError,
    IndexBrokenError,
    IndexBusyError,
    IndexMismatchError,
    IndexUnreachableError,
    VectorIndexError,
)
from deltamem_agents.archive.indexer import REMEDY, Indexer, open_indexer
from deltamem_agents.archive.outbox import pending
from deltamem_agents.archive.rebuild import Progress, rebuild_place

__all__ = ["VectorIndex"]

Vectors = NDArray[np.float32]

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5  # how soon the writes of other processes are seen
_RETRY_SECONDS = 3.0  # how soon an index is used that another owner has closed, or a server that answers again
_LONGEST_PAUSE_SECONDS = 30.0


class VectorIndex:
    """Find vectors near a question, or say once in the log why that is impossible.

    fault: why vectors cannot be searched, None if they can be. failure: what the feeding thread met last, None if its
    last batch went well.
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
        self._open()

    @property
    def place(self) -> str | Path | None:
        """Return the index's directory, or the URL of its server; None if there is no index."""
        return self._index

    @property
    def indexer(self) -> Indexer | None:
        """Return the open index, None if vectors cannot be searched."""
        return self._indexer if self.fault is None else None

    def embed(self, question: str) -> Vectors | None:
        """Return the vector [dims] of a question, None where vectors cannot be searched."""
        if self.indexer is None or self._embedder is None:
            return None
        try:
            return self._embedder.embed_query(question)
        except EmbeddingError as error:
            _log.warning("the question could not be embedded, so only its words are searched: %s", error)
        return None

    def nearest(self, space: int, vector: Vectors | None, limit: int) -> dict[str, float]:
        """Return the vector ids nearest to a vector with their cosine similarity; none where that is impossible.

        Raises IndexMismatchError if the vector is not of the index's size.
        """
        indexer = self.indexer
        if indexer is None or vector is None:
            return {}
        try:
            return indexer.nearest(space, vector, limit)
        except IndexMismatchError:
            raise
        except Exception as error:  # Chroma's errors have no common base, and search must go on
            # A server may answer again, and the feeding thread follows a new index; or this one is being made anew.
            if indexer.shared or indexer is not self._indexer:
                _log.warning("the vector index failed, so only words are searched this time: %s", error)
            else:
                self._give_up(IndexBrokenError(f"the vector index failed: {error}"))
        return {}

    def catch_up(self) -> None:
        """Put what was written so far into the index; what cannot be done now is logged, and tried again later."""
        if (indexer := self.indexer) is not None:
            try:
                indexer.catch_up()
            except IndexMismatchError:
                raise
            except Exception as error:  # as above
                _log.warning("some writes are not in the vector index yet: %s", error)

    def wake(self) -> None:
        """Tell the feeding thread that something was written."""
        self._work.set()

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until every write is in the index; where there is no index, return at once.

        Raises EmbeddingError, or VectorIndexError if the index cannot take the writes, or not in `timeout` seconds.
        """
        if self._index is None or self._embedder is None:
            return
        end = time.monotonic() + timeout
        if isinstance(self.fault, IndexBusyError) and self._fed_by_owner(end):
            return
        if self.fault is not None:
            raise self.fault
        if (indexer := self._indexer) is None:
            raise VectorIndexError(f"the index in {self._index} is being made anew; flush again")
        _within(end, partial(indexer.catch_up, again=True), f"the index in {self._index} did not take every write")
        self.failure = None

    def rebuild(self, progress: Progress | None = None) -> int:
        """Make a new index from the record, and remove the old one; return how many vectors it has.

        Raises ConfigError without an index or a model, and IndexBusyError if another owner has the directory.
        """
        if self._index is None or self._embedder is None:
            raise ConfigError("to rebuild the index, say where it is and give the embeddings it is to be made with")
        self._stop()
        try:
            return rebuild_place(self._engine, self._index, self._embedder, progress).vectors
        finally:
            # Until the last step of a rebuild the old index is whole.
            self.fault = self.failure = None
            self._open()

    def close(self) -> None:
        """Put what is left into the index, and close it; a failure is logged, and the writes stay in the outbox."""
        try:
            if self.indexer is not None:
                self.flush()
        except Exception as error:  # whatever it is, the index has to be closed
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
            if isinstance(error, IndexBrokenError):
                return
        self._stopping.clear()
        wait_first = partial(self._wait, self._index, self._embedder)
        work: Callable[[], None] = wait_first if self._indexer is None else self._feed
        self._thread = threading.Thread(target=work, name="archive-index", daemon=True)
        self._thread.start()

    def _wait(self, index: str | Path, embedder: Embedder) -> None:
        """Open an index as soon as that is possible, and feed it."""
        while self._indexer is None:
            if self._stopping.wait(_RETRY_SECONDS):
                return
            try:
                self._indexer = open_indexer(self._engine, index, embedder)
            except (IndexBrokenError, IndexMismatchError) as error:
                self._give_up(error)
                return
            except Exception as error:  # it is busy or unreachable still, and so may be the record's database
                _log.debug("the vector index cannot be used yet: %s", error)
        self.fault = None
        _log.info("the vector index in %s can be used, and vectors are searched", index)
        self._feed()

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

    def _feed(self) -> None:
        pause, failure = _POLL_SECONDS, self.failure
        while self._indexer is not None and not self._stopping.is_set():
            try:
                while self._indexer.batch() and not self._stopping.is_set():
                    pass
                failure, pause = self._indexer.refusal, _POLL_SECONDS
            except Exception as error:
                failure, pause = error, min(2 * pause, _LONGEST_PAUSE_SECONDS)
            if failure is not None and self.failure is None:
                _log.warning("the vector index could not be fed, and will be tried again: %s", failure)
            self.failure = failure
            self._work.wait(pause)
            self._work.clear()

    def _fed_by_owner(self, end: float) -> bool:
        """Wait until the index has every write, or this store is its owner; say whether it has them."""
        while isinstance(self.fault, IndexBusyError):
            with self._engine.connect().execution_options(**READ_ONLY) as connection:
                if not pending(connection):
                    return True
            if time.monotonic() > end:
                raise IndexBusyError(f"the owner of the index in {self._index} did not take every write in time")
            time.sleep(0.05)
        return False


def _within(end: float, work: Callable[[], None], late: str) -> None:
    """Do what may hang, such as a provider's call, on a thread of its own; raises VectorIndexError if time is up."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="archive-flush", daemon=True).start()
    if wait([done], max(0.0, end - time.monotonic())).not_done:
        raise VectorIndexError(f"{late} in time")
    done.result()
