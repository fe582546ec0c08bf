"""The agents of examples/swap_in before and after the swap."""

import difflib
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from deltamem_agents import ChatDeltaMem, ConfigError, HybridMemory, MemoryStore, memory_from, open_checkpointer
from examples.swap_in.__main__ import AGENTS, FACT, QUESTION, converse, unrelated
from examples.swap_in.move_thread import main, move_thread
from examples.swap_in.plain_chat import PlainChat

ROOT = Path(__file__).parents[2] / "examples" / "swap_in"
WINDOW = 160
MOST_LINES = 4
CONFIG: Any = {"configurable": {"thread_id": "1"}}

pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")


def build(name: str, version: str, saver: Any) -> Any:
    return import_module(f"examples.swap_in.{name}.{version}").build(saver, WINDOW)


@pytest.mark.parametrize("name", AGENTS)
def test_the_swap_is_a_few_lines_and_the_readme_shows_them(name: str) -> None:
    """At most four lines of an agent change, and what changes is in the README word for word."""
    before, after = ((ROOT / name / f"{version}.py").read_text().splitlines() for version in ("before", "after"))
    diff = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert sum(line.startswith("+") for line in diff) <= MOST_LINES
    shown = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in diff if line[0] + line[2:] not in shown] == []


@pytest.mark.parametrize("name", AGENTS)
def test_only_the_agent_after_the_swap_remembers(name: str) -> None:
    """What has left the prompt is answered after the swap, and was lost before it."""
    with open_checkpointer("memory://") as saver:
        agent = build(name, "before", saver)
        assert "make test" not in converse(agent)
        messages = agent.get_state(CONFIG).values["messages"]
        prompt = PlainChat(window_tokens=WINDOW).prompt(messages[:-1])
        assert FACT not in prompt
        assert QUESTION in prompt
    with open_checkpointer("memory://") as saver:
        agent = build(name, "after", saver)
        assert "make test" in converse(agent)
        memory = memory_from(agent.get_state(CONFIG))
        assert memory is not None
        assert memory.messages >= 2  # the fact was the first message, and the oldest leave first


def test_an_old_thread_is_moved_to_memory(tmp_path: Path) -> None:
    """A thread of the plain agent goes on with what it was told before the swap, in memory and archive."""
    with (
        open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver,
        MemoryStore.from_url(f"sqlite:///{tmp_path}/archive.sqlite") as store,
        HybridMemory(store, namespace=("acme",)) as archive,
    ):
        old = build("agent", "before", saver)
        for text in (FACT, *map(unrelated, range(4))):
            old.invoke({"messages": [HumanMessage(text)]}, CONFIG)
        said = [message.text for message in old.get_state(CONFIG).values["messages"]]
        agent = build("agent", "after", saver)
        moved = move_thread(agent, ChatDeltaMem(window_tokens=WINDOW), CONFIG, archive=archive)
        memory = memory_from(agent.get_state(CONFIG))
        assert memory is not None
        assert moved == memory.messages > 0
        assert [message.text for message in agent.get_state(CONFIG).values["messages"]] == said
        assert {record.text for record in store.records.list(("acme",))} == set(said)
        reply = agent.invoke({"messages": [HumanMessage(QUESTION)]}, CONFIG)["messages"][-1]
        assert "make test" in reply.text
        with pytest.raises(ConfigError, match="nobody"):
            move_thread(agent, ChatDeltaMem(), {"configurable": {"thread_id": "nobody"}})


def test_a_short_thread_stays_in_the_window() -> None:
    """What fits into the window is not absorbed."""
    with open_checkpointer("memory://") as saver:
        agent = build("agent", "before", saver)
        agent.invoke({"messages": [HumanMessage(FACT)]}, CONFIG)
        agent = build("agent", "after", saver)
        assert move_thread(agent, ChatDeltaMem(window_tokens=WINDOW), CONFIG) == 0
        assert memory_from(agent.get_state(CONFIG)) is None


def test_a_mistaken_move_is_one_error(tmp_path: Path) -> None:
    """Missing arguments, a database that is not there, which is not made, and a thread that is not in it."""
    with pytest.raises(ConfigError, match="name a database"):
        main([])
    missing = tmp_path / "missing.sqlite"
    with pytest.raises(
        ConfigError, match=r"there is no database .*; name the one that is meant with the first argument$"
    ):
        main([f"sqlite:///{missing}", "1"])
    assert not missing.exists()
    there = f"sqlite:///{tmp_path}/threads.sqlite"
    with open_checkpointer(there) as saver:
        build("agent", "before", saver).invoke({"messages": [HumanMessage(FACT)]}, CONFIG)
    with pytest.raises(ConfigError, match="no thread 'nobody'"):
        main([there, "nobody"])
    command = [sys.executable, "-m", "examples.swap_in.move_thread"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parents[1], check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: name a database")
    assert "Traceback" not in done.stderr
