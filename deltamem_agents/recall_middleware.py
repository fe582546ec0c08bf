"""Middleware that archives a thread's messages and shows the model what the archive recalls."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse, ToolCallRequest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Command

from deltamem_agents.archiving import in_quarantine
from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.lineage import Lineage
from deltamem_agents.memory_cell import memory_from, watch_absorbing
from deltamem_agents.messages import RECALLED_KEY
from deltamem_agents.policy import PolicyContext, Trust
from deltamem_agents.recalled import RecalledBlock, recalled_report
from deltamem_agents.recalling import ArchiveRecall, in_window
from deltamem_agents.running import current_place, reading, run_data, thread_of
from deltamem_agents.tracing import run_metadata

__all__ = ["RECALLED_KEY", "RecallMiddleware", "RuledRecallMiddleware", "with_report"]

Response = ModelResponse[Any]
Result = ToolMessage | Command[Any]


class RecallMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Archive what is said, and put a recalled block before the newest user message of each model call.

    Replies list in `response_metadata["recalled"]` what was found: id, citation, score, trust, whether it was shown
    or why not, and whether the reply cites it. Put it before DeltaMemMiddleware in the list.
    """

    def __init__(self, recall: ArchiveRecall) -> None:
        super().__init__()
        self._recall = recall

    def after_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> None:
        """Archive the reply."""
        self._recall.archive(state["messages"], thread_of(runtime))

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Response]) -> Response:
        """Call the model with what the archive recalls."""
        with self._archiving(request):
            shown, block = self._search(request)
            with watch_absorbing() as turns, run_metadata(_told(block)):
                response = handler(request.override(messages=shown))
        self._recall.log_absorbed(turns)
        return _annotated(response, block)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Response]]
    ) -> Response:
        """Call the model with what the archive recalls, without blocking the event loop."""
        with self._archiving(request):
            shown, block = await asyncio.to_thread(self._search, request)
            with watch_absorbing() as turns, run_metadata(_told(block)):
                response = await handler(request.override(messages=shown))
        self._recall.log_absorbed(turns)
        return _annotated(response, block)

    @contextlib.contextmanager
    def _archiving(self, request: ModelRequest[Any]) -> Iterator[None]:
        """Hand over what people and tools have said; after the call it may have left the state.

        A ChatDeltaMem decides about it first, with the signals of its memory, and the archive follows.
        """
        later = isinstance(request.model, ChatDeltaMem) and bool(self._recall.policy.policies)
        if not later:
            self._recall.archive(request.state["messages"], thread_of(request.runtime))
        try:
            yield
        finally:
            if later:
                self._recall.archive(request.state["messages"], thread_of(request.runtime))

    def _search(self, request: ModelRequest[Any]) -> tuple[list[Any], RecalledBlock | None]:
        local = isinstance(request.model, ChatDeltaMem)
        return self._recall.with_recalled(
            request.messages,
            in_prompt=in_window(request.messages, memory_from(dict(request.state))) if local else request.messages,
            as_system=local,
            count_tokens=request.model.get_num_tokens if local else None,
            context=PolicyContext(self._recall.namespace, thread_of(request.runtime), run=run_data(request.runtime)),
        )


class RuledRecallMiddleware(RecallMiddleware):
    """Archive and recall under policies; they are also told what a tool's writes may come from."""

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        """Run a tool; what it writes to the store is trusted no more than what the thread has read."""
        with reading(self._trust(request)):
            return handler(request)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """Run a tool; what it writes to the store is trusted no more than what the thread has read."""
        with reading(await asyncio.to_thread(self._trust, request)):
            return await handler(request)

    def _trust(self, request: ToolCallRequest) -> Trust:
        """Return the lowest trust of what the call of a tool may come from."""
        recall, place = self._recall, current_place()
        held = in_quarantine(recall.store.records, recall.namespace, place.thread)
        lineage = Lineage(recall.retention, place.thread, place.run, held)
        for message in request.state["messages"]:
            lineage.through(message)  # decided here if the archive's thread has not come to it, which then finds that
        return lineage.lowest


def _told(block: RecalledBlock | None) -> dict[str, int]:
    """Count for the run's metadata what was found and shown."""
    passages = () if block is None else block.passages
    shown = sum(passage.verdict in {"shown", "excerpt"} for passage in passages)
    return {"deltamem_found": len(passages), "deltamem_shown": shown}


def _annotated(response: Response, block: RecalledBlock | None) -> Response:
    if block is None:
        return response
    result = [with_report(message, block) for message in response.result]
    return ModelResponse(result=result, structured_response=response.structured_response)


def with_report(message: BaseMessage, block: RecalledBlock) -> BaseMessage:
    """Return a reply that lists what was found for it; any other message as it is."""
    if not isinstance(message, AIMessage):
        return message
    metadata = {**message.response_metadata, RECALLED_KEY: recalled_report(block, message.text)}
    return message.model_copy(update={"response_metadata": metadata})
