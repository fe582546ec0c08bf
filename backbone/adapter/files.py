"""Save, load and convert adapters: this project's two files, and the two files of the published code."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from backbone.adapter import published
from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.layer import LayerMemory
from backbone.adapter.model import MemoryModel, attach_filled
from backbone.errors import AdapterError, ConfigError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, published.CONFIG_FILE, published.WEIGHTS_FILE)
FORMAT = "deltamem-adapter"
VERSION = 1

AdapterFormat = Literal["project", "published"]


class Adapter(NamedTuple):
    """Hold an adapter apart from any backbone: options, weights by `<attention module>.<parameter>`, and its format."""

    config: DeltaMemConfig
    tensors: Mapping[str, Tensor]
    format: AdapterFormat


def save_adapter(model: MemoryModel, path: str | Path) -> None:
    """Write the adapter's options and weights (float32) into the folder `path`, and renew the model's fingerprint."""
    _write(Path(path), model.config, model.adapter_tensors())
    model.refresh_fingerprint()


def load_adapter(model: PreTrainedModel, path: str | Path) -> MemoryModel:
    """Attach the adapter in the folder `path` to a decoder, in place.

    Reads this project's files, or the published `delta_mem_config.json` with `delta_mem_adapter.pt`. Raises
    AdapterError for missing or broken files and for weights that do not fit the decoder (which is then left as it was),
    ConfigError for options that cannot work.
    """
    adapter = _read(Path(path))
    return attach_filled(model, adapter.config, lambda layers: _fill(layers, adapter.tensors))


def read_adapter(path: str | Path) -> Adapter:
    """Read an adapter in either format, without a backbone; errors as in `load_adapter`."""
    adapter = _read(Path(path))
    _matched(adapter_layers(adapter), adapter.tensors)
    return adapter


def convert_adapter(source: str | Path, target: str | Path) -> AdapterFormat:
    """Write the adapter in `source` into the folder `target` in the other format, and say which one that is.

    Options and weights that have no effect are left out; all others are kept to the last digit. Raises AdapterError if
    `target` holds an adapter already, and what `read_adapter` raises.
    """
    folder = Path(target)
    if found := [name for name in ADAPTER_FILES if (folder / name).exists()]:
        raise AdapterError(f"{folder} holds an adapter already ({found[0]}); give a folder without one")
    adapter = read_adapter(source)
    if adapter.format == "project":
        published.write_published(folder, adapter.config, adapter.tensors)
        return "published"
    _write(folder, adapter.config, adapter.tensors)
    return "project"


def adapter_layers(adapter: Adapter) -> list[LayerMemory]:
    """Give an adapter's layers in order, without their weights; raises AdapterError for weights that make none."""
    names = sorted({name.rpartition(".")[0] for name in adapter.tensors}, key=_natural)
    if not names:
        raise AdapterError("the adapter has no weights")
    return [
        LayerMemory(
            name,
            adapter.config,
            _width(adapter.tensors, f"{name}.memory_q_proj", 1),
            {head: _width(adapter.tensors, f"{name}.delta_{head}_proj", 0) for head in adapter.config.delta_heads},
            torch.device("meta"),
        )
        for name in names
    ]


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Order layer 10 after layer 9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in name.split(".")]


def _width(tensors: Mapping[str, Tensor], name: str, side: int) -> int:
    tensor = tensors.get(name)
    if tensor is None or tensor.dim() != 2:
        raise AdapterError(f"the adapter needs a matrix {name}, got {None if tensor is None else list(tensor.shape)}")
    return tensor.shape[side]


def _write(folder: Path, config: DeltaMemConfig, weights: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Copies, because a layer's weights are parts of one block of memory.
    tensors = {name: t.to("cpu", torch.float32, copy=True).contiguous() for name, t in weights.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS_FILE)
    described = {"format": FORMAT, "version": VERSION, "config": config.to_dict()}
    (folder / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _read(folder: Path) -> Adapter:
    if (folder / CONFIG_FILE).is_file():
        return Adapter(*_read_own(folder), "project")
    return Adapter(*published.read_published(folder), "published")


def _read_own(folder: Path) -> tuple[DeltaMemConfig, dict[str, Tensor]]:
    try:
        described: Any = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        kind, version, options = described["format"], described["version"], described["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{folder / CONFIG_FILE} is not an adapter description: {error!r}") from error
    if kind != FORMAT or not isinstance(options, dict):
        raise AdapterError(f"{folder / CONFIG_FILE} has format {kind!r}, expected {FORMAT!r}")
    if version != VERSION:
        raise AdapterError(f"{folder / CONFIG_FILE} has version {version!r}, this project reads {VERSION}")
    try:
        return DeltaMemConfig.from_dict(options), safetensors.torch.load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{folder / WEIGHTS_FILE} cannot be read: {error}") from error
    except TypeError as error:
        raise ConfigError(f"{folder / CONFIG_FILE} has an option of the wrong type: {error}") from error


def _fill(layers: Sequence[LayerMemory], tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into new memories; raises AdapterError unless every name and shape agrees."""
    for name, parameter in _matched(layers, tensors).items():
        with torch.no_grad():
            parameter.copy_(tensors[name])


def _matched(layers: Sequence[LayerMemory], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the layers' parameters by the weights' names; raises AdapterError unless every name and shape agrees."""
    wanted: dict[str, Tensor] = {f"{layer.name}.{name}": p for layer in layers for name, p in layer.named_parameters()}
    missing, unknown = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted)
    if missing or unknown:
        raise AdapterError(f"the adapter does not fit: missing {missing[:3]}, not expected {unknown[:3]}")
    for name, parameter in wanted.items():
        if tensors[name].shape != parameter.shape:
            raise AdapterError(
                f"{name} must be {list(parameter.shape)} here, the adapter has {list(tensors[name].shape)}"
            )
    return wanted
