"""Identify an adapter on a backbone."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from backbone.adapter.config import DeltaMemConfig

# Few values say which model it is; hashing gigabytes would make loading wait.
_SAMPLED_VALUES = 256


def fingerprint_of(model: PreTrainedModel, config: DeltaMemConfig, adapter: Mapping[str, Tensor]) -> str:
    """Give the hex sha256 of options, adapter weights (float32), and what identifies the backbone.

    The backbone counts with names, shapes and the first values of its weights in bfloat16: one checkpoint has one
    fingerprint whether it is loaded in float32 or bfloat16; another checkpoint of the same shape, or the same one
    quantised, has another.
    """
    # Only what differs from the defaults: an option that a later version adds must not refuse the states of before.
    defaults = DeltaMemConfig().to_dict()
    digest = hashlib.sha256(_json({n: v for n, v in config.to_dict().items() if v != defaults[n]}))
    for name, tensor in sorted(adapter.items()):
        digest.update(_json([name, list(tensor.shape)]))
        digest.update(tensor.to("cpu", torch.float32).contiguous().view(torch.uint8).numpy().tobytes())
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        digest.update(_json([name.replace(".base.", "."), list(tensor.shape)]))
        for part in _parts(tensor.detach()):
            sample = part.flatten()[:_SAMPLED_VALUES].cpu()
            sample = sample.to(torch.bfloat16) if sample.is_floating_point() else sample
            digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Give the plain tensors that a tensor is made of: a quantised one is numbers and scales, and has no values."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from _parts(getattr(tensor, name))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
