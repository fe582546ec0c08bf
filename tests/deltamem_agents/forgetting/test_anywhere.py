"""A text is found and erased wherever a thread or a store holds it, or the receipt names where it still is."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer
from langgraph.types import Send

from deltamem_agents import HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.forgetting.receipt import ForgetReceipt
from deltamem_agents.forgetting.savers import rows_of
from deltamem_agents.policy import Forget, MemoryPolicy, PolicyContext, RecordLike
from tests.deltamem_agents.forgetting.conftest import assert_gone
from tests.deltamem_agents.forgetting.test_known_threads import SPACE, Refusal

SECRET = "the canary sings in cage 4711"
OTHER = "the sparrow lives on roof 1234"


class Plain(TypedDict):
    messages: Annotated[list[AnyMessage], operator.add]


class Noted(MessagesState):
    profile: Any


class Nested(TypedDict):
    chat: dict[str, Any]


class Delta(TypedDict):
    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer, snapshot_frequency=2)]


@dataclass
class Bird:
    kind: str
    cages: set[str]


class Setting:
    """A memory whose policy archives nothing, unless it is told to, and graphs over its checkpointer."""

    def __init__(self, folder: Path, saver: Any, store: MemoryStore) -> None:
        self.folder = folder
        self.saver = saver
        self.store = store
        self.memory = HybridMemory(store, Refusal(), namespace=SPACE, checkpointer=saver)

    def run(self, state: type, *inputs: dict[str, Any], gives: dict[str, Any] | None = None, **configured: str) -> Any:
        """Run a graph of one node on each input, and return the graph."""
        builder = StateGraph(state)
        builder.add_node("node", lambda _: gives or {})
        builder.add_edge(START, "node")
        graph = builder.compile(checkpointer=self.saver)
        for one in inputs:
            graph.invoke(one, {"configurable": {"thread_id": "t", **configured}})
        self.memory.archive([HumanMessage("anything", id="any")], "t")
        self.memory.flush()
        return graph

    def forget(self, **what: Any) -> ForgetReceipt:
        """Forget what says canary."""
        return self.memory.forget(**(what or {"query": "CANARY"}), reason="asked")


def values(graph: Any) -> dict[str, Any]:
    found: dict[str, Any] = graph.get_state({"configurable": {"thread_id": "t"}}).values
    return found


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    """Open an archive on disk, and a checkpointer."""
    urls = {"sqlite": f"sqlite:///{tmp_path}/threads.sqlite", "memory": "memory://"}
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else urls[request.param]
    store = MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite")
    with store, open_checkpointer(url) as saver:
        made = Setting(tmp_path, saver, store)
        with made.memory:
            yield made


def assert_erased(setting: Setting, receipt: ForgetReceipt) -> None:
    """Assert that the receipt is complete, and right."""
    assert receipt.complete, receipt
    assert receipt.scan is not None
    assert (receipt.scan.hits, receipt.scan.kept) == (0, 0)
    assert receipt.digests
    assert_gone(setting.folder, "canary")
    rows = rows_of(setting.saver)
    assert "canary" not in repr(rows.load("t")) + repr(rows.blobs())


CALL = AIMessage("", id="a1", tool_calls=[{"name": "q", "args": {}, "id": "c1"}])
SAYING: list[list[AnyMessage]] = [
    [CALL, ToolMessage("1 row", id="r1", tool_call_id="c1", artifact={"rows": [{"said": SECRET}], "of": 1})],
    [AIMessage([{"type": "reasoning", "reasoning": f"hm {SECRET}"}, {"type": "text", "text": "done"}], id="a1")],
    [AIMessage("done", id="a1", additional_kwargs={"reasoning_content": f"hm {SECRET}"})],
    [AIMessage("done", id="a1", response_metadata={"grounding": {"quotes": [SECRET]}, "model_name": "m"})],
    [HumanMessage("yes", id="a1", name="canary")],
]


@pytest.mark.parametrize("said", SAYING, ids=["artifact", "reasoning", "kwargs", "metadata", "name"])
def test_what_a_message_holds_beside_its_text_is_found(setting: Setting, said: list[AnyMessage]) -> None:
    """The message goes with it, and the others stay."""
    graph = setting.run(MessagesState, {"messages": [HumanMessage(OTHER, id="u1")]}, gives={"messages": said})
    assert_erased(setting, setting.forget())
    assert [message.text for message in values(graph)["messages"]] == [OTHER]


def test_the_older_text_of_an_edited_message_is_found(setting: Setting) -> None:
    """A message is found by any text that it had, as when a policy has redacted it after it came in."""
    edits = ({"messages": [HumanMessage(text, id="u1")]} for text in (SECRET, "never mind"))
    graph = setting.run(MessagesState, *edits, {"messages": [HumanMessage(OTHER, id="u2")]})
    assert_erased(setting, setting.forget())
    assert [message.id for message in values(graph)["messages"]] == ["u2"]


@pytest.mark.parametrize("what", [{"query": "canary"}, {"ids": ["u1"]}])
def test_messages_of_a_delta_channel_and_nested_ones_are_found(setting: Setting, what: dict[str, Any]) -> None:
    """Writes, snapshots and dictionaries hold messages as well as lists do."""
    said = [HumanMessage(SECRET, id="u1"), *(HumanMessage(f"{OTHER}{n}", id=f"s{n}") for n in range(4))]
    graph = setting.run(Delta, *({"messages": [one]} for one in said))
    assert_erased(setting, setting.forget(**what))
    assert [message.id for message in values(graph)["messages"]] == ["s0", "s1", "s2", "s3"]
    graph = setting.run(Nested, {"chat": {"messages": said[:2]}})
    assert_erased(setting, setting.forget(**what))
    assert [message.id for message in values(graph)["chat"]["messages"]] == ["s0"]


def test_messages_without_ids_are_told_apart(setting: Setting) -> None:
    """Where a channel only adds, each message is known by its bytes, and another thread is no excuse for it."""
    said = [{"messages": [HumanMessage(text)]} for text in (SECRET, OTHER, "more of it")]
    graph = setting.run(Plain, *said)
    assert_erased(setting, setting.forget())
    assert [message.text for message in values(graph)["messages"]] == [OTHER, "more of it"]


@pytest.mark.parametrize(
    ("profile", "left"),
    [
        ({"pet": f"likes it: {SECRET}", "age": 7}, {"pet": "", "age": 7}),
        ({"canary@example.org": 1, "canary": 2, "of": [SECRET, OTHER]}, {"canary": 2, "of": ["", OTHER]}),
        (Bird(SECRET, {"canary", "cage"}), {"kind": "", "cages": {"", "cage"}}),
        ([SECRET.encode(), UUID(int=4711), Decimal("47.11")], [b"", UUID(int=4711), Decimal("47.11")]),
    ],
    ids=["dictionary", "keys", "objects", "bytes"],
)
def test_other_channels_lose_the_texts_that_say_it(setting: Setting, profile: Any, left: Any) -> None:
    """Only the text goes, not what stands beside it; the graph reads what is left and goes on."""
    graph = setting.run(Noted, {"messages": [HumanMessage(OTHER, id="u1")], "profile": profile})
    receipt = setting.forget()
    assert receipt.complete
    assert_gone(setting.folder, SECRET)
    assert values(graph)["profile"] == left
    graph.invoke({"messages": [HumanMessage("on", id="u2")]}, {"configurable": {"thread_id": "t"}})


def test_objects_made_of_one_text_go_wholly(setting: Setting) -> None:
    """A number that the query is part of leaves None, since no empty text makes one."""
    graph = setting.run(Noted, {"messages": [], "profile": {"a": Decimal("4711.5"), "b": Decimal(1)}})
    assert setting.forget(query="4711").complete
    assert values(graph)["profile"] == {"a": None, "b": Decimal(1)}


def test_a_task_that_waits_keeps_its_node(setting: Setting) -> None:
    """The argument of a task is read, the name of its node is not."""
    builder = StateGraph(Noted)
    builder.add_node("canary", lambda task: {"profile": task["profile"]})
    builder.add_conditional_edges(START, lambda _: [Send("canary", {"profile": SECRET})], ["canary"])
    graph = builder.compile(checkpointer=setting.saver, interrupt_before=["canary"])
    graph.invoke({"messages": []}, {"configurable": {"thread_id": "t"}})
    setting.run(Noted)
    assert setting.forget().complete
    graph.invoke(None, {"configurable": {"thread_id": "t"}})
    assert values(graph)["profile"] == ""
    assert_gone(setting.folder, SECRET)


@pytest.mark.parametrize("given", [{"role": "user", "content": SECRET}, ("user", SECRET), SECRET])
def test_what_a_graph_was_given_is_not_asked_about_twice(setting: Setting, given: Any) -> None:
    """An input and the message that it has become are one text, and one digest."""
    setting.run(MessagesState, {"messages": [given]})
    receipt = setting.forget()
    assert_erased(setting, receipt)
    assert (len(receipt.digests), receipt.tiers["checkpoints"].erased) == (1, 1)


class Holding(MemoryPolicy):
    """Keep what says "held", in messages, items and states."""

    def forget(self, record: RecordLike, context: PolicyContext) -> Forget:
        return Forget(action="keep" if "held" in record.text else "erase", reason="a case")


def test_policies_are_asked_about_texts_of_states(setting: Setting) -> None:
    """One that is held stays, with what a held message was given as; it is in the receipt."""
    given = {"messages": [("user", f"held: {SECRET}")], "profile": {"one": f"held too: {SECRET}", "two": SECRET}}
    graph = setting.run(Noted, given)
    with HybridMemory(setting.store, Holding(), namespace=SPACE, checkpointer=setting.saver) as memory:
        receipt = memory.forget(query="canary", reason="asked")
    assert {one.policy for one in receipt.held} == {"Holding"}
    assert "profile" in {one.id for one in receipt.held}
    assert values(graph)["profile"] == {"one": given["profile"]["one"], "two": ""}
    assert [message.text for message in values(graph)["messages"]] == [f"held: {SECRET}"]


LONG = f"{SECRET}, as it does on every morning of the week, and nobody has ever found out how it got in there"
BY: list[dict[str, Any]] = [{"query": "CANARY"}, {"ids": ["u1"]}, {"ids": ["u1"]}]
QUOTES = [LONG, f"Chat: {LONG} (2)", f"{LONG[:40]}…"]


def metadata(setting: Setting, thread: str = "t") -> list[dict[str, Any]]:
    """Return what the checkpointer tells of each checkpoint's metadata."""
    return [dict(one.metadata) for one in setting.saver.list({"configurable": {"thread_id": thread}})]


