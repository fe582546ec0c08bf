"""Decode one token of one layer in one Triton kernel: projections, gates, read and write."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from backbone.ops.delta_rule.common import UpdateMode
from backbone.ops.delta_rule.triton_kernels import step_kernel

_BLOCK = 256


class Step(NamedTuple):
    """Hold reads y [B, H·r] and the state after the token [B, H, r, r]."""

    y: Tensor
    state: Tensor


def fused_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: Tensor,
    write: Tensor | None,
    *,
    mode: UpdateMode,
    own_decay: bool,
    per_row: bool,
    eps: float,
) -> Step:
    """Read the state with a token's query, then write it; no gradients.

    x [B, d], any float dtype; weight [P, d] and bias [P], float32: queries, keys, values, write gates and, if
    `own_decay`, decay gates, one below the other; state [B, H, r, r] float32; write [B] bool, None writes all.
    """
    batch, heads, rank, _ = state.shape
    y, after = state.new_empty(batch, heads * rank), torch.empty_like(state, memory_format=torch.contiguous_format)
    # Triton launches on the current device, wherever its arguments are.
    with torch.cuda.device_of(state):  # type: ignore[no-untyped-call]
        step_kernel[(batch, heads)](
            x.contiguous(), weight, bias, state.contiguous(), x if write is None else write.contiguous(), y, after,
            x.shape[-1], heads, eps,
            OUTSIDE=mode == "lambda_outside", KEEPS_ALL=mode == "no_lambda", OWN_DECAY=own_decay, PER_ROW=per_row,
            MASKED=write is not None, RANK=rank, R=triton.next_power_of_2(rank), BLOCK=_BLOCK,
        )  # fmt: skip
    return Step(y, after)
