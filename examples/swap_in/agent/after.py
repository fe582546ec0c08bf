"""An agent made with `create_agent`."""

from typing import Any

from langchain.agents import create_agent
from langgraph.checkpoint.base import BaseCheckpointSaver

from deltamem_agents import ChatDeltaMem, DeltaMemMiddleware

__all__ = ["build"]


def build(saver: BaseCheckpointSaver[Any], window_tokens: int) -> Any:
    """Make the agent."""
    model = ChatDeltaMem(window_tokens=window_tokens)
    return create_agent(model, tools=[], middleware=[DeltaMemMiddleware()], checkpointer=saver)
