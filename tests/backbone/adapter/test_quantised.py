"""Attach to the layers of quantisation libraries, which `make test` gives to a run of their own (see the Makefile)."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from backbone import DeltaMemConfig, MemoryModel, attach_memory, load_adapter, save_adapter

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the libraries' own, on import and use

MakeFrozen = Callable[..., PreTrainedModel]
ALL_HEADS = DeltaMemConfig(rank=4, delta_heads=("q", "k", "v", "o"))
IDS = torch.arange(3, 15)[None]
APART = "`make test` runs this file by itself, with torchao and bitsandbytes on the path"


def _int8(model: PreTrainedModel) -> PreTrainedModel:
    """Quantise with torchao: weights of 8 bits, as tensors that only look like floats."""
    torchao: ModuleType = pytest.importorskip("torchao.quantization", reason=APART)
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    return model


def _nf4(model: PreTrainedModel) -> PreTrainedModel:
    """Put bitsandbytes' 4-bit layers in place of every projection; their weight is a column of packed bytes."""
    layers: ModuleType = pytest.importorskip("bitsandbytes", reason=APART).nn
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name.endswith("_proj"):
                packed = layers.Linear4bit(child.in_features, child.out_features, bias=False, quant_type="nf4")
                packed.weight = layers.Params4bit(child.weight.detach(), requires_grad=False, quant_type="nf4")
                setattr(module, name, packed.to("cpu"))
    return model


@pytest.fixture(params=[_int8, _nf4], ids=["torchao int8", "bitsandbytes nf4"])
def quantise(request: pytest.FixtureRequest) -> Callable[[PreTrainedModel], PreTrainedModel]:
    """Quantise a decoder in place."""
    method: Callable[[PreTrainedModel], PreTrainedModel] = request.param
    return method


def _stirred(model: MemoryModel) -> MemoryModel:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.memory_layers.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    model.refresh_fingerprint()
    return model


@pytest.mark.parametrize("family", ["llama", "phi3"])
@torch.no_grad()
def test_a_quantised_decoder_carries_a_memory(
    family: str, make_frozen: MakeFrozen, quantise: Callable[[PreTrainedModel], PreTrainedModel], tmp_path: Path
) -> None:
    """Shapes are those of the plain decoder, an empty memory changes no bit, pieces are the whole, and files fit."""
    frozen = quantise(make_frozen(family))
    expected = frozen(input_ids=IDS).logits
    model = _stirred(attach_memory(frozen, ALL_HEADS, seed=0))
    plain = attach_memory(make_frozen(family), ALL_HEADS, seed=0)
    found = {name: (t.shape, t.dtype) for name, t in model.adapter_tensors().items()}
    assert found == {name: (t.shape, torch.float32) for name, t in plain.adapter_tensors().items()}
    assert torch.equal(model(IDS, write_mask=torch.zeros_like(IDS, dtype=torch.bool)).logits, expected)
    whole = model(IDS)
    assert not torch.equal(whole.logits, expected)
    first = model(IDS[:, :5])
    second = model(IDS[:, 5:], past_key_values=first.past_key_values, memory=first.memory)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole.logits, atol=1e-4, rtol=1e-3)
    save_adapter(model, tmp_path)
    loaded = load_adapter(quantise(make_frozen(family)), tmp_path)
    assert torch.equal(loaded(IDS, memory=first.memory).logits, model(IDS, memory=first.memory).logits)


def test_quantised_weights_count_in_the_fingerprint(
    make_frozen: MakeFrozen, quantise: Callable[[PreTrainedModel], PreTrainedModel]
) -> None:
    """A state of the plain decoder is not one of the quantised, and other weights behind packed bytes are others."""
    prints = []
    for change in (0.0, 0.5):
        frozen = make_frozen("llama")
        with torch.no_grad():
            frozen.get_submodule("model.layers.0.self_attn.q_proj").weight[0] += change
        prints.append(attach_memory(quantise(frozen), ALL_HEADS, seed=0).fingerprint)
    assert len({*prints, attach_memory(make_frozen("llama"), ALL_HEADS, seed=0).fingerprint}) == 3
