"""Forgetting in threads of each checkpointer, wiring and shape of message."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph

from backbone import ConfigError, DeltaMemError
from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, memory_from, open_checkpointer
from deltamem_agents.forgetting.histories import erase_from_thread, whole_units
from deltamem_agents.forgetting.replaying import absorber
from deltamem_agents.forgetting.rows import Moved
from deltamem_agents.forgetting.savers import rows_of
from tests.deltamem_agents.forgetting.conftest import SCRIPT, carrying, scripted, talk
from tests.deltamem_agents.forgetting.test_replay import EVERY, SMALL, assert_same, config, ids, without

Make = Callable[..., ChatDeltaMem]
KEY = "0123456789abcdef"


@pytest.fixture(params=["memory", "postgres", "encrypted"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCheckpointSaver[Any]]:
    """Open each kind of checkpointer that the other tests do not."""
    kind = request.param
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/threads.sqlite"
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else url
    with open_checkpointer(url, aes_key=KEY if kind == "encrypted" else None) as opened:
        yield opened


def test_each_checkpointer_holds_what_the_other_thread_holds(saver: Any, model: ChatDeltaMem, make_model: Make) -> None:
    """In memory, in Postgres and encrypted: states and histories are those of a thread that never had the turn."""
    model = make_model(**SMALL)
    replies: dict[str, AIMessage] = {}
    graph = scripted(model, replies, saver)
    talk(graph, replies, "all", EVERY)
    talk(graph, replies, "never", without(1))
    rows = rows_of(saver)
    report = erase_from_thread(rows, "all", {"u1", "a1"}, absorber(model))
    assert (report.memory, report.exact) == ("replayed", True)
    assert_same(graph, "all", "never")
    theirs = {tuple(ids(c.values)): memory_from(c) for c in graph.get_state_history(config("never")) if c.values}
    for one in graph.get_state_history(config("all")):
        if one.values and ids(one.values):
            mine, other = memory_from(one), theirs[tuple(ids(one.values))]
            assert (mine and mine.digests) == (other and other.digests)
    places = [one.config["configurable"]["checkpoint_id"] for one in graph.get_state_history(config("all"))]
    assert rows.first("all") == places[-1]
    assert rows.first("nobody") is None
    assert rows.blobs(without=["all", "never"]) == []
    held = b"".join(b for b in rows.blobs())
    assert not any(text.encode() in held for text in SCRIPT[1])
    talk(graph, replies, "all", [1])
    assert ids(graph.get_state(config("all")).values)[-2:] == ["u1", "a1"]
    assert rows.overwrite() is None


def test_memory_that_replies_carry_is_replayed(make_model: Make) -> None:
    """Without middleware: each reply that stays carries what it would have carried."""
    model = make_model(**SMALL)
    replies: dict[str, AIMessage] = {}
    with open_checkpointer("memory://") as saver:
        graph = carrying(model, replies, saver)
        talk(graph, replies, "all", EVERY)
        talk(graph, replies, "never", without(2))
        report = erase_from_thread(rows_of(saver), "all", {"u2", "a2"}, absorber(model))
        assert report.memory == "replayed"
        assert_same(graph, "all", "never")
        states = [graph.get_state(config(thread)).values["messages"] for thread in ("all", "never")]
        carriers = [[(m.id, "delta_mem" in m.response_metadata) for m in messages] for messages in states]
        assert carriers[0] == carriers[1]


def test_a_call_and_its_result_go_together() -> None:
    """Providers refuse one without the other."""
    call = {"name": "look", "args": {}, "id": "c1"}
    messages = {
        "u": HumanMessage("look", id="u"),
        "a": AIMessage("", tool_calls=[call], id="a"),
        "t": ToolMessage("seen", tool_call_id="c1", id="t"),
        "b": AIMessage("I have looked", id="b"),
    }
    assert whole_units(messages, {"t"}) == whole_units(messages, {"a"}) == {"a", "t"}
    assert whole_units(messages, {"u", "b"}) == {"u", "b"}


BLOCKS: list[str | dict[str, Any]] = [
    {"type": "text", "text": "the canary sings "},
    {"type": "text", "text": "in cage"},
    {"type": "text", "text": " 4711"},
]
PICTURE: list[str | dict[str, Any]] = [{"type": "image_url", "image_url": {"url": "https://example.org/cage 4711"}}]


@pytest.mark.parametrize(
    "said",
    [
        {"role": "user", "content": "the canary sings in cage 4711"},
        {"role": "user", "content": BLOCKS},
        {"role": "user", "content": PICTURE},
        HumanMessage("the canary sings in cage 4711"),
        HumanMessage(BLOCKS),
        ("user", BLOCKS),
    ],
)
def test_inputs_and_tasks_forget_too(tmp_path: Path, said: Any) -> None:
    """What an input without an id says, in one text or in blocks, and a state inside a task, are gone from the rows."""
    from langgraph.types import Send

    builder = StateGraph(MessagesState)
    builder.add_node("first", lambda state: {"messages": [AIMessage("done", id="a")]})
    builder.add_node("second", lambda state: {})
    builder.add_edge(START, "first")
    builder.add_conditional_edges("first", lambda state: [Send("second", dict(state))], ["second"])
    with open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:
        graph = builder.compile(checkpointer=saver)
        graph.invoke({"messages": [said]}, config("t"))
        graph.invoke({"messages": [("user", "the canary sings in cage 4712")]}, config("t"))
        rows = rows_of(saver)
        assert re.search(rb"canary|cage", b"".join(rows.blobs()))
        gone = {m.id for m in graph.get_state(config("t")).values["messages"] if m.type == "human"}
        assert len(gone) == 2
        erase_from_thread(rows, "t", gone, None)
        assert not re.search(rb"canary|cage| 471", b"".join(rows.blobs()))
        assert ids(graph.get_state(config("t")).values) == ["a"]


def test_the_task_of_a_tool_call_goes_with_it(tmp_path: Path) -> None:
    """Its arguments are in no row, and what another message asked for waits as before."""
    from langgraph.types import Send

    calls = [{"name": "look", "args": {"at": f"cage {number}"}, "id": f"c{number}"} for number in (1, 2)]

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("", id=f"a{call['id']}", tool_calls=[call]) for call in calls]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_node("look", lambda task: {"messages": [ToolMessage("seen", tool_call_id=task[0]["id"])]})
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", lambda state: [Send("look", [call]) for call in calls], ["look"])
    with open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:
        graph = builder.compile(checkpointer=saver, interrupt_before=["look"])
        graph.invoke({"messages": [HumanMessage("look", id="u")]}, config("t"))
        rows = rows_of(saver)
        assert b"cage 1" in b"".join(rows.blobs())
        erase_from_thread(rows, "t", {"ac1"}, None)
        assert b"cage 1" not in b"".join(rows.blobs())
        assert b"cage 2" in b"".join(rows.blobs())
        graph.invoke(None, config("t"))
        messages = graph.get_state(config("t")).values["messages"]
        assert [m.tool_call_id for m in messages if isinstance(m, ToolMessage)] == ["c2"]


def test_a_thread_that_goes_on_is_tried_again_and_then_refused(make_model: Make) -> None:
    """A checkpoint that comes in between is not lost, and is not skipped."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [AIMessage("yes", id=f"a{len(state['messages'])}")]})
    builder.add_edge(START, "model")
    with open_checkpointer("memory://") as saver:
        graph = builder.compile(checkpointer=saver)
        graph.invoke({"messages": [HumanMessage("one", id="u0")]}, config("t"))
        rows = rows_of(saver)
        seen = rows.load("t")
        graph.invoke({"messages": [HumanMessage("two", id="u1")]}, config("t"))
        with pytest.raises(Moved):
            rows.save("t", seen, {})
        real = rows.load

        def late(thread: str) -> Any:
            found = real(thread)
            graph.invoke({"messages": [HumanMessage("more", id=f"u{len(found)}")]}, config("t"))
            return found

        rows.load = late  # type: ignore[method-assign] # an agent that never stops
        with pytest.raises(DeltaMemError, match="goes on"):
            erase_from_thread(rows, "t", {"u0"}, None)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_thread_of_an_asynchronous_app_is_forgotten(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, make_model: Make
) -> None:
    """Its own checkpointer is refused, with what to do instead; that does it, while the app is running."""
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else f"sqlite:///{tmp_path}/threads.sqlite"
    model = make_model(**SMALL)
    replies: dict[str, AIMessage] = {}
    async with open_checkpointer(url) as saver:
        with pytest.raises(ConfigError, match=r"open its URL once more, .*asyncio\.to_thread"):
            rows_of(saver)
        graph = scripted(model, replies, saver)
        for thread, turns in (("all", EVERY), ("never", without(1))):
            for number in turns:
                said, answered = SCRIPT[number]
                replies[f"u{number}"] = AIMessage(answered, id=f"a{number}")
                await graph.ainvoke({"messages": [HumanMessage(said, id=f"u{number}")]}, config(thread))
        with (
            MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
            open_checkpointer(url) as rewriter,
            HybridMemory(store, namespace=("acme",), checkpointer=rewriter, model=model) as memory,
        ):
            receipt = await asyncio.to_thread(memory.forget, ids=["u1", "a1"], thread="all", reason="asked")
            assert receipt.complete
            assert receipt.tiers["working_memory"].erased == 1
            assert_same(scripted(model, replies, rewriter), "all", "never")
        assert ids((await graph.aget_state(config("all"))).values) == [f"{who}{n}" for n in without(1) for who in "ua"]
    if kind == "sqlite":
        assert SCRIPT[1][0].encode() not in (tmp_path / "threads.sqlite").read_bytes()


