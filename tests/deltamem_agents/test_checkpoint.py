"""Threads in real databases: SQLite and Postgres, synchronous and asynchronous, reopened and killed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from backbone import ConfigError
from deltamem_agents import ChatDeltaMem, DeltaMemMiddleware, memory_from, open_checkpointer

SMALL: dict[str, Any] = {"window_tokens": 60, "keep_tokens": 20, "max_tokens": 8}
CONFIG: Any = {"configurable": {"thread_id": "a"}}
TOLD = [f"my {thing} is hello and the weather in the result of {thing} is yes" for thing in ("name", "tool", "user")]
PATIENCE_SECONDS = 300

# A program of its own, so that it can be killed: it says each line, prints the memory, and then waits for its end.
TALK = """
import sys, time
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from deltamem_agents import ChatDeltaMem, DeltaMemMiddleware, memory_from, open_checkpointer

url, folder, *lines = sys.argv[1:]
model = ChatDeltaMem(model=folder, adapter=folder + "/token", window_tokens=60, keep_tokens=20, max_tokens=8)
config = {"configurable": {"thread_id": "a"}}
with open_checkpointer(url) as saver:
    agent = create_agent(model, middleware=[DeltaMemMiddleware()], checkpointer=saver)
    for line in lines:
        agent.invoke({"messages": [HumanMessage(line)]}, config)
    print(memory_from(agent.get_state(config)).state.to_bytes().hex(), flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Name an empty database of each kind."""
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/threads.sqlite"
    return str(request.getfixturevalue("postgres_url"))


def agent_on(model: ChatDeltaMem, saver: Any) -> Any:
    return create_agent(model, middleware=[DeltaMemMiddleware()], checkpointer=saver)


def on(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


def state(snapshot: Any) -> bytes:
    found = memory_from(snapshot)
    assert found is not None, "nothing has been absorbed"
    return found.state.to_bytes()


def test_every_database_keeps_the_same_memory(url: str, make_model: Callable[..., ChatDeltaMem]) -> None:
    """A memory has the same bytes wherever it is stored, also after the database was closed and opened again."""
    model = make_model(**SMALL)
    with open_checkpointer("memory://") as saver:
        plain = agent_on(model, saver)
        for text in TOLD:
            expected = plain.invoke({"messages": [HumanMessage(text)]}, CONFIG)["messages"][-1].text
        reference = state(plain.get_state(CONFIG))
    with open_checkpointer(url) as saver:
        agent = agent_on(model, saver)
        for text in TOLD:
            said = agent.invoke({"messages": [HumanMessage(text)]}, on("sync"))["messages"][-1].text
        assert said == expected
        assert state(agent.get_state(on("sync"))) == reference
    if url != "memory://":
        with open_checkpointer(url) as saver:
            assert state(agent_on(model, saver).get_state(on("sync"))) == reference


async def test_asynchronous_databases_keep_the_same_memory(url: str, make_model: Callable[..., ChatDeltaMem]) -> None:
    """What was told asynchronously is found by a synchronous reader of the same database."""
    model = make_model(**SMALL)
    async with open_checkpointer(url) as saver:
        agent = agent_on(model, saver)
        for text in TOLD:
            await agent.ainvoke({"messages": [HumanMessage(text)]}, on("async"))
        found = state(await agent.aget_state(on("async")))
    with open_checkpointer("memory://" if url == "memory://" else url) as saver:
        agent = agent_on(model, saver)
        if url == "memory://":
            for text in TOLD:
                agent.invoke({"messages": [HumanMessage(text)]}, on("async"))
        assert state(agent.get_state(on("async"))) == found


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_was_said(
    tmp_path: Path, model_folder: Path, make_model: Callable[..., ChatDeltaMem]
) -> None:
    """After SIGKILL another process finds the same bytes, and the thread goes on as if nothing had happened."""
    url = f"sqlite:///{tmp_path}/threads.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", TALK, url, str(model_folder), *TOLD[:2]], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    before = child.stdout.readline().strip()
    child.send_signal(signal.SIGKILL)
    assert child.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    child.stdout.close()
    assert before

    model = make_model(**SMALL)
    with open_checkpointer(url) as saver:
        agent = agent_on(model, saver)
        assert state(agent.get_state(CONFIG)).hex() == before
        resumed = agent.invoke({"messages": [HumanMessage(TOLD[2])]}, CONFIG)["messages"][-1].text
        after = state(agent.get_state(CONFIG))
    with open_checkpointer("memory://") as saver:
        agent = agent_on(model, saver)
        for text in TOLD:
            said = agent.invoke({"messages": [HumanMessage(text)]}, CONFIG)["messages"][-1].text
        assert (said, state(agent.get_state(CONFIG))) == (resumed, after)


@pytest.mark.parametrize("url", ["oracle://host/x", "sqlite://", "threads.sqlite", "", "sqlite:///", "postgresql://"])
def test_other_urls_are_refused_with_the_accepted_forms(url: str) -> None:
    """A URL that names no database says what would."""
    with pytest.raises(ConfigError, match="a checkpointer URL is"):
        open_checkpointer(url)


def test_a_refused_url_does_not_show_its_password() -> None:
    """An error may be logged; the password in a mistyped URL must not be."""
    with pytest.raises(ConfigError) as refusal:
        open_checkpointer("postgre://me:hunter2@host/x")
    assert "hunter2" not in str(refusal.value)
