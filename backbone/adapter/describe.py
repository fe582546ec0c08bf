"""Say what an adapter is without a backbone: its options, its size, and how fast its gates forget."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.files import ADAPTER_FILES, Adapter, AdapterFormat, adapter_layers, read_adapter
from backbone.adapter.layer import LayerMemory


@dataclass(frozen=True)
class LayerDescription:
    """Describe one layer. `name`: its attention module. `parameters`: how many.

    `write_gate`: the mean gate at its bias, 0 to 1. `half_life`: after how many writes half of what a state row holds
    is left, for the row that forgets fastest, the median row and the slowest; infinite if nothing fades.
    """

    name: str
    parameters: int
    write_gate: float
    half_life: tuple[float, float, float]


@dataclass(frozen=True)
class AdapterDescription:
    """Describe an adapter. `file_bytes`: its size on disk; `state_bytes`: of the matrices of one conversation."""

    format: AdapterFormat
    config: DeltaMemConfig
    layers: tuple[LayerDescription, ...]
    file_bytes: int
    state_bytes: int

    @property
    def parameters(self) -> int:
        """Give the number of parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)


def describe_adapter(path: str | Path) -> AdapterDescription:
    """Describe the adapter in the folder `path`, in either format; raises AdapterError and ConfigError as loading does.

    Gates depend on the text. What is described is the gate at its bias: of an input that it has no opinion about.
    """
    adapter = read_adapter(path)
    layers = tuple(_describe(layer, adapter) for layer in adapter_layers(adapter))
    sizes = [(Path(path) / name).stat().st_size for name in ADAPTER_FILES if (Path(path) / name).is_file()]
    states = len(layers) * adapter.config.num_states
    return AdapterDescription(adapter.format, adapter.config, layers, sum(sizes), states * adapter.config.rank**2 * 4)


def _describe(layer: LayerMemory, adapter: Adapter) -> LayerDescription:
    beta = adapter.tensors[f"{layer.name}.beta_bias"].float().sigmoid()
    keep = 1 - beta
    if adapter.config.has_decay_gate:
        keep = adapter.tensors[f"{layer.name}.lambda_bias"].float().sigmoid()
    if adapter.config.update_mode == "no_lambda":
        keep = torch.ones_like(beta)
    ordered = _half_life(keep.sort().values)
    half_life = (ordered[0], ordered[len(ordered) // 2], ordered[-1])
    return LayerDescription(layer.name, sum(p.numel() for p in layer.parameters()), float(beta.mean()), half_life)


def _half_life(keep: Tensor) -> list[float]:
    """Give the number n of writes with keepⁿ = 1/2 for each gate."""
    logs = [math.log(value) if value > 0 else -math.inf for value in keep.tolist()]
    return [math.inf if log == 0 else -math.log(2) / log for log in logs]
