"""Hold what one forward call knows: which tokens are real, which write, which message each belongs to."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from backbone.adapter.config import Head
from backbone.adapter.state import MemoryState, OpenSegment
from backbone.errors import UnsupportedModelError
from backbone.ops.delta_rule import SegmentLayout, layout_of

if TYPE_CHECKING:
    from backbone.adapter.layer import LayerMemory
    from backbone.adapter.telemetry import Recorder


class SegmentPlan(NamedTuple):
    """Say where messages begin and end in a call: a run is a stretch of real tokens with one id.

    Run 0 is the message left open before the call (empty if there was none). A position is a count of tokens; the last
    position is the end of the call.
    """

    run_of: Tensor  # [B, T]
    numbers: Tensor  # [B, G]: 0 to G - 1
    layout: SegmentLayout  # of the tokens by their runs
    members: Tensor  # [B, G, T] float: 1 where a token is written with run g
    counts: Tensor  # [B, G]: written tokens of run g, those before the call included
    run_at: Tensor  # [B, P]: the run that is open at a position
    members_at: Tensor  # [B, P, T] float: the members of that run before the position
    counts_at: Tensor  # [B, P]
    ids_at: Tensor  # [B, P]: that run's id, -1 if nothing is open


class MessageStep(NamedTuple):
    """Say what a call's one token does to the message that is open, where messages are written.

    All [B]: `starts`: it begins another message; `written`: the message has it as a part; `ids` and `counts`: of the
    message that is open after it. `before`: layer name → [B, H, r, r], the state that this message's tokens read.
    """

    starts: Tensor
    written: Tensor
    ids: Tensor
    counts: Tensor
    before: Mapping[str, Tensor]


class LayerResult(NamedTuple):
    """Hold what a layer's memory did in a call: reads [B·T, H·r], and states at the positions, the last one the end.

    `sums` [B, P, d] and `before` [B, P, H, r, r] describe the open message; None without message-level writes.
    `to_write` [B, 1, P or d]: of one token that is yet to be written, what is projected, or its hidden state where
    messages are written; there are no `states` then.
    """

    reads: Tensor
    states: Tensor | None = None
    sums: Tensor | None = None
    before: Tensor | None = None
    to_write: Tensor | None = None


@dataclass(frozen=True, eq=False)
class MemoryCall:
    """Carry one forward call's inputs to the wrapped projections and their results back.

    `valid`, `write` [B, T] bool or None for all; `writes` False: nothing writes. `positions` [B, P + 1]: counts of
    tokens whose states are asked for; the last is T. `one_step`: there is one token, which is written after all layers
    have read; by `message` if that is given. `steered`: (layer, head) of the projections that have run. `telemetry`
    collects measurements if they were asked for; the first `telemetry.positions` positions are its own.
    """

    memory: MemoryState
    valid: Tensor | None
    write: Tensor | None
    writes: bool
    positions: Tensor
    segments: SegmentPlan | None
    one_step: bool = False
    message: MessageStep | None = None
    results: dict[str, LayerResult] = field(default_factory=dict)
    steered: set[tuple[str, str]] = field(default_factory=set)
    telemetry: "Recorder | None" = None

    def steer(self, memory: "LayerMemory", head: Head, x: Tensor | None, out: Tensor) -> Tensor:
        """Let a layer's memory do it."""
        return memory.steer(self, head, x, out)


class Steering(Protocol):
    """Be what the wrapped projections hand their work to during a pass."""

    def steer(self, memory: "LayerMemory", head: Head, x: Tensor | None, out: Tensor) -> Tensor:
        """Do what `LayerMemory.steer` does."""


def ran_twice(name: str, head: Head) -> UnsupportedModelError:
    """Make the error for a projection that runs more than once."""
    return UnsupportedModelError(f"{name}.{head}_proj ran twice in one pass; memory cannot tell the two apart")


def ran_early(name: str) -> UnsupportedModelError:
    """Make the error for an output that comes before there was an input."""
    return UnsupportedModelError(f"{name}.o_proj ran before q_proj; memory had nothing to read with")


