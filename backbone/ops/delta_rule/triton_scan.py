"""Run the delta rule with Triton kernels: chunks in parallel, and a carry of one small product a chunk between them."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from backbone.ops.delta_rule import triton_kernels as kernels
from backbone.ops.delta_rule.common import DeltaRuleOutput, Problem, wants_gradients

CHUNK = 64


class _Sizes(NamedTuple):
    """Hold what every kernel is told: batch times heads, tokens, heads, chunks, rank and its padding."""

    rows: int
    length: int
    heads: int
    chunks: int
    rank: int

    @property
    def constants(self) -> dict[str, int]:
        """Give the compile-time constants; rows of 8 to 32 numbers are one warp's work."""
        return {"RANK": self.rank, "R": triton.next_power_of_2(self.rank), "num_warps": 1}


class _Scan(torch.autograd.Function):
    """Give reads and final state of q, k, keep, erase and written values [B, T, H, r] and a state [B, H, r, r]."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, keep: Tensor, erase: Tensor, written: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        sizes = _sizes(q)
        turn, starts, end = _starts(sizes, k, keep, erase, written, state)
        y = torch.empty_like(q)
        kernels.reads_kernel[(sizes.rows * sizes.chunks,)](
            q, k, keep, erase, written, starts, y, y, *sizes[1:4], KEEP_STATES=False, C=CHUNK, **sizes.constants
        )
        ctx.save_for_backward(q, k, keep, erase, written, turn, starts)
        ctx.mark_non_differentiable(starts)
        return y, end, starts

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dend: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.device_of(dy):  # type: ignore[no-untyped-call]
            return _gradients(ctx.saved_tensors, dy, dend)


def triton_delta_rule(problem: Problem) -> DeltaRuleOutput:
    """Run a float32 problem with Triton; gradients flow into everything, but not out of states at positions.

    Raises NotImplementedError where such gradients would be needed; the chunked form has them. Nor do they flow out of
    what is predicted.
    """
    if problem.positions is not None and wants_gradients(problem):
        raise NotImplementedError("the Triton form has no gradients for states at positions; use form='chunked'")
    # Triton launches on the current device, wherever its arguments are.
    with torch.cuda.device_of(problem.q):  # type: ignore[no-untyped-call]
        return _solve(problem)


def _solve(problem: Problem) -> DeltaRuleOutput:
    rank = problem.q.shape[-1]
    keep, erase, write = (gate.expand(*gate.shape[:-1], rank).contiguous() for gate in problem.coefficients)
    q, k, written = problem.q.contiguous(), problem.k.contiguous(), (write * problem.v).contiguous()
    y, end, starts = _Scan.apply(q, k, keep, erase, written, problem.state.contiguous())  # type: ignore[no-untyped-call]
    sizes = _sizes(q)
    predicted = _predict(sizes, k, keep, erase, written, starts) if problem.predict else None
    if problem.positions is None:
        return DeltaRuleOutput(y, end, None, predicted)
    asked = problem.positions.shape[1]
    states_at = q.new_empty(q.shape[0], asked, sizes.heads, rank, rank)
    kernels.states_kernel[(sizes.rows, asked)](
        k, keep, erase, written, starts, problem.positions.contiguous(), states_at, *sizes[1:4], asked,
        C=CHUNK, **sizes.constants,
    )  # fmt: skip
    return DeltaRuleOutput(y, end, states_at, predicted)


def _gradients(saved: tuple[Tensor, ...], dy: Tensor, dend: Tensor) -> tuple[Tensor, ...]:
    """Give the gradients of all that `_Scan` takes, from those of its reads and of its final state."""
    q, k, keep, erase, written, turn, starts = saved
    sizes = _sizes(q)
    grid = (sizes.rows * sizes.chunks,)
    dy = dy.contiguous()
    before = q.new_empty(sizes.rows, sizes.chunks * CHUNK, sizes.rank, sizes.rank)
    kernels.reads_kernel[grid](
        q, k, keep, erase, written, starts, torch.empty_like(q), before, *sizes[1:4],
        KEEP_STATES=True, C=CHUNK, **sizes.constants,
    )  # fmt: skip
    add, ends, dstate = torch.empty_like(starts), torch.empty_like(starts), torch.empty_like(dend)
    kernels.back_add_kernel[grid](q, k, keep, erase, dy, add, *sizes[1:4], C=CHUNK, **sizes.constants)
    kernels.carry_kernel[(sizes.rows, sizes.rank)](
        turn, add, dend.contiguous(), ends, dstate, sizes.chunks, BACKWARD=True, **sizes.constants
    )
    dq, dk, dkeep, derase, dwritten = (torch.empty_like(q) for _ in range(5))
    kernels.back_kernel[grid](
        q, k, keep, erase, written, before, dy, ends, dq, dk, dkeep, derase, dwritten, *sizes[1:4],
        C=CHUNK, **sizes.constants,
    )  # fmt: skip
    return dq, dk, dkeep, derase, dwritten, dstate


def _predict(sizes: _Sizes, k: Tensor, keep: Tensor, erase: Tensor, written: Tensor, starts: Tensor) -> Tensor:
    """Read the keys instead of the queries, from the states at the chunks' starts."""
    predicted = torch.empty_like(k)
    kernels.reads_kernel[(sizes.rows * sizes.chunks,)](
        k, k, keep, erase, written, starts, predicted, predicted, *sizes[1:4],
        KEEP_STATES=False, C=CHUNK, **sizes.constants,
    )  # fmt: skip
    return predicted


def _sizes(q: Tensor) -> _Sizes:
    batch, length, heads, rank = q.shape
    return _Sizes(batch * heads, length, heads, triton.cdiv(length, CHUNK), rank)


def _starts(
    sizes: _Sizes, k: Tensor, keep: Tensor, erase: Tensor, written: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Give each chunk's map of a row [B·H, N, r, r, r], the state at its start [B·H, N, r, r], and the last state."""
    rank = sizes.rank
    turn = k.new_empty(sizes.rows, sizes.chunks, rank, rank, rank)
    add = k.new_empty(sizes.rows, sizes.chunks, rank, rank)
    kernels.maps_kernel[(sizes.rows * sizes.chunks, rank)](
        k, keep, erase, written, turn, add, *sizes[1:4], C=CHUNK, **sizes.constants
    )
    starts, end = torch.empty_like(add), torch.empty_like(state)
    kernels.carry_kernel[(sizes.rows, rank)](
        turn, add, state, starts, end, sizes.chunks, BACKWARD=False, **sizes.constants
    )
    return turn, starts, end