def test_another_checkpointer_is_refused() -> None:
    """What cannot be rewritten is said before anything is erased."""
    with pytest.raises(ConfigError, match="in SQLite, Postgres and memory, got BaseCheckpointSaver"):
        rows_of(BaseCheckpointSaver())


def test_encrypted_checkpoints_are_named_as_not_read(tmp_path: Path) -> None:
    """A search of the file cannot find what is encrypted there, and the receipt does not claim that it has."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {})
    builder.add_edge(START, "model")
    for key, unread in ((KEY, ("the checkpoints' values, which are encrypted",)), (None, ())):
        folder = tmp_path / str(key)
        folder.mkdir()
        with (
            MemoryStore.from_url(f"sqlite:///{folder}/archive.sqlite") as store,
            open_checkpointer(f"sqlite:///{folder}/threads.sqlite", aes_key=key) as opened,
            HybridMemory(store, namespace=("acme",), checkpointer=opened) as memory,
        ):
            said = HumanMessage("the canary sings in cage 4711", id="u")
            builder.compile(checkpointer=opened).invoke({"messages": [said]}, config("t"))
            receipt = memory.forget(thread="t", query="canary", reason="asked")
            assert receipt.complete
            assert receipt.scan is not None
            assert receipt.scan.unread == unread


def test_both_tiers_in_postgres(postgres_url: str, make_model: Make) -> None:
    """Record and checkpoints in one database: no row has the text, and the receipt says whose files it cannot read."""
    model = make_model(**SMALL)
    replies: dict[str, AIMessage] = {}
    with (
        MemoryStore.from_url(postgres_url) as store,
        open_checkpointer(postgres_url) as opened,
        HybridMemory(store, namespace=("acme",), checkpointer=opened, model=model) as memory,
    ):
        graph = scripted(model, replies, opened)
        talk(graph, replies, "t", range(3))
        memory.archive(graph.get_state(config("t")).values["messages"], "t")
        memory.flush()
        receipt = memory.forget(query="turn 1 ", reason="asked")
        assert receipt.complete
        assert receipt.scan is not None
        assert len(receipt.scan.unread) == 2
        with psycopg.connect(postgres_url) as connection:
            named = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            lines = [row for (name,) in named for row in connection.execute(f"SELECT t::text FROM {name} t")]  # noqa: S608
        rows = b"".join(row[0].encode() for row in lines)
        texts = [form for text in SCRIPT[1] for form in (text.encode(), text.encode().hex().encode())]
        assert [text for text in texts if text in rows] == []
        assert SCRIPT[2][0].encode().hex().encode() in rows
