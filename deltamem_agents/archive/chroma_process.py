"""Keep a Chroma folder in a process of its own, which sees ids and vectors and never a text.

Chroma writes unused memory of its process into its files, so no process that has handled texts may be the one that
writes them. And a damaged folder can crash or hang whoever opens it.
"""

import contextlib
import gc
import itertools
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from deltamem_agents.archive.errors import IndexBrokenError, IndexUnreachableError, VectorIndexError

__all__ = ["ChromaProcess", "NoAnswerError"]

Vectors = NDArray[np.float32]

_PATIENCE_SECONDS = 120
_AT_ONCE = 4
_READY = -1
"""The number of the message with which the process says that it has the folder for itself."""


class NoAnswerError(IndexBrokenError):
    """Report a process that did not answer in time, and was ended."""


class ChromaProcess:
    """Ask a process that has a Chroma folder open; the methods are those of ChromaIndex, from any thread.

    What the process raises becomes a VectorIndexError. It is ended if it does not answer for two minutes, but
    for `ids`; after its end every method raises IndexBrokenError.
    """

    def __init__(self, folder: Path) -> None:
        """Start the process and use every collection once.

        Raises IndexUnreachableError if the process does not come as far as the folder, and IndexBrokenError if the
        folder cannot be used.
        """
        self._fault: str | None = None
        self._numbers = itertools.count()
        self._ready: Future[Any] = Future()
        self._waiting: dict[int, Future[Any]] = {_READY: self._ready}
        self._lock = threading.Lock()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 # closed by `close`
        self._process = subprocess.Popen(
            # -P: no module out of the working directory, which may be anybody's.
            [sys.executable, "-P", "-m", "deltamem_agents.archive.chroma_process", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            process_group=0,  # Ctrl-C is meant for this program
            umask=0o077,
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        self._reader = threading.Thread(target=self._receive, name="chroma", daemon=True)
        self._reader.start()
        self._check()

    def close(self) -> None:
        """Let the process write what it has and end."""
        if self._said.closed:
            return
        # Said, since a fork of this program would keep the pipe open.
        with self._lock, contextlib.suppress(OSError, ValueError):
            _write(self._requests, None)
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._said.close()

    def upsert(self, space: int, vectors: Mapping[str, Vectors]) -> None:
        """Store vectors by id, replacing those that are there."""
        self._ask("upsert", space, dict(vectors))

    def delete(self, space: int, ids: Sequence[str]) -> None:
        """Remove vectors by id; unknown ids are no error."""
        self._ask("delete", space, list(ids))

    def drop(self, space: int) -> None:
        """Remove all vectors of a space."""
        self._ask("drop", space)

    def query(self, space: int, vector: Vectors, limit: int) -> dict[str, float]:
        """Return the ids of the nearest vectors with their cosine similarity, the nearest first."""
        found: dict[str, float] = self._ask("query", space, vector, limit)
        return found

    def ids(self, space: int) -> set[str]:
        """Return the ids of all vectors of a space."""
        found: set[str] = self._ask("ids", space, bounded=False)  # it reads every vector, however many there are
        return found

    def spaces(self) -> set[int]:
        """Return the spaces that have a collection."""
        found: set[int] = self._ask("spaces")
        return found

    def _check(self) -> None:
        try:
            try:
                self._ready.result(2 * _PATIENCE_SECONDS)  # it may wait for the folder
            except (IndexBrokenError, TimeoutError) as error:
                raise IndexUnreachableError(f"Chroma's process could not begin: {error}") from error
            try:
                self._ask("check")
            except IndexBrokenError:
                raise
            except VectorIndexError as error:
                raise IndexBrokenError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def _ask(self, method: str, *arguments: object, bounded: bool = True) -> Any:
        answer: Future[Any] = Future()
        with self._lock:
            if self._fault is not None:
                raise IndexBrokenError(self._fault)
            number = next(self._numbers)
            self._waiting[number] = answer
            with contextlib.suppress(OSError, ValueError):  # it has ended: the reader says so to everyone who waits
                _write(self._requests, (number, method, arguments))
        try:
            return answer.result(_PATIENCE_SECONDS if bounded else None)
        except TimeoutError:
            self._process.kill()
            late = f"Chroma did not answer `{method}` within {_PATIENCE_SECONDS} seconds and was ended"
            raise NoAnswerError(late) from None

    def _receive(self) -> None:
        with self._answers:
            while (message := _read(self._answers)) is not None:
                number, error, value = message
                answer = self._waiting.pop(number)
                if error is None:
                    answer.set_result(value)
                else:
                    answer.set_exception(VectorIndexError(error))
        with self._lock:
            self._fault = self._last_words()
            for answer in self._waiting.values():
                answer.set_exception(IndexBrokenError(self._fault))

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        return said[-1] if code > 0 and said else f"the process that had it open ended with {code}"


def serve(folder: Path) -> None:
    """Answer requests of the standard input until it ends; raises whatever Chroma raises when it opens the folder."""
    os.chdir(folder)  # chromadb reads a file .env of the working directory
    # Only this process needs chromadb, which takes seconds to import; a seventh of that is the search for garbage.
    gc.disable()
    from deltamem_agents.archive.chroma import ChromaIndex, open_client  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    lock = threading.Lock()
    # A program that was killed may have left its process behind for a moment, busy with its last request.
    with FileLock(folder / "owner.lock", timeout=_PATIENCE_SECONDS):
        _write(answers, (_READY, None, None))
        index = ChromaIndex(open_client(str(folder)))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while (request := _read(sys.stdin.buffer)) is not None:
                pool.submit(_answer, index, request, answers, lock)
        index.close()


def _answer(index: Any, request: tuple[int, str, Sequence[Any]], answers: IO[bytes], lock: threading.Lock) -> None:
    number, method, arguments = request
    error, value = None, None
    try:
        value = getattr(index, method)(*arguments)
    except BaseException as raised:  # Chroma's errors have no common base, and those of its Rust parts are none
        error = f"{raised}" or type(raised).__name__
    with lock, contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        _write(answers, (number, error, value))


def _write(stream: IO[bytes], message: object) -> None:
    pickle.dump(message, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def _read(stream: IO[bytes]) -> Any:
    """Return the next message, None where there is none that is whole."""
    try:
        return pickle.load(stream)  # noqa: S301 # from this package's own process
    except (EOFError, pickle.UnpicklingError):
        return None


if __name__ == "__main__":
    serve(Path(sys.argv[1]).resolve())
