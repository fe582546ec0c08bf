"""What the examples' READMEs say that the bundled model understands leads it to the tools that they name."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from deltamem_agents import ChatDeltaMem, HybridMemory
from examples.coding_assistant.agent import coding_agent
from examples.coding_assistant.workspace import Workspace
from examples.data_analyst.agent import data_agent
from examples.data_analyst.table import diabetes_table

EXAMPLES = Path(__file__).parents[2] / "examples"


def rows(name: str) -> list[tuple[str, list[str]]]:
    """Return the tools of a README's table, each with what is said until it is called."""
    text = (EXAMPLES / name / "README.md").read_text("utf-8")
    table = text.split("## What the bundled model understands")[1].split("##")[0]
    found = [
        (row[2], re.findall(r'"([^"]+)"', row[1]))
        for row in re.finditer(r"^\| (.*) \| `(\w+)` \|$", table, re.MULTILINE)
    ]
    assert len(found) == 6
    return found


def turn(agent: Any, text: str, thread: str) -> tuple[list[str], str]:
    """Return the tools that a turn called, and how it ended."""
    said = {"messages": [{"role": "user", "content": text}]}
    messages = agent.invoke(said, {"configurable": {"thread_id": thread}})["messages"]
    newest = next(n for n in range(len(messages) - 1, -1, -1) if messages[n].type == "human")
    replies = [one for one in messages[newest:] if isinstance(one, AIMessage)]
    return [call["name"] for one in replies for call in one.tool_calls], messages[-1].text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coding_assistant", "data_analyst"])
def test_the_listed_requests_call_the_listed_tools(name: str, memory: HybridMemory, tmp_path: Path) -> None:
    """A sentence is noted, or calls the tool of its row and no other; the last of a row calls it."""
    saver = InMemorySaver()
    if name == "coding_assistant":
        project = shutil.copytree(EXAMPLES / name / "sample_project", tmp_path / "project")
        agent = coding_agent(ChatDeltaMem(), memory, Workspace(project), saver)
    else:
        agent = data_agent(ChatDeltaMem(), memory, diabetes_table(), tmp_path, saver)
    for number, (tool, sentences) in enumerate(rows(name)):
        for text in sentences:
            called, ending = turn(agent, text, str(number))
            memory.flush()  # or what the next request recalls would depend on how busy the machine is
            assert called == [tool] or (text != sentences[-1] and ending.startswith("Noted:") and not called), text
