"""The vector index: fed from the outbox, owned by one, set aside when broken, rebuilt from the record."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from backbone import ConfigError
from deltamem_agents.archive import indexer, vectors, writes
from deltamem_agents.archive.embeddings import Embedder, resolve_embeddings
from deltamem_agents.archive.errors import EmbeddingError, IndexBusyError, IndexMismatchError, VectorIndexError
from deltamem_agents.archive.indexer import Indexer
from deltamem_agents.archive.minilm import MiniLMEmbeddings
from deltamem_agents.archive.records import namespace_key
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.writes import NewRecord

NS = ("user", "ann")
PATIENCE_SECONDS = 300


class Model(Embeddings):
    """Embeddings that can be told to fail, and that count how often they were asked."""

    model = "test"

    def __init__(self, size: int = 8) -> None:
        self.inner = DeterministicFakeEmbedding(size=size)
        self.fails: Callable[[str], bool] = lambda text: False
        self.asked = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return vectors, or fail."""
        self.asked += 1
        if any(self.fails(text) for text in texts):
            raise RuntimeError("the provider is down")
        return self.inner.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return a vector, or fail."""
        return self.embed_documents([text])[0]


@pytest.fixture
def model() -> Model:
    """Return embeddings that work."""
    return Model()


@pytest.fixture
def database(request: pytest.FixtureRequest, sqlite_url: str) -> str:
    """Name an empty database: SQLite, where a test asks for nothing else."""
    return str(request.getfixturevalue("postgres_url")) if getattr(request, "param", "") == "postgres" else sqlite_url


@pytest.fixture
def open_store(database: str, tmp_path: Path, model: Model) -> Iterator[Callable[..., MemoryStore]]:
    """Open the test's archive, with other embeddings if they are given; close it at the end."""
    opened: list[MemoryStore] = []

    def open_one(embeddings: Embeddings | None = model, index: str = "index") -> MemoryStore:
        opened.append(MemoryStore.from_url(database, tmp_path / index, embeddings).__enter__())
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def fill(store: MemoryStore, count: int = 5) -> list[str]:
    texts = [f"fact number{n}" for n in range(count)]
    return [record.id for record in store.records.add_all(NS, [NewRecord(text) for text in texts])]


def found(store: MemoryStore, question: str) -> list[str]:
    return [hit.record.text for hit in store.recall(NS, question, limit=1)]


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


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_a_rebuild_leaves_refused_texts_pending(open_store: Callable[..., MemoryStore], model: Model) -> None:
    """What the model refuses now, written or indexed before, is counted as pending, and indexed when it is taken."""
    store = open_store()
    fill(store)
    store.flush()
    store.vectors._stop_feeding()
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
    monkeypatch.setattr(vectors, "_RETRY_SECONDS", 0.1)
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


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_rebuild_drops_no_write_that_it_has_not_seen(open_store: Callable[..., MemoryStore]) -> None:
    """A write that was numbered before others and is committed after them reaches the index."""
    store = open_store()
    store.vectors._stop_feeding()  # or the outbox might be empty when the rebuild begins
    late = store.engine.connect()
    writes.add(late, namespace_key(("user", "bob")), [NewRecord("late")], datetime.now(UTC))
    store.records.add(NS, NewRecord("early"))
    assert store.rebuild(lambda done, total: late.commit()) == 1
    late.close()
    store.flush()
    assert (store.verify().ok, store.verify().vectors) == (True, 2)


def test_embeddings_are_checked() -> None:
    """Too few vectors, vectors of several sizes, and NaN are errors that name the model."""
    texts = ["a", "b"]
    for wrong in ([[1.0]], [[1.0], [1.0, 2.0]], [[float("nan")], [1.0]]):
        model = Model()
        model.embed_documents = lambda texts, wrong=wrong: wrong  # type: ignore[method-assign, misc]
        with pytest.raises(EmbeddingError, match="test"):
            Embedder("test", model).embed_texts(texts)


def test_embeddings_are_named_by_class_and_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name tells two models of one provider apart, however it is asked for; what is no model is refused."""
    named = resolve_embeddings(model)
    assert named is not None
    assert named.name.endswith(".Model:test")
    with monkeypatch.context() as patched:
        patched.setattr("deltamem_agents.archive.embeddings.init_embeddings", lambda name: model)
        assert resolve_embeddings("p:test") == named
    by_name, chosen, default = (resolve_embeddings(one) for one in ("minilm", MiniLMEmbeddings(), None))
    assert by_name is not None
    assert chosen is not None
    assert default is not None
    assert by_name.name == chosen.name == default.name == "sentence-transformers/all-MiniLM-L6-v2"
    with pytest.raises(ConfigError, match="'nobody:nothing' cannot be made"):
        resolve_embeddings("nobody:nothing")
    with pytest.raises(ConfigError, match="got int"):
        resolve_embeddings(3)  # type: ignore[arg-type]


def test_an_index_feeds_in_batches(open_store: Callable[..., MemoryStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Many writes become few calls of the model."""
    store = open_store()
    sizes: list[int] = []
    batch = Indexer.batch
    monkeypatch.setattr(Indexer, "batch", lambda self: sizes.append(done := batch(self)) or done)
    fill(store, 300)
    store.flush()
    assert [size for size in sizes if size] == [256, 44]
