"""An agent written as a `StateGraph`."""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph

from examples.swap_in.plain_chat import PlainChat

__all__ = ["build"]


def build(saver: BaseCheckpointSaver[Any], window_tokens: int) -> Any:
    """Make the agent."""
    model = PlainChat(window_tokens=window_tokens)
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "model")
    return graph.compile(checkpointer=saver)
