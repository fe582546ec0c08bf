"""An agent made with `create_agent`."""

from typing import Any

from langchain.agents import create_agent
from langgraph.checkpoint.base import BaseCheckpointSaver

from examples.swap_in.plain_chat import PlainChat

__all__ = ["build"]


def build(saver: BaseCheckpointSaver[Any], window_tokens: int) -> Any:
    """Make the agent."""
    model = PlainChat(window_tokens=window_tokens)
    return create_agent(model, tools=[], checkpointer=saver)
