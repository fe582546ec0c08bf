"""Measure prefill and decoding of any model with its adapter."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from backbone.adapter.model import MemoryModel
from backbone.bench.case import random_ids
from backbone.bench.timing import Clock, synchronised, take_turns

__all__ = ["Overhead", "decode_overhead", "measure", "prefill_overhead"]


@dataclass(frozen=True)
class Overhead:
    """Hold median seconds for `tokens` tokens, frozen backbone alone and with the memory."""

    what: str
    tokens: int
    frozen_seconds: float
    memory_seconds: float

    @property
    def ratio(self) -> float:
        """Return how many times as long it takes with the memory."""
        return self.memory_seconds / self.frozen_seconds


@torch.no_grad()
def prefill_overhead(
    model: MemoryModel, *, tokens: int = 4096, repeats: int = 5, clock: Clock = synchronised
) -> Overhead:
    """Time one pass over a random prompt of `tokens` tokens, logits of the last position only."""
    ids = _ids(model, tokens)

    def frozen() -> object:
        return model.backbone(input_ids=ids, logits_to_keep=1)

    def with_memory() -> object:
        return model(ids, memory=model.empty_memory(), logits_to_keep=1)

    return _overhead("prefill", tokens, frozen, with_memory, repeats, clock)


@torch.no_grad()
def decode_overhead(
    model: MemoryModel, *, tokens: int = 64, context: int = 256, repeats: int = 5, clock: Clock = synchronised
) -> Overhead:
    """Time `tokens` single steps after a random prompt of `context` tokens, the tokens being given.

    Each repeat goes on from the one before, with a longer cache.
    """
    prompt, steps = _ids(model, context), torch.split(_ids(model, tokens), 1, dim=1)

    def frozen() -> Iterator[None]:
        past = model.backbone(input_ids=prompt, logits_to_keep=1).past_key_values
        while True:
            for step in steps:
                past = model.backbone(input_ids=step, past_key_values=past).past_key_values
            yield

    def with_memory() -> Iterator[None]:
        out = model(prompt, memory=model.empty_memory(), logits_to_keep=1)
        while True:
            for step in steps:
                out = model(step, past_key_values=out.past_key_values, memory=out.memory)
            yield

    # The prompt is read in the first run of each, which is not timed.
    first, second = frozen(), with_memory()
    return _overhead("decode", tokens, lambda: next(first), lambda: next(second), repeats, clock)


def measure(model: MemoryModel, *, tokens: int = 4096, repeats: int = 5) -> list[Overhead]:
    """Return the overhead of prefill and of decoding."""
    return [
        prefill_overhead(model, tokens=tokens, repeats=repeats),
        decode_overhead(model, tokens=max(1, tokens // 64), repeats=repeats),
    ]


def _ids(model: MemoryModel, tokens: int) -> torch.Tensor:
    vocabulary = int(model.backbone.config.get_text_config().vocab_size)
    return random_ids(1, tokens, vocabulary).to(str(model.backbone.device))


def _overhead(
    what: str, tokens: int, frozen: Callable[[], object], memory: Callable[[], object], repeats: int, clock: Clock
) -> Overhead:
    seconds = take_turns({"frozen": frozen, "memory": memory}, repeats, clock=clock)
    return Overhead(what, tokens, statistics.median(seconds["frozen"]), statistics.median(seconds["memory"]))
