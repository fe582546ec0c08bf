"""The vector index: set aside when broken, rebuilt from the record."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from deltamem_agents.archive import writes
from deltamem_agents.archive.errors import EmbeddingError, IndexMismatchError, VectorIndexError
from deltamem_agents.archive.feeder import Feeder
from deltamem_agents.archive.records import namespace_key
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.writes import NewRecord
from tests.deltamem_agents.archive.conftest import NS, Model, fill, found

PATIENCE_SECONDS = 300


@pytest.mark.parametrize("damage", ["truncate", "zero", "remove", "manifest"])
def test_a_damaged_index_is_set_aside_and_rebuilt(
    open_store: Callable[..., MemoryStore], tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Search goes on with words, the log says so in one line, and `rebuild` restores the vectors."""
    store = open_store()
    fill(store)
    store.close()
    manifest = tmp_path / "index" / "index.json"
    (database,) = (tmp_path / "index").glob("*/chroma.sqlite3")
    content = database.read_bytes()
    if damage == "manifest":
        manifest.write_text("{")
    elif damage == "remove":
        shutil.rmtree(database.parent)
    else:
        database.write_bytes(content[: len(content) // 2] if damage == "truncate" else bytes(len(content)))
    caplog.clear()
    store = open_store()
    assert isinstance(store.vectors.fault, VectorIndexError)
    assert found(store, "number3") == ["fact number3"]
    assert [line.levelname for line in caplog.records if "words alone" in line.message] == ["WARNING"]
    assert "deltamem archive rebuild" in caplog.text
    assert store.verify().ok is False
    with pytest.raises(VectorIndexError):
        store.flush()
    assert store.rebuild() == 5
    assert store.verify().ok
    assert store.recall(NS, "fact number3")[0].meaning == pytest.approx(1, abs=1e-5)
    folders = [path for path in (tmp_path / "index").iterdir() if path.is_dir()]
    assert len(folders) == 1


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_vectors_that_were_cut_off_are_noticed(
    open_store: Callable[..., MemoryStore], tmp_path: Path, kept: float
) -> None:
    """Half a file of vectors is noticed when it is opened, and the loss of a few by `verify`; `rebuild` helps."""
    store = open_store()
    fill(store, 1200)
    store.flush(PATIENCE_SECONDS)
    store.close()
    (file,) = (tmp_path / "index").rglob("data_level0.bin")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    store = open_store()
    assert (store.vectors.fault is not None) or kept > 0.5
    report = store.verify()
    assert (report.ok, "embedding" in str(report.fault)) == (False, True)
    assert store.rebuild() == 1200
    assert store.verify().ok


def test_an_older_copy_of_an_index_is_not_believed(open_store: Callable[..., MemoryStore], tmp_path: Path) -> None:
    """A directory restored from a backup lacks what was indexed since, so it is not searched."""
    store = open_store()
    fill(store)
    store.close()
    shutil.copytree(tmp_path / "index", tmp_path / "backup")
    for turn in range(2):
        store = open_store()
        store.put(("notes",), "k", {"turn": turn})
        store.close()
    shutil.rmtree(tmp_path / "index")
    shutil.copytree(tmp_path / "backup", tmp_path / "index")
    store = open_store()
    assert "not the one that the record knows" in str(store.vectors.fault)
    assert store.rebuild() == 6


def test_another_model_asks_for_a_rebuild(open_store: Callable[..., MemoryStore]) -> None:
    """Vectors of two models, or of two sizes, are never compared."""
    store = open_store()
    fill(store)
    store.close()
    with pytest.raises(IndexMismatchError, match="deltamem archive rebuild"):
        open_store(DeterministicFakeEmbedding(size=8))
    other = open_store(Model(size=16))
    with pytest.raises(IndexMismatchError, match=r"8 numbers.*16.*deltamem archive rebuild"):
        other.recall(NS, "fact")
    other.records.add(NS, NewRecord("one more"))
    with pytest.raises(IndexMismatchError, match="deltamem archive rebuild"):
        other.flush()
    assert other.rebuild() == 6
    assert other.recall(NS, "one more")[0].meaning == pytest.approx(1, abs=1e-5)


def test_another_model_rebuilds_before_it_opens(
    open_store: Callable[..., MemoryStore], database: str, tmp_path: Path
) -> None:
    """The error that opening raises names a way that works: `rebuild` of a store that is not open."""
    store = open_store()
    fill(store)
    store.close()
    changed = MemoryStore.from_url(database, tmp_path / "index", DeterministicFakeEmbedding(size=16))
    with pytest.raises(IndexMismatchError, match=r"`rebuild\(\)` of a store that is not open"):
        changed.records.list(NS)
    assert changed.rebuild() == 5
    with changed:
        assert changed.recall(NS, "fact number3")[0].meaning == pytest.approx(1, abs=1e-5)
        assert changed.verify().ok
    assert changed.rebuild() == 5


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_a_rebuild_leaves_refused_texts_pending(
    open_store: Callable[..., MemoryStore], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model refuses now, written or indexed before, is counted as pending, and indexed when it is taken."""
    monkeypatch.setattr(Feeder, "_feed", lambda feeder, indexer: feeder._stopping.wait())
    store = open_store()
    fill(store)
    store.flush()
    fresh = store.records.add(NS, NewRecord("bad new"))
    store.records.add(NS, NewRecord("good new"))
    model.fails = lambda text: "bad" in text or "number3" in text
    for _ in range(2):
        assert store.rebuild() == 5
        report = store.verify()
        assert (report.vectors, report.pending, report.missing, report.ok) == (5, 2, 0, True)
    store.records.delete(NS, [fresh.id])
    model.fails = lambda text: False
    store.flush()
    assert (store.verify().vectors, store.verify().pending, store.verify().ok) == (6, 0, True)


def test_a_rebuild_that_fails_leaves_the_index_as_it_was(
    open_store: Callable[..., MemoryStore], model: Model, tmp_path: Path
) -> None:
    """The old vectors are searched again, and what is written goes into them."""
    store = open_store()
    fill(store)
    store.flush()
    model.fails = lambda text: True
    with pytest.raises(EmbeddingError):
        store.rebuild()
    assert len([path for path in (tmp_path / "index").iterdir() if path.is_dir()]) == 1
    model.fails = lambda text: False
    assert (store.vectors.fault, store.verify().ok, store.verify().vectors) == (None, True, 5)
    store.records.add(NS, NewRecord("one more"))
    store.flush()
    assert store.recall(NS, "one more")[0].meaning == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_rebuild_drops_no_write_that_it_has_not_seen(
    open_store: Callable[..., MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that was numbered before others and is committed after them reaches the index."""
    # Or the outbox might be empty when the rebuild begins.
    monkeypatch.setattr(Feeder, "_feed", lambda feeder, indexer: feeder._stopping.wait())
    store = open_store()
    late = store.engine.connect()
    writes.add(late, namespace_key(("user", "bob")), [NewRecord("late")], datetime.now(UTC))
    store.records.add(NS, NewRecord("early"))
    assert store.rebuild(lambda done, total: late.commit()) == 1
    late.close()
    store.flush()
    assert (store.verify().ok, store.verify().vectors) == (True, 2)
