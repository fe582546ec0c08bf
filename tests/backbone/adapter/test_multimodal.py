"""Check that a decoder that also sees and hears carries its memory in the layers that read text."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from backbone import DeltaMemConfig, MemoryModel, attach_memory

IDS = torch.arange(3, 17)[None]
TEXT: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
AUDIO: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_blocks": 1, "num_attention_heads": 2, "ext_pw_out_channel": 16,
    "depthwise_separable_out_channel": 16, "nemo_conv_channels": 8, "input_size": 16,
}  # fmt: skip
# The options of a small model, and where its text layers lie.
FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "gemma4": (
        {
            "text_config": TEXT | {
                "head_dim": 8, "global_head_dim": 8, "vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 4,
                "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],
            },
            "vision_config": TOWER | {"num_key_value_heads": 2, "head_dim": 8},
        },
        "model.language_model.layers",
    ),
    "mistral3": (
        {
            "text_config": TEXT | {"head_dim": 8, "model_type": "mistral"},
            "vision_config": TOWER | {"head_dim": 8, "model_type": "pixtral", "image_size": 28, "patch_size": 14},
        },
        "model.language_model.layers",
    ),
    "phi4_multimodal": (
        TEXT | {"vision_config": TOWER | {"image_size": 28, "crop_size": 28}, "audio_config": AUDIO},
        "model.layers",
    ),
}  # fmt: skip


def _frozen(family: str) -> PreTrainedModel:
    config = AutoConfig.for_model(family, **FAMILIES[family][0])
    auto = AutoModelForImageTextToText if family == "mistral3" else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = auto.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        # The usual initial weights are so small that attention hardly matters.
        parameter.data.mul_(4.0 if parameter.dim() > 1 else 1.0)
    return model


def _with_memory(frozen: PreTrainedModel) -> MemoryModel:
    model = attach_memory(frozen, DeltaMemConfig(rank=4, alpha=8, delta_heads=("q", "k", "v", "o")), seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.memory_layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    model.refresh_fingerprint()
    return model


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_only_the_layers_that_read_text_carry_a_memory(family: str) -> None:
    """An empty memory changes no bit, and text in pieces, logits or hidden states, is text in one pass."""
    frozen, place = _frozen(family), FAMILIES[family][1]
    expected = frozen(input_ids=IDS).logits
    model = _with_memory(frozen)
    assert [layer.name for layer in model.layers] == [f"{place}.{number}.self_attn" for number in range(2)]
    assert torch.equal(model(IDS, write_mask=False).logits, expected)
    whole = model(IDS)
    assert not torch.allclose(whole.logits, expected, atol=1e-3)
    first = model.hidden_states(IDS[:, :9])
    last = model(IDS[:, 9:], past_key_values=first.past_key_values, memory=first.memory)
    torch.testing.assert_close(last.logits, whole.logits[:, 9:], rtol=1e-3, atol=1e-4)
    for name, state in whole.memory.layers.items():
        torch.testing.assert_close(last.memory.layers[name], state, rtol=1e-3, atol=1e-4)
