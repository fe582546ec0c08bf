"""What puts a thread in order again after each error, with its memory as it was."""

import base64
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, FunctionMessage, HumanMessage, RemoveMessage

from backbone import (
    DeltaMemError,
    PromptError,
    StateFormatError,
    StateMismatchError,
    StateNotFiniteError,
    StateVersionError,
    WindowOverflowError,
)
from deltamem_agents import ChatDeltaMem, DeltaMemMiddleware, WorkingMemory, memory_from, open_checkpointer

SMALL: dict[str, Any] = {"window_tokens": 60, "keep_tokens": 20, "max_tokens": 8}
TOLD = [f"my {thing} is hello and the weather in the result of {thing} is yes" for thing in ("name", "tool", "user")]
LATER = [f"what is the {thing} in my result of the weather" for thing in ("name", "tool", "user")]
IMAGE = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aa"}}]
TROUBLED, CONTROL = ({"configurable": {"thread_id": name}} for name in ("troubled", "control"))
Build = Callable[..., Any]


@pytest.fixture(params=["middleware", "swap"])
def build(request: pytest.FixtureRequest, make_model: Callable[..., ChatDeltaMem], tmp_path: Path) -> Iterator[Build]:
    """Build an agent over the random model, on a SQLite file that all agents of a test share."""
    with open_checkpointer(f"sqlite:///{tmp_path}/threads.sqlite") as saver:

        def make(**options: Any) -> Any:
            memory = [DeltaMemMiddleware()] if request.param == "middleware" else []
            return create_agent(make_model(**SMALL, **options), middleware=memory, checkpointer=saver)

        yield make


def say(agent: Any, config: Any, texts: list[str]) -> list[str]:
    return [agent.invoke({"messages": [HumanMessage(text)]}, config)["messages"][-1].text for text in texts]


def memory_of(agent: Any, config: Any) -> WorkingMemory:
    values = agent.get_state(config).values
    found = memory_from(values if "delta_mem" in values else values["messages"])
    assert found is not None, "nothing has been absorbed"
    return found


def assert_goes_on(agent: Any) -> None:
    """Both threads answer alike from now on, and absorb the same."""
    assert say(agent, TROUBLED, LATER) == say(agent, CONTROL, LATER)
    # The matrices, which do not depend on the ids of messages.
    assert memory_of(agent, TROUBLED).state.to_bytes() == memory_of(agent, CONTROL).state.to_bytes()


def begin(agent: Any) -> None:
    for config in (TROUBLED, CONTROL):
        say(agent, config, TOLD)


@pytest.mark.parametrize(
    "message",
    [ChatMessage("x", role="narrator"), FunctionMessage("x", name="f"), HumanMessage(IMAGE)],
    ids=["role", "function", "image"],
)
@pytest.mark.parametrize("apart", [True, False], ids=["update_state", "with the next message"])
def test_a_message_that_cannot_be_read_is_removed_by_the_id_in_the_error(
    build: Build, message: BaseMessage, *, apart: bool
) -> None:
    """Every turn fails with the message's id until it is removed, as the error says or in the next turn's input."""
    agent = build()
    begin(agent)
    for sent in ([message], [HumanMessage("what is my name")]):
        with pytest.raises(PromptError, match="RemoveMessage") as caught:
            agent.invoke({"messages": sent}, TROUBLED)
    [identity] = re.findall(r"RemoveMessage\(id='([^']+)'\)", str(caught.value))
    unanswered = agent.get_state(TROUBLED).values["messages"][-1]
    remedy = [RemoveMessage(id=identity), RemoveMessage(id=unanswered.id)]
    if apart:
        agent.update_state(TROUBLED, {"messages": remedy})
        assert_goes_on(agent)
    else:
        agent.invoke({"messages": [*remedy, HumanMessage(LATER[0])]}, TROUBLED)
        say(agent, CONTROL, LATER[:1])
        assert_goes_on(agent)


def test_an_empty_list_is_an_error_and_the_thread_begins_with_the_next_message(build: Build) -> None:
    """A new thread without a message is refused, and is as good as new."""
    agent = build()
    with pytest.raises(PromptError, match="empty"):
        agent.invoke({"messages": []}, TROUBLED)
    begin(agent)
    assert_goes_on(agent)


def test_a_message_that_is_too_large_can_be_removed(build: Build) -> None:
    """Without it the thread is what it was before."""
    agent = build()
    begin(agent)
    with pytest.raises(WindowOverflowError, match="the message to answer has"):
        agent.invoke({"messages": [HumanMessage("hello " * 300, id="large")]}, TROUBLED)
    agent.update_state(TROUBLED, {"messages": [RemoveMessage(id="large")]})
    assert_goes_on(agent)


def test_a_thread_of_another_adapter_goes_on_with_its_own(
    build: Build, make_model: Callable[..., ChatDeltaMem]
) -> None:
    """The adapter that wrote the memory reads it again, after another one was refused."""
    agent, stranger = build(), build(adapter=str(make_model().adapter).replace("token", "message"))
    begin(agent)
    with pytest.raises(StateMismatchError):
        stranger.invoke({"messages": [HumanMessage("what is my name", id="asked")]}, TROUBLED)
    agent.update_state(TROUBLED, {"messages": [RemoveMessage(id="asked")]})
    assert_goes_on(agent)


def spoilt(found: WorkingMemory, kind: str) -> bytes:
    """Return bytes that no honest run leaves; all but the truncated ones have checksums that fit."""
    data, state = found.to_bytes(), found.state.to_bytes()
    if kind == "truncated":
        return data[: len(data) // 2]
    if kind == "newer":
        body = data[:8] + struct.pack("<H", 99) + data[10:-4]
    elif kind == "forged":
        body = data[:18] + b"[" + data[19:-4]  # where the header's brace was
    else:
        tensors = state[:-8] + struct.pack("<f", float("nan"))
        body = data[: -4 - len(state)] + tensors + struct.pack(">I", zlib.crc32(tensors))
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("truncated", StateFormatError),
        ("forged", StateFormatError),
        ("newer", StateVersionError),
        ("nan", StateNotFiniteError),
    ],
)
def test_a_thread_with_a_spoilt_memory_goes_on_from_the_checkpoint_before(
    build: Build, kind: str, error: type[DeltaMemError]
) -> None:
    """Every turn fails until one begins at the checkpoint before; from then on it is the thread it would have been."""
    agent = build()
    begin(agent)
    good = agent.get_state(TROUBLED).config
    data = spoilt(memory_of(agent, TROUBLED), kind)
    if "delta_mem" in agent.get_state(TROUBLED).values:
        agent.update_state(TROUBLED, {"delta_mem": data}, as_node="model")
    else:
        carrier = carriers(agent)[-1]
        carrier.response_metadata["delta_mem"] = base64.b64encode(data).decode()
        agent.update_state(TROUBLED, {"messages": [carrier]}, as_node="model")
    for _ in range(2):
        with pytest.raises(error):
            say(agent, TROUBLED, ["what is my name"])
    asked = LATER[0]
    resumed = agent.invoke({"messages": [HumanMessage(asked)]}, good)
    assert [resumed["messages"][-1].text] == say(agent, CONTROL, [asked])
    assert_goes_on(agent)


def carriers(agent: Any) -> list[AIMessage]:
    """Return the thread's messages that carry a memory."""
    said = agent.get_state(TROUBLED).values["messages"]
    return [m for m in said if isinstance(m, AIMessage) and "delta_mem" in m.response_metadata]
