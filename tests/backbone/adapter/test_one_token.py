"""Check the short way that one token takes without gradients against the general one, and messages token by token."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from backbone import DeltaMemConfig, MemoryModel, MemoryState, UnsupportedModelError, attach_memory
from backbone.adapter import native_token
from backbone.adapter.native_token import NativeToken
from backbone.adapter.one_token import OneToken, one_token

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [0, 0, 15, 16, 17, 18, 19]])
REAL = torch.tensor([[1] * 7, [0, 0, 1, 1, 1, 1, 1]])
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "states": {"num_states": 3, "delta_heads": ("q", "k", "v", "o")},
    "o_alone": {"delta_heads": ("o",), "delta_o_rmsnorm": True},
    "learned_scale": {"delta_scale": "head"},
    "gate_a_state": {"per_row_gates": False, "coupled_decay": False, "num_states": 2},
    "keeps_all": {"update_mode": "no_lambda", "delta_heads": ("k", "o")},
    "as_projected": {"normalize_qk": False, "update_mode": "lambda_outside", "coupled_decay": False},
    "message": {"granularity": "message"},
    "message_states": {"granularity": "message", "num_states": 2},
}


def stirred(frozen: PreTrainedModel, **options: Any) -> MemoryModel:
    model = attach_memory(frozen, DeltaMemConfig(rank=4, **options), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.memory_layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    model.refresh_fingerprint()
    return model


def tensors(memory: MemoryState) -> list[torch.Tensor]:
    found = list(memory.layers.values())
    if memory.open_segment is not None:
        opened = memory.open_segment
        found += [opened.ids, opened.counts, *opened.sums.values(), *opened.before.values()]
    return found


@pytest.mark.parametrize("way", [NativeToken, OneToken])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_short_way_is_the_general_one(
    make_frozen: Callable[..., PreTrainedModel],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    dtype: torch.dtype,
    rows: int,
    way: type,
) -> None:
    """With and without gradients a token is read and written alike; only without them a short way is taken."""
    model = stirred(make_frozen("qwen3", dtype=dtype), **options)
    by_message = model.config.writes_segments
    if way is OneToken:
        monkeypatch.setattr(native_token, "MOST_PRODUCTS", 0)
    ids, real = IDS[:rows], REAL[:rows]
    segments = torch.tensor([0, 0, 0, 1, 1, 1, 1]).expand(rows, -1) if by_message else None
    write = torch.tensor([[True], [False]])[:rows]
    taken: list[type] = []

    def noted(*given: Any) -> Any:
        found = one_token(*given)
        taken.extend([] if found is None else [type(found)])
        return found

    monkeypatch.setattr("backbone.adapter.model.one_token", noted)
    with torch.no_grad():
        first = model(ids[:, :6], real[:, :6], segment_ids=None if segments is None else segments[:, :6])
    assert not taken

    def step(memory: MemoryState) -> Any:
        past, last = copy.deepcopy(first.past_key_values), None if segments is None else segments[:, 6:]
        return model(ids[:, 6:], real, past_key_values=past, memory=memory, segment_ids=last, write_mask=write)

    before = [tensor.clone() for tensor in tensors(first.memory)]
    general = step(first.memory)
    assert not taken
    with torch.no_grad():
        quick = step(first.memory)
    assert taken == [OneToken if by_message else way], "machine code writes tokens, not messages"
    # In half precision the two ways round the sum of projection and correction differently.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-1
    torch.testing.assert_close(quick.logits, general.logits.detach(), rtol=tolerance, atol=tolerance)
    for one, other in zip(tensors(quick.memory), tensors(general.memory), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=tolerance, atol=tolerance)
    assert all(torch.equal(one, other) for one, other in zip(before, tensors(first.memory), strict=True))


SEGMENTS = torch.tensor([[0, 0, 1, -1, 1, 1, 2, 2, 2, -1, -1, 3], [9, 9, 9, 4, 4, 4, 4, 4, 7, 7, 8, 8]])
WRITES = torch.tensor([[1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1]]).bool()


@torch.no_grad()
def test_messages_may_come_token_by_token(make_frozen: Callable[..., PreTrainedModel]) -> None:
    """Messages that begin, go on, end, and are not written, in a padded batch: each token leaves what one pass does."""
    model = stirred(make_frozen("qwen3"), granularity="message")
    ids = torch.arange(24).view(2, 12) + 3
    real = torch.ones_like(ids)
    real[1, :3] = 0
    out = None
    for at in range(12):
        one = slice(at, at + 1)
        out = model(
            ids[:, one], real[:, : at + 1], segment_ids=SEGMENTS[:, one], write_mask=WRITES[:, one],
            past_key_values=None if out is None else out.past_key_values, memory=None if out is None else out.memory,
        )  # fmt: skip
        upto = slice(0, at + 1)
        whole = model(ids[:, upto], real[:, upto], segment_ids=SEGMENTS[:, upto], write_mask=WRITES[:, upto])
        rows = real[:, at] > 0
        torch.testing.assert_close(out.logits[rows, -1], whole.logits[rows, -1], rtol=1e-4, atol=1e-4)
        for one_by_one, at_once in zip(tensors(out.memory), tensors(whole.memory), strict=True):
            torch.testing.assert_close(one_by_one, at_once, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", [NativeToken, OneToken])
@pytest.mark.parametrize("name", ["q_proj", "o_proj"])
@torch.no_grad()
def test_a_projection_that_runs_twice_or_too_early_is_refused(
    make_frozen: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch, name: str, way: type
) -> None:
    """A decoder that does not run q_proj once, and o_proj after it, is refused with the reason."""
    model = stirred(make_frozen("qwen3"))
    if way is OneToken:
        monkeypatch.setattr(native_token, "MOST_PRODUCTS", 0)
    attention = model.backbone.get_decoder().layers[0].self_attn
    started: list[str] = []

    def run_another(_: Any, args: tuple[torch.Tensor]) -> None:
        if not started:
            started.append(name)
            width = attention.get_submodule(name).base.in_features
            attention.get_submodule(name)(args[0].new_zeros(1, 1, width))

    attention.q_proj.register_forward_pre_hook(run_another)
    with pytest.raises(UnsupportedModelError, match="ran twice" if name == "q_proj" else "ran before q_proj"):
        model(torch.tensor([[5]]))


@torch.no_grad()
def test_what_machine_code_cannot_address_takes_the_other_way(make_frozen: Callable[..., PreTrainedModel]) -> None:
    """States that are views of others are read as they are; weights that are not float32 are torch's to refuse."""
    model = stirred(make_frozen("qwen3"))
    memory = model(IDS).memory
    turned = {name: tensor.mT.contiguous().mT for name, tensor in memory.layers.items()}
    assert not any(tensor.is_contiguous() for tensor in turned.values())
    step = IDS[:, :1]
    plain, strided = model(step, memory=memory), model(step, memory=MemoryState(turned, memory.fingerprint))
    assert torch.equal(plain.logits, strided.logits)
    for parameter in model.layers[0].parameters():
        parameter.data = parameter.data.half()
    with pytest.raises(RuntimeError, match="dtype"):
        model(step, memory=memory)


@torch.no_grad()
def test_a_layer_that_does_not_run_is_refused(make_frozen: Callable[..., PreTrainedModel]) -> None:
    """The memory of a layer whose projections were never called is not made up."""
    model = stirred(make_frozen("qwen3"))
    attention = model.backbone.get_decoder().layers[1].self_attn
    for name in ("q_proj", "o_proj"):
        setattr(attention, name, attention.get_submodule(name).base)
    with pytest.raises(UnsupportedModelError, match="did not run"):
        model(IDS[:, :1])
