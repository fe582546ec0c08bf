"""What is forgotten is in no tier and in no byte; what is not stays as it was."""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langgraph.graph import START, MessagesState, StateGraph

from backbone import ConfigError
from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, memory_from, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.forgetting.receipt import Tier
from deltamem_agents.policy import LegalHold
from tests.deltamem_agents.forgetting.conftest import SCRIPT, assert_gone, scripted, talk

Make = Callable[..., ChatDeltaMem]
SPACE = ("acme", "ann")
SMALL = {"window_tokens": 200, "keep_tokens": 70, "max_tokens": 1}


class Setting:
    """A store, a checkpointer and a memory over both, in a folder."""

    def __init__(self, folder: Path, saver: Any, store: MemoryStore, model: ChatDeltaMem) -> None:
        self.folder = folder
        self.saver = saver
        self.store = store
        self.model = model
        self.replies: dict[str, AIMessage] = {}
        self.graph = scripted(model, self.replies, saver)
        self.memory = HybridMemory(store, LegalHold(), namespace=SPACE, checkpointer=saver, model=model)

    def talk(self, thread: str, turns: Sequence[int]) -> None:
        """Say turns of the script, and archive them."""
        talk(self.graph, self.replies, thread, turns)
        self.memory.archive(self.graph.get_state(config(thread)).values["messages"], thread)
        self.memory.flush()

    def bytes(self) -> bytes:
        """Return everything that the files hold."""
        return b"".join(file.read_bytes() for file in sorted(self.folder.rglob("*")) if file.is_file())


def config(thread: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}}


@contextlib.contextmanager
def opened(folder: Path, model: ChatDeltaMem, *, index: bool) -> Iterator[Setting]:
    """Open a setting on disk, with a vector index or with words alone."""
    words = (folder / "index", DeterministicFakeEmbedding(size=16)) if index else ()
    store = MemoryStore.from_url(f"sqlite:///{folder}/archive.sqlite", *words)
    with store, open_checkpointer(f"sqlite:///{folder}/threads.sqlite") as saver:
        made = Setting(folder, saver, store, model)
        with made.memory:
            yield made


@pytest.fixture
def setting(tmp_path: Path, make_model: Make) -> Iterator[Setting]:
    """Open a setting without a vector index, which takes a second to be made anew."""
    with opened(tmp_path, make_model(**SMALL), index=False) as made:
        yield made


@pytest.fixture
def indexed(tmp_path: Path, make_model: Make) -> Iterator[Setting]:
    """Open a setting with a vector index."""
    with opened(tmp_path, make_model(**SMALL), index=True) as made:
        yield made


def test_a_turn_leaves_every_tier_and_every_byte(indexed: Setting) -> None:
    """Window, working memory, record, index and older checkpoints: the receipt says so, and the files agree."""
    indexed.talk("t", range(len(SCRIPT)))
    said, answered = (text.encode() for text in SCRIPT[1])
    assert said in indexed.bytes()
    preview = indexed.memory.forget(ids=["u1", "a1"], reason="asked", dry_run=True)
    assert said in indexed.bytes()
    receipt = indexed.memory.forget(ids=["u1", "a1"], reason="asked")
    assert preview.digests == receipt.digests
    assert receipt.complete
    assert {name: tier.erased for name, tier in receipt.tiers.items() if name in preview.tiers} == {
        name: tier.erased for name, tier in preview.tiers.items()
    }
    assert receipt.tiers["working_memory"].erased == 1
    assert receipt.scan is not None
    assert (receipt.scan.hits, receipt.scan.kept, receipt.scan.texts) == (0, 0, 2)
    assert receipt.scan.files >= 5
    assert receipt.tiers["prefix_caches"].erased > 0
    cache = indexed.model.engine.prefix_cache(indexed.model.prefix_cache_bytes)
    assert cache is not None
    assert len(cache) == 0
    assert_gone(indexed.folder, said.decode())
    assert_gone(indexed.folder, answered.decode())
    assert SCRIPT[2][0].encode() in indexed.bytes()
    assert said.decode() not in receipt.to_json()
    for checkpoint in indexed.graph.get_state_history(config("t")):
        assert not {"u1", "a1"} & {message.id for message in checkpoint.values.get("messages", ())}
    assert indexed.store.verify().ok
    assert indexed.store.records.count(SPACE) == 2 * len(SCRIPT) - 2
    assert [hit.record.text for hit in indexed.store.recall(SPACE, SCRIPT[1][0])][:1] != [SCRIPT[1][0]]


def test_the_thread_goes_on_afterwards(setting: Setting) -> None:
    """The next turn reads the rewritten checkpoint."""
    setting.talk("t", range(6))
    setting.memory.forget(query="TURN 2", reason="asked")
    setting.talk("t", [6, 7, 8])
    values = setting.graph.get_state(config("t")).values
    assert [m.id for m in values["messages"]] == [f"{who}{n}" for n in range(9) if n != 2 for who in "ua"]
    assert memory_from(values) is not None


