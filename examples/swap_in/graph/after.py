"""An agent written as a `StateGraph`."""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph

from deltamem_agents import ChatDeltaMem, DeltaMemMessagesState, memory_node

__all__ = ["build"]


def build(saver: BaseCheckpointSaver[Any], window_tokens: int) -> Any:
    """Make the agent."""
    model = ChatDeltaMem(window_tokens=window_tokens)
    graph = StateGraph(DeltaMemMessagesState, input_schema=MessagesState, output_schema=MessagesState)
    graph.add_node("model", memory_node(model))
    graph.add_edge(START, "model")
    return graph.compile(checkpointer=saver)
