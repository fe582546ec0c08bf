"""What a policy holds outlives its time, a repetition, and the commands that erase."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from typer.testing import CliRunner

from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.cli.app import app
from deltamem_agents.policy import Forget, LegalHold, MemoryPolicy, PolicyContext, RecordLike
from deltamem_agents.policy.trust import QUARANTINED

ANN, BOB = ("acme", "ann"), ("acme", "bob")
BRIEF = timedelta(microseconds=1)
HELD = ("legal-hold",)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    """Open an empty archive."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as opened:
        yield opened


def texts(store: MemoryStore) -> set[str]:
    """Return every text that the archive's table holds, expired or not."""
    with store.engine.connect() as connection:
        return set(connection.exec_driver_sql("SELECT text FROM archive_records").scalars())


class Failing(MemoryPolicy):
    """Fail when it is asked."""

    def forget(self, record: RecordLike, context: PolicyContext) -> Forget:
        raise RuntimeError(f"nothing is known about {record.id} of {context.namespace}")


@pytest.mark.parametrize("by", ["sweep_ttl", "batch"])
def test_what_is_held_outlives_its_time(store: MemoryStore, by: str) -> None:
    """A sweep of every kind asks the policies of each memory of the store; nobody finds what it leaves."""
    for namespace in (ANN, BOB):
        store.records.add(namespace, NewRecord("held", tags=HELD, ttl=BRIEF))
        store.records.add(namespace, NewRecord("not held", ttl=BRIEF))
    with HybridMemory(store, LegalHold(), namespace=ANN), HybridMemory(store, LegalHold(), namespace=ANN):
        if by == "batch":
            store.put(ANN, "key", {"value": 1})
        else:
            assert store.sweep_ttl() == 2
    assert texts(store) == {"held"}
    assert store.records.list(ANN) == []
    assert store.sweep_ttl() == 0


@pytest.mark.parametrize("where", [ANN, ("acme",)])
def test_whoever_forgets_every_policy_of_the_namespace_is_asked(store: MemoryStore, where: tuple[str, ...]) -> None:
    """A hold of a namespace binds the memory above it, and another memory of the same one."""
    store.records.add_all(ANN, [NewRecord("held", tags=HELD), NewRecord("not held")])
    with HybridMemory(store, namespace=where) as free, HybridMemory(store, LegalHold(), namespace=ANN):
        receipt = free.forget(namespace=ANN, reason="asked")
    assert [one.reason for one in receipt.held] == ["held: legal-hold"]
    assert texts(store) == {"held"}


def test_a_policy_that_fails_lets_nothing_expire(store: MemoryStore) -> None:
    """As everywhere, failing counts as the strictest decision."""
    store.records.add(ANN, NewRecord("brief", ttl=BRIEF))
    with HybridMemory(store, Failing(), namespace=ANN):
        assert store.sweep_ttl() == 0
    assert texts(store) == {"brief"}


def test_a_text_that_is_said_again_has_the_tags_of_both(store: MemoryStore) -> None:
    """A hold or a subject that comes later counts; quarantine is decided for a text when it is new, and by people."""
    records = store.records
    records.add(ANN, NewRecord("fact", "smalltalk", "1", tags=("a",)))
    both = records.add(ANN, NewRecord("fact", "case", "2", tags=("a", *HELD, "subject:bob", QUARANTINED)))
    assert both.tags == ("a", *HELD, "subject:bob")
    with HybridMemory(store, LegalHold(), namespace=ANN) as memory:
        receipt = memory.forget(subject="bob", reason="asked")
    assert [one.reason for one in receipt.held] == ["held: legal-hold"]
    assert texts(store) == {"fact"}


def test_a_hold_stays_on_a_text_whose_time_was_over(store: MemoryStore) -> None:
    """The record is another one then, by a new message or as a new version, and is held as the first was."""
    records = store.records
    records.add_all(ANN, [NewRecord(text, tags=(*HELD, QUARANTINED), ttl=BRIEF) for text in ("one", "two")])
    again = records.add(ANN, NewRecord("one", tags=("b",)))
    assert again.tags == ("b", *HELD)
    other = records.add(ANN, NewRecord("other"))
    assert records.update(ANN, other.id, "two", expected_version=1).tags == HELD


def test_the_commands_ask_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ChatDeltaMem) -> None:
    """`threads rollback` and `threads delete` take a policy file as `forget` does, and keep what it holds."""
    monkeypatch.setenv("DELTAMEM_DB", f"sqlite:///{tmp_path}/threads.sqlite")
    monkeypatch.setenv("DELTAMEM_ARCHIVE_DB", f"sqlite:///{tmp_path}/archive.sqlite")
    for name in ("model", "adapter"):
        monkeypatch.setenv(f"DELTAMEM_{name.upper()}", str(getattr(model, name)))
    policy = tmp_path / "policy.toml"
    policy.write_text('[[policy]]\nuse = "hold"\n')
    place = _talk(tmp_path)

    def held(*words: str) -> list[str]:
        told = [*words, "-n", "acme/ann", "--policy", str(policy), "--json"]
        done = CliRunner().invoke(app, ["threads", *told])
        assert done.exit_code == 0, done.output
        return [one["reason"] for one in json.loads(done.stdout)["held"]]

    assert held("rollback", "t", place) == ["held: legal-hold"]
    assert held("delete", "t") == ["held: legal-hold"]
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store:
        assert texts(store) == {"the second canary"}


def _talk(folder: Path) -> str:
    """Say two things in a thread, of which the second is held; return the checkpoint between them."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [AIMessage("", id=f"a{len(state['messages'])}")]})
    builder.add_edge(START, "model")
    config: Any = {"configurable": {"thread_id": "t"}}
    with (
        MemoryStore.from_url(f"sqlite:///{folder}/archive.sqlite") as store,
        open_checkpointer(f"sqlite:///{folder}/threads.sqlite") as saver,
    ):
        graph: Any = builder.compile(checkpointer=saver)
        graph.invoke({"messages": [HumanMessage("the first canary", id="1")]}, config)
        store.records.add(ANN, NewRecord("the first canary", "t", "1"))
        place: str = graph.get_state(config).config["configurable"]["checkpoint_id"]
        graph.invoke({"messages": [HumanMessage("the second canary", id="2")]}, config)
        store.records.add(ANN, NewRecord("the second canary", "t", "2", tags=HELD))
    return place
