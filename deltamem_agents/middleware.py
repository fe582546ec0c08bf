"""Keep a thread's memory in the graph's state: middleware for create_agent, a node for StateGraph."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, NotRequired, TypedDict, cast

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.middleware.types import OmitFromSchema
from langchain_core.messages import BaseMessage, RemoveMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.graph import MessagesState
from langgraph.types import Command

from deltamem_agents.decided import decided_key
from deltamem_agents.memory_cell import MEMORY_KEY, MemoryCell, use_memory
from deltamem_agents.messages import to_entries
from deltamem_agents.policy import MemoryPolicy, PolicyChain
from deltamem_agents.retention import Retention, RetentionCall
from deltamem_agents.running import current_place, run_data, thread_of
from deltamem_agents.working_memory import WorkingMemory

__all__ = ["DeltaMemMessagesState", "DeltaMemMiddleware", "memory_node"]

Response = ModelResponse[Any]
Update = dict[str, Any]


class DeltaMemMessagesState(MessagesState):
    """Hold messages and the thread's memory: a state for a StateGraph with a memory_node.

    Give `StateGraph(DeltaMemMessagesState, input_schema=MessagesState, output_schema=MessagesState)`, so that no caller
    can send a memory in and none is returned.
    """

    delta_mem: NotRequired[bytes]
    delta_mem_decided: NotRequired[bytes]


class DeltaMemMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Give an agent's model its thread's memory, and checkpoint what the model makes of it.

    Put it last in the list (innermost): then other middleware's own model calls do not see the memory, and a retry
    starts from the memory that the failed attempt started from.
    """

    def __init__(
        self,
        *,
        private: bool = True,
        key: str = MEMORY_KEY,
        trim_history: bool = False,
        policy: PolicyChain | MemoryPolicy | Retention | None = None,
    ) -> None:
        """Choose where the memory lives, and who decides what is written to it.

        private: the state's key is in neither the graph's input nor its output; a memory sent by a client is ignored.
        False is for an agent that is a node of another graph whose state has the same key. key: the state's key;
        agents that share a state need one each. trim_history: absorbed messages also leave the state, so that a
        checkpoint stays the same size however long the thread. policy: asked once about each message, before it is
        written (docs/policies.md); what it decided is kept in the state beside the memory. None restricts nothing.
        """
        super().__init__()
        self.key = key
        self.trim_history = trim_history
        self.retention = policy if policy is None or isinstance(policy, Retention) else Retention(policy)
        kind = Annotated[bytes, OmitFromSchema(input=True, output=True)] if private else bytes
        keys = dict.fromkeys((key, *([] if policy is None else [decided_key(key)])), NotRequired[kind])
        schema = TypedDict("DeltaMemState", keys)  # type: ignore[misc] # named at run time
        self.state_schema = cast("type[AgentState[Any]]", schema)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Response]
    ) -> Response | ExtendedModelResponse[Any]:
        """Call the model with the thread's memory."""
        call = self._retention_call(request)
        with use_memory(self._memory(request), settling=call) as cell:
            response = handler(request)
        if call is not None:
            response = _replaced(response, [call.settle_reply(reply, cell.current) for reply in response.result])
        return self._with_update(request, response, cell, call)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Response]]
    ) -> Response | ExtendedModelResponse[Any]:
        """Call the model with the thread's memory, without blocking the event loop."""
        call = self._retention_call(request)
        with use_memory(self._memory(request), settling=call) as cell:
            response = await handler(request)
        if call is not None:
            replies = [await call.asettle_reply(reply, cell.current) for reply in response.result]
            response = _replaced(response, replies)
        return self._with_update(request, response, cell, call)

    def _memory(self, request: ModelRequest[Any]) -> bytes | str | None:
        return cast("bytes | str | None", cast("dict[str, Any]", request.state).get(self.key))

    def _retention_call(self, request: ModelRequest[Any]) -> RetentionCall | None:
        if self.retention is None:
            return None
        kept = cast("dict[str, Any]", request.state).get(decided_key(self.key))
        return self.retention.call(kept, thread_of(request.runtime), run_data(request.runtime))

    def _with_update(
        self, request: ModelRequest[Any], response: Response, cell: MemoryCell, call: RetentionCall | None
    ) -> Response | ExtendedModelResponse[Any]:
        said = request.state["messages"]
        update: dict[str, Any] = cell.update(self.key)
        removed = _removals(said, cell.out) if self.trim_history and cell.out is not None else []
        changed: list[BaseMessage] = []
        if call is not None:
            update[decided_key(self.key)] = call.to_bytes([*said, *response.result], cell.memory)
            ids = {message.id for message in said if message.id is not None}
            changed = [message for message in call.changed.values() if message.id in ids]
        if removed or changed:
            gone = {message.id for message in removed}
            update["messages"] = [*(message for message in changed if message.id not in gone), *removed]
        return ExtendedModelResponse(model_response=response, command=Command(update=update)) if update else response


def memory_node(
    model: Runnable[Any, BaseMessage],
    *,
    key: str = MEMORY_KEY,
    messages_key: str = "messages",
    policy: PolicyChain | MemoryPolicy | Retention | None = None,
) -> Runnable[Any, dict[str, Any]]:
    """Make a StateGraph node that calls a model with the thread's memory.

    model: a ChatDeltaMem, or anything made from one that takes messages (`model.bind_tools(...)`, `prompt | model`).
    key: the state's key for the memory, a `bytes` channel such as DeltaMemMessagesState.delta_mem. policy: as for
    DeltaMemMiddleware; the state then needs a second such channel, `<key>_decided`. The node works in invoke, stream
    and their asynchronous forms.
    """
    retention = policy if policy is None or isinstance(policy, Retention) else Retention(policy)

    def begun(state: dict[str, Any], config: RunnableConfig) -> RetentionCall | None:
        thread = config.get("configurable", {}).get("thread_id")
        return None if retention is None else retention.call(state.get(decided_key(key)), thread, current_place().run)

    def update(state: dict[str, Any], reply: BaseMessage, cell: MemoryCell, call: RetentionCall | None) -> Update:
        if call is None:
            return {messages_key: [reply], **cell.update(key)}
        kept = call.to_bytes([*state[messages_key], reply], cell.memory)
        # A node may also have asked about others.
        said = {message.id for message in state[messages_key] if message.id is not None}
        changed = [message for message in call.changed.values() if message.id in said]
        return {messages_key: [*changed, reply], **cell.update(key), decided_key(key): kept}

    def node(state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        call = begun(state, config)
        with use_memory(state.get(key), settling=call) as cell:
            reply = model.invoke(state[messages_key], config)
        reply = reply if call is None else call.settle_reply(reply, cell.current)
        return update(state, reply, cell, call)

    async def anode(state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        call = begun(state, config)
        with use_memory(state.get(key), settling=call) as cell:
            reply = await model.ainvoke(state[messages_key], config)
        reply = reply if call is None else await call.asettle_reply(reply, cell.current)
        return update(state, reply, cell, call)

    return RunnableLambda(node, anode, name="memory_node")


def _replaced(response: Response, replies: list[BaseMessage]) -> Response:
    return ModelResponse(result=replies, structured_response=response.structured_response)


def _removals(messages: Sequence[BaseMessage], memory: bytes) -> list[RemoveMessage]:
    """Name the messages that the memory has absorbed."""
    absorbed = set(WorkingMemory.from_bytes(memory).digests)
    entries = to_entries(messages)
    return [
        RemoveMessage(id=message.id)
        for message, entry in zip(messages, entries, strict=True)
        if message.id is not None and entry.role != "system" and entry.digest in absorbed
    ]
