"""An agent made with LangGraph's older `create_react_agent`."""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.prebuilt import create_react_agent

from examples.swap_in.plain_chat import PlainChat

__all__ = ["build"]


def build(saver: BaseCheckpointSaver[Any], window_tokens: int) -> Any:
    """Make the agent."""
    model = PlainChat(window_tokens=window_tokens)
    return create_react_agent(model, tools=[], checkpointer=saver)
