"""Read adapters in the two-file form of the published δ-mem code (`delta_mem_config.json`, `delta_mem_adapter.pt`)."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbone.adapter.config import DeltaMemConfig
from backbone.errors import AdapterError, ConfigError

CONFIG_FILE = "delta_mem_config.json"
WEIGHTS_FILE = "delta_mem_adapter.pt"

_GRANULARITIES = {"token": "token", "message_mean": "message"}

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

# Options that the published code still has and this project does not.
_UNSUPPORTED: dict[str, object] = {
    "normalize_qk": True,
    "target_modules": ["self_attn"],
    "delta_o_rmsnorm_eps": 1e-6,
    "trainable_delta_scale": False,
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
    "delta_scale_init",
    "delta_scale_max",
    "delta_scale_granularity",
}

_RENAMED = {
    "rank": "rank",
    "alpha": "alpha",
    "beta_bias_init": "beta_bias_init",
    "couple_lambda": "coupled_decay",
    "state_update_mode": "update_mode",
    "rankwise_gates": "per_row_gates",
    "num_state_heads": "num_states",
    "delta_heads": "delta_heads",
    "delta_o_rmsnorm": "delta_o_rmsnorm",
    "target_layers": "target_layers",
}


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
    """Translate published options; raises AdapterError that names one that is retired, not supported or unknown."""
    for name, value in options.items():
        if name in _RETIRED and value != _RETIRED[name]:
            raise AdapterError(f"option {name}={value!r} is retired: the published code reads only {_RETIRED[name]!r}")
        if name in _UNSUPPORTED and value != _UNSUPPORTED[name]:
            raise AdapterError(f"option {name}={value!r} is not supported, only {_UNSUPPORTED[name]!r} is")
    known = {*_RENAMED, *_RETIRED, *_UNSUPPORTED, *_WITHOUT_EFFECT, "memory_write_granularity"}
    if unknown := sorted(set(options) - known):
        raise AdapterError(f"unknown options {unknown} in {CONFIG_FILE}")
    granularity = options.get("memory_write_granularity", "token")
    if granularity not in _GRANULARITIES:
        raise AdapterError(
            f"option memory_write_granularity={granularity!r} is not supported, only {sorted(_GRANULARITIES)} are"
        )
    translated = {ours: options[theirs] for theirs, ours in _RENAMED.items() if theirs in options}
    translated["granularity"] = _GRANULARITIES[granularity]
    translated.setdefault("delta_heads", ["q", "k", "v", "o"])  # the published default, unlike ours
    if translated.get("update_mode") == "no_lambda":
        translated["coupled_decay"] = True  # a decay gate has no effect in this mode
    try:
        return DeltaMemConfig.from_dict(translated)
    except TypeError as error:
        raise ConfigError(f"{CONFIG_FILE} has an option of the wrong type: {error}") from error


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
    if parameter in {"delta_q_proj", "delta_k_proj", "delta_v_proj", "delta_o_proj"}:
        return parameter in heads
    return config.has_decay_gate or parameter not in {"lambda_proj", "lambda_bias"}
