"""Check what a memory can be attached to, and why it is refused elsewhere."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, T5Config, T5ForConditionalGeneration

from backbone import AdapterError, ConfigError, DeltaMemConfig, UnsupportedModelError, attach_memory

ALL_HEADS = DeltaMemConfig(rank=4, delta_heads=("q", "k", "v", "o"))


class PackedLinear(nn.Module):
    """Stand in for a quantised linear layer: its weight is a flat uint8 buffer that says nothing of its shape."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax() / 127
        self.register_buffer("weight", ((linear.weight.detach() / scale).round() + 128).to(torch.uint8).flatten())
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Project x with the weight unpacked."""
        weight = (self.weight.view(self.out_features, self.in_features).to(x.dtype) - 128) * self.scale
        return nn.functional.linear(x, weight)


def _quantise(model: PreTrainedModel) -> PreTrainedModel:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name.endswith("_proj"):
                setattr(module, name, PackedLinear(child))
    return model


@pytest.mark.parametrize("family", ["qwen3", "phi3"])
@torch.no_grad()
def test_shapes_of_quantised_layers_are_their_features(
    make_frozen: Callable[..., PreTrainedModel], family: str
) -> None:
    """A decoder whose weights are packed into bytes carries a memory as its unpacked twin does."""
    ids = torch.arange(3, 15)[None]
    expected = _quantise(make_frozen(family))(input_ids=ids).logits
    model = attach_memory(_quantise(make_frozen(family)), ALL_HEADS, seed=0)
    plain = attach_memory(make_frozen(family), ALL_HEADS, seed=0)
    assert {n: t.shape for n, t in model.adapter_tensors().items()} == {
        n: t.shape for n, t in plain.adapter_tensors().items()
    }
    assert all(t.dtype == torch.float32 for t in model.adapter_tensors().values())
    assert torch.equal(model(ids, write_mask=torch.zeros_like(ids, dtype=torch.bool)).logits, expected)
    assert not torch.equal(model(ids).logits, expected)


def test_decoders_without_known_projections_are_refused() -> None:
    """A decoder whose projections are fused in an order that is not known is refused, and the error says so."""
    gpt = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=16))
    with pytest.raises(UnsupportedModelError, match="GPT2LMHeadModel has no attention module with q_proj and o_proj"):
        attach_memory(gpt, ALL_HEADS)


def test_encoder_decoders_are_refused() -> None:
    """An encoder-decoder is refused by that name."""
    t5 = T5ForConditionalGeneration(
        T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=16, decoder_start_token_id=0)
    )
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        attach_memory(t5, ALL_HEADS)


def test_a_packed_projection_of_another_model_is_refused(make_frozen: Callable[..., PreTrainedModel]) -> None:
    """The order inside qkv_proj is taken from known model types only, never guessed."""
    model = make_frozen("phi3")
    model.config.model_type = "something_else"
    with pytest.raises(UnsupportedModelError, match="qkv_proj whose order is known"):
        attach_memory(model, ALL_HEADS)


def test_a_projection_that_is_no_linear_layer_is_refused(make_frozen: Callable[..., PreTrainedModel]) -> None:
    """A projection without in_features and out_features is refused by its name and class."""
    model = make_frozen("llama")
    model.get_submodule("model.layers.0.self_attn").q_proj = nn.Identity()
    with pytest.raises(UnsupportedModelError, match=r"layers\.0\.self_attn\.q_proj is a Identity"):
        attach_memory(model, ALL_HEADS)


def test_a_missing_projection_is_refused(make_frozen: Callable[..., PreTrainedModel]) -> None:
    """A head that the decoder has no projection for is refused by its name."""
    model = make_frozen("llama")
    del model.get_submodule("model.layers.1.self_attn").v_proj
    with pytest.raises(UnsupportedModelError, match="has no v_proj, which delta_heads wants to steer"):
        attach_memory(model, ALL_HEADS)


@pytest.mark.parametrize("family", ["qwen3", "phi3"])
def test_a_second_memory_is_refused(make_frozen: Callable[..., PreTrainedModel], family: str) -> None:
    """A decoder that carries a memory already is refused, also where the first is on other layers."""
    model = make_frozen(family)
    attach_memory(model, DeltaMemConfig(rank=4, target_layers=(0,)))
    with pytest.raises(AdapterError, match="already carries a memory"):
        attach_memory(model, DeltaMemConfig(rank=4, target_layers=(1,)))


def test_target_layers_must_exist(make_frozen: Callable[..., PreTrainedModel]) -> None:
    """A target layer that the decoder does not have is refused by its number."""
    with pytest.raises(ConfigError, match=r"target_layers \[7\]"):
        attach_memory(make_frozen("llama"), DeltaMemConfig(rank=4, target_layers=(0, 7)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_refused(make_frozen: Callable[..., PreTrainedModel], reentrant: bool) -> None:
    """Where layers would be computed again in the backward pass, training is refused; reading is not."""
    model = attach_memory(make_frozen("qwen3"), DeltaMemConfig(rank=4))
    ids = torch.arange(3, 15)[None]
    model.train()
    model(ids, use_cache=False).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.layers[0].parameters())
    model.backbone.activation_checkpointing_enable({"use_reentrant": reentrant})
    with pytest.raises(ConfigError, match="cannot be trained with gradient checkpointing"):
        model(ids, use_cache=False)
    model.eval()
    assert model(ids).logits.requires_grad
