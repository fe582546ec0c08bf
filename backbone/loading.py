"""Load a backbone: decoder, adapter and tokenizer together."""

from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from backbone.adapter.files import load_adapter
from backbone.adapter.model import MemoryModel
from backbone.errors import AdapterError

_BUNDLED = Path(__file__).parent / "tiny"
BUNDLED_ADAPTERS = ("msw", "tsw", "ssw")


class Backbone(NamedTuple):
    """Hold a model with its memory, and the tokenizer that belongs to it."""

    model: MemoryModel
    tokenizer: PreTrainedTokenizerBase


def load_backbone(
    model: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Backbone:
    """Load the bundled backbone, or any decoder with an adapter made for it.

    `model`: None is the bundled one, else a folder or a hub name (`revision` picks its version). `adapter`: for the
    bundled model "msw" (None), "tsw" or "ssw"; for all models a folder, and for others a hub name too. `dtype` None is
    the checkpoint's own. Raises AdapterError if another model comes without an adapter, or an adapter is not found.
    """
    folder: str | Path = _BUNDLED / "model" if model is None else model
    if model is None and not (_BUNDLED / "model" / "config.json").is_file():
        raise AdapterError(f"the bundled backbone is missing from {_BUNDLED}; reinstall deltamem-agents")
    adapter_folder = _adapter_folder(model, adapter)
    hf_model = AutoModelForCausalLM.from_pretrained(folder, revision=revision, dtype="auto" if dtype is None else dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision)
    memory_model = load_adapter(hf_model, adapter_folder).eval()
    return Backbone(memory_model if device is None else memory_model.to(device), tokenizer)


def _adapter_folder(model: str | Path | None, adapter: str | Path | None) -> Path:
    """Find an adapter's folder, fetching it from the hub if it is a hub name."""
    if model is None and (adapter is None or adapter in BUNDLED_ADAPTERS):
        return _BUNDLED / "adapters" / str(adapter or BUNDLED_ADAPTERS[0])
    if adapter is None:
        raise AdapterError(f"{model} needs an adapter that was trained for it: pass adapter=, a folder or a hub name")
    folder = Path(adapter)
    if folder.is_dir():
        return folder
    if model is None:
        raise AdapterError(f"no adapter at {adapter}; expected a folder or one of {BUNDLED_ADAPTERS}")
    if folder.is_absolute() or len(folder.parts) != 2:
        raise AdapterError(f"no adapter at {adapter}; expected a folder or a hub name")
    return Path(snapshot_download(str(adapter)))
