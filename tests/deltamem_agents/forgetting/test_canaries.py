"""A thousand canaries in whole threads: none is left anywhere, and what stood beside them is the same bytes."""

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage

from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, memory_from, open_checkpointer
from deltamem_agents.forgetting.said import Said
from deltamem_agents.forgetting.savers import rows_of
from tests.deltamem_agents.forgetting.conftest import SCRIPT, scripted
from tests.deltamem_agents.forgetting.test_replay import assert_same, config

SPACE = ("acme", "ann")
THREADS, TURNS, CANARIES, SPARROWS = 4, 5, 50, 4  # canaries and sparrows of each turn


def said(thread: int, turn: int, *, canaries: bool) -> list[HumanMessage]:
    """Return what is said in a turn: canaries and sparrows, and then something that is answered."""
    first = (thread * TURNS + turn) * CANARIES
    birds = {f"c{n}": f"canary {n:04} sings in cage {n * 7919:07}" for n in range(first, first + CANARIES * canaries)}
    birds |= {f"s{n}": f"sparrow {n:04} lives on roof {n * 7907:07}" for n in range(first, first + SPARROWS)}
    answered = HumanMessage(SCRIPT[turn][0], id=f"u{turn}")
    return [*(HumanMessage(text, id=name) for name, text in birds.items()), answered]


def stored(folder: Path, thread: str) -> list[tuple[Any, ...]]:
    """Return every row of a thread as the file holds it."""
    connection = sqlite3.connect(folder / "threads.sqlite")
    rows = [
        row
        for table in ("checkpoints", "writes")
        for row in connection.execute(f"SELECT * FROM {table} WHERE thread_id = ? ORDER BY 1, 2, 3, 4", (thread,))  # noqa: S608
    ]
    connection.close()
    return rows


def messages(saver: Any, thread: str) -> dict[str, list[bytes]]:
    """Return a thread's messages as its checkpoints hold them, in every version."""
    rows = rows_of(saver)
    found = Said(rows, rows.load(thread)).messages
    return {name: [version.stored.data for version in versions] for name, versions in found.items()}


def test_a_thousand_canaries_leave_threads_as_if_they_had_never_sung(
    tmp_path: Path, make_model: Callable[..., ChatDeltaMem]
) -> None:
    """Messages, working memories and records: threads equal those that never had them, which are untouched."""
    model = make_model(window_tokens=200, keep_tokens=70, max_tokens=1)
    replies = {f"u{turn}": AIMessage(SCRIPT[turn][1], id=f"a{turn}") for turn in range(TURNS)}
    with (
        MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
        open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver,
        HybridMemory(store, namespace=SPACE, checkpointer=saver, model=model) as memory,
    ):
        graph = scripted(model, replies, saver)
        for thread in range(THREADS):
            for name, canaries in ((f"all{thread}", True), (f"never{thread}", False)):
                for turn in range(TURNS):
                    graph.invoke({"messages": said(thread, turn, canaries=canaries)}, config(name))
                memory.archive(graph.get_state(config(name)).values["messages"], name)
        memory.flush()
        sung = [name for name in messages(saver, "all0") if name.startswith("c")]
        assert len(sung) == TURNS * CANARIES
        before = {f"all{thread}": messages(saver, f"all{thread}") for thread in range(THREADS)}
        others = {f"never{thread}": stored(tmp_path, f"never{thread}") for thread in range(THREADS)}
        receipt = memory.forget(query="canary", reason="asked")
        assert receipt.complete
        assert receipt.scan is not None
        assert (receipt.scan.hits, receipt.scan.kept, receipt.scan.texts) == (0, 0, 1000)
        assert (len(receipt.digests), receipt.tiers["record"].erased) == (1000, 1000)
        assert receipt.tiers["checkpoints"].erased == 1000
        assert receipt.tiers["working_memory"].erased == THREADS
        for file in (file for file in tmp_path.rglob("*") if file.is_file()):
            assert re.search(rb"canary", file.read_bytes()) is None, file
        assert {name: stored(tmp_path, name) for name in others} == others
        for thread in range(THREADS):
            kept = {name: data for name, data in before[f"all{thread}"].items() if not name.startswith("c")}
            assert {name: data[:1] for name, data in messages(saver, f"all{thread}").items()} == {
                name: data[:1] for name, data in kept.items()
            }
            assert_same(graph, f"all{thread}", f"never{thread}")
            assert memory_from(graph.get_state(config(f"all{thread}")).values) is not None
        assert store.verify().ok