def test_a_legal_hold_keeps_and_the_receipt_says_so(setting: Setting) -> None:
    """A held record stays in every tier, and its neighbours go."""
    held = setting.store.records.add(
        SPACE, NewRecord("the contract is in turn 4", thread="t", message_id="u9", tags=("legal-hold",))
    )
    setting.talk("t", range(5))
    receipt = setting.memory.forget(query="turn 4", reason="asked")
    assert [(one.id, one.policy) for one in receipt.held] == [(held.id, "hold")]
    assert setting.store.records.get(SPACE, held.id) is not None
    assert receipt.tiers["record"].erased == 2
    assert receipt.complete


def test_without_a_model_the_memory_is_taken_back(setting: Setting) -> None:
    """The newest memory that has not absorbed the message stays, and the next turn absorbs the rest again."""
    setting.memory.model = None
    setting.talk("t", range(8))
    before = memory_from(setting.graph.get_state(config("t")).values)
    receipt = setting.memory.forget(ids=["u1"], reason="asked")
    assert "no model was given" in receipt.tiers["working_memory"].note
    after = memory_from(setting.graph.get_state(config("t")).values)
    assert before is not None
    assert after is None or after.messages < before.messages
    setting.talk("t", [8])
    again = memory_from(setting.graph.get_state(config("t")).values)
    assert again is not None
    assert again.messages >= before.messages - 1


def test_without_a_checkpointer_the_receipt_says_what_was_not_reached(setting: Setting) -> None:
    """Records go, and what they were in the threads is done when the checkpointer is there, whatever is asked then."""
    said = NewRecord(SCRIPT[1][0], thread="t", message_id="u1", tags=("subject:ann",))
    setting.store.records.add(SPACE, said)
    setting.talk("t", range(2))
    setting.memory.checkpointer = None
    for what in ({"subject": "ann"}, {"thread": "t", "query": "no such text"}):
        receipt = setting.memory.forget(**what, reason="asked")
        assert (receipt.complete, receipt.tiers["checkpoints"].reached) == (False, False)
        assert "no checkpointer" in receipt.tiers["checkpoints"].note
    assert setting.store.records.count(SPACE) == 3
    assert SCRIPT[1][0].encode() in setting.bytes()
    setting.memory.checkpointer = setting.saver
    receipt = setting.memory.forget(subject="nobody", reason="asked")
    assert (receipt.complete, receipt.resumed, receipt.threads) == (True, True, ("t",))
    assert SCRIPT[1][0].encode() not in setting.bytes()


def test_a_record_of_no_thread_needs_no_checkpointer(setting: Setting) -> None:
    """What is found by its id and was never said in a thread is gone at once."""
    note = setting.store.records.add(SPACE, NewRecord("a note of its own"))
    setting.talk("t", range(1))
    setting.memory.checkpointer = None
    assert setting.memory.forget(ids=[note.id], reason="asked").complete


def test_a_whole_thread_goes_and_what_another_said_stays(setting: Setting) -> None:
    """A text that two threads share stays with the other one."""
    setting.talk("t", [0, 1])
    setting.talk("other", [1, 2])
    receipt = setting.memory.forget(thread="t", reason="asked")
    assert receipt.complete
    assert receipt.scan is not None
    assert (receipt.scan.hits, receipt.scan.kept) == (0, 2)
    assert setting.graph.get_state(config("t")).values == {}
    assert len(setting.graph.get_state(config("other")).values["messages"]) == 4
    found = setting.store.records.list(SPACE)
    assert sorted(record.text for record in found) == sorted(text for turn in SCRIPT[1:3] for text in turn)
    assert {record.thread for record in found} == {"other"}


def test_a_namespace_below_goes_with_its_items(setting: Setting) -> None:
    """Records and items of the child are gone, those of the parent and of a namespace that begins alike are not."""
    child = (*SPACE, "project")
    for space in (SPACE, child, ("acme", "anna")):
        setting.store.records.add(space, NewRecord(f"a note of {'/'.join(space)}"))
        setting.store.put(space, "key", {"note": f"an item of {'/'.join(space)}"})
    receipt = setting.memory.forget(namespace=child, reason="asked")
    assert (receipt.tiers["record"].erased, receipt.tiers["items"].erased) == (1, 1)
    assert setting.store.get(child, "key") is None
    assert b"a note of acme/ann/project" not in setting.bytes()
    for space in (SPACE, ("acme", "anna")):
        assert setting.store.records.count(space) == 1
        assert setting.store.get(space, "key") is not None


def test_a_subject_goes_by_its_tag(setting: Setting) -> None:
    """Records about one person go, and those about another stay."""
    for name in ("bob", "bobby"):
        setting.store.records.add(SPACE, NewRecord(f"{name} lives in a house", tags=(f"subject:{name}",)))
    setting.memory.forget(subject="bob", reason="asked")
    assert [record.text for record in setting.store.records.list(SPACE)] == ["bobby lives in a house"]


@pytest.mark.parametrize(
    ("what", "message"),
    [({}, "say what to forget"), ({"query": ""}, "query is empty"), ({"namespace": ("other",)}, "there and below")],
)
def test_what_could_mean_everything_is_refused(setting: Setting, what: dict[str, Any], message: str) -> None:
    """Nothing named, an empty text and somebody else's namespace are errors, and nothing is erased."""
    with pytest.raises(ConfigError, match=message):
        setting.memory.forget(**what, reason="asked")


