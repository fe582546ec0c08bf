"""Compare every form of the delta rule with its definition, in float64."""

from itertools import pairwise
from typing import NamedTuple, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from backbone.ops.delta_rule import DeltaRuleOutput, Form, UpdateMode, delta_rule

B, H, R = 2, 2, 4
LENGTHS = (1, 2, 15, 16, 17, 63, 100, 1000)
MODES = get_args(UpdateMode)
FAST_FORMS = ("chunked", "recurrent")


class Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    lam: Tensor | None
    state: Tensor

    def tensors(self) -> list[Tensor]:
        """Return what is there, without the gates that are not."""
        return [tensor for tensor in self if tensor is not None]


def inputs(length: int, *, gates: int = R, own_decay: bool = False, seed: int = 0) -> Inputs:
    """Draw the inputs of a call as an adapter makes them: unit q and k, gates in (0, 1)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Inputs(
        q=normalize(draw(B, length, H, R), dim=-1),
        k=normalize(draw(B, length, H, R), dim=-1),
        v=draw(B, length, H, R),
        beta=torch.sigmoid(draw(B, length, H, gates) - 1.5),
        lam=torch.sigmoid(draw(B, length, H, gates) + 2) if own_decay else None,
        state=draw(B, H, R, R),
    )


def run(
    given: Inputs,
    form: Form,
    *,
    mode: UpdateMode = "standard",
    write_mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> DeltaRuleOutput:
    return delta_rule(
        given.q,
        given.k,
        given.v,
        given.beta,
        given.lam,
        mode=mode,
        initial_state=given.state,
        write_mask=write_mask,
        state_positions=positions,
        form=form,
    )


def positions_of(length: int) -> Tensor:
    """Ask for the first and last states and for those around a chunk's end, in no order."""
    counts = torch.tensor([length, 0, length // 2, min(16, length), min(15, length), min(17, length), 1])
    return torch.stack([counts, counts.flip(0)])


def run_with_gradients(given: Inputs, form: Form, mode: UpdateMode, mask: Tensor) -> list[Tensor]:
    """Give outputs, states and the gradient of every input for a loss that weighs every number differently."""
    leaves = Inputs(*(None if tensor is None else tensor.clone().requires_grad_() for tensor in given))
    out = run(leaves, form, mode=mode, write_mask=mask, positions=positions_of(given.q.shape[1]))
    results = [tensor for tensor in out if tensor is not None]
    loss = torch.stack([(tensor * torch.linspace(-1, 1, tensor.numel()).view_as(tensor)).sum() for tensor in results])
    gradients = torch.autograd.grad(loss.sum(), leaves.tensors(), allow_unused=True, materialize_grads=True)
    return [*results, *gradients]


@pytest.mark.parametrize("own_decay", [False, True], ids=["coupled", "own-decay"])
@pytest.mark.parametrize("gates", [1, R], ids=["scalar", "per-row"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", LENGTHS)
def test_forms_equal_the_definition(length: int, mode: UpdateMode, gates: int, own_decay: bool) -> None:
    """Reads, final state, states at positions and all gradients equal the definition's, under a write mask."""
    given_inputs = inputs(length, gates=gates, own_decay=own_decay)
    mask = torch.rand(B, length, generator=torch.Generator().manual_seed(length)) > 0.3
    expected = run_with_gradients(given_inputs, "naive", mode, mask)
    for form in FAST_FORMS:
        for ours, theirs in zip(run_with_gradients(given_inputs, form, mode, mask), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_definition_is_the_equation() -> None:
    """One step by hand: read before write, decay and erase by row, write v along k."""
    q, k, v = torch.tensor([1.0, 2.0]), torch.tensor([0.6, 0.8]), torch.tensor([3.0, -1.0])
    beta, lam = torch.tensor([0.5, 0.25]), torch.tensor([0.9, 0.8])
    state = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    erase = {"standard": beta, "no_lambda": beta, "lambda_outside": lam * beta}
    for mode in MODES:
        out = delta_rule(
            *(tensor[None, None, None] for tensor in (q, k, v, beta, lam)),
            mode=mode,
            initial_state=state[None, None],
            form="naive",
        )
        keep = torch.ones(2) if mode == "no_lambda" else lam
        kept = torch.diag(keep) @ state - torch.outer(erase[mode] * (state @ k), k)
        torch.testing.assert_close(out.y[0, 0, 0], state @ q)
        torch.testing.assert_close(out.final_state[0, 0], kept + torch.outer(beta * v, k))


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 70),
    mode=st.sampled_from(MODES),
    gates=st.sampled_from([1, R]),
    own_decay=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_predictions_are_what_the_state_held_under_the_key(
    length: int, mode: UpdateMode, gates: int, own_decay: bool, seed: int
) -> None:
    """Every form tells S_{t-1} k_t of every token, of those that may not write as well, and only when asked."""
    given_inputs = inputs(length, gates=gates, own_decay=own_decay, seed=seed)
    mask = torch.rand(B, length, generator=torch.Generator().manual_seed(seed)) > 0.3
    options = {"mode": mode, "initial_state": given_inputs.state, "write_mask": mask}
    counts = torch.arange(length).expand(B, -1)
    states = delta_rule(*given_inputs[:5], **options, state_positions=counts, form="naive").states_at
    assert states is not None
    expected = (states @ given_inputs.k[..., None])[..., 0]
    for form in ("naive", *FAST_FORMS):
        out = delta_rule(*given_inputs[:5], **options, predict=True, form=form)
        assert out.predicted is not None
        torch.testing.assert_close(out.predicted, expected, rtol=1e-9, atol=1e-9)
        assert delta_rule(*given_inputs[:5], **options, form=form).predicted is None


def test_coupled_decay_keeps_what_is_not_written() -> None:
    """Leaving the decay out is the same as giving 1 - β."""
    given_inputs = inputs(20)
    coupled = run(given_inputs, "chunked")
    explicit = run(given_inputs._replace(lam=1 - given_inputs.beta), "chunked")
    torch.testing.assert_close(coupled.final_state, explicit.final_state)


def test_a_scalar_gate_is_the_same_gate_for_every_row() -> None:
    """[.., 1] gates give what the same gates repeated over the rows give, also when only one of the two is scalar."""
    given_inputs = inputs(40, gates=1, own_decay=True)
    assert given_inputs.lam is not None
    wide = given_inputs.beta.expand(-1, -1, -1, R)
    for form in ("naive", *FAST_FORMS):
        narrow_out = run(given_inputs, form)
        torch.testing.assert_close(run(given_inputs._replace(beta=wide), form).y, narrow_out.y)
        both = given_inputs._replace(beta=wide, lam=given_inputs.lam.expand(-1, -1, -1, R))
        torch.testing.assert_close(run(both, form).final_state, narrow_out.final_state)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.sets(st.integers(1, 69), max_size=5),
    forms=st.lists(st.sampled_from(["naive", "chunked", "recurrent", "auto"]), min_size=6, max_size=6),
    seed=st.integers(0, 1000),
    mode=st.sampled_from(MODES),
)
def test_any_split_equals_the_whole(cuts: set[int], forms: list[Form], seed: int, mode: UpdateMode) -> None:
    """Pieces of any length, each run by any form from the state before it, give the whole's reads and state."""
    whole = inputs(70, own_decay=True, seed=seed)
    mask = torch.rand(B, 70, generator=torch.Generator().manual_seed(seed)) > 0.3
    expected = run(whole, "naive", mode=mode, write_mask=mask)
    state, reads = whole.state, []
    for (start, end), form in zip(pairwise([0, *sorted(cuts), 70]), forms, strict=False):
        piece = Inputs(*(tensor[:, start:end] for tensor in whole.tensors()[:-1]), state)
        out = run(piece, form, mode=mode, write_mask=mask[:, start:end])
        state = out.final_state
        reads.append(out.y)
    torch.testing.assert_close(torch.cat(reads, 1), expected.y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state, expected.final_state, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["naive", *FAST_FORMS])
def test_a_mask_keeps_the_state(form: Form) -> None:
    """With no writes the state comes out bit for bit, and every token reads it."""
    given_inputs = inputs(33)
    out = run(given_inputs, form, write_mask=torch.zeros(B, 33, dtype=torch.bool))
    assert torch.equal(out.final_state, given_inputs.state)
    torch.testing.assert_close(out.y, torch.einsum("bhij,bthj->bthi", given_inputs.state, given_inputs.q))


@pytest.mark.parametrize("form", ["naive", *FAST_FORMS])
def test_gates_at_their_ends(form: Form) -> None:
    """Decay 0 forgets everything before it and decay 1 nothing, without NaN in outputs or gradients."""
    given_inputs = inputs(50, own_decay=True)
    assert given_inputs.lam is not None
    decay = torch.ones_like(given_inputs.lam)
    decay[:, 10] = 0
    beta = torch.zeros_like(given_inputs.beta)
    beta[:, 20] = 1
    at_ends = given_inputs._replace(lam=decay.requires_grad_(), beta=beta.requires_grad_())
    out = run(at_ends, form)
    expected = given_inputs.v[:, 20, :, :, None] * given_inputs.k[:, 20, :, None, :]
    torch.testing.assert_close(out.final_state, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.y[:, 11:20], torch.zeros_like(out.y[:, 11:20]))
    gradients = torch.autograd.grad(out.y.sum(), [decay, beta])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_half_precision_inputs_keep_a_float32_state() -> None:
    """bfloat16 inputs are computed in float32, also under autocast."""
    half = Inputs(*(None if tensor is None else tensor.bfloat16() for tensor in inputs(40)))
    alone = run(half, "chunked")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(half, "chunked")
    assert alone.y.dtype == alone.final_state.dtype == torch.float32
    assert torch.equal(alone.final_state, inside.final_state)


@pytest.mark.parametrize("form", FAST_FORMS)
def test_float32_stays_close_over_a_long_sequence(form: Form) -> None:
    """After 1,000 tokens float32 differs from float64 by rounding only."""
    exact = inputs(1000)
    rounded = run(Inputs(*(None if tensor is None else tensor.float() for tensor in exact)), form)
    expected = run(exact, "naive")
    torch.testing.assert_close(rounded.final_state.double(), expected.final_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rounded.y.double(), expected.y, rtol=1e-5, atol=1e-5)


def test_no_initial_state_is_zeros() -> None:
    """Leaving the state out starts from zeros, so the first read is zero."""
    given_inputs = inputs(5)
    out = delta_rule(*given_inputs[:4])
    zero = run(given_inputs._replace(state=torch.zeros_like(given_inputs.state)), "auto")
    assert torch.equal(out.final_state, zero.final_state)
    assert not out.y[:, 0].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 3)}, "q must be"),
        ({"k": torch.zeros(B, 5, H, R + 1)}, "k must have shape"),
        ({"beta": torch.zeros(B, 5, H, R - 1)}, "beta must have shape"),
        ({"initial_state": torch.zeros(B, H, R, R + 1)}, "initial_state must have shape"),
        ({"write_mask": torch.ones(B, 4, dtype=torch.bool)}, "write_mask must have shape"),
        ({"state_positions": torch.zeros(B + 1, 1, dtype=torch.long)}, "state_positions must have shape"),
        ({"state_positions": torch.full((B, 1), 6)}, "state_positions must lie"),
        ({"mode": "sometimes"}, "mode must be one of"),
        ({"form": "fastest"}, "form must be"),
    ],
    ids=["q", "k", "beta", "state", "write-mask", "positions", "position-range", "mode", "form"],
)
def test_bad_calls_say_what_is_wrong(change: dict[str, object], message: str) -> None:
    """A wrong shape or name raises ValueError that names the argument."""
    given_inputs = inputs(5)
    call: dict[str, object] = dict(zip("qkv", given_inputs[:3], strict=True)) | {"beta": given_inputs.beta}
    with pytest.raises(ValueError, match=message):
        delta_rule(**(call | change))  # type: ignore[arg-type]
