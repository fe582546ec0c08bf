"""What files, people and models wrote, as commands print it: nothing that a terminal would obey."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from deltamem_agents import MemoryStore, open_checkpointer
from deltamem_agents.archive import NewRecord
from deltamem_agents.cli import chat, main
from deltamem_agents.cli.progress import print_error

EVIL = "port\x1b[2J\x9b1A\u202e8443"
SHOWN = r"port\x1b[2J\x9b1A\u202e8443"

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `deltamem` in this process in an empty folder; return what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")

    def run_one(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["deltamem", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return capsys.readouterr().out

    return run_one


def harmless(printed: str) -> bool:
    return not set("\x1b\x9b\u202e") & set(printed)


def test_archived_texts_are_escaped(run: Run) -> None:
    """Tables of records hold no control characters of theirs; JSON and exports hold texts as they are."""
    with MemoryStore.from_url("sqlite:///archive.sqlite") as store:
        made = store.records.add(("n",), NewRecord(EVIL, source="x\x1b[1A", tags=("y\x1b[2K",)))
    for command in (("search", "8443 port"), ("list",), ("show", made.id)):
        printed = run("archive", *command, "-n", "n")
        assert SHOWN in printed
        assert r"x\x1b[1A" in printed
        assert harmless(printed)
    assert json.loads(run("archive", "show", made.id, "-n", "n", "--json"))["text"] == EVIL
    assert json.loads(run("archive", "export", "-n", "n"))["text"] == EVIL


def test_threads_are_escaped(run: Run) -> None:
    """So are messages of a thread, and its name; brackets in it are no markup."""
    thread = "evil[red]\x1b[1A"
    with open_checkpointer("sqlite:///deltamem.sqlite") as saver:
        agent = create_agent(GenericFakeChatModel(messages=iter([AIMessage(EVIL)])), checkpointer=saver)
        agent.invoke({"messages": [HumanMessage("hi\x9b1A")]}, {"configurable": {"thread_id": thread}})
    printed = run("thread", "show", thread, "--no-gates")
    for shown in (r"thread evil[red]\x1b[1A", SHOWN, r"hi\x9b1A"):
        assert shown in printed
    assert harmless(printed)
    printed = run("threads", "list")
    assert r"evil[red]\x1b[1A" in printed
    assert harmless(printed)


def test_replies_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A model's reply in `deltamem chat`, piece by piece, and the name of the thread."""
    model = GenericFakeChatModel(messages=iter([AIMessage(f"It is {EVIL}")]))
    talk = chat._Talk(create_agent(model, checkpointer=InMemorySaver()), "t\x1b[1A")
    with asyncio.Runner() as runner:
        chat._turn(talk, runner, "which?")
    printed = capsys.readouterr().out
    assert f"It is {SHOWN}\n" in printed
    assert r"t\x1b[1A" in printed
    assert harmless(printed)


def test_errors_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """An error may quote what was stored."""
    print_error(f"error: {EVIL}")
    assert capsys.readouterr().err == f"error: {SHOWN}\n"
