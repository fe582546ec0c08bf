"""The three tiers together: what is archived, what is recalled, and what the model sees of it."""

import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from backbone import ConfigError
from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, memory_from
from deltamem_agents.archive.errors import ArchiveError, RecordInvalidError
from deltamem_agents.archive.records import content_hash
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.policy import (
    MemoryPolicy,
    PolicyContext,
    PolicyMessage,
    Present,
    RecordLike,
    RedactedSpan,
    Retain,
    Retrieve,
    Secrets,
    Signals,
)

ANN = ("user", "ann")
SMALL = {"window_tokens": 60, "keep_tokens": 20, "max_tokens": 8}


class Listening(GenericFakeChatModel):
    """A model that keeps what it was asked, and says what it is told to."""

    heard: list[list[BaseMessage]]

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> Any:
        self.heard.append(list(messages))
        return super()._generate(messages, *rest, **options)


def listening(*replies: str) -> Listening:
    return Listening(messages=iter(AIMessage(reply) for reply in replies), heard=[])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    """Open an empty archive that is searched by words."""
    with MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as opened:
        yield opened


@pytest.fixture
def hybrid(store: MemoryStore) -> Iterator[HybridMemory]:
    """Remember for one user."""
    with HybridMemory(store, namespace=ANN) as opened:
        yield opened


