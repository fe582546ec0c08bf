"""Give an adapter a start at which the messages of its backbone are already told apart."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from backbone.adapter.model import MemoryModel
from backbone.tiny.batches import Batch, Row, add_turns, collate
from backbone.tiny.episodes import EpisodeOptions, generate_episode

__all__ = ["whitened_start"]

SEED = 77
READ_SCALE = 0.8


def whitened_start(model: MemoryModel, tokenizer: PreTrainedTokenizerFast, *, conversations: int) -> None:
    """Draw weights that whiten what a number of conversations put in: tokens for queries, messages for keys and values.

    The mean of a message is mostly what all messages have in common (the role line, frequent words). With plain random
    weights all keys point the same way and each write replaces the last. For adapters that write once a message.
    """
    batch = _sample(tokenizer, conversations)
    generator = torch.Generator().manual_seed(0)
    for memory, x in zip(model.layers, _inputs(model, batch), strict=True):
        rows, hidden = memory.memory_q_proj.shape
        basis = torch.linalg.qr(torch.randn(hidden, rows, generator=generator)).Q.T
        query = basis @ _inverse_root(x[batch.real])
        key = basis @ _inverse_root(_means(x, batch))
        with torch.no_grad():
            memory.memory_q_proj.copy_(query)
            memory.memory_k_proj.copy_(key)
            memory.memory_v_proj.copy_(key)
            memory.get_parameter("delta_o_proj").copy_(READ_SCALE * (basis * x[batch.real].square().mean().sqrt()).T)


def _sample(tokenizer: PreTrainedTokenizerFast, conversations: int) -> Batch:
    """Return conversations that state facts."""
    rng = random.Random(SEED)
    rows = []
    for _ in range(conversations):
        row = Row.empty()
        add_turns(row, tokenizer, generate_episode(rng, EpisodeOptions(4, 0, 1, tools_share=0.0)).history)
        rows.append(row)
    return collate(rows, tokenizer.pad_token_id)


@torch.no_grad()
def _inputs(model: MemoryModel, batch: Batch) -> Sequence[Tensor]:
    """Return each memory layer's input `[B, T, d]` when nothing is remembered."""
    seen: list[Tensor] = []
    modules = [model.backbone.get_submodule(f"{memory.name}.q_proj") for memory in model.layers]
    handles = [module.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for module in modules]
    try:
        model.hidden_states(batch.ids, write_mask=torch.zeros_like(batch.real), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _means(x: Tensor, batch: Batch) -> Tensor:
    """Return the mean input `[N, d]` of every message in which a fact is told."""
    return torch.stack(
        [
            row[numbers == number].mean(0)
            for row, numbers, told in zip(x, batch.messages, batch.told, strict=True)
            for number in numbers[told > 0].unique()
        ]
    )


def _inverse_root(samples: Tensor) -> Tensor:
    """Return the inverse square root `[d, d]` of the second moment of `samples` `[N, d]`."""
    moment = samples.T @ samples / len(samples)
    values, vectors = torch.linalg.eigh(moment)
    root: Tensor = vectors @ torch.diag((values + 1e-3 * values.mean()).rsqrt()) @ vectors.T
    return root
