"""Check the arithmetic of states, and that a state which has run away cannot be saved."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbone import DeltaMemConfig, MemoryState, StateMismatchError, StateNotFiniteError, attach_memory

SHAPES = {"first": (2, 3), "second": (2, 3)}


def _state(seed: int, batch: int = 2, fingerprint: str = "f") -> MemoryState:
    generator = torch.Generator().manual_seed(seed)
    layers = {name: torch.randn(batch, h, r, r, generator=generator) for name, (h, r) in SHAPES.items()}
    return MemoryState(layers, fingerprint)


def _equal(a: MemoryState, b: MemoryState) -> bool:
    return a.layers.keys() == b.layers.keys() and all(torch.equal(t, b.layers[n]) for n, t in a.layers.items())


@given(seed=st.integers(0, 2**31), weight=st.floats(0, 1))
def test_interpolation_lies_on_the_line_between(seed: int, weight: float) -> None:
    """A mix is `weight` of the way from one memory to the other, and its ends are the two memories."""
    a, b = _state(seed), _state(seed + 1)
    mixed = a.interpolate(b, weight)
    torch.testing.assert_close(mixed.distance(a), weight * b.distance(a), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed.distance(b), (1 - weight) * b.distance(a), atol=1e-4, rtol=1e-4)
    assert _equal(a.interpolate(b, 0.0), a)
    assert _equal(a.interpolate(b, 1.0), b)


@given(seed=st.integers(0, 2**31), factor=st.floats(0, 1))
def test_decay_scales_norms(seed: int, factor: float) -> None:
    """Decay multiplies every norm by its factor; 1 changes nothing and 0 empties."""
    state = _state(seed)
    for name, norm in state.decay(factor).norms().items():
        torch.testing.assert_close(norm, factor * state.norms()[name])
    assert _equal(state.decay(1.0), state)
    assert _equal(state.decay(0.0), MemoryState.zeros(SHAPES, "f", 2))


def test_decay_to_nothing_empties_a_state_that_has_run_away() -> None:
    """A factor of 0 gives zeros whatever was there, infinite values included."""
    state = _state(0)
    state.layers["first"][0] = torch.inf
    assert _equal(state.decay(0.0), MemoryState.zeros(SHAPES, "f", 2))


def test_norms_and_distance_are_frobenius() -> None:
    """Norms are per layer, conversation and state; the distance to an empty memory joins them all."""
    state = _state(0)
    norms = state.norms()
    assert norms["first"].shape == (2, 2)
    assert norms["second"][1, 0].item() == pytest.approx(state.layers["second"][1, 0].square().sum().sqrt().item())
    whole = torch.stack(list(norms.values())).square().sum((0, 2)).sqrt()
    torch.testing.assert_close(state.distance(MemoryState.zeros(SHAPES, "f", 2)), whole)


def test_reset_empties_only_the_named_layers() -> None:
    """Reset empties the layers that it is given and leaves both the others and the original as they were."""
    state = _state(0)
    before = state.layers["first"].clone()
    cleared = state.reset(["first"])
    assert not cleared.layers["first"].any()
    assert torch.equal(cleared.layers["second"], state.layers["second"])
    assert torch.equal(state.layers["first"], before)
    with pytest.raises(StateMismatchError, match="third"):
        state.reset(["third"])


def test_memories_that_do_not_match_are_refused() -> None:
    """Two memories of other adapters or batch sizes cannot be mixed or compared."""
    state = _state(0)
    for other in (_state(0, fingerprint="g"), _state(0, batch=1)):
        with pytest.raises(StateMismatchError):
            state.interpolate(other, 0.5)
        with pytest.raises(StateMismatchError):
            state.distance(other)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_outside_0_to_1_are_refused(share: float) -> None:
    """A weight or factor outside 0 to 1 is refused."""
    state = _state(0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        state.interpolate(state, share)
    with pytest.raises(ValueError, match="from 0 to 1"):
        state.decay(share)


@torch.no_grad()
def test_arithmetic_ends_an_open_message(make_frozen: Callable[..., torch.nn.Module]) -> None:
    """What comes out of arithmetic has no open message and is taken by the model that wrote it."""
    model = attach_memory(make_frozen("llama"), DeltaMemConfig(rank=4, granularity="message"), seed=0)
    ids = torch.arange(3, 9)[None]
    memory = model(ids, segment_ids=torch.zeros_like(ids)).memory
    assert memory.open_segment is not None
    for result in (memory.interpolate(memory, 0.5), memory.decay(0.5), memory.reset([])):
        assert result.open_segment is None
        model(ids, memory=result, segment_ids=torch.ones_like(ids))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.1e6, -1.1e6])
def test_a_state_that_has_run_away_cannot_be_saved(value: float) -> None:
    """Bytes are made of finite states up to ±1e6 only; the error names the layer."""
    layers = dict(_state(0).layers)
    layers["second"] = layers["second"].index_fill(2, torch.tensor([1]), value)
    with pytest.raises(StateNotFiniteError, match="second"):
        MemoryState(layers, "f").to_bytes()


def test_the_largest_healthy_value_is_saved() -> None:
    """A value of exactly the limit survives the bytes."""
    state = MemoryState({"first": torch.full((1, 1, 2, 2), 1e6)}, "f")
    assert _equal(MemoryState.from_bytes(state.to_bytes()), state)
