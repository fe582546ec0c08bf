"""Let a scripted model work in the sample project: approval, quotes from the archive, and the talk in a terminal."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from backbone import ConfigError
from deltamem_agents import ChatDeltaMem, HybridMemory, open_checkpointer
from deltamem_agents.cli.talk import talk
from deltamem_agents.settings import Settings
from examples.coding_assistant.agent import coding_agent
from examples.coding_assistant.workspace import Limits, Workspace

Make = Callable[..., Any]
ROOT = Path(__file__).parents[2]


def calls(name: str, **arguments: str) -> AIMessage:
    """Return a reply that calls one tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"{name}-1"}])


WRITE = calls("write_file", path="data/config.csv", content="name")
APPROVE = Command(resume={"decisions": [{"type": "approve"}]})
REJECT = Command(resume={"decisions": [{"type": "reject", "message": "declined by the user"}]})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Copy the sample project."""
    return Path(shutil.copytree(ROOT / "examples" / "coding_assistant" / "sample_project", tmp_path / "project"))


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def thread(name: str = "1") -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


def test_nothing_is_written_before_a_person_approves(
    root: Path, memory: HybridMemory, scripted: Make, tmp_path: Path
) -> None:
    """The interrupt shows a diff and outlives the process; the write happens when it is approved, and only then."""
    config = root / "data" / "config.csv"
    database = f"sqlite:///{tmp_path / 'threads.sqlite'}"
    with open_checkpointer(database) as saver:
        agent = coding_agent(scripted(WRITE), memory, Workspace(root), saver)
        waiting = agent.invoke(said("Write 'name' to data/config.csv."), thread())["__interrupt__"]
    action = waiting[0].value["action_requests"][0]
    assert action["description"].splitlines()[-2:] == ["-price", "+name"]
    assert config.read_text(encoding="utf-8") == "price\n"
    with open_checkpointer(database) as saver:
        agent = coding_agent(scripted("I wrote data/config.csv."), memory, Workspace(root), saver)
        result = agent.invoke(APPROVE, thread())
    assert config.read_text(encoding="utf-8") == "name"
    assert [m.text for m in result["messages"][-2:]] == ["wrote 4 characters", "I wrote data/config.csv."]


def test_a_write_that_is_declined_does_not_happen(root: Path, memory: HybridMemory, scripted: Make) -> None:
    """The model is told that a person declined."""
    agent = coding_agent(scripted(WRITE, "I did not write it."), memory, Workspace(root), InMemorySaver())
    agent.invoke(said("Write 'name' to data/config.csv."), thread())
    result = agent.invoke(REJECT, thread())
    assert (root / "data" / "config.csv").read_text(encoding="utf-8") == "price\n"
    assert "declined by the user" in result["messages"][-2].text


def test_approval_does_not_open_the_workspace(root: Path, memory: HybridMemory, scripted: Make) -> None:
    """A person sees that a path leads outside, and even their yes does not let it."""
    model = scripted(calls("write_file", path="../out.txt", content="x"), "It was refused.")
    agent = coding_agent(model, memory, Workspace(root), InMemorySaver())
    waiting = agent.invoke(said("Write 'x' to ../out.txt."), thread())["__interrupt__"]
    assert "will be refused" in waiting[0].value["action_requests"][0]["description"]
    result = agent.invoke(APPROVE, thread())
    assert result["messages"][-2].text.startswith("refused: ")
    assert not (root.parent / "out.txt").exists()


@pytest.mark.parametrize("limits", [Limits(), Limits(result_characters=500, shown_lines=2)])
def test_exact_texts_come_from_the_archive_with_citations(
    root: Path, memory: HybridMemory, scripted: Make, limits: Limits
) -> None:
    """An error is quoted letter by letter in another thread, whatever the model says, even if it never saw it."""
    model = scripted(calls("run_command", command="make test"), "It failed.", "?")
    agent = coding_agent(model, memory, Workspace(root, limits=limits), InMemorySaver())
    ran = agent.invoke(said("Run the tests."), thread("monday"))["messages"][-2]
    error = "AssertionError: 'milk bread apple' != 'apple bread milk'"
    assert (error in ran.text) == (limits.shown_lines is None)
    assert error in ran.artifact
    memory.flush()
    events = agent.stream(said("What was the AssertionError?"), thread("friday"), stream_mode="custom")
    quoted = "".join(events)
    assert quoted.startswith("from the archive:\n[m:")
    assert "tool:run_command: " in quoted
    assert error in quoted


def test_a_model_that_only_calls_tools_is_stopped(root: Path, memory: HybridMemory, scripted: Make) -> None:
    """After eight calls in one turn the turn ends."""
    model = scripted(*[calls("list_files", folder=".").model_copy(update={"id": str(n)}) for n in range(9)])
    agent = coding_agent(model, memory, Workspace(root), InMemorySaver())
    result = agent.invoke(said("List the files in ."), thread())
    assert "limit" in result["messages"][-1].text.lower()


def run_talk(root: Path, script: str, model: Any, *, as_json: bool = False) -> None:
    """Talk as `deltamem agent coding --script` does, with a scripted model in place of the bundled one."""

    def make(memory: HybridMemory, saver: BaseCheckpointSaver[Any]) -> Any:
        return coding_agent(model, memory, Workspace(root), saver)

    file = root.parent / "script.txt"
    file.write_text(script, encoding="utf-8")
    where = {"about": "workspace: project", "namespace": ("coding", "test"), "thread": "t"}
    talk(make, ChatDeltaMem(), Settings(), script=file, as_json=as_json, **where)


def test_a_script_is_typed_line_by_line(
    root: Path, scripted: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Comments are skipped, calls and results are shown, and a question for leave takes the next line."""
    monkeypatch.chdir(root.parent)
    script = "# repair it\n\nWrite 'name' to data/config.csv.\nno\nWrite 'name' to data/config.csv.\nyes\n"
    replies = (WRITE, "I did not.", WRITE.model_copy(update={"id": "2"}), "I wrote it.")
    run_talk(root, script, scripted(*replies))
    printed = capsys.readouterr().out
    assert "repair it" not in printed
    assert printed.count("→ write_file") == 2
    assert printed.count("+name\nyes or no?\nyou> ") == 2
    assert printed.index("I did not.") < printed.index("wrote 4 characters") < printed.index("I wrote it.")
    assert (root / "data" / "config.csv").read_text(encoding="utf-8") == "name"


