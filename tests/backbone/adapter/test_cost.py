"""Check what keeps the memory cheap: no questions to the device, joint weights, writes of all layers at once."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from backbone import DeltaMemConfig, MemoryModel, attach_memory

IDS = torch.arange(3, 43)[None]
MESSAGES = torch.arange(40)[None] // 10
NEXT = torch.tensor([[5]])


class CountedQuestions(TorchDispatchMode):
    """Count how often a program waits for a tensor's value."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def questions(run: Callable[[], object]) -> int:
    """Return how often a call waits for a value."""
    with torch.no_grad(), CountedQuestions() as counted:
        run()
    return counted.count


@pytest.fixture
def model(make_frozen: Callable[..., PreTrainedModel]) -> MemoryModel:
    """Return a model with a fresh memory."""
    return attach_memory(make_frozen("qwen3"), DeltaMemConfig(rank=4, num_states=2), seed=0)


@pytest.mark.parametrize("granularity", ["token", "message"])
def test_the_device_is_asked_no_more_than_by_the_frozen_model(
    make_frozen: Callable[..., PreTrainedModel], granularity: str
) -> None:
    """A token costs no wait for a value, nor does a layer; a prompt of messages costs two, for its layout."""
    frozen = make_frozen("qwen3")
    model = attach_memory(make_frozen("qwen3"), DeltaMemConfig(rank=4, granularity=granularity), seed=0)
    by_message = granularity == "message"
    first = model(IDS, segment_ids=MESSAGES if by_message else None)
    before = frozen(input_ids=IDS).past_key_values

    def step() -> object:
        ids = torch.tensor([[4]]) if by_message else None
        return model(NEXT, past_key_values=first.past_key_values, memory=first.memory, segment_ids=ids)

    prompt = questions(lambda: model(IDS, segment_ids=MESSAGES if by_message else None))
    assert prompt == questions(lambda: frozen(input_ids=IDS)) + (2 if by_message else 0)
    assert questions(step) == questions(lambda: frozen(input_ids=NEXT, past_key_values=before))


def test_a_question_is_counted() -> None:
    """The counter sees what it is there to see."""
    assert questions(lambda: bool(IDS.any())) == 1


def changed_in_place(model: MemoryModel) -> MemoryModel:
    with torch.no_grad():
        for layer in model.layers:
            layer.memory_k_proj.mul_(-3)
            layer.beta_bias.data.fill_(2.0)
    return model


def assigned(model: MemoryModel) -> MemoryModel:
    state = model.memory_layers.state_dict()
    other = {name: tensor if ".delta_" in name else tensor * 1.5 for name, tensor in state.items()}
    model.memory_layers.load_state_dict(other, assign=True)
    return model


def copied(model: MemoryModel) -> MemoryModel:
    return changed_in_place(copy.deepcopy(model))


def moved(model: MemoryModel) -> MemoryModel:
    # As to another device: every tensor is made anew there.
    return changed_in_place(model._apply(lambda tensor: tensor.clone()))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("change", [changed_in_place, assigned, copied, moved])
def test_joint_weights_follow_the_parameters(model: MemoryModel, change: Callable[[MemoryModel], MemoryModel]) -> None:
    """However weights change, a pass without gradients uses them as one with gradients does, which joins them anew."""
    with torch.no_grad():
        before = model(IDS).logits
        model = change(model)
        after = model(IDS).logits
    assert not torch.allclose(before, after, atol=1e-4)
    torch.testing.assert_close(after, model(IDS).logits.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_models_dtype_is_its_backbones(model: MemoryModel, dtype: torch.dtype) -> None:
    """Casting a model casts the decoder; the memory stays float32, exactly as it was, and reads and writes."""
    weights = {name: tensor.clone() for name, tensor in model.memory_layers.state_dict().items()}
    model.to(dtype)
    assert model.backbone.dtype == dtype
    for name, tensor in model.memory_layers.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[name])
    first = model(IDS)
    after = model(NEXT, past_key_values=first.past_key_values, memory=first.memory)
    assert after.logits.dtype == dtype
    for name, state in after.memory.layers.items():
        assert state.dtype == torch.float32
        assert not torch.equal(state, first.memory.layers[name])


@torch.no_grad()
def test_one_token_is_written_as_by_the_definition(model: MemoryModel) -> None:
    """Tokens decoded one by one leave the memory that the naive form leaves of all at once, masked ones included."""
    mask = torch.rand(1, 40, generator=torch.Generator().manual_seed(0)) > 0.3
    memory, past = None, None
    for at in range(40):
        one = slice(at, at + 1)
        logits, past, memory, *_ = model(IDS[:, one], past_key_values=past, memory=memory, write_mask=mask[:, one])
    for layer in model.layers:
        layer.form = "naive"
    whole = model(IDS, write_mask=mask)
    torch.testing.assert_close(logits[0, -1], whole.logits[0, -1], rtol=1e-4, atol=1e-4)
    assert memory is not None
    for name, state in memory.layers.items():
        torch.testing.assert_close(state, whole.memory.layers[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("granularity", ["token", "message"])
@torch.no_grad()
def test_a_write_mask_may_be_one_value(make_frozen: Callable[..., PreTrainedModel], granularity: str) -> None:
    """True and False stand for masks of nothing else, also within a message that is open."""
    config = DeltaMemConfig(rank=4, granularity=granularity)
    model = attach_memory(make_frozen("qwen3"), config, seed=0)
    ids = MESSAGES if granularity == "message" else None
    past = model(IDS, segment_ids=ids)
    again = None if ids is None else torch.full_like(ids, 3)
    for value in (True, False):
        mask = torch.full_like(IDS, value, dtype=torch.bool)
        one = model(IDS, memory=past.memory, write_mask=value, segment_ids=again).memory
        other = model(IDS, memory=past.memory, write_mask=mask, segment_ids=again).memory
        assert all(torch.equal(one.layers[name], other.layers[name]) for name in one.layers)
        assert value != all(torch.equal(one.layers[name], past.memory.layers[name]) for name in one.layers)
