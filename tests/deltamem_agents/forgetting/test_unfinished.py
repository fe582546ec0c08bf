"""What a call has left undone is done by the next one as it was asked for, and to nothing that came since."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from deltamem_agents import HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.audit import read_entries
from deltamem_agents.forgetting.execution import Execution
from tests.deltamem_agents.forgetting.conftest import assert_gone

SPACE = ("acme", "ann")
SECRET = "the canary sings in cage 4711"


class Setting:
    """A memory over files, and a thread in which m1 says the secret."""

    def __init__(self, folder: Path, store: MemoryStore, saver: Any, memory: HybridMemory) -> None:
        self.folder = folder
        self.store = store
        self.saver = saver
        self.memory = memory
        builder = StateGraph(MessagesState)
        builder.add_node("model", lambda state: {"messages": [AIMessage("I see", id=f"a{len(state['messages'])}")]})
        builder.add_edge(START, "model")
        self.graph: Any = builder.compile(checkpointer=saver)
        self.say("m1", SECRET)

    def say(self, name: str, text: str) -> None:
        """Say something in the thread, and archive it."""
        self.graph.invoke({"messages": [HumanMessage(text, id=name)]}, {"configurable": {"thread_id": "t"}})
        self.store.records.add(SPACE, NewRecord(text, thread="t", message_id=name))

    def ids(self) -> list[str]:
        """Return the ids of the thread's messages."""
        state = self.graph.get_state({"configurable": {"thread_id": "t"}})
        return [message.id for message in state.values.get("messages", ())]

    def place(self) -> str:
        """Return the id of the thread's newest checkpoint."""
        state = self.graph.get_state({"configurable": {"thread_id": "t"}})
        name: str = state.config["configurable"]["checkpoint_id"]
        return name


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    """Open a memory without a model."""
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
        open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver,
        HybridMemory(store, namespace=SPACE, checkpointer=saver) as memory,
    ):
        yield Setting(tmp_path, store, saver, memory)


@contextmanager
def cut_off(step: str) -> Iterator[None]:
    """Let what is done in here be interrupted before a step."""

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Execution, step, stop)
        with pytest.raises(KeyboardInterrupt):
            yield


def interrupt(setting: Setting, **asked: Any) -> None:
    """Ask to forget, and be interrupted before the first step."""
    with cut_off("erase_checkpoints"):
        setting.memory.forget(**asked)
    assert setting.ids() == ["m1", "a1"]


def test_what_a_removed_thread_says_anew_is_not_forgotten(setting: Setting) -> None:
    """The thread went, its file could not be written anew, and the call that finishes that leaves what came since."""
    setting.saver.conn.execute("PRAGMA busy_timeout = 200")
    reader = sqlite3.connect(setting.folder / "threads.sqlite")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM checkpoints").fetchall()
    begun = setting.memory.forget(thread="t", reason="asked")
    reader.close()
    assert not begun.complete
    assert setting.ids() == []
    setting.say("m2", "the sparrow lives on roof 1234")
    preview = setting.memory.forget(query="nothing says this", reason="asked", dry_run=True)
    assert preview.tiers["checkpoints"].note == "0 whole threads"
    receipt = setting.memory.forget(query="nothing says this", reason="asked")
    assert receipt.complete
    assert receipt.resumed
    assert setting.ids() == ["m2", "a1"]
    assert_gone(setting.folder, SECRET)


def test_a_thread_that_is_still_there_goes_with_all_that_it_has_said_since(setting: Setting) -> None:
    """The dry run of another call says so before."""
    interrupt(setting, thread="t", reason="asked")
    setting.say("m2", "the sparrow lives on roof 1234")
    preview = setting.memory.forget(query="nothing says this", reason="asked", dry_run=True)
    assert preview.tiers["checkpoints"].note == "1 whole threads"
    assert setting.memory.forget(query="nothing says this", reason="asked").complete
    assert setting.ids() == []


def test_threads_are_left_to_do_until_a_checkpointer_is_given(setting: Setting) -> None:
    """A call without one is not complete and crosses nothing out."""
    interrupt(setting, ids=["m1"], reason="asked")
    setting.memory.checkpointer = None
    receipt = setting.memory.forget(query="nothing says this", reason="asked")
    assert not receipt.complete
    assert not receipt.tiers["checkpoints"].reached
    assert "call again with their checkpointer" in receipt.tiers["checkpoints"].note
    assert setting.ids() == ["m1", "a1"]
    setting.memory.checkpointer = setting.saver
    receipt = setting.memory.forget(query="nothing says this", reason="asked")
    assert receipt.complete
    assert receipt.resumed
    assert setting.ids() == ["a1"]
    assert_gone(setting.folder, SECRET)


@pytest.mark.parametrize("asked", [{"query": "nothing says this"}, {"ids": ["m1"]}])
def test_the_audit_log_has_who_asked_first_and_why(setting: Setting, asked: dict[str, Any]) -> None:
    """The files are searched as well, though the call that finishes the work did not ask for that."""
    interrupt(setting, ids=["m1"], reason="request 17", actor="ann")
    receipt = setting.memory.forget(**asked, reason="request 18", actor="bob", secure=False)
    assert receipt.complete
    assert receipt.secure
    assert receipt.scan is not None
    assert receipt.scan.hits == 0
    with setting.store.engine.connect() as connection:
        said = [one for one in read_entries(connection, SPACE) if one.action == "forget"]
    assert [(one.actor, one.reason) for one in said] == [
        ("ann", "no policy"),
        ("ann", "request 17"),
        ("bob", "request 18"),
    ]
    assert [one.record_id is not None for one in said] == [True, False, False]
    assert_gone(setting.folder, SECRET)


