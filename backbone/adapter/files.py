"""Save and load adapters: this project's two files, and the two files of the published code."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from backbone.adapter.config import DeltaMemConfig
from backbone.adapter.layer import LayerMemory
from backbone.adapter.model import MemoryModel, attach_filled
from backbone.adapter.published import read_published
from backbone.errors import AdapterError, ConfigError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FORMAT = "deltamem-adapter"
VERSION = 1


def save_adapter(model: MemoryModel, path: str | Path) -> None:
    """Write the adapter's options and weights (float32) into the folder `path`, and renew the model's fingerprint."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.to("cpu", torch.float32).contiguous() for name, t in model.adapter_tensors().items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS_FILE)
    described = {"format": FORMAT, "version": VERSION, "config": model.config.to_dict()}
    (folder / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    model.refresh_fingerprint()


def load_adapter(model: PreTrainedModel, path: str | Path) -> MemoryModel:
    """Attach the adapter in the folder `path` to a decoder, in place.

    Reads this project's files, or the published `delta_mem_config.json` with `delta_mem_adapter.pt`. Raises
    AdapterError for missing or broken files and for weights that do not fit the decoder (which is then left as it was),
    ConfigError for options that cannot work.
    """
    folder = Path(path)
    if (folder / CONFIG_FILE).is_file():
        config, tensors = _read(folder)
    else:
        config, tensors = read_published(folder)
    return attach_filled(model, config, lambda layers: _fill(layers, tensors))


def _read(folder: Path) -> tuple[DeltaMemConfig, dict[str, Tensor]]:
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
    wanted = {f"{layer.name}.{name}": p for layer in layers for name, p in layer.named_parameters()}
    missing, unknown = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted)
    if missing or unknown:
        raise AdapterError(f"the adapter does not fit this backbone: missing {missing[:3]}, not expected {unknown[:3]}")
    for name, parameter in wanted.items():
        if tensors[name].shape != parameter.shape:
            raise AdapterError(
                f"{name} must be {list(parameter.shape)} on this backbone, the adapter has {list(tensors[name].shape)}"
            )
        with torch.no_grad():
            parameter.copy_(tensors[name])
