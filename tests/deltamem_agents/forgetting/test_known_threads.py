"""A thread belongs to a namespace from its first turn until it is erased, whatever the archive holds of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from sqlalchemy import select, text

from deltamem_agents import HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.archive.tables import threads
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.audit import AuditEvent
from deltamem_agents.policy import LegalHold, MemoryPolicy, PolicyMessage, Retain, Signals
from tests.deltamem_agents.forgetting.conftest import assert_gone

SPACE = ("acme", "ann")
SECRET = "the canary sings in cage 4711"
LATER = "the sparrow lives on roof 1234"


class Refusal(MemoryPolicy):
    """Keep everything out of the archive."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        return Retain(reason="nothing is kept", archive=False)


class Setting:
    """A graph that answers "I see", its checkpointer, and memories over one archive."""

    def __init__(self, folder: Path, saver: Any, store: MemoryStore) -> None:
        self.folder = folder
        self.saver = saver
        self.store = store
        builder = StateGraph(MessagesState)
        builder.add_node("model", lambda state: {"messages": [AIMessage("I see", id=f"a{len(state['messages'])}")]})
        builder.add_edge(START, "model")
        self.graph = builder.compile(checkpointer=saver)

    def memory(self, policy: MemoryPolicy | None = None, namespace: tuple[str, ...] = SPACE) -> HybridMemory:
        """Return a memory of the archive and the threads."""
        return HybridMemory(self.store, policy, namespace=namespace, checkpointer=self.saver)

    def say(self, memory: HybridMemory, said: str, name: str, thread: str = "t") -> str:
        """Say a message, archive what the thread holds, and return the checkpoint after it."""
        config = {"configurable": {"thread_id": thread}}
        self.graph.invoke({"messages": [HumanMessage(said, id=name)]}, config)
        memory.archive(self.graph.get_state(config).values["messages"], thread)
        memory.flush()
        return str(self.graph.get_state(config).config["configurable"]["checkpoint_id"])

    def names(self, thread: str) -> list[str]:
        """Return the ids of a thread's messages."""
        values = self.graph.get_state({"configurable": {"thread_id": thread}}).values
        return [message.id for message in values.get("messages", ())]

    def noted(self) -> list[tuple[str, str]]:
        """Return which threads the archive knows."""
        with self.store.engine.connect() as connection:
            return sorted((row.namespace, row.thread) for row in connection.execute(select(threads)))


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    """Open an archive and a checkpointer on disk."""
    store = MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite")
    with store, open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:
        yield Setting(tmp_path, saver, store)


def test_a_thread_of_which_policies_archive_nothing_goes_with_its_namespace(setting: Setting) -> None:
    """No record names the thread, and it is removed all the same."""
    with setting.memory(Refusal()) as memory:
        setting.say(memory, SECRET, "m1")
        assert setting.store.records.count(SPACE) == 0
        receipt = memory.forget(namespace=SPACE, reason="asked")
    assert (receipt.complete, receipt.threads) == (True, ("t",))
    assert_gone(setting.folder, SECRET)


def test_a_thread_whose_records_are_gone_goes_with_its_namespace(setting: Setting) -> None:
    """Deleted records, as by time to live or a budget, do not hide the thread."""
    with setting.memory() as memory:
        setting.say(memory, SECRET, "m1")
        setting.store.records.delete(SPACE, [record.id for record in setting.store.records.list(SPACE)])
        assert memory.forget(query="canary", reason="asked").tiers["checkpoints"].erased == 1
        assert memory.forget(namespace=SPACE, reason="asked").threads == ("t",)
    assert_gone(setting.folder, SECRET)


@pytest.mark.parametrize("what", [{"ids": ["m1"]}, {"query": "CANARY"}, {"subject": "ann"}])
def test_a_copy_forgets_with_its_thread(setting: Setting, what: dict[str, Any]) -> None:
    """A message that goes by id, text or subject leaves the copy too, in which nothing more was said."""
    setting.store.records.add(SPACE, NewRecord(SECRET, thread="t", message_id="m1", tags=("subject:ann",)))
    with setting.memory() as memory:
        setting.say(memory, SECRET, "m1")
        memory.fork("t", "copy")
        assert setting.names("copy") == ["m1", "a1"]
        receipt = memory.forget(**what, reason="asked")
    assert (receipt.complete, receipt.threads) == (True, ("copy", "t"))
    assert (setting.names("t"), setting.names("copy")) == (["a1"], ["a1"])
    assert_gone(setting.folder, SECRET)


def test_a_copy_keeps_what_it_has_and_no_more(setting: Setting) -> None:
    """When the thread goes, the record of what the copy says stays with it, and that of what came later goes."""
    with setting.memory() as memory:
        place = setting.say(memory, SECRET, "m1")
        setting.say(memory, LATER, "m2")
        memory.fork("t", "copy", checkpoint=place)
        assert memory.forget(thread="t", reason="asked").complete
        found = {record.text: record.thread for record in setting.store.records.list(SPACE)}
        assert found == {SECRET: "copy", "I see": "copy"}
        assert_gone(setting.folder, LATER)
        assert memory.forget(namespace=SPACE, reason="asked").threads == ("copy",)
    assert_gone(setting.folder, SECRET)


def test_an_erased_thread_is_known_again_when_it_goes_on(setting: Setting) -> None:
    """The note goes with the thread, for every namespace, and one that a policy holds keeps its note."""
    here, there = '["acme","ann"]', '["acme","bob"]'
    with setting.memory(LegalHold()) as memory, setting.memory(namespace=("acme", "bob")) as other:
        setting.say(memory, SECRET, "m1")
        setting.say(other, LATER, "m2")
        setting.store.records.add(SPACE, NewRecord("held", thread="held", message_id="h", tags=("legal-hold",)))
        setting.say(memory, "held", "h", thread="held")
        assert setting.noted() == [(here, "held"), (here, "t"), (there, "t")]
        memory.forget(thread="t", reason="asked")
        memory.forget(thread="held", reason="asked")
        assert setting.noted() == [(here, "held")]
        setting.say(memory, "once more", "m3")
        assert setting.noted() == [(here, "held"), (here, "t")]


def test_an_older_archive_knows_the_threads_that_it_names(tmp_path: Path) -> None:
    """The table is filled from messages, and from what the audit log says was refused."""
    url = f"sqlite:///{tmp_path}/archive.sqlite"
    with MemoryStore.from_url(url) as store:
        store.records.add(SPACE, NewRecord(SECRET, thread="t", message_id="m1"))
        store.records.audit(SPACE, AuditEvent(action="refuse", reason="asked to", actor="user", thread="refused"))
        with store.engine.begin() as connection:
            connection.execute(text("DROP TABLE archive_threads"))
            connection.execute(text("UPDATE archive_schema SET version_num = '0002'"))
    with MemoryStore.from_url(url) as store, store.engine.connect() as connection:
        assert sorted(connection.execute(select(threads.c.thread)).scalars()) == ["refused", "t"]
