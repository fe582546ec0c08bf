"""Run the delta rule once a segment while every token reads: the state-level form of message-level writing."""

import torch
from torch import Tensor

from backbone.ops.delta_rule.api import delta_rule
from backbone.ops.delta_rule.common import Form, UpdateMode


def segment_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    lam: Tensor | None = None,
    *,
    segment_of: Tensor,
    mode: UpdateMode = "standard",
    initial_state: Tensor | None = None,
    write_mask: Tensor | None = None,
    form: Form = "auto",
) -> tuple[Tensor, Tensor]:
    """Let each token read the state as it was before its segment; write once after each segment.

    Shapes: q [B, T, H, r]; k, v [B, G, H, r] and beta, lam [B, G, H, r or 1], one per segment; segment_of [B, T] int in
    [0, G); write_mask [B, G] bool, False for a segment that is not written.
    Gives the reads y [B, T, H, r] and the states [B, G + 1, H, r, r], entry g before segment g, the last one at the end.
    """
    segments = k.shape[1]
    counts = torch.arange(segments + 1, device=k.device).expand(len(k), -1)
    states = delta_rule(
        k,
        k,
        v,
        beta,
        lam,
        mode=mode,
        initial_state=initial_state,
        write_mask=write_mask,
        state_positions=counts,
        form=form,
    ).states_at
    assert states is not None  # positions were given
    return _read(states, q, segment_of), states


def _read(states: Tensor, q: Tensor, segment_of: Tensor) -> Tensor:
    """Read y_t = S_{segment of t} q_t without one state a token: tokens are laid out by segment, then put back."""
    batch, length, heads, rank = q.shape
    segments = states.shape[1] - 1
    q = q.to(states.dtype)
    if segments == 1:
        return torch.einsum("bhij,bthj->bthi", states[:, 0], q)
    inside = torch.nn.functional.one_hot(segment_of, segments).cumsum(1)  # [B, T, G]
    rank_in_segment = inside.gather(2, segment_of[..., None])[..., 0] - 1
    longest = int(inside[:, -1].max())
    slot = (segment_of * longest + rank_in_segment)[..., None].expand(-1, -1, heads * rank)
    laid = q.new_zeros(batch, segments * longest, heads * rank).scatter(1, slot, q.flatten(2))
    laid = laid.view(batch, segments, longest, heads, rank)
    reads = torch.einsum("bghij,bglhj->bglhi", states[:, :-1], laid).reshape(batch, -1, heads * rank)
    return reads.gather(1, slot).view(batch, length, heads, rank)
