"""Find the places of a decoder where a memory can be attached."""

from itertools import chain
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from backbone.adapter.config import DeltaMemConfig, Head
from backbone.adapter.layer import LayerMemory
from backbone.adapter.steered import Steered, SteeredPackedProjection, SteeredProjection
from backbone.errors import AdapterError, ConfigError, UnsupportedModelError

PACKED = "qkv_proj"
# Others pack in other orders, and a wrong order would steer the wrong part without a sign of it.
_PACKED_IN_ORDER = frozenset({"phi3", "phi4_multimodal"})
_PACKED_HEADS: tuple[Head, ...] = ("q", "k", "v")


class AttentionSite(NamedTuple):
    """Name an attention module of a decoder: its path, the module, its layer's number."""

    name: str
    module: nn.Module
    layer: int


def attention_sites(model: PreTrainedModel, config: DeltaMemConfig) -> list[AttentionSite]:
    """Give the attention modules that `config` targets, in the order of the layers.

    Raises UnsupportedModelError with the reason, AdapterError if a memory is attached already, ConfigError for a target
    layer that does not exist.
    """
    kind = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"{kind} is an encoder-decoder; memory attaches to decoder-only models")
    found = _attention_modules(model)
    if not found:
        raise UnsupportedModelError(
            f"{kind} has no attention module with q_proj and o_proj, or with a {PACKED} whose order is known "
            f"({', '.join(sorted(_PACKED_IN_ORDER))}) and o_proj"
        )
    sites = [AttentionSite(name, module, _index(module, order)) for order, (name, module) in enumerate(found)]
    if any(isinstance(part, Steered) for site in sites for part in site.module.children()):
        raise AdapterError(f"this {kind} already carries a memory; load the backbone anew to attach another")
    known = {site.layer for site in sites}
    if missing := sorted(set(config.target_layers) - known):
        raise ConfigError(f"target_layers {missing} have no attention to attach to; {kind} has {sorted(known)}")
    targets = [site for site in sites if not config.target_layers or site.layer in config.target_layers]
    for site in targets:
        _check_projections(kind, site, config)
    return targets


def build_layer(site: AttentionSite, config: DeltaMemConfig) -> LayerMemory:
    """Make the memory that fits a site, its weights not yet set."""
    widths: dict[Head, int] = {head: _features(site, head)[1] for head in config.delta_heads}
    hidden, _ = _features(site, "q")
    weights = site.module.get_submodule("o_proj")
    # Quantised layers may keep their weights in buffers.
    held = next(chain(weights.parameters(), weights.buffers()), None)
    return LayerMemory(site.name, config, hidden, widths, None if held is None else held.device)


def wrap_projections(site: AttentionSite, memory: LayerMemory) -> None:
    """Put wrappers around the projections that memory steers, and around q_proj, from which it sees its input."""
    heads = _wrapped_heads(memory.config)
    if _is_packed(site.module):
        widths: dict[Head, int] = {head: _features(site, head)[1] for head in _PACKED_HEADS}
        setattr(site.module, PACKED, SteeredPackedProjection(site.module.get_submodule(PACKED), widths, memory))
        heads = tuple(head for head in heads if head == "o")
    for head in heads:
        projection = site.module.get_submodule(f"{head}_proj")
        setattr(site.module, f"{head}_proj", SteeredProjection(projection, head, memory))


def refuse_checkpointing(model: PreTrainedModel) -> None:
    """Raise ConfigError if a pass with gradients would compute layers again, when the pass and its memory are gone."""
    if not (torch.is_grad_enabled() and model.training):
        return
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise ConfigError(
            "a memory cannot be trained with gradient checkpointing, which would leave it without gradients; switch it "
            "off on the backbone"
        )


def _attention_modules(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Give the attention modules of the decoder's layers: what sees pictures or hears sounds reads no text."""
    packed = getattr(model.config, "model_type", None) in _PACKED_IN_ORDER
    decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
    inside = set(getattr(decoder, "layers", decoder).modules())
    return [
        (name, module)
        for name, module in model.named_modules()
        if module in inside
        and ({"q_proj", "o_proj"} <= _children(module) or (packed and {PACKED, "o_proj"} <= _children(module)))
    ]


def _wrapped_heads(config: DeltaMemConfig) -> tuple[Head, ...]:
    return ("q", *(head for head in config.delta_heads if head != "q"))


def _children(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def _is_packed(module: nn.Module) -> bool:
    return "q_proj" not in _children(module)


def _index(module: nn.Module, order: int) -> int:
    index = getattr(module, "layer_idx", None)
    return index if isinstance(index, int) else order


def _check_projections(kind: str, site: AttentionSite, config: DeltaMemConfig) -> None:
    for head in _wrapped_heads(config):
        if not _is_packed(site.module) and f"{head}_proj" not in _children(site.module):
            raise UnsupportedModelError(f"{kind}'s {site.name} has no {head}_proj, which delta_heads wants to steer")
        _features(site, head)


def _features(site: AttentionSite, head: str) -> tuple[int, int]:
    """Give a projection's input and output width; a packed one's share of the output."""
    if head == "o" or not _is_packed(site.module):
        return _linear_features(site, f"{head}_proj")
    hidden, packed = _linear_features(site, PACKED)
    queries, _ = _linear_features(site, "o_proj")  # attention's output is as wide as its queries
    return hidden, queries if head == "q" else (packed - queries) // 2


def _linear_features(site: AttentionSite, name: str) -> tuple[int, int]:
    projection = site.module.get_submodule(name)
    width_in, width_out = getattr(projection, "in_features", None), getattr(projection, "out_features", None)
    if not isinstance(width_in, int) or not isinstance(width_out, int):
        raise UnsupportedModelError(f"{site.name}.{name} is a {type(projection).__name__}, not a linear layer")
    return width_in, width_out
