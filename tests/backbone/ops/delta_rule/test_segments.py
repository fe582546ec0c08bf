"""Compare the segment-level delta rule with the definition, token by token and write by write, in float64."""

from typing import get_args

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from backbone.ops.delta_rule import Problem, UpdateMode, coefficients, delta_rule, layout_of, segment_scan
from backbone.ops.delta_rule.segments import SegmentOutput

B, H, R = 2, 2, 4


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def run(leaves: list[Tensor], mode: UpdateMode, segment_of: Tensor, written: Tensor) -> SegmentOutput:
    """Write segments as a layer does: with keys as queries, and the state before each of them asked for."""
    q, k, v, beta, state, *own_decay = leaves
    segments = k.shape[1]
    numbers = torch.arange(segments).expand(len(k), -1)
    gates = coefficients(beta, own_decay[0] if own_decay else None, mode, written)
    return segment_scan(Problem(k, k, v, gates, state, numbers), q, layout_of(segment_of, segments))


def definition(leaves: list[Tensor], mode: UpdateMode, segment_of: Tensor, written: Tensor) -> SegmentOutput:
    """Write segment after segment by the definition, and let every token read the state before its own."""
    q, k, v, beta, state, *own_decay = leaves
    states, predicted = [state], []
    for g in range(k.shape[1]):
        key, value, write, *keep = (tensor[:, g : g + 1] for tensor in (k, v, beta, *own_decay))
        mask = written[:, g : g + 1]
        step = delta_rule(
            key, key, value, write, *keep, mode=mode, initial_state=states[-1], write_mask=mask, form="naive"
        )
        predicted.append((states[-1] @ key[:, 0, :, :, None])[..., 0])
        states.append(step.final_state)
    before = torch.stack(states, 1)[torch.arange(len(q))[:, None], segment_of]
    return SegmentOutput((before @ q[..., None])[..., 0], torch.stack(states, 1), torch.stack(predicted, 1))


def with_gradients(out: SegmentOutput, leaves: list[Tensor]) -> list[Tensor]:
    """Give outputs, states and the gradient of every input for a loss that weighs every number differently."""
    loss = sum((tensor * torch.linspace(-1, 1, tensor.numel()).view_as(tensor)).sum() for tensor in out)
    assert isinstance(loss, Tensor)
    return [*out, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


@settings(max_examples=60, deadline=None)
@given(
    segments=st.integers(1, 20),
    tokens=st.integers(1, 60),
    mode=st.sampled_from(get_args(UpdateMode)),
    scalar=st.booleans(),
    own_decay=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_segments_equal_the_definition(
    segments: int, tokens: int, mode: UpdateMode, scalar: bool, own_decay: bool, seed: int
) -> None:
    """Reads, states, predictions and all gradients, the initial state's included, equal the definition's.

    The rows of a batch are cut differently; some segments are empty, and some are not written.
    """
    generator = torch.Generator().manual_seed(seed)
    q = normalize(draw(generator, B, tokens, H, R), dim=-1)
    k, v = normalize(draw(generator, B, segments, H, R), dim=-1), draw(generator, B, segments, H, R)
    gates = [torch.sigmoid(draw(generator, B, segments, H, 1 if scalar else R)) for _ in range(1 + own_decay)]
    leaves = [q, k, v, gates[0], draw(generator, B, H, R, R), *gates[1:]]
    written = torch.rand(B, segments, generator=generator) > 0.3
    segment_of = torch.randint(segments, (B, tokens), generator=generator).sort(1).values
    for leaf in leaves:
        leaf.requires_grad_()
    ours, theirs = (with_gradients(form(leaves, mode, segment_of, written), leaves) for form in (run, definition))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_rows_of_a_batch_have_their_own_segments() -> None:
    """Two rows cut differently give what each gives alone."""
    generator = torch.Generator().manual_seed(0)
    q, v = draw(generator, B, 6, H, R), draw(generator, B, 3, H, R)
    k, beta = normalize(draw(generator, B, 3, H, R), dim=-1), torch.sigmoid(draw(generator, B, 3, H, R))
    leaves, written = [q, k, v, beta, draw(generator, B, H, R, R)], torch.ones(B, 3, dtype=torch.bool)
    segment_of = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1]])
    out = run(leaves, "standard", segment_of, written)
    for row in range(B):
        one = slice(row, row + 1)
        alone = run([leaf[one] for leaf in leaves], "standard", segment_of[one], written[one])
        torch.testing.assert_close(out.y[one], alone.y, rtol=1e-9, atol=1e-9)
