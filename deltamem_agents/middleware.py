"""Keep a thread's memory in the graph's state: middleware for create_agent, a node for StateGraph."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, NotRequired, TypedDict, cast

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.middleware.types import OmitFromSchema
from langchain_core.messages import BaseMessage, RemoveMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.graph import MessagesState
from langgraph.types import Command

from deltamem_agents.memory_cell import MEMORY_KEY, MemoryCell, use_memory
from deltamem_agents.messages import to_entries
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["DeltaMemMessagesState", "DeltaMemMiddleware", "memory_node"]

Response = ModelResponse[Any]


class DeltaMemMessagesState(MessagesState):
    """Hold messages and the thread's memory: a state for a StateGraph with a memory_node.

    Give `StateGraph(DeltaMemMessagesState, input_schema=MessagesState, output_schema=MessagesState)`, so that no caller
    can send a memory in and none is returned.
    """

    delta_mem: NotRequired[bytes]


class DeltaMemMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Give an agent's model its thread's memory, and checkpoint what the model makes of it.

    Put it last in the list (innermost): then other middleware's own model calls do not see the memory, and a retry
    starts from the memory that the failed attempt started from.
    """

    def __init__(self, *, private: bool = True, key: str = MEMORY_KEY, trim_history: bool = False) -> None:
        """Choose where the memory lives.

        private: the state's key is in neither the graph's input nor its output; a memory sent by a client is ignored.
        False is for an agent that is a node of another graph whose state has the same key. key: the state's key;
        agents that share a state need one each. trim_history: absorbed messages also leave the state, so that a
        checkpoint stays the same size however long the thread.
        """
        super().__init__()
        self.key = key
        self.trim_history = trim_history
        kind = Annotated[bytes, OmitFromSchema(input=True, output=True)] if private else bytes
        schema = TypedDict("DeltaMemState", {key: NotRequired[kind]})  # type: ignore[misc] # named at run time
        self.state_schema = cast("type[AgentState[Any]]", schema)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Response]
    ) -> Response | ExtendedModelResponse[Any]:
        """Call the model with the thread's memory."""
        with use_memory(self._memory(request)) as cell:
            response = handler(request)
        return self._with_update(request, response, cell)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Response]]
    ) -> Response | ExtendedModelResponse[Any]:
        """Call the model with the thread's memory, without blocking the event loop."""
        with use_memory(self._memory(request)) as cell:
            response = await handler(request)
        return self._with_update(request, response, cell)

    def _memory(self, request: ModelRequest[Any]) -> bytes | str | None:
        return cast("bytes | str | None", cast("dict[str, Any]", request.state).get(self.key))

    def _with_update(
        self, request: ModelRequest[Any], response: Response, cell: MemoryCell
    ) -> Response | ExtendedModelResponse[Any]:
        if cell.out is None:
            return response
        update: dict[str, Any] = {self.key: cell.out}
        if self.trim_history:
            update["messages"] = _removals(request.state["messages"], cell.out)
        return ExtendedModelResponse(model_response=response, command=Command(update=update))


def memory_node(
    model: Runnable[Any, BaseMessage], *, key: str = MEMORY_KEY, messages_key: str = "messages"
) -> Runnable[Any, dict[str, Any]]:
    """Make a StateGraph node that calls a model with the thread's memory.

    model: a ChatDeltaMem, or anything made from one that takes messages (`model.bind_tools(...)`, `prompt | model`).
    key: the state's key for the memory, a `bytes` channel such as DeltaMemMessagesState.delta_mem. The node works in
    invoke, stream and their asynchronous forms.
    """

    def node(state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        with use_memory(state.get(key)) as cell:
            reply = model.invoke(state[messages_key], config)
        return {messages_key: [reply], **cell.update(key)}

    async def anode(state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        with use_memory(state.get(key)) as cell:
            reply = await model.ainvoke(state[messages_key], config)
        return {messages_key: [reply], **cell.update(key)}

    return RunnableLambda(node, anode, name="memory_node")


def _removals(messages: Sequence[BaseMessage], memory: bytes) -> list[RemoveMessage]:
    """Name the messages that the memory has absorbed."""
    absorbed = set(WorkingMemory.from_bytes(memory).digests)
    entries = to_entries(messages)
    return [
        RemoveMessage(id=message.id)
        for message, entry in zip(messages, entries, strict=True)
        if message.id is not None and entry.role != "system" and entry.digest in absorbed
    ]
