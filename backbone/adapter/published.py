"""Read and write adapters in the two files of the published δ-mem code.

`delta_mem_config.json` holds every option of that code; `delta_mem_adapter.pt` a dict of tensors named
`<attention module>.<parameter>`.
"""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbone.adapter.config import HEADS, DeltaMemConfig
from backbone.errors import AdapterError, ConfigError

CONFIG_FILE = "delta_mem_config.json"
WEIGHTS_FILE = "delta_mem_adapter.pt"

_GRANULARITIES = {"token": "token", "message_mean": "message", "sentence_mean": "sentence"}

# Options that the published code itself has given up, with the only value that it still takes.
_RETIRED: dict[str, object] = {
    "num_memory_partitions": 1,
    "num_global_memory_partitions": 0,
    "memory_partition_routing": "soft",
    "memory_partition_basis": "shared",
    "tie_memory_partition_read_write": False,
    "memory_partition_read_mode": "softmax",
    "slot_read_top_k": 0,
    "global_memory_mode": "shared_rw",
    "global_memory_read_top_k": 0,
    "global_memory_merge_mode": "gated_residual",
    "memory_reader_layers": [],
    "memory_readout_mode": "delta",
    "memory_write_source": "learned_hidden",
    "memory_write_proposals_per_message": 2,
    "synthetic_memory_slots": 1,
    "latent_memory_layers": [],
}

# Options of which the published code can do more than one thing, and this project one.
_UNSUPPORTED: dict[str, object] = {
    "target_modules": ["self_attn"],
    "delta_scale_parameterization": "alpha_over_rank",
}

# Options that only say how weights were drawn, or that belong to a retired one and do nothing by themselves.
_WITHOUT_EFFECT = {
    "output_init",
    "base_slice_ref_width",
    "online_gain",
    "memory_partition_sigmoid_gate_bias_init",
    "global_memory_gate_bias_init",
    "global_memory_read_logit_bias",
    "memory_reader_hidden_size",
    "memory_reader_residual_scale",
    "memory_reader_read_only",
    "latent_memory_hidden_size",
    "latent_memory_residual_scale",
    "latent_memory_slots",
    "latent_memory_init_std",
    "latent_gate_init",
}

_RENAMED = {
    "rank": "rank",
    "alpha": "alpha",
    "beta_bias_init": "beta_bias_init",
    "normalize_qk": "normalize_qk",
    "couple_lambda": "coupled_decay",
    "state_update_mode": "update_mode",
    "rankwise_gates": "per_row_gates",
    "num_state_heads": "num_states",
    "delta_heads": "delta_heads",
    "delta_o_rmsnorm": "delta_o_rmsnorm",
    "delta_o_rmsnorm_eps": "delta_o_rmsnorm_eps",
    "delta_scale_init": "delta_scale_init",
    "delta_scale_max": "delta_scale_max",
    "target_layers": "target_layers",
}

# Options that this project has joined or names otherwise.
_TRANSLATED = {"memory_write_granularity", "trainable_delta_scale", "delta_scale_granularity"}


def read_published(folder: Path) -> tuple[DeltaMemConfig, dict[str, Tensor]]:
    """Read options and the weights that they use.

    Raises AdapterError that names the option for anything retired or not supported, and for unreadable files.
    """
    try:
        options = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterError(f"{folder} holds no adapter: neither adapter_config.json nor {CONFIG_FILE}") from error
    except ValueError as error:
        raise AdapterError(f"{folder / CONFIG_FILE} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise AdapterError(f"{folder / CONFIG_FILE} must hold an object, got {type(options).__name__}")
    config = published_config(options)
    return config, {name: t for name, t in _read_weights(folder / WEIGHTS_FILE).items() if _is_used(name, config)}


def published_config(options: Mapping[str, Any]) -> DeltaMemConfig:
    """Translate published options.

    Raises AdapterError that names one that is retired, not supported or unknown, ConfigError for values out of range.
    """
    _refuse_what_cannot_be_kept(options)
    translated = {ours: options[theirs] for theirs, ours in _RENAMED.items() if theirs in options}
    translated["granularity"] = _GRANULARITIES[options.get("memory_write_granularity", "token")]
    translated.setdefault("delta_heads", ["q", "k", "v", "o"])  # the published default, unlike ours
    if options.get("trainable_delta_scale", False):
        translated["delta_scale"] = options.get("delta_scale_granularity", "layer")
    # The published code takes what has no effect; ours refuses it, so that nobody trains it.
    if translated.get("update_mode") == "no_lambda":
        translated["coupled_decay"] = True
    if "o" not in translated["delta_heads"]:
        translated["delta_o_rmsnorm"] = False
    try:
        return DeltaMemConfig.from_dict(translated)
    except TypeError as error:
        raise ConfigError(f"{CONFIG_FILE} has an option of the wrong type: {error}") from error


def _refuse_what_cannot_be_kept(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name in _RETIRED and value != _RETIRED[name]:
            raise AdapterError(f"option {name}={value!r} is retired: the published code reads only {_RETIRED[name]!r}")
        if name in _UNSUPPORTED and value != _UNSUPPORTED[name]:
            raise AdapterError(f"option {name}={value!r} is not supported, only {_UNSUPPORTED[name]!r} is")
    known = {*_RENAMED, *_TRANSLATED, *_RETIRED, *_UNSUPPORTED, *_WITHOUT_EFFECT}
    if unknown := sorted(set(options) - known):
        raise AdapterError(f"unknown options {unknown} in {CONFIG_FILE}")
    granularity = options.get("memory_write_granularity", "token")
    if granularity not in _GRANULARITIES:
        raise AdapterError(
            f"option memory_write_granularity={granularity!r} is not supported, only {sorted(_GRANULARITIES)} are"
        )


def write_published(folder: Path, config: DeltaMemConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write options and weights as the published code reads them.

    Heads and gates that are switched off are left out; the published code gives those zeros when it loads.
    """
    ours = config.to_dict()
    options = {theirs: ours[name] for theirs, name in _RENAMED.items()} | _RETIRED | _UNSUPPORTED
    options["memory_write_granularity"] = next(t for t, o in _GRANULARITIES.items() if o == config.granularity)
    options["trainable_delta_scale"] = config.delta_scale != "fixed"
    options["delta_scale_granularity"] = "head" if config.delta_scale == "head" else "layer"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    torch.save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, folder / WEIGHTS_FILE)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise AdapterError(f"{path} cannot be read as a dict of tensors: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise AdapterError(f"{path} must hold a dict of tensors")
    return tensors


def _is_used(name: str, config: DeltaMemConfig) -> bool:
    """Tell whether a weight has an effect: the published code also saves heads and gates that are switched off."""
    parameter = name.rpartition(".")[2]
    heads = {f"delta_{head}_proj" for head in config.delta_heads}
    if parameter in {f"delta_{head}_proj" for head in HEADS}:
        return parameter in heads
    if parameter == "delta_o_rmsnorm_weight":
        return config.delta_o_rmsnorm
    return config.has_decay_gate or parameter not in {"lambda_proj", "lambda_bias"}
