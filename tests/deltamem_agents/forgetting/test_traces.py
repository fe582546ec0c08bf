"""Forgetting erases as well that a message was archived once, where its record is gone already."""

import json
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from sqlalchemy import select

from deltamem_agents import HybridMemory, MemoryStore
from deltamem_agents.archive.tables import messages
from deltamem_agents.archive.writes import NewRecord

ANN = ("ann",)
SAID = [("t", "1"), ("t", "2"), ("u", "1")]


def known(store: MemoryStore) -> set[str]:
    """Return what the archive says of messages: namespace, thread and id."""
    with store.engine.connect() as connection:
        rows = connection.execute(select(messages)).all()
    return {f"{'/'.join(json.loads(row.namespace))} {row.thread} {row.message_id}" for row in rows}


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"thread": "t"}, {"ann u 1", "all t 1", "ann/x t 1"}),
        ({"ids": ["1"]}, {"ann t 2", "all t 1", "ann/x t 1"}),
        ({"namespace": ANN}, {"all t 1"}),
        ({"query": "fact"}, {"ann t 1", "ann t 2", "ann u 1", "all t 1", "ann/x t 1"}),
    ],
    ids=["thread", "ids", "namespace", "query"],
)
def test_what_is_left_of_a_message_goes_too(tmp_path: Path, asked: dict[str, object], left: set[str]) -> None:
    """The rows of the messages asked for are gone, in the namespaces asked for and in no other."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/a.sqlite") as store, HybridMemory(store, namespace=ANN) as memory:
        for namespace, said in ((ANN, SAID), (("all",), SAID[:1]), ((*ANN, "x"), SAID[:1])):
            for thread, name in said:
                record = store.records.add(namespace, NewRecord(f"fact {thread} {name}", thread, name))
                store.records.delete(namespace, [record.id])
        assert len(known(store)) == 5
        memory.forget(reason="asked", **asked)  # type: ignore[arg-type]
        assert known(store) == left


def test_a_record_that_is_forgotten_leaves_no_message(tmp_path: Path) -> None:
    """A record that is there goes together with what says that it was a message."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/a.sqlite") as store, HybridMemory(store, namespace=ANN) as memory:
        store.records.add_all(ANN, [NewRecord(f"fact {thread} {name}", thread, name) for thread, name in SAID])
        memory.forget(query="fact t", reason="asked")
        assert known(store) == {"ann u 1"}


def test_the_vector_of_what_has_expired_leaves_no_byte(tmp_path: Path) -> None:
    """Chroma keeps the bytes of a vector that is taken out; forgetting the thread makes the index anew."""
    embeddings = DeterministicFakeEmbedding(size=64)
    vector = np.asarray(embeddings.embed_query("a fact for a while"), np.float32)
    unit = vector / np.linalg.norm(vector)
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path}/a.sqlite", tmp_path / "index", embeddings) as store,
        HybridMemory(store, namespace=ANN) as memory,
    ):
        store.records.add(ANN, NewRecord("a fact for a while", "t", "1", ttl=timedelta(seconds=1)))
        store.records.add(ANN, NewRecord("another fact"))
        memory.flush()
        time.sleep(1)
        assert store.sweep_ttl() == 1
        store.flush()
        receipt = memory.forget(thread="t", reason="asked")
        assert receipt.tiers["index"].note == "made anew with 1 vectors"
    files = [file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files for one in (vector, unit) if one.tobytes()[:64] in file]
