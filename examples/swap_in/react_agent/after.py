"""An agent made with LangGraph's older `create_react_agent`."""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.prebuilt import create_react_agent

from deltamem_agents import ChatDeltaMem

__all__ = ["build"]


def build(saver: BaseCheckpointSaver[Any], window_tokens: int) -> Any:
    """Make the agent."""
    model = ChatDeltaMem(window_tokens=window_tokens)
    return create_react_agent(model, tools=[], checkpointer=saver)
