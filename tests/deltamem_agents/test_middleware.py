"""What the middleware lets in and out, and what a spoilt memory does to a thread."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from backbone import DeltaMemError, MemoryState
from deltamem_agents import ChatDeltaMem, DeltaMemMiddleware, WorkingMemory, memory_from, open_checkpointer

SMALL: dict[str, Any] = {"window_tokens": 60, "keep_tokens": 20, "max_tokens": 8}
CONFIG: Any = {"configurable": {"thread_id": "a"}}
TOLD = [f"my {thing} is hello and the weather in the result of {thing} is yes" for thing in ("name", "tool", "user")]
Build = Callable[..., Any]


@pytest.fixture
def build(make_model: Callable[..., ChatDeltaMem]) -> Iterator[Build]:
    """Build an agent over the random model, with a checkpointer that all agents of a test share."""
    with open_checkpointer("memory://") as saver:

        def make(model: ChatDeltaMem | None = None, **options: Any) -> Any:
            middleware = [DeltaMemMiddleware(**options)]
            return create_agent(model or make_model(**SMALL), middleware=middleware, checkpointer=saver)

        yield make


def say(agent: Any, text: str, config: Any = CONFIG, **given: Any) -> dict[str, Any]:
    result: dict[str, Any] = agent.invoke({"messages": [HumanMessage(text)], **given}, config)
    return result


def memory(agent: Any, config: Any = CONFIG) -> WorkingMemory:
    found = memory_from(agent.get_state(config))
    assert found is not None, "nothing has been absorbed"
    return found


def test_a_memory_sent_as_input_is_ignored(build: Build) -> None:
    """A client can neither send a memory in nor read one out of the result."""
    agent, other = build(), {"configurable": {"thread_id": "b"}}
    for text in TOLD:
        say(agent, text)
    stolen = memory(agent).to_bytes()
    for text in TOLD:
        expected = say(agent, text, {"configurable": {"thread_id": "c"}})
        result = say(agent, text, other, delta_mem=stolen)
        assert "delta_mem" not in result
        assert result["messages"][-1].text == expected["messages"][-1].text
    fresh = memory(agent, {"configurable": {"thread_id": "c"}})
    assert memory(agent, other).state.to_bytes() == fresh.state.to_bytes()


@pytest.mark.parametrize("trim", [False, True])
def test_trimming_takes_absorbed_messages_out_of_the_checkpoint(build: Build, *, trim: bool) -> None:
    """With trimming a thread keeps its newest messages only; the replies and the memory are the same either way."""
    agent, plain = build(trim_history=trim), build()
    for text in [*TOLD, *TOLD]:
        said = say(agent, text)["messages"][-1].text
        assert said == say(plain, text, {"configurable": {"thread_id": "plain"}})["messages"][-1].text
    kept = agent.get_state(CONFIG).values["messages"]
    assert len(kept) <= 4 if trim else len(kept) == 12
    assert memory(agent).state.to_bytes() == memory(plain, {"configurable": {"thread_id": "plain"}}).state.to_bytes()


def spoilt(kind: str, found: WorkingMemory) -> bytes:
    """Return bytes that no honest run leaves."""
    data = found.to_bytes()
    if kind == "truncated":
        return data[: len(data) // 2]
    if kind == "forged":
        return data[:-20] + bytes(byte ^ 1 for byte in data[-20:])
    return b"not a memory"


@pytest.mark.parametrize("kind", ["truncated", "forged", "foreign"])
def test_a_spoilt_memory_is_an_error_and_the_thread_can_be_taken_up_before_it(build: Build, kind: str) -> None:
    """The turn fails with an error of this project, and the checkpoint before it goes on as it would have."""
    agent = build()
    for text in TOLD:
        say(agent, text)
    good = agent.get_state(CONFIG).config
    agent.update_state(CONFIG, {"delta_mem": spoilt(kind, memory(agent))}, as_node="model")
    with pytest.raises(DeltaMemError):
        say(agent, "what is the name")
    resumed = agent.invoke({"messages": [HumanMessage("what is the name")]}, good)
    assert len(resumed["messages"]) == 2 * len(TOLD) + 2


def test_another_adapter_is_refused_and_the_thread_stays_usable(
    build: Build, make_model: Callable[..., ChatDeltaMem]
) -> None:
    """A thread's memory belongs to the adapter that wrote it: another one is told so, and the first one goes on."""
    agent = build()
    for text in TOLD:
        say(agent, text)
    before = memory(agent).to_bytes()
    adapter = make_model().adapter
    assert adapter is not None
    stranger = build(make_model(**SMALL | {"adapter": adapter.replace("token", "message")}))
    with pytest.raises(DeltaMemError, match="adapter"):
        say(stranger, "what is the name")
    assert memory(agent).to_bytes() == before
    assert say(agent, "what is the name")["messages"][-1].text


def test_a_state_that_is_not_finite_never_reaches_the_checkpoint(build: Build) -> None:
    """NaN cannot be put into a memory's bytes, so it cannot be saved."""
    agent = build()
    for text in TOLD:
        say(agent, text)
    found = memory(agent)
    broken = {name: layer * float("nan") for name, layer in found.state.layers.items()}
    with pytest.raises(DeltaMemError):
        found.with_state(MemoryState(broken, found.state.fingerprint)).to_bytes()
