"""Real databases for the archive, an empty one for each test, in SQLite and in Postgres; and stores with an index."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from deltamem_agents.archive.record_store import RecordStore
from deltamem_agents.archive.store import MemoryStore
from deltamem_agents.archive.writes import NewRecord

NS = ("user", "ann")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Name a database file that does not exist yet."""
    return f"sqlite:///{tmp_path}/archive.sqlite"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """Name an empty database of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def store(url: str) -> Iterator[RecordStore]:
    """Open an empty record in each kind of database."""
    with RecordStore.from_url(url) as opened:
        yield opened


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
