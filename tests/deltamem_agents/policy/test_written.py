"""No path around the policies: every way to write, with everything refused, and with secrets redacted."""

import inspect
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.base import PutOp
from sqlalchemy import func, select

from deltamem_agents import ChatDeltaMem, HybridMemory, MemoryStore, memory_from
from deltamem_agents.archive import NewRecord, PolicyRefusedError, RecordStore
from deltamem_agents.archive.tables import blocks, items, messages, outbox, postings, records, spaces
from deltamem_agents.archive.transfer import export_lines, import_lines
from deltamem_agents.policy import MemoryPolicy, PolicyMessage, Retain, Secrets, Signals

ANN = ("user", "ann")
NOTES = (*ANN, "notes")
TABLES = (records, messages, items, outbox, postings, blocks, spaces)
SEEDED = runpy.run_path(str(Path(__file__).with_name("test_secrets.py")))["SECRETS"]
SECRETS = {name: secret for name, (_, secret) in SEEDED.items()}
TOLD = {name: template.replace("{}", secret) for name, (template, secret) in SEEDED.items()}
Make = Callable[..., ChatDeltaMem]


class Nothing(MemoryPolicy):
    """Refuse everything."""

    def retain(self, message: PolicyMessage, signals: Signals) -> Retain:
        return Retain(working=False, archive=False, reason="memory is off")


def open_store(folder: Path, policy: MemoryPolicy | None = None) -> MemoryStore:
    folder.mkdir()
    url, index = f"sqlite:///{folder}/archive.sqlite", folder / "index"
    return MemoryStore.from_url(url, index, DeterministicFakeEmbedding(size=8), policy=policy)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Return an export that says every secret, from an archive that nobody rules."""
    with open_store(tmp_path_factory.mktemp("lines") / "other") as other:
        other.records.add_all(ANN, [NewRecord(text, "other", name) for name, text in TOLD.items()])
        other.put(NOTES, "told", dict(TOLD))
        yield list(export_lines(other.engine))


async def attempt(write: Callable[[], object]) -> None:
    done = write()
    if inspect.isawaitable(done):
        await done


async def test_with_memory_off_no_way_of_writing_reaches_a_store(
    tmp_path: Path, make_model: Make, lines: list[str]
) -> None:
    """An agent, programs and imports: tables, vectors and matrices stay empty, the log has refusals and searches."""
    with open_store(tmp_path / "ruled") as store, HybridMemory(store, Nothing(), namespace=ANN) as hybrid:
        model = make_model(window_tokens=60, keep_tokens=20, max_tokens=6)
        agent: Any = create_agent(model, middleware=hybrid.middleware(), checkpointer=InMemorySaver(), store=store)
        place: Any = {"configurable": {"thread_id": "a"}}
        for text in ("my name is hello " * 2, "you you is you " * 2, "what is my name " * 3, "we is yes " * 4):
            agent.invoke({"messages": [HumanMessage(text)]}, place)
        hybrid.flush()
        memory = memory_from(agent.get_state(place))
        assert memory is not None
        assert memory.messages > 2
        assert not any(tensor.any() for tensor in memory.state.layers.values())
        unruled = RecordStore(store.engine)
        before = unruled.add(ANN, NewRecord("from before there were policies"))
        put = PutOp(NOTES, "key", {"text": "hello"})
        ways: list[Callable[[], object]] = [
            lambda: store.records.add(ANN, NewRecord("hello", "t", "1")),
            lambda: store.records.add_all(NOTES, [NewRecord("hello"), NewRecord("you")]),
            lambda: store.records.update(ANN, before.id, "hello", expected_version=1),
            lambda: store.put(*put[:3]),
            lambda: store.batch([put, PutOp(ANN, "other", {})]),
            lambda: store.aput(*put[:3]),
            lambda: store.abatch([put]),
        ]
        for write in ways:
            with pytest.raises(PolicyRefusedError, match="memory is off"):
                await attempt(write)
        assert import_lines(store.engine, lines, policy=Nothing()).refused == 2 * len(TOLD) + 1
        assert unruled.delete(ANN, [before.id]) == 1
        store.flush()
        with store.engine.connect() as connection:
            counts = {table.name: connection.scalar(select(func.count()).select_from(table)) for table in TABLES}
        assert counts == dict.fromkeys(counts, 0)
        assert store.verify().vectors == 0
        entries = [*unruled.audit_entries(ANN, limit=500), *unruled.audit_entries(NOTES)]
        by_policy = {entry.action for entry in entries if entry.policy}
    assert by_policy == {"refuse", "recall"}


@pytest.mark.parametrize("ruled", [True, False], ids=["secrets", "control"])
def test_no_way_of_writing_leaves_a_secret_in_a_file(tmp_path: Path, lines: list[str], ruled: bool) -> None:
    """Database, its log and the index are searched byte by byte; without a policy the same search finds them all."""
    policy = Secrets() if ruled else None
    folder = tmp_path / "ruled"
    with open_store(folder, policy) as store:
        store.records.add_all(ANN, [NewRecord(text, "t", name) for name, text in TOLD.items()])
        first = store.records.add(ANN, NewRecord("nothing secret"))
        for version, text in enumerate(TOLD.values(), 1):
            first = store.records.update(ANN, first.id, f"v: {text}", expected_version=version)
        for name, text in TOLD.items():
            store.put(NOTES, name, {"list": [text], "deep": {"note": text}})
        assert import_lines(store.engine, lines, policy=policy).refused == 0
        store.flush()
        assert store.records.count(ANN) > len(TOLD)
        assert {"archive.sqlite", "archive.sqlite-wal", "index"} <= {path.name for path in folder.iterdir()}
        found = secrets_in(folder)
    assert found | secrets_in(folder) == (set() if ruled else set(SECRETS))


def secrets_in(folder: Path) -> set[str]:
    """Return the names of the secrets that any file has, as they are or as JSON has them."""
    data = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    forms = {name: (secret, json.dumps(secret)[1:-1]) for name, secret in SECRETS.items()}
    return {name for name, some in forms.items() if any(form.encode() in data for form in some)}
