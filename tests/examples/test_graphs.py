"""The graphs that langgraph.json names, loaded as LangGraph's server loads them."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

ROOT = Path(__file__).parents[2]
GRAPHS: dict[str, str] = json.loads((ROOT / "langgraph.json").read_text())["graphs"]


def load(path: str) -> Any:
    file, _, name = path.partition(":")
    spec = importlib.util.spec_from_file_location("served_graph", ROOT / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def test_both_agents_are_named() -> None:
    """Studio lists the coding assistant and the data analyst."""
    assert set(GRAPHS) == {"coding", "data"}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_has_no_checkpointer_and_answers_with_the_servers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server puts its own checkpointer into a copy of the graph; the thread then goes on from turn to turn."""
    monkeypatch.chdir(tmp_path)
    graph = load(GRAPHS[name])
    assert graph.checkpointer is None
    served = graph.copy(update={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": "1"}}
    for turn in (1, 2):
        served.invoke({"messages": [HumanMessage("Thank you.", id=str(turn))]}, config)
    said = [message for message in served.get_state(config).values["messages"] if isinstance(message, HumanMessage)]
    assert [message.id for message in said] == ["1", "2"]
