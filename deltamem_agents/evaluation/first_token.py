"""Time the first token of a turn, with and without what earlier turns have read."""

import time
from dataclasses import dataclass
from statistics import mean

from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage

from backbone import EngineRegistry
from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.evaluation.threads import MAX_REPLY_TOKENS, requests
from deltamem_agents.memory_cell import use_memory

__all__ = ["FirstToken", "compare_first_tokens"]

# To each side of the turn: about as many turns as lie between two that absorb, so that one of those is among them.
_NEIGHBOURS = 7
_CACHE_BYTES = 2**28


@dataclass(frozen=True)
class FirstToken:
    """Hold means over a turn and its neighbours: seconds to the first token, and tokens computed before it."""

    turn: int
    turns: int
    warm_seconds: float
    cold_seconds: float
    warm_tokens: float
    cold_tokens: float

    @property
    def ratio(self) -> float:
        """Return warm ÷ cold."""
        return self.warm_seconds / self.cold_seconds


@dataclass(frozen=True)
class _Sample:
    seconds: float
    tokens: int
    reply: AIMessageChunk
    memory: bytes | str | None


def compare_first_tokens(turn: int) -> FirstToken:
    """Hold one thread with a prefix cache, and give the turns around `turn`, counted from 1, also to a model without.

    Both get the same messages and memory, one right after the other, in changing order. Raises RuntimeError if their
    replies differ.
    """
    registry = EngineRegistry()
    warm, cold = (
        ChatDeltaMem(max_tokens=MAX_REPLY_TOKENS, prefix_cache_bytes=size, registry=registry)
        for size in (_CACHE_BYTES, 0)
    )
    messages: list[BaseMessage] = []
    memory: bytes | str | None = None
    pairs = []
    try:
        for number, text in zip(range(1, turn + _NEIGHBOURS + 1), requests(), strict=False):
            messages.append(HumanMessage(text))
            measured = number >= turn - _NEIGHBOURS
            before = _answer(cold, messages, memory) if measured and number % 2 else None
            sample = _answer(warm, messages, memory)
            if measured:
                pairs.append((sample, _checked(sample, before or _answer(cold, messages, memory))))
            messages.append(sample.reply)
            memory = sample.memory
    finally:
        registry.close()
    seconds = [mean(sample.seconds for sample in samples) for samples in zip(*pairs, strict=True)]
    tokens = [mean(sample.tokens for sample in samples) for samples in zip(*pairs, strict=True)]
    return FirstToken(turn, len(pairs), *seconds, *tokens)


def _answer(model: ChatDeltaMem, messages: list[BaseMessage], memory: bytes | str | None) -> _Sample:
    """Stream a reply, and stop the clock at its first chunk."""
    with use_memory(memory) as cell:
        begin = time.perf_counter()
        stream = model.stream(messages)
        reply = next(stream)
        seconds = time.perf_counter() - begin
        for chunk in stream:
            reply += chunk
        return _Sample(seconds, reply.response_metadata["prefix_cache"]["computed_tokens"], reply, cell.current)


def _checked(warm: _Sample, cold: _Sample) -> _Sample:
    if (warm.reply.text, warm.memory) != (cold.reply.text, cold.memory):
        raise RuntimeError(f"the prefix cache changed a reply or a memory: {warm.reply.text!r}, {cold.reply.text!r}")
    return cold
