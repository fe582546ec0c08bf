"""Measure what a memory does with each message, out of what a pass computes anyway."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from backbone.adapter.call import LayerResult, MemoryCall, SegmentPlan, newest_ids
from backbone.adapter.state import MemoryState

# Below this a vector counts as zero, and what is compared with it stays finite.
SMALLEST_NORM = 1e-12


class LayerTelemetry(NamedTuple):
    """Hold one layer's measurements of each message, float32 [B, M], all without a unit but `norm`.

    - `surprise`: ‖v - S k‖ / ‖v‖, mean over the written tokens; 0 was known, 1 is new, above 1 contradicts. An adapter
      that writes once a message has one such figure, of the message's mean.
    - `write_gate`: β from 0 to 1, mean over the same tokens and the state's rows.
    - `correction`: ‖Δo‖ / ‖o‖, mean over all tokens; 0 if the adapter does not steer attention's output.
    - `norm`: Frobenius norm of S after the message, in the unit of the values v.

    Several states a layer count as one vector. What there is nothing to measure for is NaN.
    """

    surprise: Tensor
    write_gate: Tensor
    correction: Tensor
    norm: Tensor


@dataclass(frozen=True, eq=False)
class Telemetry:
    """Hold a pass's measurements, cut from any graph.

    `ids` [B, M]: the messages in order, as segment_ids call them; -1 where a conversation has fewer. `layers`:
    attention module name → LayerTelemetry. Without segment_ids the tokens of the pass are one message, 0.
    """

    ids: Tensor
    layers: Mapping[str, LayerTelemetry]


class _Messages(NamedTuple):
    """Say which tokens are a message's; an entry that is none has id -1 and no tokens."""

    ids: Tensor  # [B, M]
    members: Tensor  # [B, M, T] bool: its real tokens
    ends: Tensor  # [B, M]: tokens of the call up to its last one


class Recorder:
    """Collect what the layers of one call do; the values stay on the device.

    `written` [B, T] bool, None is all. `positions`: how many of the call's positions are the messages' ends, the first
    ones; with none of them every message is measured at the end of the call.
    """

    def __init__(self, messages: _Messages, written: Tensor | None, positions: int) -> None:
        self._messages = messages
        self._written = written
        self._writes: dict[str, tuple[Tensor, Tensor]] = {}
        self._corrections: dict[str, Tensor] = {}
        self._norms: dict[str, Tensor] = {}
        self.positions = positions

    def token_writes(self, name: str, v: Tensor, predicted: Tensor, beta: Tensor) -> None:
        """Take the writes of every token: v, predicted [B, T, H, r]; beta [B, T, H, r or 1]."""
        values = torch.stack(_measure_writes(v, predicted, beta), -1)
        surprise, gate = self._mean(values, self._written).unbind(-1)
        self._writes[name] = surprise, gate

    def message_writes(
        self, name: str, plan: SegmentPlan, v: Tensor, predicted: Tensor, beta: Tensor, states: Tensor
    ) -> None:
        """Take one write a run: v, predicted [B, G, H, r]; beta [B, G, H, r or 1]; states [B, G + 1, H, r, r]."""
        run = plan.run_of.gather(1, (self._messages.ends - 1).clamp_min(0))
        nothing = plan.counts.gather(1, run) == 0
        surprise, gate = (x.gather(1, run).masked_fill(nothing, torch.nan) for x in _measure_writes(v, predicted, beta))
        self._writes[name] = surprise, gate
        self._norms[name] = _flat_norm(states[:, 1:]).gather(1, run)

    def correction(self, name: str, delta: Tensor, out: Tensor) -> None:
        """Take what memory adds to attention's output, and that output [B, T, d]."""
        ratio = _ratio(vector_norm(delta.detach().float(), dim=-1), vector_norm(out.detach().float(), dim=-1))
        self._corrections[name] = self._mean(ratio[..., None], None)[..., 0]

    def finish(self, after: MemoryState, results: Mapping[str, LayerResult]) -> Telemetry:
        """Join everything: the memory after the call, and what each layer's memory did."""
        ids = self._messages.ids
        absent = ids < 0
        unknown = torch.full(ids.shape, torch.nan, device=ids.device)
        layers: dict[str, LayerTelemetry] = {}
        for name, result in results.items():
            surprise, gate = self._writes.get(name, (unknown, unknown))
            correction = self._corrections.get(name, torch.zeros_like(unknown))
            norm = self._norms.get(name)
            if norm is None:
                states = result.states if self.positions else None
                at = after.layers[name][:, None] if states is None else states[:, : self.positions]
                norm = _flat_norm(at).expand(ids.shape)
            figures = (surprise, gate, correction, norm)
            layers[name] = LayerTelemetry(*(figure.masked_fill(absent, torch.nan) for figure in figures))
        return Telemetry(ids, layers)

    def _mean(self, values: Tensor, of: Tensor | None) -> Tensor:
        """Average values [B, T, n] over each message's tokens, those of `of` [B, T] only; gives [B, M, n]."""
        members = self._messages.members
        members = members if of is None else members & of[:, None]
        # Padding may hold anything, NaN included, so it is taken out before the sum.
        kept = values.masked_fill(~members.any(1)[..., None], 0.0)
        return members.float() @ kept / members.sum(-1, keepdim=True)


