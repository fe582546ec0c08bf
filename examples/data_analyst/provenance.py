"""Middleware that notes on each reply which assumptions its calls made, and where they came from."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from deltamem_agents import HybridMemory, active_cell

from .assumptions import ASSUMED, ASSUMPTIONS_KEY, Prompt, as_lines, kept_group, stated_unit, trace

__all__ = ["Provenance"]

Response = ModelResponse[Any]
Note = dict[str, str | None]


class Provenance(AgentMiddleware[Any, Any]):
    """Note the assumptions in `response_metadata["assumptions"]` of the calls, and of the answer that they led to.

    The answer's are also written to the graph's custom stream. Put it after the memory's middleware in the list: there
    it sees the recalled block, and the prompt as the model saw it.
    """

    def __init__(self, memory: HybridMemory) -> None:
        """Take the memory whose archive is asked who said what."""
        super().__init__()
        self._memory = memory

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Response]) -> Response:
        """Call the model, and note what its reply assumes."""
        return self._shown(request, self._noted(request, handler(request)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Response]]
    ) -> Response:
        """Call the model, and note what its reply assumes, without blocking the event loop."""
        response = await handler(request)
        return self._shown(request, await asyncio.to_thread(self._noted, request, response))

    def _noted(self, request: ModelRequest[Any], response: Response) -> Response:
        cell = active_cell()
        text = None if cell is None or cell.report is None else cell.report.prompt_text
        prompt = Prompt(request.messages, text)
        result = [self._with_notes(message, request, prompt) for message in response.result]
        return ModelResponse(result=result, structured_response=response.structured_response)

    def _with_notes(self, message: BaseMessage, request: ModelRequest[Any], prompt: Prompt) -> BaseMessage:
        if not isinstance(message, AIMessage):
            return message
        notes = self._of_calls(message, prompt) if message.tool_calls else self._of_answer(request, prompt)
        return message.model_copy(update={"response_metadata": {**message.response_metadata, ASSUMPTIONS_KEY: notes}})

    def _of_calls(self, message: AIMessage, prompt: Prompt) -> list[Note]:
        return [
            trace(argument, str(value).strip(), prompt, self._memory).as_data()
            for call in message.tool_calls
            for argument, value in call["args"].items()
            if argument in ASSUMED
        ]

    def _of_answer(self, request: ModelRequest[Any], prompt: Prompt) -> list[Note]:
        """Gather the notes of the calls that an answer rests on, the subgroup they were made for, and the unit."""
        turn = _turn(request.messages)
        notes = [n for m in turn if isinstance(m, AIMessage) for n in m.response_metadata.get(ASSUMPTIONS_KEY, ())]
        group = request.state.get("subgroup")
        if group and _used_tools(request.messages) and not any(n["name"] == ASSUMED["group"].name for n in notes):
            notes.append(kept_group(str(group), self._memory).as_data())
        if _used_tools(request.messages) and (unit := stated_unit(prompt, self._memory)):
            notes.append(unit.as_data())
        return notes

    def _shown(self, request: ModelRequest[Any], response: Response) -> Response:
        for message in response.result:
            if isinstance(message, AIMessage) and not message.tool_calls and _used_tools(request.messages):
                notes = message.response_metadata[ASSUMPTIONS_KEY]
                request.runtime.stream_writer(f"assumptions:\n{as_lines(notes)}")
        return response


def _turn(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """Return what came after the newest message of a person."""
    newest = max((at for at, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    return messages[newest + 1 :]


def _used_tools(messages: Sequence[BaseMessage]) -> bool:
    return any(isinstance(message, ToolMessage) for message in _turn(messages))
