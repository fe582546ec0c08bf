"""Write one token into the memories of all layers at once, which is most of what a memory costs in decoding."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from backbone.adapter.call import MemoryCall, MessageStep
from backbone.adapter.layer import LayerMemory
from backbone.adapter.state import MemoryState, OpenSegment
from backbone.ops.delta_rule import coefficients


def write_step(call: MemoryCall, layers: Sequence[LayerMemory], to_write: Iterable[Tensor]) -> MemoryState:
    """Give the memory after a call's one token, which all layers have read; `to_write`: see LayerResult, by layer."""
    read = call.memory.layers if call.message is None else call.message.before
    states = _joined(read[layer.name] for layer in layers)  # [L, B, H, r, r]
    tokens = _joined(to_write).flatten(2)
    with torch.autocast(states.device.type, enabled=False):
        if call.message is not None:
            return _write_message(call, call.message, layers, states, tokens)
        written = _write(call, layers, tokens, states, None if call.write is None else call.write.t())
    return MemoryState(_by_name(layers, written), call.memory.fingerprint)


def _write_message(
    call: MemoryCall, step: MessageStep, layers: Sequence[LayerMemory], states: Tensor, tokens: Tensor
) -> MemoryState:
    """Write the mean of the open message, as if it had ended; tokens [L, B, d]: the newest hidden states."""
    opened = call.memory.open_segment
    sums = tokens.where(step.written[:, None], 0.0)
    if opened is not None:
        sums = sums + _joined(opened.sums[layer.name] for layer in layers).masked_fill(step.starts[:, None], 0.0)
    means = sums / step.counts.clamp_min(1)[:, None]
    projected = _joined(linear(mean, *layer.joined()) for layer, mean in zip(layers, means.unbind(0), strict=True))
    written = _write(call, layers, projected, states, (step.counts > 0)[None])
    segment = OpenSegment(step.ids, step.counts, _by_name(layers, sums), step.before)
    return MemoryState(_by_name(layers, written), call.memory.fingerprint, segment)


def _write(
    call: MemoryCall, layers: Sequence[LayerMemory], projected: Tensor, states: Tensor, mask: Tensor | None
) -> Tensor:
    """Write what is projected [L, B, P] into states [L, B, H, r, r] where mask [1, B] is true."""
    like = layers[0]  # from here on the layers differ in what is projected only
    k, v, beta, lam = like.write_inputs(projected)  # [L, B, H, ..]
    keep, erase, write = coefficients(beta, lam, like.config.update_mode, mask)
    rank = k.shape[-1]
    predicted = torch.bmm(states.view(-1, rank, rank), k.reshape(-1, rank, 1)).view(k.shape)
    change = torch.addcmul(write * v, erase, predicted, value=-1)
    if call.telemetry is not None:
        for layer, *figures in zip(layers, v, predicted, beta, strict=True):
            call.telemetry.token_writes(layer.name, *(figure[:, None] for figure in figures))
    return torch.addcmul(keep[..., None] * states, change[..., None], k[..., None, :])


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Stack tensors [B, ..] as [L, B, ..]; decoders join keys this way, so the code for it is in the caches already."""
    tensors = list(parts)
    return torch.cat(tensors).view(len(tensors), *tensors[0].shape)


def _by_name(layers: Sequence[LayerMemory], values: Tensor) -> dict[str, Tensor]:
    return {layer.name: value for layer, value in zip(layers, values.unbind(0), strict=True)}
