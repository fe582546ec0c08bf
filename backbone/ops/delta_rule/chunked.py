"""Run the delta rule in chunks: everything inside a chunk in parallel, one affine map from chunk to chunk in sequence.

README.md in this folder derives the equations; the names here are the names there.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from backbone.ops.delta_rule.common import DeltaRuleOutput, Problem

CHUNK = 16
# A keep gate of exactly 0 has no logarithm. What survives a gate of 1e-20 is far below the rounding of either dtype.
SMALLEST_KEEP = 1e-20


class _Chunks(NamedTuple):
    """Hold a sequence cut into N chunks of C tokens; a head's r state rows are G groups of m rows with shared gates."""

    q: Tensor  # [B, H, N, 1, C, r]
    k: Tensor  # [B, H, N, 1, C, r]
    written: Tensor  # [B, H, N, G, C, m]: write gate times v
    log_keep: Tensor  # [B, H, N, G, C]
    erase: Tensor  # [B, H, N, G, C]


class _Solved(NamedTuple):
    """Hold the chunk-local solution: w = offset - slope @ s_0, with the sums of logs and the decays between tokens."""

    offset: Tensor  # [B, H, N, G, C, m]
    slope: Tensor  # [B, H, N, G, C, r]
    log_after: Tensor  # [B, H, N, G, C]: log Λ_t
    log_before: Tensor  # [B, H, N, G, C]: log Λ_{t-1}
    decay: Tensor  # [B, H, N, G, C, C]: Λ_{t-1} / Λ_j for j < t, else 0


def chunked_delta_rule(problem: Problem) -> DeltaRuleOutput:
    """Run the chunked form; the result is the naive form's up to rounding, gradients included."""
    batch, length, heads, rank = problem.q.shape
    chunks = _cut(problem)
    solved = _solve(chunks)
    groups = chunks.erase.shape[3]
    # States are kept transposed, [B, H, (N,) G, r, m]: the column of a state row is what the matrix products need.
    start = problem.state.reshape(batch, heads, groups, rank // groups, rank).transpose(-1, -2)
    starts, end = _carry(chunks, solved, start)
    w = solved.offset - solved.slope @ starts
    carried = solved.log_before.exp()[..., None] * (chunks.q @ starts)
    scores = solved.decay * (chunks.q @ chunks.k.transpose(-1, -2))
    reads = carried + scores @ w  # [B, H, N, G, C, m]
    y = reads.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, heads, rank)[:, :length]
    states_at = None
    if problem.positions is not None:
        states_at = _states_at(chunks, solved, starts, w, problem.positions)
        states_at = torch.where((problem.positions > 0)[:, :, None, None, None], states_at, problem.state[:, None])
    return DeltaRuleOutput(y, end.transpose(-1, -2).reshape(batch, heads, rank, rank), states_at)


def _cut(problem: Problem) -> _Chunks:
    """Cut a sequence into chunks; the filling at its end keeps the state and writes nothing."""
    batch, length, heads, _ = problem.q.shape
    filling = -length % CHUNK
    groups = max(gate.shape[-1] for gate in problem.coefficients)
    keep, erase, write = (gate.expand(*gate.shape[:-1], groups) for gate in problem.coefficients)

    def cut(x: Tensor) -> Tensor:
        x = pad(x, (0, 0, 0, 0, 0, filling)) if filling else x
        return x.view(batch, -1, CHUNK, heads, x.shape[-1]).permute(0, 3, 1, 4, 2)  # [B, H, N, width, C]

    written = cut(write * problem.v)
    return _Chunks(
        q=cut(problem.q).transpose(-1, -2)[:, :, :, None],
        k=cut(problem.k).transpose(-1, -2)[:, :, :, None],
        written=written.view(*written.shape[:3], groups, -1, CHUNK).transpose(-1, -2),
        log_keep=cut(keep.clamp_min(SMALLEST_KEEP).log()),
        erase=cut(erase),
    )


def _solve(chunks: _Chunks) -> _Solved:
    """Solve (I + L) w = β v - ε Λ_{t-1} (K s_0) for all chunks and gate groups at once, as an affine map of s_0."""
    log_after = chunks.log_keep.cumsum(-1)
    log_before = log_after - chunks.log_keep
    below = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=log_after.device).tril(-1)
    # Ratios are exponentials of differences; the upper half would overflow, so it is removed before the exponential.
    decay = (log_before[..., :, None] - log_after[..., None, :]).masked_fill(~below, -torch.inf).exp()
    lower = chunks.erase[..., None] * decay * (chunks.k @ chunks.k.transpose(-1, -2))
    slope = (chunks.erase * log_before.exp())[..., None] * chunks.k
    width = chunks.written.shape[-1]
    solution = torch.linalg.solve_triangular(
        lower, torch.cat([chunks.written, slope], dim=-1), upper=False, unitriangular=True
    )
    return _Solved(solution[..., :width], solution[..., width:], log_after, log_before, decay)


def _carry(chunks: _Chunks, solved: _Solved, start: Tensor) -> tuple[Tensor, Tensor]:
    """Carry the state over the chunks; give the state at each chunk's start [B, H, N, G, r, m] and the last state."""
    log_end = solved.log_after[..., -1:]
    keys = ((log_end - solved.log_after).exp()[..., None] * chunks.k).transpose(-1, -2)
    keep = log_end.exp()[..., None]
    drop = keys @ solved.slope
    add = keys @ solved.offset
    states = [start]
    for keep_n, drop_n, add_n in zip(keep.unbind(2), drop.unbind(2), add.unbind(2), strict=True):
        states.append(torch.addcmul(add_n, keep_n, states[-1]) - drop_n @ states[-1])
    return torch.stack(states[:-1], dim=2), states[-1]


def _states_at(chunks: _Chunks, solved: _Solved, starts: Tensor, w: Tensor, positions: Tensor) -> Tensor:
    """Give the state after the first n tokens for each n ≥ 1 of `positions`: Λ_t s_0 + Σ_{j≤t} (Λ_t / Λ_j) w_j k_jᵀ."""
    batch, heads, _, groups, rank, width = starts.shape
    last = (positions - 1).clamp_min(0)
    chunk, token = last // CHUNK, last % CHUNK
    rows = torch.arange(batch, device=positions.device)[:, None]
    log_after = solved.log_after.transpose(1, 2)[rows, chunk]  # [B, P, H, G, C]
    picked = token[:, :, None, None, None].expand(-1, -1, heads, groups, 1)
    log_here = log_after.gather(-1, picked)
    later = torch.arange(CHUNK, device=positions.device) > token[:, :, None, None, None]
    decay = (log_here - log_after).masked_fill(later, -torch.inf).exp()
    keys = chunks.k.transpose(1, 2)[rows, chunk] * decay[..., None]  # [B, P, H, G, C, r]
    added = keys.transpose(-1, -2) @ w.transpose(1, 2)[rows, chunk]
    state = log_here.exp()[..., None] * starts.transpose(1, 2)[rows, chunk] + added
    return state.transpose(-1, -2).reshape(batch, -1, heads, groups * width, rank)