@pytest.mark.parametrize("step", ["erase_checkpoints", "erase_rows"])
@pytest.mark.parametrize("again", ["rollback", "forget"])
def test_a_rollback_that_was_cut_off_is_finished(setting: Setting, step: str, again: str) -> None:
    """Before the checkpoints went and after: files are overwritten, the log names the rollback, once."""
    setting.say("m2", "the sparrow lives on roof 1234")
    place = setting.place()
    setting.say("m3", "the owl sleeps in tree 5678")
    with cut_off(step):
        setting.memory.rollback("t", place)
    assert setting.ids() == ["m1", "a1", "m2", "a3", "m3", "a5"][: 6 if step == "erase_checkpoints" else 4]
    if again == "rollback":
        receipt = setting.memory.rollback("t", place)
    else:
        receipt = setting.memory.forget(query="nothing says this", reason="asked")
    assert (receipt.complete, receipt.resumed, receipt.threads) == (True, True, ("t",))
    assert setting.ids() == ["m1", "a1", "m2", "a3"]
    assert_gone(setting.folder, "the owl")
    logged = setting.store.records.audit_entries(SPACE, action="forget")
    assert [one.checkpoint for one in logged if one.detail.get("verdict") == "rolled back"] == [place]


def test_what_is_said_after_a_rollback_that_was_cut_off_stays(setting: Setting) -> None:
    """The checkpoints went, and the call that finishes the rollback leaves those that came since."""
    place = setting.place()
    setting.say("m2", "the sparrow lives on roof 1234")
    with cut_off("erase_rows"):
        setting.memory.rollback("t", place)
    setting.say("m3", "the owl sleeps in tree 5678")
    assert setting.memory.forget(query="nothing says this", reason="asked").complete
    assert setting.ids() == ["m1", "a1", "m3", "a3"]


def test_what_was_deleted_without_being_overwritten_is_overwritten_later(setting: Setting) -> None:
    """A second call, which finds nothing to erase, leaves no byte of it in any file."""
    setting.memory.forget(ids=["m1"], reason="asked", secure=False)
    receipt = setting.memory.forget(ids=["m1"], reason="asked")
    assert (receipt.complete, receipt.digests) == (True, ())
    assert_gone(setting.folder, SECRET)


class Marking(Embeddings):
    """Give what says the secret a vector that no other text has."""

    MARK: ClassVar[list[float]] = [0.25 if number % 3 else -0.25 for number in range(16)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the mark, or a vector of another text."""
        return self.MARK if SECRET in text else DeterministicFakeEmbedding(size=16).embed_query(text)


def marked(folder: Path) -> bool:
    """Tell whether a file of the index holds the vector of the secret."""
    mark = np.asarray(Marking.MARK, np.float32).tobytes()
    return any(mark in file.read_bytes() for file in (folder / "index").rglob("*") if file.is_file())


@pytest.mark.parametrize("again", [{"ids": ["m1"]}, {"query": "nothing says this"}, {"ids": ["m2"]}])
def test_the_next_secure_call_makes_the_index_anew(tmp_path: Path, again: dict[str, Any]) -> None:
    """Whatever it asks for; calls that are not secure leave that to it, and the one after it has nothing to do."""
    store = MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite", tmp_path / "index", Marking())
    with (
        store,
        open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver,
        HybridMemory(store, namespace=SPACE, checkpointer=saver) as memory,
    ):
        setting = Setting(tmp_path, store, saver, memory)
        setting.say("m2", "the sparrow lives on roof 1234")
        store.flush()
        assert memory.forget(ids=["m1"], reason="asked", secure=False).complete
        quick = memory.forget(query="or this", reason="asked", secure=False)
        assert (quick.complete, quick.resumed) == (True, False)
        assert marked(tmp_path)
        memory.checkpointer = None
        receipt = memory.forget(query="or that", reason="asked")
        assert not receipt.complete
        assert "in checkpoints" in receipt.tiers["bytes"].note
        memory.checkpointer = saver
        receipt = memory.forget(**again, reason="asked")
        assert (receipt.complete, receipt.resumed) == (True, True)
        assert "made anew" in receipt.tiers["index"].note
        assert "with what earlier calls erased" in receipt.tiers["bytes"].note
        assert not marked(tmp_path)
        assert_gone(tmp_path, SECRET)
        receipt = memory.forget(query="or this", reason="asked")
        assert (receipt.resumed, receipt.tiers["index"].note) == (False, "nothing of it was in the index")
        assert store.verify().ok


def test_a_secure_call_makes_the_index_anew_for_all_namespaces(tmp_path: Path) -> None:
    """What others have left in the index goes; what they have left in checkpoints is theirs to overwrite."""
    store = MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite", tmp_path / "index", Marking())
    with (
        store,
        open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver,
        open_checkpointer(f"sqlite:///{tmp_path}/others.sqlite") as another,
        HybridMemory(store, namespace=SPACE, checkpointer=saver) as ann,
        HybridMemory(store, namespace=("acme",), checkpointer=another) as everybody,
    ):
        Setting(tmp_path, store, saver, ann)
        store.flush()
        assert ann.forget(ids=["m1"], reason="asked", secure=False).complete
        assert marked(tmp_path)
        receipt = everybody.forget(query="nothing says this", reason="asked")
        assert (receipt.complete, receipt.resumed, marked(tmp_path)) == (True, True, False)
        with pytest.raises(AssertionError):
            assert_gone(tmp_path, SECRET)
        receipt = ann.forget(query="nothing says this", reason="asked")
        assert (receipt.complete, receipt.resumed) == (True, True)
        assert_gone(tmp_path, SECRET)
        receipt = ann.forget(query="or this", reason="asked")
        assert (receipt.complete, receipt.resumed) == (True, False)
