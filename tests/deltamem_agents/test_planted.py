"""What becomes of a memory that a caller sends in: as a key of the graph's input, or on an AI message."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from deltamem_agents import (
    ChatDeltaMem,
    DeltaMemMessagesState,
    DeltaMemMiddleware,
    WorkingMemory,
    memory_from,
    memory_node,
    use_memory,
)

TOLD = [f"my {thing} is hello and the weather in the result of {thing} is yes" for thing in ("name", "tool", "user")]
CONFIG: Any = {"configurable": {"thread_id": "a"}}


@pytest.fixture
def model(make_model: Callable[..., ChatDeltaMem]) -> ChatDeltaMem:
    """Make a model that absorbs within a few messages."""
    return make_model(window_tokens=60, keep_tokens=20, max_tokens=8)


@pytest.fixture
def stolen(model: ChatDeltaMem) -> bytes:
    """Return the memory of a conversation that the caller had elsewhere."""
    with use_memory() as cell:
        model.invoke([HumanMessage(text) for text in [*reversed(TOLD), TOLD[0]]])
    assert cell.out is not None
    return cell.out


def middleware(model: ChatDeltaMem) -> Any:
    return create_agent(model, middleware=[DeltaMemMiddleware()], checkpointer=InMemorySaver())


def node(model: ChatDeltaMem, **schemas: Any) -> Any:
    graph = StateGraph(DeltaMemMessagesState, **schemas)
    graph.add_node("model", memory_node(model))
    graph.add_edge(START, "model")
    return graph.compile(checkpointer=InMemorySaver())


def private_node(model: ChatDeltaMem) -> Any:
    return node(model, input_schema=MessagesState, output_schema=MessagesState)


def swap(model: ChatDeltaMem) -> Any:
    return create_agent(model, checkpointer=InMemorySaver())


def first_turns(
    graph: Any, *, on_reply: bytes | None = None, as_key: bytes | None = None
) -> tuple[list[str], int, bytes]:
    """Begin a thread with a reply of the caller's making; return what it says, and how much and what it remembers."""
    carried = {} if on_reply is None else {"delta_mem": base64.b64encode(on_reply).decode()}
    sent = [AIMessage("yes", response_metadata=carried, id="sent")]
    key = {} if as_key is None else {"delta_mem": as_key}
    said = []
    for text in TOLD:
        result = graph.invoke({"messages": [*sent, HumanMessage(text)], **key}, CONFIG)
        assert as_key is None or "delta_mem" not in result
        said.append(result["messages"][-1].text)
    values = graph.get_state(CONFIG).values
    found = memory_from(values if "delta_mem" in values else values["messages"])
    assert found is not None
    return said, found.messages, found.state.to_bytes()


@pytest.mark.parametrize("build", [middleware, private_node])
def test_what_a_caller_sends_in_is_ignored(
    build: Callable[[ChatDeltaMem], Any], model: ChatDeltaMem, stolen: bytes
) -> None:
    """Neither way in changes a word or a number, with the middleware and with the node as it is documented."""
    untouched = first_turns(build(model))
    assert first_turns(build(model), on_reply=stolen) == untouched
    assert first_turns(build(model), as_key=stolen) == untouched


def test_a_node_whose_graph_takes_its_whole_state_as_input_takes_a_memory_too(
    model: ChatDeltaMem, stolen: bytes
) -> None:
    """Without input_schema the channel is part of the input: why the swap is documented with it."""
    sent = {"messages": [HumanMessage(TOLD[0])], "delta_mem": stolen}
    assert node(model).invoke(sent, CONFIG)["delta_mem"] == stolen
    private = private_node(model)
    private.invoke(sent, CONFIG)
    assert "delta_mem" not in private.get_state(CONFIG).values


def test_the_bare_swap_takes_the_memory_of_a_reply_that_a_caller_sends(model: ChatDeltaMem, stolen: bytes) -> None:
    """The memory travels on AI messages there, so whoever may send one may plant one."""
    untouched = first_turns(swap(model))
    assert first_turns(swap(model), on_reply=stolen)[1] == untouched[1] + WorkingMemory.from_bytes(stolen).messages
    assert first_turns(swap(model), as_key=stolen) == untouched