def test_nothing_that_is_printed_moves_the_cursor(
    root: Path, scripted: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file, a call and an answer that hold control characters are printed with these escaped."""
    monkeypatch.chdir(root.parent)
    erase = "\x1b[1A\x1b[2K"
    (root / "notes.txt").write_text(f"evil{erase}\n", encoding="utf-8")
    write = calls("write_file", path="notes.txt", content=f"evil{erase}\x9b1A")
    run_talk(
        root, "Read it.\nWrite it.\nno\n", scripted(calls("read_file", path="notes.txt"), f"ok{erase}", write, "no")
    )
    printed = capsys.readouterr().out
    assert printed.count(r"evil\x1b[1A\x1b[2K") == 3  # the result, and both sides of the diff
    assert r"ok\x1b[1A" in printed
    assert not set("\x1b\x9b") & set(printed)


def test_a_question_for_leave_is_asked_again_by_the_next_process(
    root: Path,
    memory: HybridMemory,
    scripted: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program that ends while it waits has declined nothing: the next one asks first."""
    monkeypatch.chdir(root.parent)
    with open_checkpointer("sqlite:///deltamem.sqlite") as saver:
        agent = coding_agent(scripted(WRITE), memory, Workspace(root), saver)
        agent.invoke(said("Write 'name' to data/config.csv."), thread("t"))
    run_talk(root, "yes\n", scripted("I wrote it."))
    assert "yes or no?" in capsys.readouterr().out
    assert (root / "data" / "config.csv").read_text(encoding="utf-8") == "name"


def test_input_that_ends_at_a_question_declines_nothing(
    root: Path, scripted: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The thread waits on; the next process asks again, and its answer counts."""
    monkeypatch.chdir(root.parent)
    run_talk(root, "Write 'name' to data/config.csv.\n", scripted(WRITE, "It was declined."))
    printed = capsys.readouterr().out
    assert "not answered" in printed
    assert "declined" not in printed
    run_talk(root, "y\n", scripted("I wrote it."))
    assert "I wrote it." in capsys.readouterr().out
    assert (root / "data" / "config.csv").read_text(encoding="utf-8") == "name"


def test_ctrl_c_ends_a_script(
    root: Path, scripted: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is there to type the next line, and the rest of the script is not begun."""

    def interrupted() -> Iterator[AIMessage]:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        yield AIMessage("Too late.")

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.chdir(root.parent)
    model = scripted()
    model.messages = interrupted()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_talk(root, "Run the tests.\nRun the linter.\n", model)
    finally:
        signal.signal(signal.SIGINT, previous)
    printed = capsys.readouterr().out
    assert "[stopped]" in printed
    assert "linter" not in printed


def test_a_script_can_be_followed_by_a_program(
    root: Path, scripted: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json stdout is one object a line: who said what, what was called, what came back."""
    monkeypatch.chdir(root.parent)
    run_talk(root, "Write 'name' to data/config.csv.\nyes\n", scripted(WRITE, "I wrote it."), as_json=True)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = ["note", "note", "said", "call", "question", "said", "result", "answer"]
    assert [event["kind"] for event in events] == kinds
    assert events[3] == {"kind": "call", "call": "write_file", "arguments": WRITE.tool_calls[0]["args"]}
    assert [events[at]["text"] for at in (5, 6, 7)] == ["yes", "wrote 4 characters", "I wrote it."]


def test_a_script_that_cannot_be_read_is_one_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no text file is named before anything is opened."""
    monkeypatch.chdir(root.parent)
    with pytest.raises(ConfigError, match="--script takes a text file"):
        talk(
            lambda *_: None,  # type: ignore[arg-type,return-value] # never called
            ChatDeltaMem(),
            Settings(),
            about="",
            namespace=("coding", "test"),
            thread="t",
            script=root / "missing.txt",
        )
