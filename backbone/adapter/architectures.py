"""Find the places of a decoder where a memory can be attached."""

from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

from backbone.adapter.config import DeltaMemConfig, Head
from backbone.adapter.layer import LayerMemory, SteeredProjection
from backbone.errors import AdapterError, ConfigError, UnsupportedModelError


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
    found = [(name, module) for name, module in model.named_modules() if {"q_proj", "o_proj"} <= _children(module)]
    if not found:
        raise UnsupportedModelError(
            f"{kind} has no attention module with q_proj and o_proj (fused projections are not supported)"
        )
    sites = [AttentionSite(name, module, _index(module, order)) for order, (name, module) in enumerate(found)]
    if any(isinstance(site.module.q_proj, SteeredProjection) for site in sites):
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
    device = next(site.module.get_submodule("q_proj").parameters()).device
    return LayerMemory(site.name, config, hidden, widths, device)


def wrap_projections(site: AttentionSite, memory: LayerMemory) -> None:
    """Put wrappers around the projections that memory steers, and around q_proj, from which it sees its input."""
    for head in _wrapped_heads(memory.config):
        projection = site.module.get_submodule(f"{head}_proj")
        setattr(site.module, f"{head}_proj", SteeredProjection(projection, head, memory))


def _wrapped_heads(config: DeltaMemConfig) -> tuple[Head, ...]:
    return ("q", *(head for head in config.delta_heads if head != "q"))


def _children(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def _index(module: nn.Module, order: int) -> int:
    index = getattr(module, "layer_idx", None)
    return index if isinstance(index, int) else order


def _check_projections(kind: str, site: AttentionSite, config: DeltaMemConfig) -> None:
    for head in _wrapped_heads(config):
        if f"{head}_proj" not in _children(site.module):
            raise UnsupportedModelError(f"{kind}'s {site.name} has no {head}_proj, which delta_heads wants to steer")
        _features(site, head)


def _features(site: AttentionSite, head: str) -> tuple[int, int]:
    """Give a projection's input and output width."""
    projection = site.module.get_submodule(f"{head}_proj")
    width_in, width_out = getattr(projection, "in_features", None), getattr(projection, "out_features", None)
    if not isinstance(width_in, int) or not isinstance(width_out, int):
        raise UnsupportedModelError(f"{site.name}.{head}_proj is a {type(projection).__name__}, not a linear layer")
    return width_in, width_out
