"""Load a backbone: decoder, adapter and tokenizer together; from folders, or by name from the Hugging Face hub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from backbone.adapter.files import ADAPTER_FILES, load_adapter
from backbone.adapter.model import MemoryModel
from backbone.errors import AdapterError, ConfigError

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

    `model`: None is the bundled one, else a folder or a hub name (`revision` pins its version). `adapter`: see
    `find_adapter`; needed unless the model is the bundled one. `dtype` None is the checkpoint's own. Cache and
    offline mode of the hub are those of huggingface_hub. Raises AdapterError if there is no adapter, or not this one,
    and ConfigError if there is no model, or none that can be loaded, and for a device that torch cannot use.
    """
    if device is not None:
        _require_device(device)
    folder = _model_folder(model)
    adapter_folder = find_adapter(adapter, model=model)
    with _loading(folder):
        hf_model = AutoModelForCausalLM.from_pretrained(
            folder, revision=revision, dtype="auto" if dtype is None else dtype
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision)
    memory_model = load_adapter(hf_model, adapter_folder).eval()
    return Backbone(memory_model if device is None else memory_model.to(device), tokenizer)


def find_adapter(adapter: str | Path | None, *, model: str | Path | None = None) -> Path:
    """Find an adapter's folder: a folder, a bundled adapter's name, or a hub name.

    Hub names are `organisation/name` or `organisation/name@revision`, and fetched if they are not in the cache. Bundled
    adapters, "msw" (None), "tsw" and "ssw", are for the bundled model (`model` None). Raises AdapterError.
    """
    if model is None and (adapter is None or adapter in BUNDLED_ADAPTERS):
        return _BUNDLED / "adapters" / str(adapter or BUNDLED_ADAPTERS[0])
    if adapter is None:
        raise AdapterError(f"{model} needs an adapter that was trained for it: pass adapter=, a folder or a hub name")
    folder = Path(adapter)
    if folder.is_dir():
        return folder
    name, _, revision = str(adapter).partition("@")
    if folder.is_absolute() or len(Path(name).parts) != 2:
        known = f"one of {BUNDLED_ADAPTERS}" if model is None else "a hub name"
        raise AdapterError(f"no adapter at {adapter}; expected a folder or {known}")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(ADAPTER_FILES)))
    except (OSError, HFValidationError) as error:  # hub errors are OSErrors
        raise AdapterError(
            f"no adapter at {adapter}: it is neither a folder, nor in the hub's cache, and cannot be fetched: {error}"
        ) from error


def count_parameters(model: str | Path | None = None, *, revision: str | None = None) -> int:
    """Count a decoder's parameters without loading its weights; `model` and `revision` as in `load_backbone`.

    Raises ConfigError if there is no model, or none that transformers knows.
    """
    folder = _model_folder(model)
    with _loading(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, revision=revision)
        empty = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        return int(empty.num_parameters())


@contextlib.contextmanager
def _loading(folder: str | Path) -> Iterator[None]:
    """Tell what transformers and the hub raise of a model that is not there, or that nobody knows, in our words."""
    try:
        yield
    except (OSError, ValueError) as error:  # hub errors are OSErrors; unknown architectures, ValueErrors
        raise ConfigError(
            f"no model can be loaded from {folder}: it must be a folder that holds one, or a name on the hub: {error}"
        ) from error


def _require_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # an assertion where torch was built without the device
        raise ConfigError(f"torch cannot use the device {str(device)!r}: {str(error).partition(chr(10))[0]}") from error


def _model_folder(model: str | Path | None) -> str | Path:
    if model is not None:
        return model
    if not (_BUNDLED / "model" / "config.json").is_file():
        raise AdapterError(f"the bundled backbone is missing from {_BUNDLED}; install the project again from its clone")
    return _BUNDLED / "model"