def configured(thread: str = "t", **given: Any) -> Any:
    return {"configurable": {"thread_id": thread}, "metadata": given}


@pytest.mark.parametrize(("title", "what"), list(zip(QUOTES, BY, strict=True)), ids=["whole", "within", "start"])
def test_what_a_run_was_configured_with_forgets_too(setting: Setting, title: str, what: dict[str, Any]) -> None:
    """Each checkpoint loses the entry that quotes the message, and no other; the thread goes on."""
    graph = setting.run(MessagesState, {"messages": [HumanMessage(OTHER, id="u2")]})
    given = configured(title=title, owner="ann", turn=7, urgent=True)
    graph.invoke({"messages": [HumanMessage(LONG, id="u1")]}, given)
    before = metadata(setting)
    assert title in [one.pop("title", None) for one in before]
    receipt = setting.forget(**what)
    assert_erased(setting, receipt)
    assert_gone(setting.folder, title)
    assert metadata(setting) == before
    graph.invoke({"messages": [HumanMessage("on", id="u3")]}, configured(owner="ann"))
    assert [message.id for message in values(graph)["messages"]] == ["u2", "u3"]


def test_metadata_that_says_the_query_goes(setting: Setting) -> None:
    """By text, number and name; LangGraph's own numbers and ids are not looked into."""
    graph = setting.run(Noted, {"messages": []}, user_id="canary@example.org")
    graph.invoke({"messages": []}, configured(cage=4711, **{"canary@example.org": "x", "canary": "y"}))
    assert setting.forget(query="canary@").complete
    assert not any({"user_id", "canary@example.org"} & one.keys() for one in metadata(setting))
    assert [one["canary"] for one in metadata(setting)[:2]] == ["y", "y"]
    assert setting.forget(query="4711").complete
    assert not any("cage" in one for one in metadata(setting))
    before = metadata(setting)
    assert setting.forget(query="1").digests == ()
    assert metadata(setting) == before


