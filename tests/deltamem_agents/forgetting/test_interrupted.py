"""A call that is killed at any step is finished by the next one."""

import subprocess
import sys
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from deltamem_agents import HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from tests.deltamem_agents.forgetting.conftest import assert_gone

SPACE = ("acme", "ann")
STEPS = ["erase_checkpoints", "erase_rows", "erase_vectors", "overwrite", "scan", "finish"]
SECRET = "the canary sings in cage 4711"
KEPT = "the sparrow lives on roof 1234"
INDEXED = {"erase_vectors", "overwrite"}
CHILD = """
import os, signal, sys
from pathlib import Path
from langchain_core.embeddings import DeterministicFakeEmbedding
from deltamem_agents import HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.forgetting.execution import Execution

folder = Path(sys.argv[1])

def stops(step, before):
    real = getattr(Execution, step)
    def method(self, *arguments):
        if not before:
            real(self, *arguments)
        print("killed at", step, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return method

for case in sys.argv[2:]:
    if os.fork():
        assert os.wait()[1] == signal.SIGKILL
        continue
    step = "finish" if case == "done" else case
    setattr(Execution, step, stops(step, case != "done"))
    place = folder / case
    words = (place / "index", DeterministicFakeEmbedding(size=16)) if (place / "index").exists() else ()
    with (
        MemoryStore.from_url(f"sqlite:///{place}/archive.sqlite", *words) as store,
        open_checkpointer(f"sqlite:///{place}/threads.sqlite") as saver,
        HybridMemory(store, namespace=("acme", "ann"), checkpointer=saver) as memory,
    ):
        memory.forget(ids=["m1"], reason="asked")
"""
CASES = [*STEPS, "done"]


class Opened:
    """A memory in a folder, with a vector index where the case is about it."""

    def __init__(self, place: Path) -> None:
        place.mkdir(exist_ok=True)
        words = (place / "index", DeterministicFakeEmbedding(size=16)) if place.name in INDEXED else ()
        self.store = MemoryStore.from_url(f"sqlite:///{place}/archive.sqlite", *words)
        self.saver = open_checkpointer(f"sqlite:///{place}/threads.sqlite")

    def __enter__(self) -> HybridMemory:
        self.memory = HybridMemory(self.store.__enter__(), namespace=SPACE, checkpointer=self.saver.__enter__())
        return self.memory

    def __exit__(self, *error: object) -> None:
        self.memory.close()
        self.saver.__exit__(None, None, None)
        self.store.close()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small setting for each case, and have a process of its own killed in the middle of forgetting in it."""
    folder = tmp_path_factory.mktemp("killed")
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [AIMessage("I see", id=f"a{len(state['messages'])}")]})
    builder.add_edge(START, "model")
    for case in CASES:
        with Opened(folder / case) as memory:
            graph = builder.compile(checkpointer=memory.checkpointer)
            for name, text in (("m1", SECRET), ("m2", KEPT)):
                graph.invoke({"messages": [HumanMessage(text, id=name)]}, {"configurable": {"thread_id": "t"}})
                memory.store.records.add(SPACE, NewRecord(text, thread="t", message_id=name))
            memory.flush()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(folder), *CASES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed at") == len(CASES), done.stdout
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_second_call_finishes_what_was_killed(killed: Path, case: str) -> None:
    """Whatever was done by then, the end is the same: nothing of it anywhere, and one audit entry that says so."""
    place = killed / case
    with Opened(place) as memory:
        receipt = memory.forget(ids=["m1"], reason="asked again")
        assert receipt.complete
        assert receipt.resumed == (case != "done")
        assert receipt.scan is not None
        assert receipt.scan.hits == 0
        again = memory.forget(ids=["m1"], reason="once more")
        assert not again.resumed
        assert not again.digests
        assert [record.text for record in memory.store.records.list(SPACE)] == [KEPT]
        assert memory.store.verify().ok
        assert memory.checkpointer is not None
        head = memory.checkpointer.get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
        assert head is not None
        assert [message.id for message in head.checkpoint["channel_values"]["messages"]] == ["a1", "m2", "a3"]
    assert_gone(place, SECRET)
    assert any(KEPT.encode() in file.read_bytes() for file in place.rglob("*") if file.is_file())