def test_a_thousand_canaries_leave_nothing_and_their_neighbours_as_they_were(indexed: Setting) -> None:
    """None is left in any file, and each row that stays is the row that was there."""
    said = datetime(2026, 1, 1, tzinfo=UTC)
    canaries = [NewRecord(f"canary {n:04} sings in cage {n * 7919:07}", created=said) for n in range(1000)]
    others = [NewRecord(f"sparrow {n:04} lives on roof {n * 7907:07}", created=said) for n in range(300)]
    mixed = [one for pair in zip(canaries[:300], others, strict=True) for one in pair] + canaries[300:]
    added = indexed.store.records.add_all(SPACE, mixed)
    indexed.memory.flush()
    rows = {row[0]: row for row in neighbours(indexed.folder)}
    gone = [record.id for record in added if record.text.startswith("canary")]
    receipt = indexed.memory.forget(ids=gone, reason="asked")
    assert receipt.complete
    assert len(receipt.digests) == 1000
    assert receipt.scan is not None
    assert (receipt.scan.hits, receipt.scan.texts) == (0, 1000)
    left = indexed.bytes()
    assert re.findall(rb"canary \d{4} sings", left) == []
    assert len(set(re.findall(rb"sparrow \d{4} lives", left))) == 300
    assert {row[0]: row for row in neighbours(indexed.folder)} == {
        name: row for name, row in rows.items() if name not in set(gone)
    }
    assert indexed.store.verify().ok


def neighbours(folder: Path) -> list[tuple[Any, ...]]:
    """Return every row of the record as the file holds it."""
    connection = sqlite3.connect(folder / "archive.sqlite")
    rows = connection.execute("SELECT * FROM archive_records").fetchall()
    connection.close()
    return rows


def test_an_agent_forgets_and_goes_on(setting: Setting) -> None:
    """With the middleware of HybridMemory, recall included, the replay is that of the agent's own calls."""
    agent = create_agent(setting.model, middleware=setting.memory.middleware(), checkpointer=setting.saver)
    for turn in range(6):
        agent.invoke({"messages": [HumanMessage(SCRIPT[turn][0], id=f"u{turn}")]}, config("t"))
    receipt = setting.memory.forget(ids=["u1"], reason="asked")
    assert receipt.complete
    assert receipt.tiers["working_memory"] == Tier(erased=1)
    assert SCRIPT[1][0].encode() not in setting.bytes()
    agent.invoke({"messages": [HumanMessage(SCRIPT[7][0], id="u7")]}, config("t"))
    names = [message.id for message in agent.get_state(config("t")).values["messages"]]
    assert "u1" not in names
    assert {"u0", "u2", "u7"} <= set(names)


def test_a_model_that_is_called_otherwise_is_said(setting: Setting) -> None:
    """With another system prompt the new memory is not the thread's own, and the receipt does not hide it."""
    setting.talk("t", range(8))
    prompt = ChatPromptTemplate.from_messages([("system", "the weather is yes"), MessagesPlaceholder("messages")])
    setting.memory.model = prompt | setting.model
    receipt = setting.memory.forget(ids=["u1"], reason="asked")
    assert "another memory" in receipt.tiers["working_memory"].note
    assert receipt.complete


def test_what_the_scrubber_does_not_know_is_found_by_the_scan(setting: Setting) -> None:
    """A note that quotes a message is no message that stays, and a record that begins alike hides nothing."""

    class Noted(MessagesState):
        note: str

    builder = StateGraph(Noted)
    builder.add_node("note", lambda state: {"note": f"said: {state['messages'][-1].text}"})
    builder.add_edge(START, "note")
    graph = builder.compile(checkpointer=setting.saver)
    alike = "the same sixty-four bytes begin the text that goes and the one that stays: "
    graph.invoke({"messages": [HumanMessage(f"{alike}{SCRIPT[0][0]}", id="u")]}, config("noted"))
    setting.store.records.add(SPACE, NewRecord(f"{alike}nothing"))
    receipt = setting.memory.forget(thread="noted", ids=["u"], reason="asked")
    assert receipt.scan is not None
    assert (receipt.scan.texts, receipt.scan.kept) == (1, 0)
    assert {Path(name).name for name in receipt.scan.found_in} == {"threads.sqlite"}
    assert not receipt.complete
    assert setting.memory.forget(thread="noted", reason="asked").complete
    assert SCRIPT[0][0].encode() not in setting.bytes()


def test_messages_that_were_never_archived_are_found_in_the_checkpoints(setting: Setting) -> None:
    """A message of a thread that the namespace knows goes by its id, though no record has it."""
    setting.talk("t", range(2))
    setting.graph.update_state(config("t"), {"messages": [HumanMessage("only the checkpoint has this", id="x")]})
    receipt = setting.memory.forget(ids=["x"], reason="asked")
    assert receipt.tiers["checkpoints"].erased == 1
    assert b"only the checkpoint has this" not in setting.bytes()