CURRENT_CALL: ContextVar[Steering | None] = ContextVar("delta_mem_call", default=None)


def plan_segments(ids: Tensor, valid: Tensor, write: Tensor, memory: MemoryState, positions: Tensor) -> SegmentPlan:
    """Find the runs of `ids` [B, T] among the `valid` tokens, beginning with the message that `memory` left open."""
    batch, length = ids.shape
    opened = memory.open_segment
    open_ids = ids.new_full((batch,), -1) if opened is None else opened.ids
    open_counts = torch.zeros(batch, device=ids.device) if opened is None else opened.counts
    order = torch.arange(length, device=ids.device)
    ids_after = newest_ids(ids, valid, open_ids[:, None])
    run_of = (valid & (ids != ids_after[:, :-1])).cumsum(1)
    run_at = torch.cat([run_of.new_zeros(batch, 1), run_of], 1).gather(1, positions)
    # One token ends run 0 or goes on with it; with more, the device is asked for a number, once a call.
    count = 2 if length == 1 else int(run_of[:, -1].max()) + 1
    runs = torch.arange(count, device=ids.device)
    written = valid & write & (ids >= 0)
    members = written[:, None] & (run_of[:, None] == runs[:, None])
    members_at = written[:, None] & (run_of[:, None] == run_at[:, :, None]) & (order < positions[:, :, None])
    counts, counts_at = members.sum(2).float(), members_at.sum(2).float()
    counts[:, 0] += open_counts
    return SegmentPlan(
        run_of=run_of,
        numbers=runs.expand(batch, -1),
        layout=layout_of(run_of, count),
        members=members.float(),
        counts=counts,
        run_at=run_at,
        members_at=members_at.float(),
        counts_at=counts_at + (run_at == 0) * open_counts[:, None],
        ids_at=ids_after.gather(1, positions),
    )


def plan_step(ids: Tensor, valid: Tensor | None, write: Tensor | None, memory: MemoryState) -> MessageStep:
    """Do what `plan_segments` does for one token [B, 1]; `valid`, `write` [B, 1] or None for all."""
    opened, token = memory.open_segment, ids[:, 0]
    open_ids = torch.full_like(token, -1) if opened is None else opened.ids
    written, starts, after = token >= 0, token != open_ids, token
    if write is not None:
        written = written & write[:, 0]
    if valid is not None:
        starts, after = starts & valid[:, 0], token.where(valid[:, 0], open_ids)
    if opened is None:
        return MessageStep(starts, written, after, written.float(), memory.layers)
    counts = opened.counts.masked_fill(starts, 0.0) + written
    closed, before = (torch.stack([parts[name] for name in memory.layers]) for parts in (memory.layers, opened.before))
    before = torch.where(starts[:, None, None, None], closed, before)  # [L, B, H, r, r]
    return MessageStep(starts, written, after, counts, dict(zip(memory.layers, before.unbind(0), strict=True)))


def newest_ids(ids: Tensor, valid: Tensor, open_ids: Tensor) -> Tensor:
    """Give the id of the newest real token after each count of tokens 0 to T [B, T + 1]; padding is looked through."""
    order = torch.arange(ids.shape[1], device=ids.device)
    newest = order.where(valid, -1).cummax(1).values
    return torch.cat([open_ids, ids.gather(1, newest.clamp_min(0)).where(newest >= 0, open_ids)], 1)


def state_at(call: MemoryCall, results: Mapping[str, LayerResult], index: int) -> MemoryState:
    """Give the memory at one of the call's positions."""
    layers = {name: result.states[:, index] for name, result in results.items() if result.states is not None}
    segment = None
    if call.segments is not None:
        segment = OpenSegment(
            ids=call.segments.ids_at[:, index],
            counts=call.segments.counts_at[:, index],
            sums={name: r.sums[:, index] for name, r in results.items() if r.sums is not None},
            before={name: r.before[:, index] for name, r in results.items() if r.before is not None},
        )
    return MemoryState(layers, call.memory.fingerprint, segment)
