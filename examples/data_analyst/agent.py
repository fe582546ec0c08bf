"""Put the agent together: a model, six tools on one table, and memory."""

from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ToolCallLimitMiddleware
from langchain_core.language_models import BaseChatModel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from deltamem_agents import HybridMemory

from .provenance import Provenance
from .table import Table
from .tools import AnalystState, table_tools

__all__ = ["data_agent"]

SYSTEM_PROMPT = "You are a data analyst."
_MAX_CALLS = 8


def data_agent(
    model: BaseChatModel,
    memory: HybridMemory,
    table: Table,
    pictures: Path,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return an agent that answers questions about `table` and saves its plots in the folder `pictures`.

    `response_metadata["assumptions"]` of an answer, and stream_mode="custom", say which assumptions it rests on.
    """
    middleware: list[AgentMiddleware[Any, Any, Any]] = [
        ToolCallLimitMiddleware(run_limit=_MAX_CALLS, exit_behavior="end"),
        *memory.middleware(trim_history=True),
        Provenance(memory, table.groups()),
    ]
    return create_agent(
        model,
        table_tools(table, pictures),
        system_prompt=SYSTEM_PROMPT,
        middleware=middleware,
        state_schema=AnalystState,
        checkpointer=checkpointer,
    )
