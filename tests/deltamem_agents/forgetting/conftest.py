"""Threads whose replies are written beforehand: what one holds can be compared with what another one does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from deltamem_agents import ChatDeltaMem, DeltaMemMessagesState, use_memory
from deltamem_agents.middleware import _removals
from deltamem_agents.policy import MemoryPolicy
from deltamem_agents.retention import Retention

Turn = tuple[str, str]
SCRIPT: list[Turn] = [
    (
        f"in turn {number} my name is hello{number} and the tool of number {number} is yes in the result",
        f"yes the name of turn {number} is in the result of the tool {number}",
    )
    for number in range(9)
]


def scripted(
    model: ChatDeltaMem,
    replies: dict[str, AIMessage],
    saver: Any,
    *,
    trim: bool = False,
    policy: MemoryPolicy | None = None,
) -> Any:
    """Compile a graph whose node makes the model's turn, and then says what the script says."""
    retention = None if policy is None else Retention(policy)

    def node(state: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        messages = state["messages"]
        thread = config["configurable"]["thread_id"]
        call = None if retention is None else retention.call(state.get("delta_mem_decided"), thread, {})
        with use_memory(state.get("delta_mem"), settling=call) as cell:
            made = model.invoke(messages)
        reply = replies[messages[-1].id].model_copy(update={"response_metadata": made.response_metadata})
        removed = _removals(messages, cell.out) if trim and cell.out is not None else []
        kept = {} if call is None else {"delta_mem_decided": call.to_bytes([*messages, reply], cell.memory)}
        return {"messages": [*removed, reply], **cell.update(), **kept}

    builder = StateGraph(DeltaMemMessagesState, input_schema=MessagesState, output_schema=MessagesState)
    builder.add_node("model", node)
    builder.add_edge(START, "model")
    return builder.compile(checkpointer=saver)


def carrying(model: ChatDeltaMem, replies: dict[str, AIMessage], saver: Any) -> Any:
    """Compile a graph whose replies carry the memory."""

    def node(state: MessagesState) -> dict[str, Any]:
        messages: Sequence[BaseMessage] = state["messages"]
        made = model.invoke(messages)
        return {
            "messages": [
                replies[messages[-1].id or ""].model_copy(update={"response_metadata": made.response_metadata})
            ]
        }

    builder = StateGraph(MessagesState)
    builder.add_node("model", node)
    builder.add_edge(START, "model")
    return builder.compile(checkpointer=saver)


def talk(graph: Any, replies: dict[str, AIMessage], thread: str, turns: Sequence[int]) -> None:
    """Say these turns of the script in a thread."""
    for number in turns:
        said, answered = SCRIPT[number]
        replies[f"u{number}"] = AIMessage(answered, id=f"a{number}")
        config = {"configurable": {"thread_id": thread}}
        graph.invoke({"messages": [HumanMessage(said, id=f"u{number}")]}, config)


def assert_gone(folder: Path, text: str) -> None:
    """Assert that no file of a folder holds a text."""
    assert {file.name for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()} == set()
