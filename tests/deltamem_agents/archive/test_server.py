"""The vector index on a Chroma server: real, on this machine, shared by processes."""

import gc
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from backbone import ConfigError
from deltamem_agents import MemoryStore
from deltamem_agents.archive.errors import IndexUnreachableError
from deltamem_agents.archive.writes import NewRecord

NS = ("user", "ann")
PATIENCE_SECONDS = 120
FREE_PORT = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
MODEL = DeterministicFakeEmbedding(size=8)
pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    # Chroma's client leaves its connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def collect_connections() -> Iterator[None]:
    """Let the connections go while the warning about them is still ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("chroma")
    port = subprocess.run([sys.executable, "-c", FREE_PORT], capture_output=True, text=True, check=True).stdout.strip()
    command = [str(Path(sys.executable).parent / "chroma"), "run", "--host", "127.0.0.1", "--port", port]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*command, "--path", str(folder / "data")], stdout=log, stderr=log) as process,
    ):
        yield f"http://127.0.0.1:{port}"
        process.kill()


def opened(url: str, server: str, model: DeterministicFakeEmbedding = MODEL) -> MemoryStore:
    """Open a store, as soon as the server answers."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        store = MemoryStore.from_url(url, server, model)
        if not isinstance(store.vectors.fault, IndexUnreachableError) or time.monotonic() > end:
            return store
        store.close()
        time.sleep(0.2)


def test_search_uses_vectors_of_the_server(url: str, server: str) -> None:
    """Records go to the server, are found by meaning, and leave it when they are deleted; both sides stay equal."""
    with opened(url, server) as store:
        ids = [record.id for record in store.records.add_all(NS, [NewRecord(text) for text in ("one", "two", "three")])]
        store.flush()
        best = store.recall(NS, "two")[0]
        assert best.record.text == "two"
        assert best.meaning == pytest.approx(1.0, abs=1e-5)
        assert store.verify().ok
        assert store.verify().vectors == 3

        store.records.delete(NS, ids[:1])
        store.flush()
        assert store.verify().ok
        assert store.verify().vectors == 2


def test_two_stores_share_a_server_and_one_follows_a_rebuild(url: str, server: str) -> None:
    """What one store writes the other finds, also after one of them has made the index anew."""
    with opened(url, server) as first, opened(url, server) as second:
        first.records.add(NS, NewRecord("written by the first"))
        second.flush()
        assert second.recall(NS, "written by the first")[0].meaning == pytest.approx(1.0, abs=1e-5)

        assert first.rebuild() == 1
        second.records.add(NS, NewRecord("written by the second"))
        second.flush()
        for store in (first, second):
            assert store.recall(NS, "written by the second")[0].meaning == pytest.approx(1.0, abs=1e-5)
            assert store.verify().ok
            assert store.verify().vectors == 2


def test_records_that_share_a_server_do_not_meet(sqlite_url: str, server: str, tmp_path: Path) -> None:
    """Two archives on one server keep collections of their own, and rebuilding one leaves the other whole."""
    other = f"sqlite:///{tmp_path}/other.sqlite"
    with opened(sqlite_url, server) as mine, opened(other, server) as theirs:
        mine.records.add(NS, NewRecord("mine"))
        theirs.records.add(NS, NewRecord("theirs"))
        mine.flush()
        theirs.flush()
        mine.rebuild()
        for store, text in ((mine, "mine"), (theirs, "theirs")):
            assert [hit.record.text for hit in store.recall(NS, text)] == [text]
            assert store.verify().ok
            assert store.verify().vectors == 1


def test_a_server_that_does_not_answer_costs_no_answer(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without its server a store says so once and searches words."""
    with caplog.at_level(logging.WARNING), MemoryStore.from_url(sqlite_url, "http://127.0.0.1:9", MODEL) as store:
        store.records.add(NS, NewRecord("still found"))
        assert [hit.record.text for hit in store.recall(NS, "found")] == ["still found"]
        assert isinstance(store.vectors.fault, IndexUnreachableError)
    assert sum("no Chroma server answers" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    "index", ["ftp://127.0.0.1:8000", "http://", "http://127.0.0.1/data", "http://me:pw@127.0.0.1"]
)
def test_urls_of_no_server_are_refused(sqlite_url: str, index: str) -> None:
    """A URL that cannot name a server says what was expected, and shows no password."""
    with pytest.raises(ConfigError, match="http://host:port") as caught:
        MemoryStore.from_url(sqlite_url, index, MODEL).vectors  # noqa: B018 - opening is what is tested
    assert "pw" not in str(caught.value)
