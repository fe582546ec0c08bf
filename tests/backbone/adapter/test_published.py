"""Check what is read of the published two-file form, what is written, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from backbone import AdapterError, ConfigError, DeltaMemConfig, attach_memory, load_adapter
from backbone.adapter.published import CONFIG_FILE, WEIGHTS_FILE, published_config, read_published, write_published

EVERYTHING = DeltaMemConfig(
    rank=3, alpha=5.0, num_states=2, granularity="sentence", delta_heads=("k", "o"), normalize_qk=False,
    per_row_gates=False, coupled_decay=False, update_mode="lambda_outside", beta_bias_init=-2.0, delta_o_rmsnorm=True,
    delta_o_rmsnorm_eps=1e-4, delta_scale="head", delta_scale_init=0.5, delta_scale_max=1.5, target_layers=(1,),
)  # fmt: skip


@pytest.mark.parametrize("config", [DeltaMemConfig(), EVERYTHING], ids=["defaults", "everything"])
def test_what_is_written_is_read_again(
    config: DeltaMemConfig, make_frozen: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    """Options and weights survive the published form, and its loader needs nothing but tensors."""
    tensors = attach_memory(make_frozen("llama"), config, seed=0).adapter_tensors()
    write_published(tmp_path, config, tensors)
    found, weights = read_published(tmp_path)
    assert found == config
    assert weights.keys() == tensors.keys()
    assert all(torch.equal(weights[name], tensors[name]) for name in tensors)


def test_left_out_options_have_the_published_defaults() -> None:
    """An empty description is the published default: four heads, one state, a write a token."""
    assert published_config({}) == DeltaMemConfig(delta_heads=("q", "k", "v", "o"))


def test_options_and_weights_without_effect_are_left_out(
    make_frozen: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    """Heads that are off, a decay gate in no_lambda, and an unused norm or scale do not refuse an adapter."""
    full = DeltaMemConfig(delta_heads=("q", "k", "v", "o"), coupled_decay=False, delta_o_rmsnorm=True)
    write_published(tmp_path, full, attach_memory(make_frozen("llama"), full, seed=0).adapter_tensors())
    options = json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))
    options |= {"delta_heads": ["q"], "state_update_mode": "no_lambda", "delta_scale_granularity": "head"}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(options), encoding="utf-8")
    config, weights = read_published(tmp_path)
    assert config == DeltaMemConfig(delta_heads=("q",), update_mode="no_lambda")
    assert {name.rpartition(".")[2] for name in weights} == {
        "memory_q_proj", "memory_k_proj", "memory_v_proj", "delta_q_proj", "beta_proj", "beta_bias",
    }  # fmt: skip
    load_adapter(make_frozen("llama"), tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_memory_partitions": 2}, "num_memory_partitions=2 is retired"),
        ({"memory_readout_mode": "latent_context"}, "memory_readout_mode='latent_context' is retired"),
        ({"target_modules": ["mlp"]}, "target_modules=.* is not supported"),
        ({"memory_write_granularity": "message_proposals"}, "'message_proposals' is not supported"),
        ({"colour": "blue"}, "unknown options .*colour"),
    ],
    ids=str,
)
def test_options_that_cannot_be_kept_are_refused(options: dict[str, Any], reason: str) -> None:
    """An option that would be ignored otherwise is an AdapterError that names it."""
    with pytest.raises(AdapterError, match=reason):
        published_config(options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"delta_heads": []}, "non-empty subset"),
        ({"rank": "eight"}, "wrong type"),
        ({"trainable_delta_scale": True, "delta_scale_granularity": "row"}, "delta_scale must be one of"),
    ],
    ids=str,
)
def test_values_that_cannot_work_are_refused(options: dict[str, Any], reason: str) -> None:
    """A value outside its range is a ConfigError."""
    with pytest.raises(ConfigError, match=reason):
        published_config(options)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (CONFIG_FILE, b"{", "is not JSON"),
        (CONFIG_FILE, b"[]", "must hold an object"),
        (WEIGHTS_FILE, b"no tensors", "cannot be read"),
    ],
)
def test_broken_files_are_refused(file: str, content: bytes, reason: str, tmp_path: Path) -> None:
    """A file that is not what its name says is an AdapterError, and nothing in it is run."""
    write_published(tmp_path, DeltaMemConfig(), {})
    (tmp_path / file).write_bytes(content)
    with pytest.raises(AdapterError, match=reason):
        read_published(tmp_path)


class Hostile:
    """Make a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_hostile_pickle_is_refused_and_runs_nothing(
    make_frozen: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    """Weights are read as tensors only: a call that is hidden among them is not made."""
    folder, made = tmp_path / "adapter", tmp_path / "made"
    tensors = attach_memory(make_frozen("llama"), DeltaMemConfig(), seed=0).adapter_tensors()
    write_published(folder, DeltaMemConfig(), tensors)
    torch.save({**tensors, "more": Hostile(made)}, folder / WEIGHTS_FILE)
    for read in (read_published, lambda path: load_adapter(make_frozen("llama"), path)):
        with pytest.raises(AdapterError, match="cannot be read as a dict of tensors"):
            read(folder)
    assert not made.exists()
    torch.load(folder / WEIGHTS_FILE, weights_only=False)
    assert made.exists(), "the file is hostile to whoever reads it as a pickle"


def test_weights_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    """The weights are a dict of tensors and nothing else."""
    write_published(tmp_path, DeltaMemConfig(), {})
    torch.save({"a": 1}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(AdapterError, match="must hold a dict of tensors"):
        read_published(tmp_path)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    """A folder with neither form is an AdapterError that names both files."""
    with pytest.raises(AdapterError, match=r"neither adapter_config\.json nor delta_mem_config\.json"):
        read_published(tmp_path)
