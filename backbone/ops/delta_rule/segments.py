"""Run the delta rule once a segment while every token reads: the state-level form of message-level writing."""

from typing import NamedTuple, cast

import torch
from torch import Tensor

from backbone.ops.delta_rule.api import scan
from backbone.ops.delta_rule.common import Problem


class SegmentOutput(NamedTuple):
    """Hold reads y [B, T, H, r] and states [B, G + 1, H, r, r]: entry g is before segment g, the last is the end.

    predicted [B, G, H, r]: what the state before each segment held under the segment's key.
    """

    y: Tensor
    states: Tensor
    predicted: Tensor


class SegmentLayout(NamedTuple):
    """Say where tokens lie when they are laid out by segment: a state a token would be large.

    slot [B, T]: the token's place among `segments` times `longest` ones.
    """

    slot: Tensor
    segments: int
    longest: int


def layout_of(segment_of: Tensor, segments: int) -> SegmentLayout:
    """Lay out the tokens of segments [B, T], each in [0, segments); asks the device for one number if T > 1."""
    numbers = torch.arange(segments, device=segment_of.device)
    so_far = (segment_of[..., None] == numbers).long().cumsum(1)  # [B, T, G]
    place = so_far.gather(2, segment_of[..., None])[..., 0] - 1
    longest = 1 if segment_of.shape[1] == 1 else int(so_far[:, -1].max())
    return SegmentLayout(segment_of * longest + place, segments, longest)


def segment_scan(problem: Problem, q: Tensor, layout: SegmentLayout) -> SegmentOutput:
    """Let each token read the state as it was before its segment; write once after each segment.

    problem: one write a segment, with the keys as queries, so that the reads are predictions, and positions 0 to G - 1.
    q: [B, T, H, r].
    """
    written = scan(problem)
    states = torch.cat([cast("Tensor", written.states_at), written.final_state[:, None]], 1)
    return SegmentOutput(_read(states, q.to(states.dtype), layout), states, written.y)


def _read(states: Tensor, q: Tensor, layout: SegmentLayout) -> Tensor:
    """Read y_t = S_{segment of t} q_t."""
    batch, length, heads, rank = q.shape
    if layout.segments == 1:
        return torch.einsum("bhij,bthj->bthi", states[:, 0], q)
    slot = layout.slot[..., None].expand(-1, -1, heads * rank)
    laid_out = q.new_zeros(batch, layout.segments * layout.longest, heads * rank).scatter(1, slot, q.flatten(2))
    laid_out = laid_out.view(batch, layout.segments, layout.longest, heads, rank)
    reads = torch.einsum("bghij,bglhj->bglhi", states[:, :-1], laid_out).reshape(batch, -1, heads * rank)
    return reads.gather(1, slot).view(batch, length, heads, rank)
