"""The thread that keeps an index open: it comes back by itself, in its own time, and holds nothing up."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deltamem_agents.archive import directory, feeder, vectors
from deltamem_agents.archive.errors import IndexBrokenError, IndexBusyError, IndexMismatchError
from deltamem_agents.archive.indexer import Indexer
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.writes import NewRecord
from tests.deltamem_agents.archive.conftest import NS, Model, fill, found

PATIENCE_SECONDS = 300


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Begin with short pauses, and keep what the log is told."""
    monkeypatch.setattr(feeder, "_RETRY_SECONDS", 0.1)
    with caplog.at_level(logging.INFO, "deltamem_agents"):
        yield


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def kill(store: MemoryStore) -> None:
    process = store.vectors.indexer.chroma._process  # type: ignore[union-attr]
    process.kill()
    process.wait()


def rebuild(database: str, index: Path, model: Model) -> None:
    """Make an index anew from outside, between two looks that its store takes at it."""
    outside = MemoryStore.from_url(database, index, model)

    def rebuilt() -> bool:
        try:
            return outside.rebuild() > 0
        except IndexBusyError:
            return False

    until(rebuilt)


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in message for message in caplog.messages)


@pytest.mark.parametrize("noticed", ["search", "write"])
def test_a_killed_process_is_replaced(
    open_store: Callable[..., MemoryStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    noticed: str,
) -> None:
    """Words are searched and `flush` raises until Chroma is back; then every write is found by meaning."""
    monkeypatch.setattr(feeder, "_RETRY_SECONDS", 2.0)
    store = open_store()
    fill(store)
    store.flush()
    kill(store)
    if noticed == "search":
        assert found(store, "number3") == ["fact number3"]
    store.records.add(NS, NewRecord("written meanwhile"))
    store.vectors.wake()
    until(lambda: store.vectors.fault is not None)
    with pytest.raises(IndexBrokenError, match="ended with -9"):
        store.flush()
    assert found(store, "meanwhile") == ["written meanwhile"]
    until(lambda: store.vectors.fault is None)
    store.flush()
    assert (store.verify().ok, store.verify().vectors, store.verify().pending) == (True, 6, 0)
    for text in ("fact number3", "written meanwhile"):
        assert store.recall(NS, text)[0].meaning == pytest.approx(1, abs=1e-5)
    assert (said(caplog, "words alone"), said(caplog, "vectors are searched again")) == (1, 1)


@pytest.mark.parametrize("open_then", [False, True])
def test_an_index_that_another_has_made_anew_is_used(
    open_store: Callable[..., MemoryStore],
    database: str,
    tmp_path: Path,
    model: Model,
    caplog: pytest.LogCaptureFixture,
    open_then: bool,
) -> None:
    """A folder spoilt before or after it was opened is let go of, so that another can rebuild it, and then used."""
    store = open_store()
    fill(store)
    store.flush()
    if open_then:
        (tmp_path / "index" / "index.json").write_text("{")
        kill(store)
        assert found(store, "number3") == ["fact number3"]
        until(lambda: "cannot be read" in str(store.vectors.fault))
    else:
        store.close()
        (file,) = (tmp_path / "index").glob("*/chroma.sqlite3")
        file.write_bytes(b"spoilt")
        store = open_store()
    assert isinstance(store.vectors.fault, IndexBrokenError)
    store.records.add(NS, NewRecord("written meanwhile"))
    rebuild(database, tmp_path / "index", model)
    until(lambda: store.vectors.fault is None)
    store.flush()
    assert store.recall(NS, "written meanwhile")[0].meaning == pytest.approx(1, abs=1e-5)
    assert store.verify().ok
    assert said(caplog, "vectors are searched again") == 1


def test_a_broken_index_is_left_alone_for_longer_and_longer(
    open_store: Callable[..., MemoryStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Pauses double up to the longest, Chroma is started for the first of them alone, and the log says it once."""
    monkeypatch.setattr(feeder, "_LONGEST_RETRY_SECONDS", 0.8)
    store = open_store()
    fill(store)
    store.close()
    (file,) = (tmp_path / "index").glob("*/chroma.sqlite3")
    file.write_bytes(b"spoilt")
    caplog.clear()
    times: list[float] = []
    started: list[Path] = []
    opening, starting = feeder.open_indexer, directory.ChromaProcess
    monkeypatch.setattr(feeder, "open_indexer", lambda *args: (times.append(time.monotonic()), opening(*args))[1])
    monkeypatch.setattr(directory, "ChromaProcess", lambda folder: (started.append(folder), starting(folder))[1])
    store = open_store()
    until(lambda: len(times) == 7)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(pause >= least for pause, least in zip(pauses, [0.1, 0.2, 0.4, 0.8, 0.8, 0.8], strict=True))
    assert len(started) == 2  # it was tried once more
    assert (said(caplog, "tried once more"), said(caplog, "words alone"), len(caplog.messages)) == (1, 1, 2)
    with pytest.raises(IndexBrokenError, match="missing"):
        store.flush()


def test_an_index_of_another_model_is_not_searched(
    open_store: Callable[..., MemoryStore], database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever rebuilds it with other embeddings is found out, and the log and `flush` say so."""
    store = open_store()
    fill(store)
    store.close()
    (tmp_path / "index" / "index.json").write_text("{")
    store = open_store()
    other = Model()
    other.model = "other"
    rebuild(database, tmp_path / "index", other)
    until(lambda: isinstance(store.vectors.fault, IndexMismatchError))
    with pytest.raises(IndexMismatchError, match="deltamem archive rebuild"):
        store.flush()
    assert found(store, "number3") == ["fact number3"]
    assert said(caplog, "was made by") == 1


def test_an_index_that_is_slow_to_open_does_not_hold_up_its_closing(
    open_store: Callable[..., MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` returns although the index is being opened again, which is then closed as well."""
    monkeypatch.setattr(vectors, "_CLOSE_SECONDS", 0.2)
    store = open_store()
    fill(store)
    store.flush()
    opening, begun, go_on = feeder.open_indexer, threading.Event(), threading.Event()

    def slow(*args: Any) -> Indexer:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return opening(*args)

    monkeypatch.setattr(feeder, "open_indexer", slow)
    kill(store)
    assert found(store, "number3") == ["fact number3"]
    assert begun.wait(PATIENCE_SECONDS)
    before = time.monotonic()
    store.close()
    assert time.monotonic() - before < PATIENCE_SECONDS / 10
    go_on.set()
    until(lambda: not any(thread.name == "archive-index" for thread in threading.enumerate()))
    store = open_store()
    assert (store.vectors.fault, store.verify().ok) == (None, True)


def test_a_hanging_model_does_not_hold_up_closing(
    open_store: Callable[..., MemoryStore], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` returns although the provider does not; what was not indexed waits in the outbox."""
    monkeypatch.setattr(vectors, "_CLOSE_SECONDS", 0.2)
    store, answers = open_store(), threading.Event()
    model.fails = lambda text: not answers.wait(PATIENCE_SECONDS)
    fill(store, 1)
    before = time.monotonic()
    store.close()
    assert time.monotonic() - before < PATIENCE_SECONDS / 10
    answers.set()
    until(lambda: not any(thread.name in {"archive-index", "archive-flush"} for thread in threading.enumerate()))
    store = open_store()
    store.flush()
    assert store.verify().vectors == 1


def test_an_index_that_is_closed_during_a_rebuild_stays_closed(
    open_store: Callable[..., MemoryStore],
) -> None:
    """No thread is left, and the directory is free."""
    store = open_store()
    fill(store)
    store.flush()
    index = store.vectors
    assert index.rebuild(lambda done, total: index.close()) == 5
    assert not any(thread.name == "archive-index" for thread in threading.enumerate())
    assert open_store().vectors.fault is None