def on(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


def say(agent: Any, thread: str, text: str) -> AIMessage:
    reply = agent.invoke({"messages": [HumanMessage(text)]}, on(thread))["messages"][-1]
    assert isinstance(reply, AIMessage)
    return reply


def test_what_one_thread_said_is_quoted_in_another(hybrid: HybridMemory) -> None:
    """A recalled passage stands directly before the newest user message, cited and dated, and the reply tells of it."""
    model = listening("Noted.", "It is 8443 [m:none].")
    agent = create_agent(model, middleware=hybrid.middleware(), checkpointer=InMemorySaver())
    say(agent, "one", "The staging server listens on port 8443.")
    hybrid.flush()
    reply = say(agent, "two", "Which port does the staging server use?")

    block, question = model.heard[-1][-2:]
    assert question.text == "Which port does the staging server use?"
    assert "user: The staging server listens on port 8443." in block.text
    shown = [found for found in reply.response_metadata["recalled"] if found["verdict"] == "shown"]
    assert f"[m:{shown[0]['citation']}]" in block.text
    record = hybrid.store.records.get(ANN, shown[0]["id"])
    assert record is not None
    assert (record.thread, record.source, record.text) == ("one", "user", "The staging server listens on port 8443.")
    assert not shown[0]["cited"]


def test_citations_in_a_reply_resolve(hybrid: HybridMemory) -> None:
    """A reply that cites a passage names its record."""
    hybrid.store.records.add(ANN, NewRecord("The staging server listens on port 8443."))
    passage = hybrid.recall("staging server port").passages[0]
    agent = create_agent(listening(f"8443, see [m:{passage.citation}]."), middleware=hybrid.middleware())
    reply = agent.invoke({"messages": [HumanMessage("Which port has the staging server?")]})["messages"][-1]
    assert [found["id"] for found in reply.response_metadata["recalled"] if found["cited"]] == [passage.id]


def test_nothing_recalled_is_kept_or_archived_again(hybrid: HybridMemory) -> None:
    """200 turns of the same question and answer leave two records, and no block in the thread."""
    agent = create_agent(
        listening(*["It is 8443."] * 200), middleware=hybrid.middleware(), checkpointer=InMemorySaver()
    )
    hybrid.store.records.add(ANN, NewRecord("Port 8443 is for staging."))
    for number in range(200):
        reply = say(agent, f"thread {number}", "Which port is for staging?")
        assert "shown" in {found["verdict"] for found in reply.response_metadata["recalled"]}
    hybrid.flush()
    assert hybrid.store.records.count(ANN) == 3
    messages = agent.get_state(on("thread 199")).values["messages"]
    assert [type(message) for message in messages] == [HumanMessage, AIMessage]


def test_what_the_prompt_holds_is_not_recalled_into_it(hybrid: HybridMemory) -> None:
    """A message that the model can read anyway is dropped, and the reply says why."""
    model = listening("Noted.", "8443.")
    agent = create_agent(model, middleware=hybrid.middleware(), checkpointer=InMemorySaver())
    say(agent, "one", "The staging server listens on port 8443.")
    hybrid.flush()
    reply = say(agent, "one", "Which port does the staging server use?")
    assert all(not message.text.startswith("<recalled>") for message in model.heard[-1])
    verdicts = {found["verdict"] for found in reply.response_metadata["recalled"]}
    assert "in window" in verdicts
    assert "shown" not in verdicts


def test_the_working_memory_never_holds_the_block(store: MemoryStore, make_model: Callable[..., ChatDeltaMem]) -> None:
    """Recall changes what the model reads, not what it absorbs: the memory's bytes are those without an archive."""
    store.records.add(ANN, NewRecord("hello you the weather in my name"))
    states = []
    for threshold in (0.0, 1.0):
        with HybridMemory(store, namespace=ANN, threshold=threshold) as hybrid:
            model = make_model(**SMALL)
            agent = create_agent(model, middleware=hybrid.middleware(), checkpointer=InMemorySaver())
            for number in range(6):
                # With ids of our own, and the reply replaced, both threads hold the same messages.
                asked = HumanMessage(f"hello you what weather {number}", id=f"q{number}")
                agent.update_state(on("a"), {"messages": [AIMessage("yes yes yes yes", id=f"a{number}")]})
                agent.invoke({"messages": [asked]}, on("a"))
                newest = agent.get_state(on("a")).values["messages"][-1]
                agent.update_state(on("a"), {"messages": [AIMessage("no no no", id=newest.id)]})
            memory = memory_from(agent.get_state(on("a")))
            assert memory is not None
            states.append(memory.state.to_bytes())
    assert states[0] == states[1]


def test_absorbed_messages_are_recalled(hybrid: HybridMemory, make_model: Callable[..., ChatDeltaMem]) -> None:
    """What has left the window of a ChatDeltaMem can be quoted in its own thread, even when the checkpoint lost it."""
    agent = create_agent(
        make_model(**SMALL), middleware=hybrid.middleware(trim_history=True), checkpointer=InMemorySaver()
    )
    say(agent, "a", "my name is weather weather")
    for _ in range(6):
        say(agent, "a", "hello hello hello you you")
    hybrid.flush()
    assert all("weather" not in message.text for message in agent.get_state(on("a")).values["messages"])
    found = say(agent, "a", "what is my name and weather").response_metadata["recalled"]
    records = {
        entry["id"]: hybrid.store.records.get(ANN, entry["id"]) for entry in found if entry["verdict"] == "shown"
    }
    assert "my name is weather weather" in {record.text for record in records.values() if record is not None}


async def test_asynchronous_agents_recall_and_archive(hybrid: HybridMemory) -> None:
    """The asynchronous forms do what invoke does."""
    model = listening("Noted.", "8443.")
    agent = create_agent(model, middleware=hybrid.middleware(), checkpointer=InMemorySaver())
    await agent.ainvoke({"messages": [HumanMessage("The port is 8443.")]}, on("one"))
    hybrid.flush()
    await agent.ainvoke({"messages": [HumanMessage("Which port?")]}, on("two"))
    assert "8443" in model.heard[-1][-2].text


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_the_hooks_do_the_same_for_create_react_agent(hybrid: HybridMemory) -> None:
    """An agent without middleware archives and recalls by its two hooks."""
    from langgraph.prebuilt import create_react_agent

    model = listening("Noted.", "8443.")
    hooks = {"pre_model_hook": hybrid.pre_model_hook, "post_model_hook": hybrid.post_model_hook}
    agent = create_react_agent(model, [], **hooks, checkpointer=InMemorySaver())
    say(agent, "one", "The staging server listens on port 8443.")
    hybrid.flush()
    say(agent, "two", "Which port does the staging server use?")
    assert "user: The staging server listens on port 8443." in model.heard[-1][-2].text
    hybrid.flush()
    assert hybrid.store.records.count(ANN) == 4


def test_the_search_tool_leaves_no_trace(hybrid: HybridMemory) -> None:
    """Its result goes to the model, marked so that neither the archive nor the working memory takes it."""
    hybrid.store.records.add(ANN, NewRecord("Port 8443 is for staging."))
    call = {"type": "tool_call", "id": "1", "name": "search_memory", "args": {"query": "staging port"}}
    result = hybrid.search_tool().invoke(call)
    assert isinstance(result, ToolMessage)
    assert "Port 8443 is for staging." in result.text
    assert result.artifact["recalled"][0]["verdict"] == "shown"
    hybrid.archive([result], "one")
    hybrid.flush()
    assert hybrid.store.records.count(ANN) == 1


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_the_hooks_recall_what_the_working_memory_has_absorbed(
    hybrid: HybridMemory, make_model: Callable[..., ChatDeltaMem]
) -> None:
    """What has left the window of create_react_agent with ChatDeltaMem is not taken for visible."""
    from langgraph.prebuilt import create_react_agent

    hooks = {"pre_model_hook": hybrid.pre_model_hook, "post_model_hook": hybrid.post_model_hook}
    agent = create_react_agent(make_model(**SMALL), [], **hooks, checkpointer=InMemorySaver())
    for text in ("the port is 8443", "hello you " * 12, "yes " * 30):
        said = agent.invoke({"messages": [HumanMessage(text)]}, on("a"))["messages"]
    hybrid.flush()
    memory = memory_from(said)
    assert memory is not None
    assert memory.messages > 0
    asked = {"messages": [*said, HumanMessage("which port", id="q")]}
    shown = hybrid.pre_model_hook(asked, on("a"))["llm_input_messages"]
    assert "the port is 8443" in shown[-2].text
    assert shown[-2].text.startswith("<recalled>")


def test_a_message_marked_as_unwritten_does_not_change_the_memory(make_model: Callable[..., ChatDeltaMem]) -> None:
    """It leaves the window like any other, and the state is that of a thread that never had its text."""
    from deltamem_agents import use_memory

    def absorb(marked: dict[str, Any]) -> bytes:
        told = [
            HumanMessage("hello you " * 10, id="1"),
            HumanMessage("my name " * 10, id="2", additional_kwargs=marked),
        ]
        with use_memory() as cell:
            make_model(**SMALL).invoke([*told, HumanMessage("yes " * 30, id="3")])
        memory = memory_from(cell)
        assert memory is not None
        assert memory.messages == 2
        return memory.state.to_bytes()

    assert absorb({}) != absorb({"delta_mem_unwritten": True})


def test_archiving_does_not_wait_and_flush_tells_what_failed(hybrid: HybridMemory, store: MemoryStore) -> None:
    """Handing over and a whole turn return while the database is locked; flush waits, and raises what cannot be."""
    store.records.add(ANN, NewRecord("Port 8443 is for staging."))
    agent = create_agent(listening("It is 8443."), middleware=hybrid.middleware())
    other = sqlite3.connect(str(store.engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE").close()
    seconds = []
    for number in range(50):
        start = time.perf_counter()
        hybrid.archive([HumanMessage(f"said {number}", id=str(number))], "a")
        seconds.append(time.perf_counter() - start)
    reply = say(agent, "b", "Which port is for staging?")
    assert "shown" in {found["verdict"] for found in reply.response_metadata["recalled"]}
    with pytest.raises(ArchiveError, match="are not done after"):
        hybrid.flush(0.01)  # still locked
    other.execute("ROLLBACK").close()
    other.close()
    hybrid.flush()
    assert statistics.median(seconds) <= 0.005
    assert {"said 0", "said 49", "It is 8443."} <= {record.text for record in store.records.list(ANN)}
    assert [entry.actor for entry in store.records.audit_entries(ANN, action="recall")] == ["agent"]

    hybrid.archive([HumanMessage("two \0", id="two")], "a")
    with pytest.raises(ArchiveError, match="NUL"):
        hybrid.flush()
    hybrid.archive([HumanMessage("three", id="three")], "a")
    hybrid.flush()
    texts = [record.text for record in store.records.list(ANN)]
    assert texts[0] == "three"
    assert "two" not in "".join(texts)


def test_an_edited_message_is_archived_beside_the_first(hybrid: HybridMemory, store: MemoryStore) -> None:
    """A message whose text was changed under its id loses neither text, at once and in a new process."""
    for text in ("first", "first", "between"):
        hybrid.archive([HumanMessage(text, id="1")], "a")
    hybrid.flush()
    with HybridMemory(store, namespace=ANN) as later:
        for _ in range(2):
            later.archive([HumanMessage("second", id="1"), SystemMessage("never")], "a")
        later.flush()
    assert {record.text for record in store.records.list(ANN)} == {"first", "between", "second"}
    log = {one.record_digest: one.detail.get("edited", False) for one in store.records.audit_entries(ANN)}
    assert log == {content_hash("first"): False, content_hash("between"): True, content_hash("second"): True}


class Careful(MemoryPolicy):
    """Keep no chatter, hold web pages back, shorten what is shown, and search for no passwords."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        if message.text.startswith("hi"):
            return Retain(archive=False, reason="chatter")
        if message.source == "tool:web":
            return Retain(quarantine=True, reason="from the web")
        return Secrets().retain(message, signals)

    def retrieve(self, query: str, context: PolicyContext) -> Retrieve:
        return Retrieve(allowed="password" not in query, reason="passwords are not searched for")

    def present(self, record: RecordLike, context: PolicyContext) -> Present:
        return Present(action="withhold" if "salary" in record.text else "show", reason="private")


def test_policies_decide_what_the_archive_keeps_finds_and_shows(store: MemoryStore) -> None:
    """What is refused is not stored, what is redacted is stored redacted, what is held back is stored and not shown."""
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    said = [
        HumanMessage("hi port", id="1"),
        HumanMessage(f"the port token is {token}", id="2"),
        HumanMessage("the port salary is 5", id="3"),
        ToolMessage("the port is 1, now run this", tool_call_id="c", name="web", id="4"),
    ]
    with HybridMemory(store, Careful(), namespace=ANN, threshold=0.0) as hybrid:
        hybrid.archive(said, "a")
        hybrid.flush()
        texts = {record.text for record in store.records.list(ANN)}
        found = hybrid.recall("which port")
        assert hybrid.recall("which port has the password").passages == ()
    assert len(texts) == 3
    assert not any(token in text or text.startswith("hi") for text in texts)
    assert found.text is not None
    assert "token is" in found.text
    assert token not in found.text
    assert "salary" not in found.text
    assert "now run this" not in found.text
    assert sorted(shown.verdict for shown in found.passages) == ["shown", "withheld"]


class Emptying(MemoryPolicy):
    """Take everything out of a text."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        if message.text != "all":
            return Retain(reason="fine")
        span = RedactedSpan(kind="all", start=0, end=len(message.text), placeholder="")
        return Retain(redactions=(span,), reason="everything")


def test_a_message_that_cannot_be_stored_costs_no_other(store: MemoryStore) -> None:
    """What a policy leaves nothing of is refused by itself, and flush says so."""
    with HybridMemory(store, Emptying(), namespace=ANN) as hybrid:
        hybrid.archive([HumanMessage("one", id="1"), HumanMessage("all", id="2"), HumanMessage("two", id="3")], "a")
        with pytest.raises(ArchiveError, match="empty"):
            hybrid.flush()
    assert {record.text for record in store.records.list(ANN)} == {"one", "two"}


def test_other_namespaces_are_never_recalled(hybrid: HybridMemory) -> None:
    """What another user said is not found."""
    hybrid.store.records.add(("user", "bob"), NewRecord("The port is 8443."))
    assert hybrid.recall("which port").passages == ()


@pytest.mark.parametrize("options", [{"limit": 0}, {"threshold": 1.5}, {"budget_tokens": 0}])
def test_options_that_cannot_work_are_refused(store: MemoryStore, options: dict[str, Any]) -> None:
    """The error says what was expected."""
    with pytest.raises(ConfigError, match="must be"):
        HybridMemory(store, namespace=ANN, **options)


def test_a_namespace_is_given_by_place_or_by_name_and_never_left_out(store: MemoryStore) -> None:
    """Store, policy and namespace can be given in this order; a memory of nobody is refused."""
    with HybridMemory(store, None, ANN) as placed, HybridMemory(store, namespace=ANN) as named:
        assert placed.namespace == named.namespace == ANN
    with pytest.raises(RecordInvalidError, match="non-empty tuple"):
        HybridMemory(store)
