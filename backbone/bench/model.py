"""Measure prefill and decoding of any model with its adapter."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from backbone.adapter.model import MemoryModel

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


def prefill_overhead(model: MemoryModel, *, tokens: int = 4096, repeats: int = 5) -> Overhead:
    """Time one pass over a random prompt of `tokens` tokens, logits of the last position only."""
    ids = _random_ids(model, tokens)

    def frozen() -> None:
        model.backbone(input_ids=ids, logits_to_keep=1)

    def with_memory() -> None:
        model(ids, memory=model.empty_memory(), logits_to_keep=1)

    return Overhead("prefill", tokens, *_alternate(frozen, with_memory, repeats))


def decode_overhead(model: MemoryModel, *, tokens: int = 64, context: int = 256, repeats: int = 5) -> Overhead:
    """Time `tokens` single steps after a random prompt of `context` tokens, the tokens being given."""
    prompt, following = _random_ids(model, context), _random_ids(model, tokens)
    steps = [following[:, at : at + 1] for at in range(tokens)]

    def frozen() -> None:
        past = model.backbone(input_ids=prompt, logits_to_keep=1).past_key_values
        for step in steps:
            past = model.backbone(input_ids=step, past_key_values=past).past_key_values

    def with_memory() -> None:
        out = model(prompt, memory=model.empty_memory(), logits_to_keep=1)
        for step in steps:
            out = model(step, past_key_values=out.past_key_values, memory=out.memory)

    return Overhead("decode", tokens, *_alternate(frozen, with_memory, repeats))


def measure(model: MemoryModel, *, tokens: int = 4096, repeats: int = 5) -> list[Overhead]:
    """Return the overhead of prefill and of decoding."""
    return [
        prefill_overhead(model, tokens=tokens, repeats=repeats),
        decode_overhead(model, tokens=max(1, tokens // 64), repeats=repeats),
    ]


def _random_ids(model: MemoryModel, tokens: int) -> torch.Tensor:
    """Return [1, tokens] token ids from a fixed seed; the content does not change the cost."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(model.backbone.config.get_text_config().vocab_size)
    return torch.randint(0, vocabulary, (1, tokens), generator=generator).to(str(model.backbone.device))


@torch.no_grad()
def _alternate(first: Callable[[], None], second: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Return the median seconds of both, run in turns so that a change of the machine's load meets both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    first()
    second()
    for _ in range(repeats):
        for run, times in zip((first, second), seconds, strict=True):
            begin = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    return statistics.median(seconds[0]), statistics.median(seconds[1])
