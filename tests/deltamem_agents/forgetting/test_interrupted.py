"""A call that is killed at any step is finished by the next one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph

from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, open_checkpointer
from deltamem_agents.archive.writes import NewRecord
from deltamem_agents.threads import fork_thread
from tests.deltamem_agents.forgetting.conftest import SCRIPT, assert_gone, scripted, talk
from tests.deltamem_agents.forgetting.test_replay import EVERY, SMALL, assert_same, config, ids, without

SPACE = ("acme", "ann")
STEPS = ["erase_checkpoints", "erase_rows", "erase_vectors", "overwrite", "scan", "finish"]
SECRET = "the canary sings in cage 4711"
KEPT = "the sparrow lives on roof 1234"
INDEXED = {"erase_vectors", "overwrite"}
CHILD = """
import importlib, json, os, signal, sys
from pathlib import Path
from langchain_core.embeddings import DeterministicFakeEmbedding
from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, open_checkpointer

folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])

def stop(module, names, call, before):
    owner = importlib.import_module("deltamem_agents.forgetting." + module)
    *path, name = names.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), []
    def stopping(*arguments, **named):
        calls.append(name)
        if len(calls) < call:
            return real(*arguments, **named)
        if not before:
            real(*arguments, **named)
        print("killed at", name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, stopping)

for case in cases:
    if os.fork():
        assert os.wait()[1] == signal.SIGKILL
        continue
    stop(*case["stop"])
    place = folder / case["case"]
    words = (place / "index", DeterministicFakeEmbedding(size=16)) if (place / "index").exists() else ()
    model = case["model"] and ChatDeltaMem(**case["model"])
    with (
        MemoryStore.from_url(f"sqlite:///{place}/archive.sqlite", *words) as store,
        open_checkpointer(f"sqlite:///{place}/threads.sqlite") as saver,
        HybridMemory(store, namespace=("acme", "ann"), checkpointer=saver, model=model) as memory,
    ):
        getattr(memory, case["method"])(**case["asked"])
"""
CASES = [*STEPS, "done"]


def kill(folder: Path, cases: list[dict[str, Any]]) -> None:
    """Have a process forget or roll back in each of some folders, and kill it in the middle.

    stop: of a case, the module, the function, which call of it, and whether before or after that.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(folder), json.dumps(cases)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed at") == len(cases), done.stdout


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
    asked = {"method": "forget", "asked": {"ids": ["m1"], "reason": "asked"}, "model": None}
    stops = {case: ("execution", f"Execution.{case}", 1, True) for case in STEPS}
    stops["done"] = ("execution", "Execution.finish", 1, False)
    kill(folder, [{"case": case, "stop": stop, **asked} for case, stop in stops.items()])
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


FORGETTING = {
    "replaying": ("replay", "Replay.after_call", 2, True),
    "rewriting": ("packed", "Codec.write", 3, False),
    "between-threads": ("execution", "erase_from_thread", 2, True),
}
ROLLING = {
    "rollback-planned": ("execution", "take_back", 1, True),
    "rollback-begun": ("sqlite_rows", "SqliteRows.remove", 1, True),
    "rollback-removed": ("sqlite_rows", "SqliteRows.remove", 1, False),
}
PLACE = "place.txt"


def small(model_folder: Path) -> dict[str, Any]:
    """Return what a ChatDeltaMem over the random model is made from, here and in the process that is killed."""
    return {**SMALL, "model": str(model_folder), "adapter": str(model_folder / "token")}


@pytest.fixture(scope="module")
def killed_inside(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """Kill rollbacks of a thread with a working memory, and replays of it and of a copy, in the middle."""
    folder = tmp_path_factory.mktemp("inside")
    first, replies = folder / "first", dict[str, AIMessage]()
    options = small(model_folder)
    cases: list[dict[str, Any]] = []
    with Opened(first) as memory:
        assert memory.checkpointer is not None
        graph = scripted(ChatDeltaMem(**options), replies, memory.checkpointer)
        talk(graph, replies, "t", range(5))
        place = graph.get_state(config("t")).config["configurable"]["checkpoint_id"]
        talk(graph, replies, "t", EVERY[5:])
        fork_thread(memory.checkpointer, "t", "then", checkpoint=place)
        memory.archive(graph.get_state(config("t")).values["messages"], "t")
        memory.flush()
        (first / PLACE).write_text(place)
    for case, stop in ROLLING.items():
        asked: dict[str, Any] = {"thread": "t", "checkpoint": place}
        cases.append({"case": case, "stop": stop, "method": "rollback", "asked": asked, "model": options})
        shutil.copytree(first, folder / case)
    with Opened(first) as memory:
        assert memory.checkpointer is not None
        memory.checkpointer.delete_thread("then")
        fork_thread(memory.checkpointer, "t", "copy", store=memory.store)
        talk(scripted(ChatDeltaMem(**options), replies, memory.checkpointer), replies, "never", without(1))
    for case, stop in FORGETTING.items():
        asked = {"ids": ["u1", "a1"], "reason": "asked"}
        cases.append({"case": case, "stop": stop, "method": "forget", "asked": asked, "model": options})
        shutil.copytree(first, folder / case)
    kill(folder, cases)
    return folder


@pytest.mark.parametrize("case", FORGETTING)
def test_a_second_call_finishes_a_replay_that_was_killed(killed_inside: Path, model_folder: Path, case: str) -> None:
    """The memories of both threads are those of the thread that never had the turn, and no file has its text."""
    place = killed_inside / case
    with Opened(place) as memory:
        memory.model = model = ChatDeltaMem(**small(model_folder))
        receipt = memory.forget(query="nothing says this", reason="asked again")
        assert (receipt.complete, receipt.resumed, receipt.threads) == (True, True, ("copy", "t"))
        graph = scripted(model, {}, memory.checkpointer)
        assert_same(graph, "t", "never")
        assert_same(graph, "copy", "never")
    assert_gone(place, SCRIPT[1][0])


@pytest.mark.parametrize("case", ROLLING)
def test_a_second_call_finishes_a_rollback_that_was_killed(killed_inside: Path, model_folder: Path, case: str) -> None:
    """The thread is as it was then, the log says so once, and what only it has said is in no file."""
    place = killed_inside / case
    checkpoint = (place / PLACE).read_text()
    with Opened(place) as memory:
        memory.model = model = ChatDeltaMem(**small(model_folder))
        receipt = memory.rollback("t", checkpoint)
        assert (receipt.complete, receipt.resumed, receipt.threads) == (True, True, ("t",))
        graph = scripted(model, {}, memory.checkpointer)
        assert_same(graph, "t", "then")
        assert ids(graph.get_state(config("t")).values) == [f"{who}{turn}" for turn in range(5) for who in "ua"]
        logged = memory.store.records.audit_entries(SPACE, action="forget")
        assert [one.checkpoint for one in logged if one.detail.get("verdict") == "rolled back"] == [checkpoint]
    assert_gone(place, SCRIPT[7][0])
