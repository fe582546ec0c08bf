"""The choice of the next token: greedy or sampled, from a private random source."""

import math
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from backbone.errors import ConfigError

__all__ = ["Sampling", "choose", "is_whole", "private_generator"]


@dataclass(frozen=True)
class Sampling:
    """Say how the next token is chosen.

    temperature 0 is greedy and reads neither top_k, top_p nor seed. top_k 0 and top_p 1 keep every token.
    The same seed gives the same tokens on any device, up to rounding; None draws a fresh one.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if not is_whole(self.max_tokens) or self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be a whole number of at least 1, got {self.max_tokens!r}")
        if not _is_real(self.temperature) or self.temperature < 0:
            raise ConfigError(f"temperature must be a number of at least 0 (0 is greedy), got {self.temperature!r}")
        if not _is_real(self.top_p) or not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1 (1 keeps every token), got {self.top_p!r}")
        if not is_whole(self.top_k) or self.top_k < 0:
            raise ConfigError(f"top_k must be a whole number of at least 0 (0 keeps every token), got {self.top_k!r}")
        if self.seed is not None and (not is_whole(self.seed) or not 0 <= self.seed < 2**63):
            raise ConfigError(f"seed must be None or a whole number from 0 to 2**63 - 1, got {self.seed!r}")


def private_generator(sampling: Sampling) -> torch.Generator:
    """Make the random source of one decoding; the global one is never touched."""
    # On the CPU whatever the model's device, so that a seed means the same everywhere.
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Pick the next token from logits [V], -inf where a token is not allowed."""
    logits = logits.float()
    if sampling.temperature == 0:
        return int(logits.argmax())
    probabilities = _distribution(logits, sampling)
    # One uniform number against the cumulative distribution: a draw costs no transfer of the vocabulary to the CPU.
    cumulative = probabilities.double().cumsum(0)
    threshold = torch.rand((), generator=generator, dtype=torch.float64).to(logits.device) * cumulative[-1]
    return int(torch.searchsorted(cumulative, threshold, right=True))


def _distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Turn logits [V] into probabilities [V] after temperature, top-k and top-p; the most likely token always stays."""
    # The largest logit becomes 0 first, so that a tiny temperature cannot overflow into NaN.
    scaled = (logits - logits.max()) / sampling.temperature
    if 0 < sampling.top_k < len(scaled):
        scaled = scaled.masked_fill(scaled < scaled.topk(sampling.top_k).values[-1], -math.inf)
    probabilities = scaled.softmax(0)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        probabilities = probabilities.index_fill(0, order[before >= sampling.top_p], 0.0)
    return probabilities


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether a value is an int; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
