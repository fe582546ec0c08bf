"""The vector index: fed from the outbox, and owned by one."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backbone import ConfigError
from deltamem_agents.archive import feeder, indexer
from deltamem_agents.archive.directory import IndexDirectory
from deltamem_agents.archive.errors import EmbeddingError, IndexBusyError, VectorIndexError
from deltamem_agents.archive.indexer import Indexer
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.writes import NewRecord
from tests.deltamem_agents.archive.conftest import NS, Model, fill, found

PATIENCE_SECONDS = 300


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_what_is_written_is_found_by_meaning(open_store: Callable[..., MemoryStore], tmp_path: Path) -> None:
    """The feeding thread brings every write into the index, where only ids and vectors are."""
    store = open_store()
    ids = fill(store)
    store.put(("notes",), "k", {"text": "an item"})
    store.flush()
    hit = store.recall(NS, "fact number3")[0]
    assert hit.record.text == "fact number3"
    assert hit.meaning == pytest.approx(1, abs=1e-5)
    assert store.verify().as_json() == {
        "ok": True, "records": 5, "items": 1, "vectors": 6, "missing": 0, "extra": 0, "pending": 0, "fault": None,
    }  # fmt: skip
    store.records.delete(NS, ids[:2])
    store.delete(("notes",), "k")
    store.flush()
    assert store.verify().vectors == 3
    store.close()
    files = [path for path in (tmp_path / "index").rglob("*") if path.is_file()]
    assert len(files) > 2
    assert not any(b"number" in path.read_bytes() or b"ann" in path.read_bytes() for path in files)


def test_an_index_is_used_again(open_store: Callable[..., MemoryStore], model: Model) -> None:
    """A second opening embeds nothing that is indexed already, and finds it."""
    first = open_store()
    fill(first)
    first.close()
    asked = model.asked
    second = open_store()
    second.flush()
    assert model.asked == asked
    assert second.vectors.fault is None
    assert second.recall(NS, "fact number2")[0].meaning == pytest.approx(1, abs=1e-5)


def test_one_store_owns_a_directory(open_store: Callable[..., MemoryStore], caplog: pytest.LogCaptureFixture) -> None:
    """The second one searches words, says so once, and its writes reach the index through the first."""
    owner, other = open_store(), open_store()
    assert isinstance(other.vectors.fault, IndexBusyError)
    fill(other)
    other.flush()
    assert owner.verify().vectors == 5
    assert found(other, "number4") == ["fact number4"]
    assert len([line for line in caplog.records if line.levelno >= logging.WARNING]) == 1
    with pytest.raises(IndexBusyError):
        other.rebuild()


def test_a_failing_model_loses_nothing(open_store: Callable[..., MemoryStore], model: Model) -> None:
    """What is stored can be read and found by its words, `flush` raises, and the rest goes on without the bad text."""
    store = open_store()
    model.fails = lambda text: "number3" in text
    ids = fill(store)
    assert [store.records.get(NS, name) is not None for name in ids] == [True] * 5
    with pytest.raises(EmbeddingError, match="the provider is down"):
        store.flush()
    report = store.verify()
    assert (report.vectors, report.pending, report.ok) == (4, 1, True)
    assert found(store, "number3") == ["fact number3"]
    model.fails = lambda text: True
    assert found(store, "number1") == ["fact number1"]
    model.fails = lambda text: False
    store.flush()
    assert (store.verify().vectors, store.verify().pending) == (5, 0)


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_a_late_batch_does_not_bring_back_what_was_deleted(
    open_store: Callable[..., MemoryStore], model: Model
) -> None:
    """A record that is deleted while its vector is being made leaves no vector behind."""
    store = open_store()
    ids: list[str] = []

    def delete_now(text: str) -> bool:
        if ids:
            store.records.delete(NS, [ids.pop()])
        return False

    model.fails = delete_now
    ids += fill(store, 1)
    store.flush()
    assert (store.verify().vectors, store.verify().records, store.verify().ok) == (0, 0, True)


def test_chroma_may_fail_at_any_call(open_store: Callable[..., MemoryStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the index raises from `flush` and from nothing else; the record is whole."""
    store = open_store()

    def broken(*args: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(store.vectors.indexer.chroma, "upsert", broken)  # type: ignore[union-attr]
        ids = fill(store)
        with pytest.raises(OSError, match="disk full"):
            store.flush()
        assert [store.records.get(NS, name) is not None for name in ids] == [True] * 5
    store.flush()
    assert store.verify().vectors == 5
    monkeypatch.setattr(store.vectors.indexer.chroma, "query", broken)  # type: ignore[union-attr]
    assert found(store, "number2") == ["fact number2"]
    assert store.vectors.fault is not None


def test_texts_that_a_model_refuses_hold_nothing_up(
    open_store: Callable[..., MemoryStore], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More refused texts than a batch has, all before the others: `flush` raises, and the others are in the index."""
    monkeypatch.setattr(indexer, "BATCH", 4)
    store = open_store()
    model.fails = lambda text: "bad" in text
    store.records.add_all(NS, [NewRecord(f"bad {number}") for number in range(6)])
    store.records.add_all(NS, [NewRecord(f"fact number{number}") for number in range(3)])
    for _ in range(2):
        with pytest.raises(EmbeddingError, match="the provider is down"):
            store.flush()
        assert (store.verify().vectors, store.verify().pending) == (3, 6)
    assert isinstance(store.vectors.indexer, Indexer)
    generation = store.vectors.indexer.manifest.generation
    with pytest.raises(EmbeddingError):
        store.flush()
    assert store.vectors.indexer.manifest.generation == generation
    model.fails = lambda text: False
    store.flush()
    assert (store.verify().vectors, store.verify().pending, store.verify().ok) == (9, 0, True)


def test_without_embeddings_an_index_is_not_verified(
    open_store: Callable[..., MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that cannot be opened is never said to be well."""
    monkeypatch.setattr("deltamem_agents.archive.store.resolve_embeddings", lambda embeddings: None)
    report = open_store().verify()
    assert (report.ok, report.fault) == (False, "it is not open")


def test_a_busy_index_is_used_when_it_is_free(
    open_store: Callable[..., MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds a directory taken owns it as soon as the first owner has closed it."""
    monkeypatch.setattr(feeder, "_RETRY_SECONDS", 0.1)
    owner, other = open_store(), open_store()
    assert isinstance(other.vectors.fault, IndexBusyError)
    owner.close()
    fill(other)
    other.flush()
    end = time.monotonic() + PATIENCE_SECONDS
    while other.vectors.fault is not None and time.monotonic() < end:
        time.sleep(0.05)
    assert other.recall(NS, "fact number2")[0].meaning == pytest.approx(1, abs=1e-5)
    assert other.verify().ok


def test_flush_keeps_to_its_time(open_store: Callable[..., MemoryStore], model: Model) -> None:
    """A provider that hangs holds up the index, and not who waits for it."""
    store, answers = open_store(), threading.Event()
    model.fails = lambda text: not answers.wait(PATIENCE_SECONDS)
    fill(store, 1)
    with pytest.raises(VectorIndexError, match="in time"):
        store.flush(0.2)
    answers.set()
    store.flush()
    assert store.verify().vectors == 1


def test_failed_acknowledgements_spoil_no_index(
    open_store: Callable[..., MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the record cannot be told of a batch, the index is the one that it knows."""
    store = open_store()
    fill(store)

    def broken(*args: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(indexer, "acknowledge", broken)
        store.put(("notes",), "k", {"text": "an item"})
        for _ in range(3):
            with pytest.raises(OSError, match="disk full"):
                store.flush()
        store.close()
    store = open_store()
    assert store.vectors.fault is None
    store.flush()
    assert (store.verify().ok, store.verify().vectors) == (True, 6)


def test_an_index_feeds_in_batches(open_store: Callable[..., MemoryStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Many writes become few calls of the model."""
    store = open_store()
    sizes: list[int] = []
    batch = Indexer.batch
    monkeypatch.setattr(Indexer, "batch", lambda self: sizes.append(done := batch(self)) or done)
    fill(store, 300)
    store.flush()
    assert [size for size in sizes if size] == [256, 44]


def test_a_file_in_the_place_of_an_index_is_a_clear_error(tmp_path: Path) -> None:
    """The error names the path, and what is there stays as it was."""
    file = tmp_path / "vectors"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="vectors cannot be one: File exists"):
        IndexDirectory(file)
    assert file.read_text(encoding="utf-8") == "mine"
