"""Prefill and decode: token ids and memory in, token ids and memory out.

Nothing here knows text, and nothing here keeps state between calls. Both functions are generators whose every step
is one forward pass at most, so that an engine can run many of them in turn.
"""

from collections.abc import Collection, Generator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import Cache

from backbone.adapter.model import MemoryModel, MemoryOutput
from backbone.adapter.state import MemoryState
from backbone.adapter.telemetry import Telemetry
from backbone.errors import ConfigError
from backbone.prefix_cache import PrefixCache, prefix_keys, resume
from backbone.sampling import Sampling, choose, is_whole, private_generator
from backbone.token_prompt import TokenPrompt

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


class Prefilled(NamedTuple):
    """Hold what a prompt leaves behind; decode continues from it, and extends its key-value cache in place.

    logits are [1, V] for the token after the prompt, or None where nobody asked for them.
    states_at has the memory after each of the asked counts of tokens, in the order asked. cached_tokens: how many of
    the prompt's tokens came from the prefix cache. telemetry: of each piece that was measured, with the counts of
    tokens at which it begins and ends.
    """

    memory: MemoryState
    past_key_values: Cache | None
    logits: Tensor | None
    states_at: list[MemoryState]
    cached_tokens: int = 0
    telemetry: Sequence[tuple[int, int, Telemetry]] = ()


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
    cache: PrefixCache | None = None,
    measure_from: int | None = None,
) -> Generator[None, None, Prefilled]:
    """Read the prompt in pieces of at most `piece` tokens that end at its cuts, one piece a step.

    Any pieces give the same result up to rounding, and equal pieces the same bits, whether or not `cache` had them;
    what it lacks is put into it. memory None is the empty memory. state_positions are counts of prompt tokens, in any
    order; 0 is `memory` itself. measure_from: pieces that end after this many tokens are computed, whatever the cache
    has, and measured by the prompt's segment_ids. Raises ConfigError for a piece below 1 or a position outside the
    prompt.
    """
    _check(prompt, state_positions, piece)
    total = len(prompt.ids)
    # The last token is always read where its logits are wanted, and of cached pieces only the states at ends are known.
    furthest = min((total - need_logits, *(n for n in state_positions if n > 0)))
    ends = prompt.piece_ends(piece)
    first = model.empty_memory() if memory is None else memory
    usable = furthest if measure_from is None else min(furthest, measure_from)
    start = _start(model, prompt, ends, first, cache, usable)
    begin, past, memory, logits = start.tokens, start.past_key_values, start.memory, None
    found, factors = {0: first, begin: memory}, dict(prompt.decays)
    measured: list[tuple[int, int, Telemetry]] = []
    for place, end in enumerate(ends[start.pieces :], start.pieces):
        inside = sorted({n for n in state_positions if begin < n < end})
        memory = memory.decay(factors[begin]) if begin in factors else memory
        places, measure = [n - begin for n in inside], measure_from is not None and end > measure_from
        options: dict[str, Any] = {"need_logits": need_logits and end == total, "telemetry": measure}
        step = _advance(model, prompt.piece(begin, end), past, memory, places, **options)
        logits, past, memory, memory_at, telemetry = step
        measured += [] if telemetry is None else [(begin, end, telemetry)]
        # In tensors of its own, laid out as a cached one is: a product over another layout may round otherwise.
        memory = MemoryState.stack([memory])
        found.update(zip((*inside, end), (*memory_at, memory), strict=True))
        if cache is not None and past is not None and end <= furthest:
            cache.store(start.keys[: place + 1], past, end - begin, memory)
        begin = end
        if end < total:
            yield
    states_at = [found[n] for n in state_positions]
    return Prefilled(memory, past, None if logits is None else logits[None], states_at, start.tokens, measured)


def _check(prompt: TokenPrompt, state_positions: Sequence[int], piece: int) -> None:
    if not is_whole(piece) or piece < 1:
        raise ConfigError(f"piece must be a whole number of at least 1, got {piece!r}")
    total = len(prompt.ids)
    for position in state_positions:
        if not 0 <= position <= total:
            raise ConfigError(f"state_positions must lie from 0 to {total} (the prompt's length), got {position}")


class _Start(NamedTuple):
    """Say where reading starts: keys of all pieces, how many pieces and tokens are known, and what they left behind."""

    keys: Sequence[bytes]
    pieces: int
    tokens: int
    past_key_values: Cache | None
    memory: MemoryState


def _start(
    model: MemoryModel,
    prompt: TokenPrompt,
    ends: Sequence[int],
    memory: MemoryState,
    cache: PrefixCache | None,
    furthest: int,
) -> _Start:
    """Look up the pieces that end at `furthest` tokens or before; without a cache none is known."""
    if cache is None:
        return _Start((), 0, 0, None, memory)
    keys = prefix_keys(prompt, ends, memory, by_message=model.config.writes_segments)
    pages = cache.find([key for key, end in zip(keys, ends, strict=True) if end <= furthest])
    if not pages:
        return _Start(keys, 0, 0, None, memory)
    tokens = ends[len(pages) - 1]
    segment = -1 if prompt.segment_ids is None else prompt.segment_ids[tokens - 1]
    return _Start(keys, len(pages), tokens, *resume(model.backbone.config, pages, segment))


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
    # Once, not every token: where the model is on a GPU, each would be a copy that waits for it.
    segments = torch.tensor([[segment]], device=model.backbone.device) if model.config.writes_segments else None
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
        fed = TokenPrompt((token,), (write,))
        need = left > 0 and not stopped
        logits, past, memory, *_ = _advance(model, fed, past, memory, [], need_logits=need, segments=segments)
    return Finished("stop" if stopped else "length", memory)


class _Step(NamedTuple):
    """Hold what one forward pass gives: the last token's logits [V] if they were asked for, cache and memory."""

    logits: Tensor | None
    past_key_values: Cache | None
    memory: MemoryState
    memory_at: list[MemoryState]
    telemetry: Telemetry | None


@torch.no_grad()
def _advance(
    model: MemoryModel,
    part: TokenPrompt,
    past: Cache | None,
    memory: MemoryState,
    positions: list[int],
    *,
    need_logits: bool,
    telemetry: bool = False,
    segments: Tensor | None = None,
) -> _Step:
    """Run one forward pass over a batch of one, through the language-model head only if logits are needed.

    segments: the part's segment ids [1, T], if they are on the device already.
    """
    device = model.backbone.device
    arguments: dict[str, Any] = {
        "past_key_values": past,
        "memory": memory,
        "write_mask": _mask(part.write_mask, device),
        "state_positions": positions,
        "telemetry": telemetry,
    }
    if segments is None and part.segment_ids is not None and (telemetry or model.config.writes_segments):
        segments = torch.tensor([part.segment_ids], device=device)
    if segments is not None:
        arguments["segment_ids"] = segments
    ids = torch.tensor([part.ids], device=device)
    if need_logits:
        full: MemoryOutput = model(ids, logits_to_keep=1, **arguments)
        return _Step(full.logits[0, -1], *full[1:])
    return _Step(None, *model.hidden_states(ids, **arguments)[1:])


def _mask(write: tuple[bool, ...], device: torch.device) -> Tensor | bool:
    """Give a write mask; none is made where all tokens or no tokens write."""
    return write[0] if len(set(write)) == 1 else torch.tensor([write], dtype=torch.bool, device=device)
