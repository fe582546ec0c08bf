"""Policies are asked about everything that goes, and what goes is looked for in all that says it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph

from deltamem_agents import HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy import Forget, LegalHold, MemoryPolicy, PolicyContext, RecordLike
from tests.deltamem_agents.forgetting.conftest import assert_gone

SPACE = ("acme", "ann")
SECRET = "the canary sings in cage 4711"
LEFT_OUT = "the reason quotes the text and is left out"


def called(content: str, **arguments: Any) -> list[BaseMessage]:
    """Return a call of a tool, and its result."""
    call = {"name": "note", "args": arguments, "id": "call-1"}
    return [AIMessage(content, id="a1", tool_calls=[call]), ToolMessage("written down", id="r1", tool_call_id="call-1")]


class Setting:
    """A memory whose thread says what it is given."""

    def __init__(self, folder: Path, store: MemoryStore, saver: Any, policy: MemoryPolicy) -> None:
        self.folder = folder
        self.store = store
        self.memory = HybridMemory(store, policy, namespace=SPACE, checkpointer=saver)
        builder = StateGraph(MessagesState)
        builder.add_node("model", lambda state: {"messages": []})
        builder.add_edge(START, "model")
        self.graph = builder.compile(checkpointer=saver)

    def say(self, messages: Sequence[BaseMessage], thread: str = "t") -> None:
        """Put messages into a thread, and archive them."""
        self.graph.invoke({"messages": list(messages)}, {"configurable": {"thread_id": thread}})
        self.memory.archive(messages, thread)
        self.memory.flush()

    def names(self, thread: str = "t") -> list[str]:
        """Return the ids of a thread's messages."""
        values = self.graph.get_state({"configurable": {"thread_id": thread}}).values
        return [message.id for message in values.get("messages", ())]

    def texts(self) -> list[str]:
        """Return what the archive holds."""
        return sorted(record.text for record in self.store.records.list(SPACE))

    def reasons(self) -> list[str]:
        """Return why the audit log says that something went or stayed."""
        return [entry.reason for entry in self.store.records.audit_entries(SPACE, action="forget")]


class Rules(MemoryPolicy):
    """Hold what says so, and quote the text of everything."""

    def forget(self, record: RecordLike, context: PolicyContext) -> Forget:
        if "held" in record.text:
            return Forget(action="keep", reason=f"it says {record.text}")
        return Forget(reason=f"it says {record.text}")


@pytest.fixture
def setting(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Setting]:
    """Open a memory on disk; it obeys a legal hold if nothing else is asked for."""
    policy = getattr(request, "param", LegalHold)()
    store = MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite")
    with store, open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:
        made = Setting(tmp_path, store, saver, policy)
        with made.memory:
            yield made


def test_what_goes_with_a_message_is_asked_about_and_leaves_the_record(setting: Setting) -> None:
    """A tool's result goes with its call: it has a digest and an audit entry of its own, and no record any more."""
    setting.say([HumanMessage("write it down", id="u1"), *called(SECRET)])
    receipt = setting.memory.forget(query="canary", reason="asked")
    assert (receipt.complete, len(receipt.digests)) == (True, 2)
    assert receipt.tiers["record"].erased == 2
    assert (setting.names(), setting.texts()) == (["u1"], ["write it down"])
    assert_gone(setting.folder, "written down")


def test_a_held_result_stays_with_its_call(setting: Setting) -> None:
    """A legal hold on a tool's result keeps it in both tiers; only the call that is asked for goes."""
    held = NewRecord("written down", thread="t", message_id="r1", tags=("legal-hold",))
    kept = setting.store.records.add(SPACE, held)
    setting.say([HumanMessage("write it down", id="u1"), *called(SECRET)])
    receipt = setting.memory.forget(query="canary", reason="asked")
    assert [one.id for one in receipt.held] == [kept.id]
    assert (setting.names(), setting.texts()) == (["u1", "r1"], ["write it down", "written down"])


def test_a_record_that_another_message_is_too_stays(setting: Setting) -> None:
    """The result leaves its thread, and the archive keeps the text for the message that still says it."""
    setting.say([HumanMessage("written down", id="u1"), *called(SECRET)])
    assert setting.memory.forget(query="canary", reason="asked").complete
    assert (setting.names(), setting.texts()) == (["u1"], ["written down"])


@pytest.mark.parametrize("query", ["CANARY sings", "4711", 'a "quoted"\nword'])
def test_a_query_reads_what_tools_are_told(setting: Setting, query: str) -> None:
    """A text that only a call's arguments have is found at any depth, and the record of the reply goes with it."""
    told = {"page": {"lines": [SECRET, 'with a "quoted"\nword']}, "number": 4711}
    setting.say([HumanMessage("write it down", id="u1"), *called("I shall", **told)])
    receipt = setting.memory.forget(query=query, reason="asked")
    assert receipt.complete
    assert (setting.names(), setting.texts()) == (["u1"], ["write it down"])
    assert_gone(setting.folder, SECRET)


@pytest.mark.parametrize("setting", [Rules], indirect=True)
def test_reasons_that_quote_are_left_out_of_the_log(setting: Setting) -> None:
    """Neither a policy's reason nor the caller's brings back what was erased, or quotes what is held."""
    setting.say([HumanMessage(SECRET, id="u1"), HumanMessage(f"held: {SECRET}", id="u2")])
    receipt = setting.memory.forget(query="cage 4711", reason=f"{SECRET} was asked about")
    assert (receipt.reason, receipt.held[0].reason) == (LEFT_OUT, LEFT_OUT)
    assert setting.reasons() == [LEFT_OUT] * 3
    again = setting.memory.forget(query="cage 4711", reason="Ann said CAGE 4711 is to go")
    assert again.reason == LEFT_OUT


@pytest.mark.parametrize("setting", [Rules], indirect=True)
def test_policies_are_asked_about_items(setting: Setting) -> None:
    """An item that is held stays; one that goes is in digests, log and scan, also if nothing of it was indexed."""
    setting.store.put(SPACE, "kept", {"note": "held for the case"})
    setting.store.put(SPACE, "gone", {"deep": [{"note": SECRET}], "count": 1, "none": None}, index=False)
    receipt = setting.memory.forget(namespace=SPACE, reason="asked")
    assert (receipt.complete, receipt.tiers["items"].erased, len(receipt.digests)) == (True, 1, 1)
    assert [one.policy for one in receipt.held] == ["Rules"]
    assert receipt.scan is not None
    assert (receipt.scan.texts, receipt.scan.hits) == (2, 0)
    assert setting.store.get(SPACE, "kept") is not None
    assert setting.store.get(SPACE, "gone") is None
    assert [entry.record_digest for entry in setting.store.records.audit_entries(SPACE, action="forget")][1:] == [
        receipt.held[0].digest,
        *receipt.digests,
    ]
