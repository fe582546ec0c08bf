"""Prefill and decode: token ids and memory in, token ids and memory out.

Nothing here knows text, and nothing here keeps state between calls. Both functions are generators whose every step
is one forward pass at most, so that an engine can run many of them in turn.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import Cache

from backbone.adapter.model import MemoryModel, MemoryOutput
from backbone.adapter.state import MemoryState
from backbone.errors import ConfigError
from backbone.sampling import Sampling, choose, is_whole, private_generator

__all__ = ["Constraint", "Finished", "Prefilled", "Sampling", "TokenPrompt", "decode", "prefill"]


class Constraint(Protocol):
    """Say which tokens may come next; one object serves one decoding."""

    @property
    def done(self) -> bool:
        """Whether nothing but the end may follow."""

    def mask(self, logits: Tensor) -> Tensor:
        """Return logits [V] with -inf wherever a token may not come next."""

    def accept(self, token_id: int) -> None:
        """Take note of the token that was chosen."""


@dataclass(frozen=True)
class TokenPrompt:
    """Hold a prompt: ids, whether each token is written to the memory, and (SSW) the segment of each token.

    segment_ids matter only to adapters that write messages or sentences, and these need them; -1 marks a token that is
    not written.
    """

    ids: tuple[int, ...]
    write_mask: tuple[bool, ...]
    segment_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse an empty prompt and parts of different lengths."""
        count = len(self.ids)
        if count == 0:
            raise ConfigError("the prompt has no tokens; give at least one")
        if len(self.write_mask) != count:
            raise ConfigError(f"write_mask must have one entry a token, {count}, got {len(self.write_mask)}")
        if self.segment_ids is not None and len(self.segment_ids) != count:
            raise ConfigError(f"segment_ids must have one entry a token, {count}, got {len(self.segment_ids)}")

    def piece(self, start: int, end: int) -> "TokenPrompt":
        """Return the tokens from start up to, not including, end."""
        segments = None if self.segment_ids is None else self.segment_ids[start:end]
        return TokenPrompt(self.ids[start:end], self.write_mask[start:end], segments)


class Prefilled(NamedTuple):
    """Hold what a prompt leaves behind; decode continues from it, and extends its key-value cache in place.

    logits are [1, V] for the token after the prompt, or None where nobody asked for them.
    states_at has the memory after each of the asked counts of tokens, in the order asked.
    """

    memory: MemoryState
    past_key_values: Cache | None
    logits: Tensor | None
    states_at: list[MemoryState]


class Finished(NamedTuple):
    """Say why decoding ended, and hold the memory after every token that was yielded."""

    reason: Literal["stop", "length"]
    memory: MemoryState


def prefill(
    model: MemoryModel,
    prompt: TokenPrompt,
    memory: MemoryState | None,
    *,
    state_positions: Sequence[int] = (),
    piece: int = 512,
    need_logits: bool = True,
) -> Generator[None, None, Prefilled]:
    """Read the prompt in pieces of at most `piece` tokens, one piece a step; any `piece` gives the same result.

    memory None is the empty memory. state_positions are counts of prompt tokens, in any order; 0 is `memory` itself.
    Raises ConfigError for a piece below 1 or a position outside the prompt.
    """
    total = len(prompt.ids)
    if not is_whole(piece) or piece < 1:
        raise ConfigError(f"piece must be a whole number of at least 1, got {piece!r}")
    for position in state_positions:
        if not 0 <= position <= total:
            raise ConfigError(f"state_positions must lie from 0 to {total} (the prompt's length), got {position}")
    memory = model.empty_memory() if memory is None else memory
    past: Cache | None = None
    logits: Tensor | None = None
    found: dict[int, MemoryState] = {}
    for start in range(0, total, piece):
        end = min(start + piece, total)
        wanted = sorted({n for n in state_positions if start < n <= end or n == start == 0})
        last = end == total
        logits, past, memory, memory_at = _advance(
            model, prompt.piece(start, end), past, memory, [n - start for n in wanted], need_logits=need_logits and last
        )
        found.update(zip(wanted, memory_at, strict=True))
        if not last:
            yield
    states_at = [found[n] for n in state_positions]
    return Prefilled(memory, past, None if logits is None else logits[None], states_at)


def decode(
    model: MemoryModel,
    prefilled: Prefilled,
    sampling: Sampling,
    *,
    eos_ids: Collection[int],
    constraint: Constraint | None = None,
    write: bool = True,
    segment_id: int | None = None,
) -> Generator[int, None, Finished]:
    """Yield new token ids one by one until an end token (never yielded), max_tokens, or a constraint that is done.

    write False leaves the memory alone. An adapter that writes messages or sentences needs segment_id, for the reply is
    one open segment. The memory that is returned holds every yielded token.
    Raises ConfigError if the prefill computed no logits, or if segment_id is missing.
    """
    if prefilled.logits is None:
        raise ConfigError("decode needs the logits of the prompt's last token; call prefill with need_logits=True")
    if model.config.writes_segments and write and (segment_id is None or segment_id < 0):
        raise ConfigError(
            f"this adapter writes once a {model.config.granularity}; decode needs segment_id from 0 up, "
            f"got {segment_id!r}"
        )
    segment = segment_id if write and segment_id is not None else -1
    generator = private_generator(sampling)
    past, memory, left, stopped = prefilled.past_key_values, prefilled.memory, sampling.max_tokens, False
    logits: Tensor | None = prefilled.logits[0]
    while logits is not None:
        token = choose(logits if constraint is None else constraint.mask(logits), sampling, generator)
        if token in eos_ids:
            return Finished("stop", memory)
        if constraint is not None:
            constraint.accept(token)
        yield token
        left -= 1
        stopped = constraint is not None and constraint.done
        # The last token is fed too, without logits, so that the memory holds the whole reply.
        fed = TokenPrompt((token,), (write,), (segment,))
        logits, past, memory, _ = _advance(model, fed, past, memory, [], need_logits=left > 0 and not stopped)
    return Finished("stop" if stopped else "length", memory)


class _Step(NamedTuple):
    """Hold what one forward pass gives: the last token's logits [V] if they were asked for, cache and memory."""

    logits: Tensor | None
    past_key_values: Cache | None
    memory: MemoryState
    memory_at: list[MemoryState]


@torch.no_grad()
def _advance(
    model: MemoryModel,
    part: TokenPrompt,
    past: Cache | None,
    memory: MemoryState,
    positions: list[int],
    *,
    need_logits: bool,
) -> _Step:
    """Run one forward pass over a batch of one, through the language-model head only if logits are needed."""
    device = model.backbone.device
    arguments: dict[str, Any] = {
        "past_key_values": past,
        "memory": memory,
        "write_mask": torch.tensor([part.write_mask], dtype=torch.bool, device=device),
        "state_positions": positions,
    }
    if part.segment_ids is not None and model.config.writes_segments:
        arguments["segment_ids"] = torch.tensor([part.segment_ids], device=device)
    ids = torch.tensor([part.ids], device=device)
    if need_logits:
        full: MemoryOutput = model(ids, logits_to_keep=1, **arguments)
        return _Step(full.logits[0, -1], *full[1:])
    return _Step(None, *model.hidden_states(ids, **arguments)[1:])
