"""Turns with a prefix cache against the same turns without one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import ValidationError

from deltamem_agents import ChatDeltaMem, MemoryCell, use_memory

MakeModel = Callable[..., ChatDeltaMem]

SMALL = {"window_tokens": 60, "keep_tokens": 20, "max_tokens": 4}
PLENTY = 2**28
SYSTEMS = [None, "you weather", "you result and the user"]
TEXTS = ["hello", "my name is hello and the weather is yes", "what is the result of which tool " * 2]


@tool
def look() -> str:
    """Look."""
    return "the result is yes"


@dataclass
class Thread:
    """Hold what a graph would: a thread's messages and its memory."""

    messages: list[BaseMessage] = field(default_factory=list)
    memory: bytes | str | None = None


@dataclass(frozen=True)
class Turn:
    """Say something in a thread, which may first become a fork of another, under a system prompt."""

    thread: int
    fork_of: int | None
    system: str | None
    text: str


TURNS = st.lists(
    st.builds(
        Turn,
        thread=st.integers(0, 1),
        fork_of=st.sampled_from([None, None, None, 0, 1]),
        system=st.sampled_from([SYSTEMS[0], SYSTEMS[1], SYSTEMS[1], SYSTEMS[2]]),
        text=st.sampled_from(TEXTS),
    ),
    min_size=4,
    max_size=9,
)


def answer(model: Any, messages: list[BaseMessage], memory: bytes | str | None) -> tuple[AIMessage, MemoryCell]:
    with use_memory(memory) as cell:
        return model.invoke(messages), cell


def usage_of(reply: AIMessage) -> tuple[int, int, int]:
    """Return a reply's cached and computed tokens, and how many tokens of its prompt were cached."""
    cache = reply.response_metadata["prefix_cache"]
    assert reply.usage_metadata is not None
    return cache["cached_tokens"], cache["computed_tokens"], reply.usage_metadata["input_token_details"]["cache_read"]


def start_of_reply(model: ChatDeltaMem) -> int:
    """Return the tokens that a prompt ends with; they are read again, because those of the reply itself are written."""
    return len(model.engine.backbone.tokenizer.encode("<|im_start|>assistant\n"))


@given(turns=TURNS)
@settings(max_examples=5, deadline=None)
@pytest.mark.parametrize("budget", [4_000, 40_000, PLENTY])
@pytest.mark.parametrize("adapter", ["token", "states", "message"])
def test_a_warm_turn_says_and_remembers_what_a_cold_one_does(
    make_model: MakeModel, model_folder: Path, adapter: str, budget: int, turns: list[Turn]
) -> None:
    """Over threads, forks, system prompts, absorbing and eviction: the same text, the same bytes of memory."""
    options = {**SMALL, "adapter": str(model_folder / adapter), "temperature": 1.5, "seed": 3}
    warm, cold = (make_model(**options, prefix_cache_bytes=size) for size in (budget, 0))
    threads = [Thread(), Thread()]
    for turn in turns:
        if turn.fork_of is not None:
            other = threads[turn.fork_of]
            threads[turn.thread] = Thread(list(other.messages), other.memory)
        thread = threads[turn.thread]
        thread.messages.append(HumanMessage(turn.text))
        prompt = [*([] if turn.system is None else [SystemMessage(turn.system)]), *thread.messages]
        reply, cell = answer(warm, prompt, thread.memory)
        expected, expected_cell = answer(cold, prompt, thread.memory)
        assert reply.text == expected.text
        assert cell.out == expected_cell.out
        cached, computed, _ = usage_of(reply)
        assert cached + computed == usage_of(expected)[1]
        thread.messages.append(reply)
        thread.memory = cell.current


def test_a_warm_turn_reads_only_what_is_new(make_model: MakeModel) -> None:
    """The next turn computes its reply's and its question's tokens; without a cache everything is read each time."""
    warm, cold = make_model(window_tokens=400, prefix_cache_bytes=PLENTY + 1), make_model(prefix_cache_bytes=0)
    messages: list[BaseMessage] = [SystemMessage("you weather"), HumanMessage("hello")]
    before, cell = answer(warm, messages, None)
    assert before.usage_metadata is not None
    assert cell.report is not None
    begun = before.usage_metadata["input_tokens"]
    assert usage_of(before) == (0, begun, 0)
    messages += [before, HumanMessage("hello")]
    reply, _ = answer(warm, messages, None)
    assert reply.usage_metadata is not None
    cached = begun - start_of_reply(warm)
    assert usage_of(reply) == (cached, reply.usage_metadata["input_tokens"] - cached, cached)
    assert usage_of(answer(cold, messages, None)[0]) == (0, reply.usage_metadata["input_tokens"], 0)


def test_absorbing_reads_little_that_the_window_did_not(make_model: MakeModel) -> None:
    """What leaves the window was read from the same state before, all but the piece that now ends earlier."""
    model = make_model(**SMALL, prefix_cache_bytes=PLENTY + 2)
    thread = Thread()
    for _ in range(20):
        thread.messages.append(HumanMessage("my name is hello"))
        reply, cell = answer(model, thread.messages, thread.memory)
        thread.messages.append(reply)
        thread.memory = cell.current
        assert cell.report is not None
        if cell.report.absorbed_now:
            break
    cached, computed, of_prompt = usage_of(reply)
    assert of_prompt == 0  # read from a new state
    assert 0 < cached < cell.report.tokens_now
    assert computed < cell.report.prompt_tokens + cell.report.tokens_now - cached + 1
    assert cached > cell.report.tokens_now // 2


def test_tools_and_their_results_are_read_once(make_model: MakeModel) -> None:
    """A list of tools and a call with its result are part of what the next turn finds again."""
    plain = make_model(window_tokens=400, prefix_cache_bytes=0)
    warm, cold = (model.bind_tools([look]) for model in (make_model(window_tokens=400), plain))
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    messages: list[BaseMessage] = [HumanMessage("hello")]
    answer(warm, messages, None)
    messages += [call, ToolMessage("the result is yes", tool_call_id="1")]
    first, _ = answer(warm, messages, None)
    cached, computed, _ = usage_of(first)
    assert cached > computed
    messages += [first, HumanMessage("hello")]
    second, _ = answer(warm, messages, None)
    assert usage_of(second)[0] == cached + computed - start_of_reply(plain)
    assert second.text == answer(cold, messages, None)[0].text


def test_threads_at_the_same_time_do_not_disturb_one_another(make_model: MakeModel) -> None:
    """Turns whose steps take turns on the inference thread, with room for hardly any of them, say what they would."""
    warm, cold = make_model(prefix_cache_bytes=30_000), make_model(prefix_cache_bytes=0)
    prompts = [[HumanMessage(f"{text} {number}")] for number in range(4) for text in TEXTS]
    expected = [answer(cold, list(prompt), None)[0].text for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            replies = pool.map(lambda prompt: answer(warm, list(prompt), None)[0].text, prompts)
            assert list(replies) == expected


def test_a_size_below_0_is_refused(make_model: MakeModel) -> None:
    """prefix_cache_bytes counts bytes."""
    with pytest.raises(ValidationError, match="prefix_cache_bytes"):
        make_model(prefix_cache_bytes=-1)
