"""Build the demo's agent, and talk to it one turn at a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from transformers.utils.logging import disable_progress_bar

from deltamem_agents import ChatDeltaMem, DeltaMemMiddleware, TurnReport, active_cell
from examples.demo.tools import project_tools

__all__ = ["DemoAgent", "Said"]

_MAX_REPLY_TOKENS = 48


class _Reports(AgentMiddleware[Any, Any]):
    """Collect what the model reports about each call: the prompt as it saw it, above all."""

    def __init__(self) -> None:
        self.seen: list[TurnReport] = []

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        """Let the model answer, and keep its report."""
        response = handler(request)
        cell = active_cell()
        if cell is not None and cell.report is not None:
            self.seen.append(cell.report)
        return response


@dataclass(frozen=True)
class Said:
    """Hold one turn: all its messages, seconds, and what the prompts of its model calls were."""

    messages: tuple[AnyMessage, ...]
    seconds: float
    reports: tuple[TurnReport, ...]

    @property
    def reply(self) -> str:
        """Return the last message's text."""
        return self.messages[-1].text

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Return (command or path, result) for each tool call of the turn."""
        asked: dict[str | None, str] = {}
        for message in self.messages:
            if isinstance(message, AIMessage):
                asked |= {call["id"]: " ".join(map(str, call["args"].values())) for call in message.tool_calls}
                asked |= {call["id"]: call["args"] or "" for call in message.invalid_tool_calls}
        results = [message for message in self.messages if isinstance(message, ToolMessage)]
        return [(asked.get(result.tool_call_id, "a malformed call"), result.text) for result in results]

    @property
    def prompts(self) -> str:
        """Return the text of all prompts of the turn."""
        return "\n".join(report.prompt_text for report in self.reports)


class DemoAgent:
    """An agent of LangChain with two tools, a checkpointer and working memory."""

    def __init__(self, saver: BaseCheckpointSaver[Any], project: Path) -> None:
        """Build the agent; nothing is loaded before the first turn."""
        disable_progress_bar()  # type: ignore[no-untyped-call] # transformers types no logging
        self.model = ChatDeltaMem(max_tokens=_MAX_REPLY_TOKENS)
        self.tools = project_tools(project)
        self._reports = _Reports()
        self.graph = create_agent(
            self.model, self.tools, middleware=[DeltaMemMiddleware(), self._reports], checkpointer=saver
        )

    def say(self, text: str, config: RunnableConfig) -> Said:
        """Send one message to the thread, or to the checkpoint, that `config` names."""
        before = len(self.graph.get_state(config).values.get("messages", ()))
        self._reports.seen.clear()
        begin = time.perf_counter()
        result = self.graph.invoke({"messages": [HumanMessage(text)]}, config)
        seconds = time.perf_counter() - begin
        return Said(tuple(result["messages"][before:]), seconds, tuple(self._reports.seen))

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text` as the model reads it."""
        return len(self.model.engine.backbone.tokenizer(text).input_ids)
