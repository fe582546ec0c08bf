"""Write one token into the memories of all layers at once, which is most of what a memory costs in decoding."""

from collections.abc import Mapping

import torch

from backbone.adapter.call import LayerResult, MemoryCall
from backbone.adapter.layer import LayerMemory
from backbone.adapter.state import MemoryState
from backbone.ops.delta_rule import coefficients


def write_step(call: MemoryCall, like: LayerMemory, results: Mapping[str, LayerResult]) -> MemoryState:
    """Give the memory after a call's one token; `like` is any of the layers, which differ in their weights only."""
    projected = torch.stack([result.to_write for result in results.values() if result.to_write is not None])
    states = torch.stack([call.memory.layers[name] for name in results])  # [L, B, H, r, r]
    with torch.autocast(states.device.type, enabled=False):
        k, v, beta, lam = like.write_inputs(projected)  # [L, B, H, ..]
        mask = None if call.write is None else call.write.t()
        keep, erase, write = coefficients(beta, lam, like.config.update_mode, mask)
        predicted = (states @ k[..., None])[..., 0]
        change = torch.addcmul(write * v, erase, predicted, value=-1)
        if call.telemetry is not None:
            for name, *figures in zip(results, v, predicted, beta, strict=True):
                call.telemetry.token_writes(name, *(figure[:, None] for figure in figures))
        written = torch.addcmul(keep[..., None] * states, change[..., None], k[..., None, :])
    return MemoryState(dict(zip(results, written.unbind(0), strict=True)), call.memory.fingerprint)
