"""Check what a forward call was given and plan the memory's part in it."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from backbone.adapter.call import MemoryCall, plan_segments, plan_step
from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.state import MemoryState
from backbone.adapter.telemetry import measured
from backbone.errors import StateMismatchError


def prepare_call(
    config: DeltaMemConfig,
    memory: MemoryState,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    write_mask: Tensor | bool | None,
    segment_ids: Tensor | None,
    state_positions: Tensor | Sequence[int] | None,
    telemetry: bool,
) -> MemoryCall:
    """Plan a call that begins with a memory of the right model and batch size."""
    batch, length = input_ids.shape
    device = input_ids.device
    valid = _valid(attention_mask, batch, length, device)
    write = _mask("write_mask", write_mask, (batch, length), device)
    writes = write_mask is not False and _may_write(write, segment_ids, config)
    allowed = valid if write is None else write if valid is None else valid & write
    positions = _positions(state_positions, batch, length, device)
    one_step = length == 1 and writes and positions.shape[1] == 1 and not config.writes_segments
    call = MemoryCall(memory, valid, allowed, writes, positions, None, one_step)
    if segment_ids is not None and (segment_ids.shape != input_ids.shape or segment_ids.is_floating_point()):
        raise ValueError(f"segment_ids must be integers {list(input_ids.shape)}, got {list(segment_ids.shape)}")
    if config.writes_segments:
        call = _with_segments(call, config, segment_ids, input_ids, telemetry)
    elif segment_ids is not None and not telemetry:
        raise ValueError(
            "segment_ids are for adapters that write messages or sentences, and for telemetry; this adapter writes "
            "every token, and telemetry was not asked for"
        )
    return measured(call, segment_ids, (batch, length)) if telemetry else call


def _with_segments(
    call: MemoryCall, config: DeltaMemConfig, segment_ids: Tensor | None, input_ids: Tensor, telemetry: bool
) -> MemoryCall:
    """Add to a call where messages or sentences begin and end."""
    if segment_ids is None:
        if call.writes:
            raise ValueError(
                f"this adapter writes once a {config.granularity}: pass segment_ids [B, T] (each token's "
                f"{config.granularity} number, -1 for tokens that are not written), or a write_mask that is all False "
                "to only read"
            )
        return replace(call, memory=call.memory.closed())
    if not call.writes and call.memory.open_segment is None:
        return call
    segment_ids = segment_ids.to(input_ids.device)
    if input_ids.shape[1] == 1 and call.writes and call.positions.shape[1] == 1 and not telemetry:
        return replace(call, one_step=True, message=plan_step(segment_ids, call.valid, call.write, call.memory))
    everything = torch.ones_like(input_ids, dtype=torch.bool)
    valid = everything if call.valid is None else call.valid
    write = (everything if call.write is None else call.write) & call.writes
    plan = plan_segments(segment_ids, valid, write, call.memory, call.positions)
    return replace(call, segments=plan)


def prepare_positions(input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> Tensor | None:
    """Count positions [B, T] over the real tokens, so that a padded row is what it is alone.

    None leaves the counting to the model.
    """
    if position_ids is not None or attention_mask is None:
        return position_ids
    counted = (attention_mask != 0).long().cumsum(1) - 1
    return counted.clamp_min(0)[:, -input_ids.shape[1] :].to(input_ids.device)


def matching(memory: MemoryState, fingerprint: str, names: Collection[str], shape: tuple[int, ...]) -> MemoryState:
    """Give `memory` if it is of this adapter and backbone, with states of `shape`; raises StateMismatchError if not."""
    if memory.fingerprint != fingerprint:
        raise StateMismatchError(
            f"the memory belongs to adapter and backbone {memory.fingerprint[:12]}, this model has {fingerprint[:12]}"
        )
    for name in names:
        found = memory.layers.get(name)
        if found is None or found.shape != shape:
            given = None if found is None else list(found.shape)
            raise StateMismatchError(f"the memory of {name} must be {list(shape)} (batch first), got {given}")
    return memory


def _valid(attention_mask: Tensor | None, batch: int, length: int, device: torch.device) -> Tensor | None:
    """Give which of a call's tokens are real [B, T]; None is all."""
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2 or len(attention_mask) != batch or attention_mask.shape[1] < length:
        raise ValueError(
            f"attention_mask must be [B, past + T], here [{batch}, ≥ {length}], got {list(attention_mask.shape)}"
        )
    return attention_mask[:, -length:].to(device) != 0


def _may_write(write: Tensor | None, segment_ids: Tensor | None, config: DeltaMemConfig) -> bool:
    """Tell whether any token may write; a mask on an accelerator is asked only where an error depends on it."""
    if write is None or (write.device.type != "cpu" and (config.granularity == "token" or segment_ids is not None)):
        return True
    return bool(write.any())


def _mask(name: str, mask: Tensor | bool | None, shape: tuple[int, int], device: torch.device) -> Tensor | None:
    if mask is None or isinstance(mask, bool):
        return None
    if mask.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, got {list(mask.shape)}")
    return mask.to(device) != 0


def _positions(positions: Tensor | Sequence[int] | None, batch: int, length: int, device: torch.device) -> Tensor:
    """Give [B, P + 1] counts of tokens, the call's length last."""
    end = torch.full((batch, 1), length, device=device)
    if positions is None or (not isinstance(positions, Tensor) and not positions):
        return end
    wanted = torch.as_tensor(positions, dtype=torch.long)
    if wanted.dim() == 1:
        wanted = wanted.expand(batch, -1)
    if wanted.dim() != 2 or len(wanted) != batch:
        raise ValueError(f"state_positions must be [P] or [{batch}, P], got {list(wanted.shape)}")
    if bool(((wanted < 0) | (wanted > length)).any()):
        raise ValueError(f"state_positions count tokens of this call, 0 to {length}; got {wanted.tolist()}")
    return torch.cat([wanted.to(device), end], 1)
