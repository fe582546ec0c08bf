"""Compare the message-level delta rule with the token-level one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from backbone.ops.delta_rule import Problem, coefficients, delta_rule, layout_of, segment_scan
from backbone.ops.delta_rule.segments import SegmentOutput

B, H, R = 2, 2, 4


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def run(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor, *, segment_of: Tensor, written: Tensor | None = None
) -> SegmentOutput:
    """Write segments as a layer does: with keys as queries, and the state before each of them asked for."""
    batch, segments = k.shape[:2]
    numbers = torch.arange(segments).expand(batch, -1)
    problem = Problem(k, k, v, coefficients(beta, None, "standard", written), state, numbers)
    return segment_scan(problem, q, layout_of(segment_of, segments))


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(lambda lengths: sum(lengths) > 0),
    scalar=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_tokens_read_the_state_before_their_segment(lengths: list[int], scalar: bool, seed: int) -> None:
    """Reads, predictions and states equal a loop over segments, empty ones and ones that are not written included."""
    generator = torch.Generator().manual_seed(seed)
    segments, tokens = len(lengths), sum(lengths)
    q = normalize(draw(generator, B, tokens, H, R), dim=-1)
    k, v = normalize(draw(generator, B, segments, H, R), dim=-1), draw(generator, B, segments, H, R)
    beta = torch.sigmoid(draw(generator, B, segments, H, 1 if scalar else R))
    state = draw(generator, B, H, R, R)
    written = torch.rand(B, segments, generator=generator) > 0.3
    segment_of = torch.repeat_interleave(torch.arange(segments), torch.tensor(lengths)).expand(B, -1)
    out = run(q, k, v, beta, state, segment_of=segment_of, written=written)
    for g in range(segments):
        torch.testing.assert_close(out.states[:, g], state, rtol=1e-9, atol=1e-9)
        inside = segment_of[0] == g
        reads = torch.einsum("bhij,bthj->bthi", state, q[:, inside])
        torch.testing.assert_close(out.y[:, inside], reads, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(out.predicted[:, g], (state @ k[:, g, :, :, None])[..., 0], rtol=1e-9, atol=1e-9)
        one = slice(g, g + 1)
        step = delta_rule(
            k[:, one], k[:, one], v[:, one], beta[:, one], initial_state=state, write_mask=written[:, one], form="naive"
        )
        state = step.final_state
    torch.testing.assert_close(out.states[:, -1], state, rtol=1e-9, atol=1e-9)


def test_rows_of_a_batch_have_their_own_segments() -> None:
    """Two rows cut differently give what each gives alone, with gradients into every input."""
    generator = torch.Generator().manual_seed(0)
    q, v = draw(generator, B, 6, H, R), draw(generator, B, 3, H, R)
    k, beta = normalize(draw(generator, B, 3, H, R), dim=-1), torch.sigmoid(draw(generator, B, 3, H, R))
    state = draw(generator, B, H, R, R)
    segment_of = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1]])
    leaves = [tensor.requires_grad_() for tensor in (q, k, v, beta, state)]
    out = run(*leaves, segment_of=segment_of)
    for row in range(B):
        one = slice(row, row + 1)
        alone = run(*(leaf[one] for leaf in leaves), segment_of=segment_of[one])
        torch.testing.assert_close(out.y[one], alone.y, rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(out.y.square().sum() + out.states[:, -1].square().sum(), leaves)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
