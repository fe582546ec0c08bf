"""Small random decoders of every supported family, each with a memory that matters to its logits."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from backbone import DeltaMemConfig, MemoryModel, attach_memory

SHAPE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip

SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen2": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    "llama": {},
    "mistral": {"sliding_window": 8},
    "smollm3": {},
    "gemma3_text": {**SLIDING, "query_pre_attn_scalar": 8},
    "granite": {},
    "olmo2": {},
    "gpt_oss": {**SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "phi3": {"head_dim": None},
}


def frozen(family: str, attention: str = "eager", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Make a random decoder; equal arguments give equal weights."""
    options = {name: value for name, value in (SHAPE | FAMILIES[family]).items() if value is not None}
    config = AutoConfig.for_model(family, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for parameter in model.parameters():
        # The usual initial weights are so small that attention hardly matters.
        parameter.data.mul_(4.0 if parameter.dim() > 1 else 1.0)
    return model.to(dtype).eval()


def stir(model: MemoryModel) -> MemoryModel:
    """Give a memory weights that matter."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.memory_layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    model.refresh_fingerprint()
    return model


@pytest.fixture(scope="session")
def make_frozen() -> Callable[..., PreTrainedModel]:
    """Make a random decoder of a family, in an attention implementation and dtype."""
    return frozen


@pytest.fixture(scope="session")
def family_model() -> Callable[..., MemoryModel]:
    """Make, once each, a decoder whose four projections a memory steers; tests must not change it."""

    @cache
    def make(family: str, attention: str = "eager", dtype: torch.dtype = torch.float32) -> MemoryModel:
        config = DeltaMemConfig(rank=4, alpha=8, delta_heads=("q", "k", "v", "o"))
        return stir(attach_memory(frozen(family, attention, dtype), config, seed=0))

    return make
