"""Middleware that notes on each reply which assumptions its calls made, and where they came from."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from deltamem_agents import ChatDeltaMem, HybridMemory, active_cell, recalled_text

from .assumptions import (
    ASSUMPTIONS_KEY,
    Assumption,
    Prompt,
    as_lines,
    kept_group,
    stated_unit,
    trace,
    unkept_group,
)
from .statements import ASSUMED, newest_statement
from .table import EVERYONE

__all__ = ["Provenance"]

Response = ModelResponse[Any]
Note = dict[str, str | None]


class Provenance(AgentMiddleware[Any, Any]):
    """Note the assumptions in `response_metadata["assumptions"]` of the calls, and of the answer that they led to.

    The answer's are also written to the graph's custom stream. A call with a value that nobody has stated is asked for
    once more, with what the user has said about it in the prompt; a call that failed is told under the answer, whatever
    the model makes of it. Put it after the memory's middleware in the list: there it sees the recalled block, and the
    prompt as the model saw it.
    """

    def __init__(self, memory: HybridMemory, groups: Sequence[str] = ()) -> None:
        """Take the memory whose archive is asked who said what, and the names of the table's groups."""
        super().__init__()
        self._memory = memory
        self._groups = "|".join(rf"{re.escape(group)}s?" for group in groups)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Response]) -> Response:
        """Call the model, and note what its reply assumes."""
        response = self._noted(request, handler(request))
        if (again := self._with_statement(request, response)) is not None:
            response = self._noted(again, handler(again))
        return self._shown(request, response)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Response]]
    ) -> Response:
        """Call the model, and note what its reply assumes, without blocking the event loop."""
        response = await asyncio.to_thread(self._noted, request, await handler(request))
        if (again := await asyncio.to_thread(self._with_statement, request, response)) is not None:
            response = await asyncio.to_thread(self._noted, again, await handler(again))
        return self._shown(request, response)

    def _with_statement(self, request: ModelRequest[Any], response: Response) -> ModelRequest[Any] | None:
        """Return a request that quotes what the user said about values which the reply's calls made up, if they did."""
        made_up = {
            str(note["name"])
            for message in response.result
            if isinstance(message, AIMessage) and message.tool_calls
            for note in message.response_metadata[ASSUMPTIONS_KEY]
            if note["source"] == "unknown" and str(note["value"]).lower() not in EVERYONE
        }
        asked = [assumed for assumed in ASSUMED.values() if assumed.name in made_up]
        found = [newest_statement(one, one.values or self._groups, self._memory) for one in asked]
        said = "\n".join(statement[1].text for statement in found if statement is not None)
        if not said:
            return None
        local = isinstance(request.model, ChatDeltaMem)
        count = request.model.get_num_tokens if local else None
        newest: list[Any] = [HumanMessage(said)]
        quoted, _ = self._memory.with_recalled(newest, in_prompt=(), as_system=local, count_tokens=count)
        others: list[Any] = [message for message in request.messages if not recalled_text([message])]
        at = len(others) - len(_turn(others)) - 1
        return request.override(messages=others[:at] + quoted[:-1] + others[at:]) if at >= 0 else None

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
        noted = {"response_metadata": {**message.response_metadata, ASSUMPTIONS_KEY: notes}}
        failed = [] if message.tool_calls else _failed(request.messages)
        told = {"content": "\n".join([message.text, *failed])} if failed else {}
        return message.model_copy(update=noted | told)

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
        worked = {m.tool_call_id for m in turn if isinstance(m, ToolMessage) and m.status != "error"}
        calls = [m for m in turn if isinstance(m, AIMessage) and any(call["id"] in worked for call in m.tool_calls)]
        notes = [note for m in calls for note in m.response_metadata.get(ASSUMPTIONS_KEY, ())]
        if not calls:
            return []
        if not any(note["name"] == ASSUMED["group"].name for note in notes):
            notes += [one.as_data() for one in [self._group(request.state)] if one]
        if unit := stated_unit(prompt, self._memory):
            notes.append(unit.as_data())
        return notes

    def _group(self, state: Mapping[str, Any]) -> Assumption | None:
        """Say which rows an answer is about, where that is not what the table has."""
        if group := state.get("subgroup"):
            return kept_group(str(group), self._memory)
        return None if "subgroup" in state else unkept_group(self._groups, self._memory)

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


def _failed(messages: Sequence[BaseMessage]) -> list[str]:
    """Return a line for each tool whose last call since the newest message of a person has failed."""
    last = {message.name: message for message in _turn(messages) if isinstance(message, ToolMessage)}
    return [f"Not done, {name}: {message.text}" for name, message in last.items() if message.status == "error"]


def _used_tools(messages: Sequence[BaseMessage]) -> bool:
    return any(isinstance(message, ToolMessage) for message in _turn(messages))
