"""Put the agent together: a model, five tools, approval of writes, and memory."""

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    InterruptOnConfig,
    ToolCallLimitMiddleware,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolCall
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from deltamem_agents import HybridMemory

from .sources import Sources
from .tools import workspace_tools
from .workspace import Workspace

__all__ = ["coding_agent"]

SYSTEM_PROMPT = "You are a coding assistant."
_MAX_CALLS = 8


def coding_agent(
    model: BaseChatModel,
    memory: HybridMemory,
    workspace: Workspace,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return an agent that works in `workspace` and asks before it writes a file.

    The pause is an interrupt: go on with Command(resume={"decisions": [{"type": "approve"}]}), or "reject" with a
    "message". A person is shown what the archive quotes by way of stream_mode="custom".
    """
    middleware: list[AgentMiddleware[Any, Any, Any]] = [
        ToolCallLimitMiddleware(run_limit=_MAX_CALLS, exit_behavior="end"),
        HumanInTheLoopMiddleware({"write_file": _approval(workspace)}),
        *memory.middleware(trim_history=True),
        Sources(),
    ]
    return create_agent(
        model,
        workspace_tools(workspace, memory),
        system_prompt=SYSTEM_PROMPT,
        middleware=middleware,
        checkpointer=checkpointer,
    )


def _approval(workspace: Workspace) -> InterruptOnConfig:
    def describe(tool_call: ToolCall, *_: object, **__: object) -> str:
        arguments = tool_call["args"]
        return workspace.preview(str(arguments.get("path", "")), str(arguments.get("content", "")))

    return InterruptOnConfig(allowed_decisions=["approve", "reject"], description=describe)
