"""Make the fixed case "bench-512", on which the ratios of `python -m backbone.bench cpu` are measured."""

import copy
from itertools import chain
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.model import MemoryModel, attach_memory

__all__ = ["ADAPTERS", "VOCABULARY", "Scale", "frozen_backbone", "random_ids", "with_memory"]

VOCABULARY = 4096
ADAPTERS = {
    "tsw": DeltaMemConfig(rank=8),
    "msw": DeltaMemConfig(rank=8, num_states=4),
    "ssw": DeltaMemConfig(rank=8, granularity="message"),
}
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 16384,
    "tie_word_embeddings": False,
}  # fmt: skip


class Scale(NamedTuple):
    """Set how much is measured: tokens of each part, and rounds of which the median is taken."""

    prefill: int
    context: int
    decode: int
    peak: int
    train: int
    rounds: int


def frozen_backbone() -> PreTrainedModel:
    """Make the random decoder, Qwen3-shaped, float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(Qwen3Config(**_SHAPE))
    model.train(False).requires_grad_(False)
    return model


def with_memory(frozen: PreTrainedModel, config: DeltaMemConfig) -> MemoryModel:
    """Attach a new memory to a copy of a decoder that shares its weights; the decoder itself is left as it is."""
    shared = {id(tensor): tensor for tensor in chain(frozen.parameters(), frozen.buffers())}
    return attach_memory(copy.deepcopy(frozen, shared), config, seed=0)


def random_ids(batch: int, tokens: int, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """Return [batch, tokens] token ids from a fixed seed; the content does not change the cost."""
    return torch.randint(0, vocabulary, (batch, tokens), generator=torch.Generator().manual_seed(0))
