"""Compare the machine code of a decoded token with the definition."""

import logging
import sys
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import linear

from backbone.ops.delta_rule import Row, StepShape, UpdateMode, delta_rule, has_native, native_step
from backbone.ops.delta_rule.native import _compiler

EPS = 1e-6
SHAPES = st.builds(
    StepShape,
    hidden=st.sampled_from([1, 7, 32, 67]),
    heads=st.integers(1, 3),
    rank=st.sampled_from([1, 3, 8, 17]),
    mode=st.sampled_from(get_args(UpdateMode)),
    own_decay=st.booleans(),
    per_row=st.booleans(),
    unit=st.booleans(),
    eps=st.just(EPS),
    scale=st.sampled_from([0.3, 2.0]),
)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(shape: StepShape, batch: int, width: int) -> dict[str, Tensor]:
    """Draw what a step takes; biases are those of the gates alone."""
    bias = draw(shape.projected, seed=2)
    bias[: 3 * shape.heads * shape.rank] = 0
    return {
        "x": draw(batch, shape.hidden, seed=0),
        "weight": draw(shape.projected, shape.hidden, seed=1) / shape.hidden**0.5,
        "bias": bias,
        "state": draw(batch, shape.heads, shape.rank, shape.rank, seed=3),
        "steering": draw(width, shape.heads * shape.rank, seed=4),
        "out": draw(batch, width, seed=5),
        "valid": draw(batch, seed=6) > 0,
        "write": draw(batch, seed=7) > 0,
    }


def native(shape: StepShape, given: dict[str, Tensor], *, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Give reads, state and steered output, each from calls of their own."""
    step = native_step(shape)
    assert step is not None
    x, weight, bias, state, steering = (given[name] for name in ("x", "weight", "bias", "state", "steering"))
    batch, out = len(x), given["out"].clone()
    after, scratch = torch.full_like(state, torch.nan), torch.full_like(bias, torch.nan)
    reads = torch.full((batch, shape.heads * shape.rank), torch.nan)
    places = [tensor.data_ptr() for tensor in (weight, bias, state, after, reads, scratch)]
    masks = [given[name].data_ptr() if masked else 0 for name in ("valid", "write")]
    row = array("q", Row(*places, *masks, batch))
    at = row.buffer_info()[0]
    step.run(at, x.data_ptr(), 0, 0, 0)
    step.run(at, 0, steering.data_ptr(), out.data_ptr(), len(steering))
    return reads, after, out


def defined(shape: StepShape, given: dict[str, Tensor], *, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Give the same by the definition."""
    width, batch = shape.heads * shape.rank, len(given["x"])
    projected = linear(given["x"], given["weight"], given["bias"])[:, None]
    parts = projected.split([width, width, width, shape.projected - 3 * width], -1)
    q, k, v = (part.view(batch, 1, shape.heads, shape.rank) for part in parts[:3])
    if shape.unit:
        q, k = (part.tanh() / part.tanh().norm(dim=-1, keepdim=True).clamp_min(EPS) for part in (q, k))
    gates = [gate.view(batch, 1, shape.heads, -1) for gate in parts[3].sigmoid().chunk(1 + shape.own_decay, -1)]
    write = given["write"][:, None] if masked else None
    out = delta_rule(
        q, k, v, *gates, mode=shape.mode, initial_state=given["state"], write_mask=write, form="naive"
    )  # fmt: skip
    reads = out.y.reshape(batch, width)
    if masked:
        reads = reads.where(given["valid"][:, None], 0.0)
    return reads, out.final_state, given["out"] + shape.scale * linear(reads, given["steering"])


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, batch=st.integers(1, 3), width=st.sampled_from([1, 5, 64]), masked=st.booleans())
def test_machine_code_does_what_the_definition_does(shape: StepShape, batch: int, width: int, masked: bool) -> None:
    """Reads, state and steered output agree for every option and odd sizes; what a mask leaves out stays as it was."""
    given_ = inputs(shape, batch, width)
    before = {name: tensor.clone() for name, tensor in given_.items()}
    ours, theirs = native(shape, given_, masked=masked), defined(shape, given_, masked=masked)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=2e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in given_.items()), "inputs are left alone"
    if masked:
        kept = ~given_["write"]
        assert torch.equal(ours[1][kept], given_["state"][kept])


SHAPE = StepShape(33, 2, 5, "standard", own_decay=False, per_row=True, unit=True, eps=EPS, scale=2.0)


def test_equal_inputs_give_equal_bytes_in_any_thread() -> None:
    """Threads that decode at once each get the bytes that one alone gets, and so does a row in a batch."""
    given_ = inputs(SHAPE, 3, 16)
    alone = native(SHAPE, given_, masked=False)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: native(SHAPE, given_, masked=False), range(200)))
    assert all(torch.equal(a, b) for one in found for a, b in zip(alone, one, strict=True))
    second = given_ | {name: given_[name][1:2].clone() for name in ("x", "state", "out")}
    assert all(
        torch.equal(a[1:2], b) for a, b in zip(alone, native(SHAPE, second, masked=False), strict=True)
    )  # fmt: skip


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_hidden(bad: float) -> None:
    """A state or token that is not finite gives a state that is not finite, so that the guard of the bytes sees it."""
    for name in ("state", "x"):
        given_ = inputs(SHAPE, 1, 16)
        given_[name].view(-1)[0] = bad
        assert not native(SHAPE, given_, masked=False)[1].isfinite().all()


def test_an_empty_state_adds_nothing() -> None:
    """With a state of zeros the steered output has the bytes that the projection gave."""
    given_ = inputs(SHAPE, 2, 16)
    given_["state"].zero_()
    assert torch.equal(native(SHAPE, given_, masked=False)[2], given_["out"])


@pytest.fixture
def anew() -> Iterator[None]:
    """Look for llvmlite anew, in the test and after it."""
    for cached in (_compiler, native_step):
        cached.cache_clear()
    yield
    for cached in (_compiler, native_step):
        cached.cache_clear()


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize(("installed", "level"), [(False, logging.INFO), (True, logging.WARNING)])
def test_where_llvmlite_is_missing_or_broken_torch_decodes_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, installed: bool, level: int
) -> None:
    """No code is made, and the log says why, with what could be done about it."""
    monkeypatch.delitem(sys.modules, "backbone.ops.delta_rule.native_code", raising=False)
    if installed:
        monkeypatch.setitem(sys.modules, "llvmlite.binding", None)  # importing it fails
        monkeypatch.delitem(sys.modules, "llvmlite", raising=False)
    else:
        monkeypatch.setattr("backbone.ops.delta_rule.native.find_spec", lambda _: None)
    with caplog.at_level(logging.INFO, logger="backbone"):
        assert native_step(SHAPE) is None
        assert native_step(SHAPE._replace(rank=6)) is None
        assert not has_native()
    said: list[Any] = [record for record in caplog.records if record.name.endswith("delta_rule.native")]
    assert [record.levelno for record in said] == [level]
    assert "by torch" in said[0].getMessage()