def test_metadata_of_other_threads_is_no_hit(setting: Setting) -> None:
    """Who else was configured with the same text, here or in another namespace, keeps it, and the scan says so."""
    graph = setting.run(MessagesState, {"messages": [HumanMessage(SECRET, id="u1")]})
    for thread, space in (("mine", SPACE), ("theirs", ("acme", "anna"))):
        graph.invoke({"messages": [HumanMessage(OTHER, id="u2")]}, configured(thread, title=SECRET))
        with HybridMemory(setting.store, Refusal(), namespace=space, checkpointer=setting.saver) as memory:
            memory.archive([HumanMessage("anything", id="any")], thread)
    receipt = setting.forget(ids=["u1"])
    assert receipt.complete
    assert receipt.scan is not None
    assert (receipt.scan.hits, receipt.scan.kept) == (0, int(isinstance(setting.saver, SqliteSaver)))
    assert all(any("title" in one for one in metadata(setting, thread)) for thread in ("mine", "theirs"))


def test_a_value_that_is_no_plain_data_is_named(tmp_path: Path) -> None:
    """A channel that holds what only its serializer reads is looked into, and left as it is."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store:
        setting = Setting(tmp_path, InMemorySaver(), store)
        with setting.memory:
            graph = setting.run(Noted, {"messages": [], "profile": bytearray(SECRET.encode())})
            receipt = setting.forget()
            assert not receipt.complete
            assert "the channel 'profile' of thread 't'" in receipt.tiers["checkpoints"].note
            assert values(graph)["profile"] == SECRET.encode()


def test_items_that_say_it_go(setting: Setting) -> None:
    """By key, by name of a field and by text, in the namespace that is asked about and in no other."""
    child, other = (*SPACE, "x"), ("acme", "anna")
    with MemoryStore.from_url(f"sqlite:///{setting.folder}/archive.sqlite") as store:  # which asks no policy
        for space in (SPACE, child, other):
            store.put(space, "profile", {"deep": [{"pet": f"ähm, {SECRET}"}]}, index=False)
        store.put(SPACE, "canary@example.org", {"pet": "none"})
        store.put(SPACE, "named", {"Ä canary": "none"})
        store.put(SPACE, "stays", {"pet": OTHER})
        store.records.add(SPACE, NewRecord(SECRET))

    def keys(space: tuple[str, ...]) -> list[str]:
        return sorted(item.key for item in setting.store.search(space))

    receipt = setting.forget()
    assert (receipt.complete, receipt.tiers["items"].erased, receipt.tiers["record"].erased) == (True, 3, 1)
    assert keys(SPACE) == ["profile", "stays"]  # that of the child
    assert setting.forget(query="canary", namespace=child).tiers["items"].erased == 1
    assert (keys(SPACE), keys(other)) == (["stays"], ["profile"])
    assert_gone(setting.folder, "canary@example.org")
