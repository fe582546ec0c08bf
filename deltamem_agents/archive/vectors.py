"""The vector index as a store uses it: allowed to be absent, busy or broken."""

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
    VectorIndexError,
)
from deltamem_agents.archive.feeder import Feeder
from deltamem_agents.archive.indexer import Indexer
from deltamem_agents.archive.outbox import pending
from deltamem_agents.archive.rebuild import Progress, rebuild_place

__all__ = ["VectorIndex"]

Vectors = NDArray[np.float32]

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 150.0  # more than Chroma's process is given to end


class VectorIndex:
    """Find vectors near a question, or say once in the log why that is impossible."""

    def __init__(self, engine: Engine, index: str | Path | None, embedder: Embedder | None) -> None:
        """Open the index in a directory, on a server, or none; raises IndexMismatchError for another model's."""
        self._engine = engine
        self._index = index
        self._embedder = embedder
        self._feeder: Feeder | None = None
        self._rebuilding = threading.Lock()
        self._closed = False
        if index is not None and embedder is None:
            _log.warning("no embeddings were given and the extra `minilm` is not installed: only words are searched")
        self._open()

    @property
    def place(self) -> str | Path | None:
        """Return the index's directory, or the URL of its server; None if there is no index."""
        return self._index

    @property
    def indexer(self) -> Indexer | None:
        """Return the open index, None if vectors cannot be searched."""
        return None if self._feeder is None else self._feeder.indexer

    @property
    def fault(self) -> VectorIndexError | None:
        """Return why vectors cannot be searched, None if they can, or if there is no index."""
        return None if self._feeder is None else self._feeder.fault

    @property
    def failure(self) -> Exception | None:
        """Return what the feeding thread met last, None if its last batch went well."""
        return None if self._feeder is None else self._feeder.failure

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
        feeder = self._feeder
        if feeder is None or vector is None or (indexer := feeder.indexer) is None:
            return {}
        try:
            return indexer.nearest(space, vector, limit)
        except IndexMismatchError:
            raise
        except Exception as error:  # Chroma's errors have no common base, and search must go on
            # A server may answer again, and its index is followed when it is made anew.
            if indexer.shared or not feeder.give_up(indexer, IndexBrokenError(f"the vector index failed: {error}")):
                _log.warning("the vector index failed, so only words are searched this time: %s", error)
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
        if self._feeder is not None:
            self._feeder.wake()

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until every write is in the index; where there is no index, return at once.

        Raises EmbeddingError, or VectorIndexError if the index cannot take the writes, or not in `timeout` seconds.
        """
        if (feeder := self._feeder) is None:
            return
        end = time.monotonic() + timeout
        if self._fed_by_owner(end):
            return
        catch_up = partial(feeder.usable().catch_up, again=True)
        _within(end, catch_up, f"the index in {self._index} did not take every write")
        feeder.failure = None

    def rebuild(self, progress: Progress | None = None) -> int:
        """Make a new index from the record, and remove the old one; return how many vectors it has.

        Raises ConfigError without an index or a model, and IndexBusyError if another owner has the directory.
        """
        if self._index is None or self._embedder is None:
            raise ConfigError("to rebuild the index, say where it is and give the embeddings it is to be made with")
        with self._rebuilding:
            self._stop()
            try:
                return rebuild_place(self._engine, self._index, self._embedder, progress).vectors
            finally:
                self._open()  # the old index if it failed, which is whole until the last step

    def close(self) -> None:
        """Put what is left into the index, and close it; a failure is logged, and the writes stay in the outbox."""
        self._closed = True
        try:
            if self.indexer is not None:
                self.flush(_CLOSE_SECONDS)
        except Exception as error:  # whatever it is, the index has to be closed
            _log.warning("some writes are not in the vector index yet: %s", error)
        self._stop()

    def _open(self) -> None:
        if self._index is not None and self._embedder is not None:
            self._feeder = Feeder(self._engine, self._index, self._embedder)
            if self._closed:  # by another thread, during a rebuild
                self._stop()

    def _stop(self) -> None:
        if self._feeder is not None:
            self._feeder.close(_CLOSE_SECONDS)

    def _fed_by_owner(self, end: float) -> bool:
        """While another has the index, wait until that has every write; say whether it has them."""
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