def measured(call: MemoryCall, segment_ids: Tensor | None, shape: tuple[int, int]) -> MemoryCall:
    """Give the call with a recorder; `shape`: (B, T). Waits for the device once if there are several ids."""
    device = call.positions.device
    valid = torch.ones(shape, dtype=torch.bool, device=device) if call.valid is None else call.valid
    messages = _whole(valid) if segment_ids is None else _find_messages(segment_ids.to(device), valid)
    if segment_ids is None or call.segments is not None or shape[1] == 1:
        return replace(call, telemetry=Recorder(messages, call.write, 0))
    recorder = Recorder(messages, call.write, messages.ids.shape[1])
    return replace(call, positions=torch.cat([messages.ends, call.positions], 1), telemetry=recorder)


def _whole(valid: Tensor) -> _Messages:
    """Take all real tokens as one message."""
    ends = torch.full((len(valid), 1), valid.shape[1], device=valid.device)
    return _Messages(torch.zeros_like(ends), valid[:, None], ends)


def _find_messages(ids: Tensor, valid: Tensor) -> _Messages:
    """Find the stretches of real tokens with one id from 0 up; padding is looked through."""
    inside = valid & (ids >= 0)
    before = newest_ids(ids, valid, ids.new_full((len(ids), 1), -1))[:, :-1]
    number = (inside & (ids != before)).cumsum(1)
    # One token is of one message or of none; with more, the device is asked for a number, once a call.
    count = 1 if ids.shape[1] == 1 else int(number[:, -1].max())
    members = inside[:, None] & (number[:, None] == torch.arange(1, count + 1, device=ids.device)[:, None])
    ends = (members * torch.arange(1, ids.shape[1] + 1, device=ids.device)).amax(2)
    return _Messages(ids.gather(1, (ends - 1).clamp_min(0)).masked_fill(ends == 0, -1), members, ends)


def _measure_writes(v: Tensor, predicted: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Give surprise and mean gate [B, N] of writes v, predicted [B, N, H, r], beta [B, N, H, r or 1]."""
    v, predicted, beta = v.detach().flatten(2), predicted.detach().flatten(2), beta.detach().flatten(2)
    return _ratio(vector_norm(v - predicted, dim=-1), vector_norm(v, dim=-1)), beta.mean(-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part / whole.clamp_min(SMALLEST_NORM)


def _flat_norm(states: Tensor) -> Tensor:
    """Give the norm [B, P] of states [B, P, H, r, r]."""
    norms: Tensor = vector_norm(states.detach().flatten(2), dim=-1)
    return norms
