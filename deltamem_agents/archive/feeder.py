"""Keep a vector index open and fed from the outbox, on a thread; an index that has failed is opened again."""

import logging
import threading
import time
from pathlib import Path

from sqlalchemy import Engine

from deltamem_agents.archive.embeddings import Embedder
from deltamem_agents.archive.errors import (
    IndexBrokenError,
    IndexBusyError,
    IndexUnreachableError,
    VectorIndexError,
)
from deltamem_agents.archive.indexer import REMEDY, Indexer, open_indexer
from deltamem_agents.archive.places import is_server

__all__ = ["Feeder"]

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5  # how soon the writes of other processes are seen
_LONGEST_PAUSE_SECONDS = 30.0
_RETRY_SECONDS = 3.0  # how soon an index is opened again at first
_LONGEST_RETRY_SECONDS = 300.0


class Feeder:
    """Feed an index while it can be used; when it cannot, try to open it again, after pauses that grow to minutes.

    failure: what the last batch met, None if it went well.
    """

    def __init__(self, engine: Engine, index: str | Path, embedder: Embedder) -> None:
        """Open the index and begin; raises IndexMismatchError for another model's."""
        self._engine = engine
        self._index = index
        self._embedder = embedder
        self._lock = threading.Lock()  # of the state
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._said: set[type[VectorIndexError]] = set()  # since the index could be used
        self._state: Indexer | VectorIndexError
        try:
            self._state = open_indexer(engine, index, embedder)
        except (IndexBrokenError, IndexBusyError, IndexUnreachableError) as error:
            self._state = error
            self._say(error)
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="archive-index", daemon=True)
        self._thread.start()

    @property
    def indexer(self) -> Indexer | None:
        """Return the open index, None while it cannot be used."""
        state = self._state
        return state if isinstance(state, Indexer) else None

    @property
    def fault(self) -> VectorIndexError | None:
        """Return why the index cannot be used, None if it can."""
        state = self._state
        return None if isinstance(state, Indexer) else state

    def usable(self) -> Indexer:
        """Return the open index; raises `fault` while it cannot be used."""
        state = self._state
        if isinstance(state, Indexer):
            return state
        raise state.with_traceback(None)  # it may be raised often, and would grow each time

    def wake(self) -> None:
        """Look into the outbox now."""
        self._work.set()

    def give_up(self, indexer: Indexer, error: VectorIndexError) -> bool:
        """Use an index that has failed no more, until it has been opened again; say whether it was still in use."""
        with self._lock:
            if self._state is not indexer:
                return False
            self._state = error
        self._work.set()
        self._say(error)
        return True

    def close(self, patience: float) -> None:
        """Stop, and close the index; where something hangs, such as a provider's call, wait so many seconds at most."""
        with self._lock:
            self._stopping.set()
            self._state = VectorIndexError(f"the index in {self._index} is closed, or being made anew")
        self._work.set()
        self._thread.join(patience)
        if self._thread.is_alive():
            _log.warning("the index in %s is still busy, and is closed as soon as its last call returns", self._index)

    def _run(self) -> None:
        indexer, pause = self.indexer, _RETRY_SECONDS
        while True:
            if indexer is not None:
                opened = time.monotonic()
                self._feed(indexer)
                indexer.close()  # so that another process can make a broken one anew
                if time.monotonic() - opened > _LONGEST_RETRY_SECONDS:
                    pause = _RETRY_SECONDS
            if self._stopping.wait(pause):
                return
            indexer, pause = self._open_again(pause)

    def _feed(self, indexer: Indexer) -> None:
        """Feed an index as long as it is in use."""
        pause = _POLL_SECONDS
        while self._state is indexer:
            try:
                while self._state is indexer and indexer.batch():
                    pass
                failure: Exception | None = indexer.refusal
                pause = _POLL_SECONDS
            except Exception as error:
                if isinstance(error, IndexBrokenError) and not indexer.shared:
                    self.give_up(indexer, error)
                    return
                failure, pause = error, min(2 * pause, _LONGEST_PAUSE_SECONDS)
            if failure is not None and self.failure is None:
                _log.warning("the vector index could not be fed, and will be tried again: %s", failure)
            self.failure = failure
            self._work.wait(pause)
            self._work.clear()

    def _open_again(self, pause: float) -> tuple[Indexer | None, float]:
        """Return the index if it can be opened now, and how long to wait before the next time."""
        longer = min(2 * pause, _LONGEST_RETRY_SECONDS)
        try:
            indexer = open_indexer(self._engine, self._index, self._embedder)
        except VectorIndexError as error:
            with self._lock:
                if not self._stopping.is_set():
                    self._state = error
            self._say(error)
            # Asking a lock or a server costs next to nothing, and each opening of a directory a process.
            cheap = isinstance(error, IndexBusyError) or is_server(self._index)
            return None, _RETRY_SECONDS if cheap and not isinstance(error, IndexBrokenError) else longer
        except Exception as error:  # the record's database cannot be reached, or the disk is full
            _log.debug("the vector index cannot be opened yet: %s", error)
            return None, longer
        with self._lock:
            if not self._stopping.is_set():
                self._state = indexer
                self._said.clear()
                _log.info("the vector index in %s can be used, and vectors are searched again", self._index)
        return indexer, longer

    def _say(self, error: VectorIndexError) -> None:
        """Say why the index cannot be used, each kind of reason once."""
        if type(error) not in self._said:
            self._said.add(type(error))
            remedy = f"; {REMEDY}" if isinstance(error, IndexBrokenError) else ""
            _log.warning("%s; search goes on with words alone%s", error, remedy)
