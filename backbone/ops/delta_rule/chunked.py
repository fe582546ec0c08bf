"""Run the delta rule in chunks: everything inside a chunk in parallel, one affine map from chunk to chunk in sequence.

With Λ_t the product of a row's keep gates and w_t = β_t v_t - ε_t s_{t-1}·k_t, the rows s of a state obey, in a chunk
that begins with s_0:

    (I + L) w = β v - ε Λ_{t-1} (K s_0),  L_tj = ε_t (Λ_{t-1} / Λ_j) (k_t·k_j) for j < t
    s_t = Λ_t s_0 + Σ_{j≤t} (Λ_t / Λ_j) w_j k_j

so w, and with it the state at the chunk's end, is affine in s_0.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from backbone.ops.delta_rule.common import DeltaRuleOutput, Problem

CHUNK = 16
# A keep gate of exactly 0 has no logarithm. What survives a gate of 1e-20 is far below the rounding of either dtype.
SMALLEST_KEEP = 1e-20
# Sequences (batch times heads) times tokens that are worked on at once: what this needs stays in a CPU's caches.
BLOCK = 2048


class _Chunks(NamedTuple):
    """Hold a sequence cut into N chunks of C tokens; a head's r state rows are G groups of m rows with shared gates.

    Tokens are last, so that the vectors of a chunk are the columns of a matrix.
    """

    q: Tensor  # [B, H, N, 1, r, C]
    k: Tensor  # [B, H, N, 1, r, C]
    written: Tensor  # [B, H, N, G, m, C]: write gate times v
    log_keep: Tensor  # [B, H, N, G, C]
    erase: Tensor  # [B, H, N, G, C]


class _Solved(NamedTuple):
    """Hold the chunk-local solution: w = offset - s_0 @ slope, with the sums of logs and the decays between tokens."""

    solution: Tensor  # [B, H, N, G, m + r, C]: offset, then slope
    log_after: Tensor  # [B, H, N, G, C]: log Λ_t
    log_before: Tensor  # [B, H, N, G, C]: log Λ_{t-1}
    decay: Tensor  # [B, H, N, G, C, C]: Λ_{t-1} / Λ_j for j < t, else of no meaning


def chunked_delta_rule(problem: Problem) -> DeltaRuleOutput:
    """Run the chunked form; the result is the naive form's up to rounding, gradients included."""
    batch, length, heads, _ = problem.q.shape
    block = max(BLOCK // (batch * heads) // CHUNK, 1) * CHUNK
    if problem.q.device.type != "cpu" or length <= block:
        return _run_block(problem)
    state, states_at = problem.state, None
    reads: list[Tensor] = []
    predictions: list[Tensor] = []
    for start in range(0, length, block):
        out = _run_block(_part(problem, start, min(start + block, length), state))
        reads.append(out.y)
        if out.predicted is not None:
            predictions.append(out.predicted)
        state = out.final_state
        if problem.positions is not None and out.states_at is not None:
            here = (problem.positions > start)[:, :, None, None, None]
            states_at = out.states_at if states_at is None else torch.where(here, out.states_at, states_at)
    return DeltaRuleOutput(torch.cat(reads, 1), state, states_at, torch.cat(predictions, 1) if predictions else None)


def _part(problem: Problem, start: int, end: int, state: Tensor) -> Problem:
    """Give tokens `start` to `end` of a problem; a position outside is moved to the nearer end."""
    tokens = slice(start, end)
    q, k, v = problem.q[:, tokens], problem.k[:, tokens], problem.v[:, tokens]
    gates = type(problem.coefficients)(*(gate[:, tokens] for gate in problem.coefficients))
    positions = None if problem.positions is None else (problem.positions - start).clamp(0, end - start)
    return problem._replace(q=q, k=k, v=v, coefficients=gates, state=state, positions=positions)


def _run_block(problem: Problem) -> DeltaRuleOutput:
    batch, length, heads, rank = problem.q.shape
    chunks = _cut(problem)
    solved = _solve(chunks)
    groups, width = chunks.written.shape[3:5]
    starts, end = _carry(chunks, solved, problem.state.reshape(batch, heads, groups, width, rank))
    w = solved.solution[..., :width, :] - starts @ solved.solution[..., width:, :]
    y = _read(chunks.q, chunks, solved, starts, w)[:, :length]
    predicted = _read(chunks.k, chunks, solved, starts, w)[:, :length] if problem.predict else None
    states_at = None
    if problem.positions is not None:
        states_at = _states_at(chunks, solved, starts, w, problem.positions)
        states_at = torch.where((problem.positions > 0)[:, :, None, None, None], states_at, problem.state[:, None])
    return DeltaRuleOutput(y, end.reshape(batch, heads, rank, rank), states_at, predicted)


def _cut(problem: Problem) -> _Chunks:
    """Cut a sequence into chunks; the filling at its end keeps the state and writes nothing."""
    batch, length, heads, _ = problem.q.shape
    filling = -length % CHUNK
    groups = max(gate.shape[-1] for gate in problem.coefficients)
    keep, erase, write = (gate.expand(*gate.shape[:-1], groups) for gate in problem.coefficients)

    def cut(x: Tensor) -> Tensor:
        x = pad(x, (0, 0, 0, 0, 0, filling)) if filling else x
        x = x.view(batch, -1, CHUNK, heads, x.shape[-1])
        return x.permute(0, 3, 1, 4, 2).contiguous()  # [B, H, N, width, C]

    return _Chunks(
        q=cut(problem.q)[:, :, :, None],
        k=cut(problem.k)[:, :, :, None],
        written=cut(write * problem.v).view(batch, heads, -1, groups, problem.v.shape[-1] // groups, CHUNK),
        log_keep=cut(keep.clamp_min(SMALLEST_KEEP).log()),
        erase=cut(erase),
    )


def _solve(chunks: _Chunks) -> _Solved:
    """Solve (I + L) w = β v - ε Λ_{t-1} (K s_0) for all chunks and gate groups at once, as an affine map of s_0."""
    log_after = chunks.log_keep.cumsum(-1)
    log_before = log_after - chunks.log_keep
    # Ratios are exponentials of differences. Below the diagonal these are never above 0; the rest, which is never used,
    # would overflow.
    decay = (log_before[..., :, None] - log_after[..., None, :]).clamp_max_(0).exp_()
    lower = chunks.erase[..., None] * decay * (chunks.k.transpose(-1, -2) @ chunks.k)
    slope = (chunks.erase * log_before.exp())[..., None, :] * chunks.k
    right = torch.cat([chunks.written, slope], dim=-2).transpose(-1, -2)
    solution = torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
    return _Solved(solution.transpose(-1, -2), log_after, log_before, decay)


def _carry(chunks: _Chunks, solved: _Solved, start: Tensor) -> tuple[Tensor, Tensor]:
    """Carry the state over the chunks; give the state at each chunk's start [B, H, N, G, m, r] and the last state."""
    batch, heads, _, groups, width, _ = chunks.written.shape
    rank = start.shape[-1]
    log_end = solved.log_after[..., -1:]
    keys = (log_end - solved.log_after).exp()[..., None, :] * chunks.k
    moved = solved.solution @ keys.transpose(-1, -2)  # [B, H, N, G, m + r, r]
    keep = torch.diag_embed(log_end.exp().expand(*log_end.shape[:-1], rank))
    add, turn = moved[..., :width, :], keep - moved[..., width:, :]
    # One product a chunk: the state's rows times what keeps and erases, plus what is added.
    states = [start.flatten(0, 2)]
    for add_n, turn_n in zip(add.unbind(2), turn.unbind(2), strict=True):
        states.append(torch.baddbmm(add_n.flatten(0, 2), states[-1], turn_n.flatten(0, 2)))
    starts = torch.stack(states[:-1], dim=1).view(batch, heads, groups, -1, width, rank).transpose(2, 3)
    return starts.contiguous(), states[-1].view(batch, heads, groups, width, rank)


def _read(directions: Tensor, chunks: _Chunks, solved: _Solved, starts: Tensor, w: Tensor) -> Tensor:
    """Read the state before each token in one direction a token [B, H, N, 1, r, C]; gives [B, N · C, H, r]."""
    batch, heads, _, groups, width, _ = starts.shape
    carried = (starts.flatten(3, 4) @ directions.squeeze(3)).view(batch, heads, -1, groups, width, CHUNK)
    carried = carried * solved.log_before.exp()[..., None, :]
    scores = solved.decay * (directions.transpose(-1, -2) @ chunks.k).tril(-1)
    reads = carried + w @ scores.transpose(-1, -2)  # [B, H, N, G, m, C]
    return reads.permute(0, 2, 5, 1, 3, 4).reshape(batch, -1, heads, groups * width)


def _states_at(chunks: _Chunks, solved: _Solved, starts: Tensor, w: Tensor, positions: Tensor) -> Tensor:
    """Give the state after the first n tokens for each n ≥ 1 of `positions`: Λ_t s_0 + Σ_{j≤t} (Λ_t / Λ_j) w_j k_jᵀ."""
    batch, heads, _, groups, width, rank = starts.shape
    last = (positions - 1).clamp_min(0)
    chunk, token = last // CHUNK, last % CHUNK
    rows = torch.arange(batch, device=positions.device)[:, None]
    log_after = solved.log_after.transpose(1, 2)[rows, chunk]  # [B, P, H, G, C]
    picked = token[:, :, None, None, None].expand(-1, -1, heads, groups, 1)
    log_here = log_after.gather(-1, picked)
    later = torch.arange(CHUNK, device=positions.device) > token[:, :, None, None, None]
    decay = (log_here - log_after).masked_fill(later, -torch.inf).exp()
    keys = chunks.k.transpose(1, 2)[rows, chunk] * decay[..., None, :]  # [B, P, H, G, r, C]
    added = w.transpose(1, 2)[rows, chunk] @ keys.transpose(-1, -2)
    state = log_here.exp()[..., None] * starts.transpose(1, 2)[rows, chunk] + added
    return state.reshape(batch, -1, heads, groups * width, rank)
