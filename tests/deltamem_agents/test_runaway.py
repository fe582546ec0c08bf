"""What a state that runs away does to a thread. Here it is one sign of one message that makes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from transformers import AutoModelForCausalLM, AutoTokenizer

from backbone import StateNotFiniteError, load_adapter, save_adapter
from deltamem_agents import ChatDeltaMem, DeltaMemMiddleware, memory_from, open_checkpointer, use_memory

QUIET = [f"my {thing} is hello and the weather in the result of {thing} is yes" for thing in ("name", "tool", "user")]
LOUD = "hello # and the weather in the result of the tool is yes"
CONFIG: Any = {"configurable": {"thread_id": "a"}}


@pytest.fixture(params=[1e20, 3e38], ids=["exploding", "overflowing"], scope="module")
def model(
    request: pytest.FixtureRequest,
    model_folder: Path,
    make_model: Callable[..., ChatDeltaMem],
    tmp_path_factory: pytest.TempPathFactory,
) -> ChatDeltaMem:
    """Make a model whose first layer sees "#" in a component of its input that all other tokens leave at zero."""
    folder = tmp_path_factory.mktemp("runaway")
    tokenizer: Any = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.save_pretrained(folder)
    decoder = AutoModelForCausalLM.from_pretrained(model_folder)
    [loud] = tokenizer("#").input_ids
    with torch.no_grad():
        decoder.model.embed_tokens.weight[:, 0] = 0
        decoder.model.embed_tokens.weight[loud, 0] = 1
        decoder.lm_head.weight[loud] = 0  # never the likeliest, so that no reply says it
    decoder.save_pretrained(folder)
    adapted = load_adapter(decoder, model_folder / "token")
    adapted.adapter_tensors()["model.layers.0.self_attn.memory_v_proj"][:, 0] = request.param
    save_adapter(adapted, folder / "adapter")
    small = {"window_tokens": 60, "keep_tokens": 20, "max_tokens": 8}
    return make_model(model=str(folder), adapter=str(folder / "adapter"), **small)


def test_a_thread_keeps_the_memory_from_before_the_state_ran_away(model: ChatDeltaMem) -> None:
    """The turn that would absorb the message fails, nothing of it is saved, and the thread goes on from before it."""
    with open_checkpointer("memory://") as saver:
        agent: Any = create_agent(model, middleware=[DeltaMemMiddleware()], checkpointer=saver)

        saved: list[bytes] = []

        def say(*texts: str) -> None:
            for text in texts:
                agent.invoke({"messages": [HumanMessage(text)]}, CONFIG)
                found = memory_from(agent.get_state(CONFIG))
                saved.append(b"" if found is None else found.to_bytes())

        say(*QUIET)
        good = agent.get_state(CONFIG).config
        say(LOUD)
        with pytest.raises(StateNotFiniteError, match=r"layers\.0\.self_attn"):
            say(*QUIET)
        kept = memory_from(agent.get_state(CONFIG))
        assert kept is not None
        assert kept.to_bytes() == saved[-1]
        assert all(layer.abs().max() < 100 for layer in kept.state.layers.values())
        agent.invoke({"messages": [HumanMessage(QUIET[0])]}, good)


def test_nothing_is_said_from_a_state_that_ran_away(model: ChatDeltaMem) -> None:
    """The error comes before the first chunk, and the cell gives back the memory that came in."""
    with use_memory() as cell:
        model.invoke([HumanMessage(text) for text in QUIET])
    saved = cell.out
    assert saved is not None
    said: list[object] = []
    with use_memory(saved) as cell, pytest.raises(StateNotFiniteError):
        said.extend(model.stream([HumanMessage(text) for text in (*QUIET, LOUD, *QUIET)]))
    assert said == []
    assert cell.out is None
    assert cell.current == saved
