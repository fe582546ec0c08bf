"""Train write gates to open where something is told and to stay shut where nothing is."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from backbone.adapter.model import MemoryModel
from backbone.tiny.batches import Batch

__all__ = ["gate_logits", "gate_loss"]

SHUT_LOGIT = -8.0  # a gate of 3e-4: thousands of unrelated tokens leave the state as it was
SHUT_WEIGHT = 0.02
OPEN_LOGIT = 0.0
OPEN_WEIGHT = 0.1


@contextmanager
def gate_logits(model: MemoryModel) -> Iterator[list[Tensor]]:
    """Collect the write gates' logits `[B, T, gates]` of every layer and pass."""
    collected: list[Tensor] = []

    def hook(layer: int) -> Callable[..., None]:
        memory = model.layers[layer]
        return lambda _module, args: collected.append(F.linear(args[0], memory.beta_proj, memory.beta_bias))

    modules = [model.backbone.get_submodule(f"{memory.name}.q_proj") for memory in model.layers]
    handles = [module.register_forward_pre_hook(hook(number)) for number, module in enumerate(modules)]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


def gate_loss(logits: Sequence[Tensor], passes: Sequence[Batch], model: MemoryModel) -> Tensor:
    """Return the price of gates that open where nothing is told, and of gates that stay shut where something is.

    `logits`: what `gate_logits` collected, layer by layer, pass by pass. The paper asks for a mean gate of 0.05
    everywhere. The data knows where the facts are: with one write a token, where a fact is complete; with one a
    message, in the messages that state something.
    """
    layers = len(model.layers)
    parts = []
    for number, batch in enumerate(passes):
        z = torch.stack(list(logits[number * layers : (number + 1) * layers]))
        written = batch.real & (batch.messages >= 0)
        tells = batch.told >= 2
        if model.config.granularity == "message":
            z, written, tells = _by_message(z, written, batch)
        shut, told = z[:, written & ~tells], z[:, written & tells]
        if shut.numel():
            parts.append(SHUT_WEIGHT * F.relu(shut - SHUT_LOGIT).mean() + shut.sigmoid().mean())
        if told.numel():
            parts.append(OPEN_WEIGHT * F.relu(OPEN_LOGIT - told).mean())
    return torch.stack(parts).sum() if parts else logits[0].new_zeros(())


def _by_message(z: Tensor, written: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits of message means `[L, B, N, gates]`, which messages exist and which of them tell something."""
    numbers = torch.arange(int(batch.messages.max()) + 1)
    members = (batch.messages[..., None] == numbers) & written[..., None]
    counts = members.sum(1)
    means = torch.einsum("lbtg,btn->lbng", z, members.to(z.dtype)) / counts.clamp_min(1)[..., None]
    return means, counts > 0, (members & (batch.told > 0)[..., None]).any(1)
