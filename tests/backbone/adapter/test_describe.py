"""Check what is said of an adapter without a backbone, and that converting one changes nothing."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from backbone import (
    AdapterError,
    DeltaMemConfig,
    attach_memory,
    convert_adapter,
    count_parameters,
    describe_adapter,
    load_adapter,
    save_adapter,
)
from backbone.adapter.files import CONFIG_FILE, read_adapter
from backbone.adapter.published import WEIGHTS_FILE, write_published

GOLDEN = Path(__file__).parents[2] / "golden"
MakeFrozen = Callable[..., PreTrainedModel]


def saved(make_frozen: MakeFrozen, folder: Path, **options: Any) -> DeltaMemConfig:
    config = DeltaMemConfig(**options)
    save_adapter(attach_memory(make_frozen("llama"), config, seed=0), folder)
    return config


@pytest.mark.parametrize(("options", "half_life"), [
    ({}, math.log(0.5) / math.log(1 - 1 / (1 + math.exp(1.5)))),
    ({"coupled_decay": False, "beta_bias_init": 0.0}, 1.0),
    ({"update_mode": "no_lambda"}, math.inf),
])  # fmt: skip
def test_half_life_is_the_number_of_writes_that_halve_a_row(
    options: dict[str, Any], half_life: float, make_frozen: MakeFrozen, tmp_path: Path
) -> None:
    """λⁿ = 1/2 of the gate at its bias: 3.4 writes for a new adapter, endless if nothing fades."""
    config = saved(make_frozen, tmp_path, **options)
    for layer in describe_adapter(tmp_path).layers:
        assert layer.half_life == pytest.approx((half_life,) * 3)
        assert layer.write_gate == pytest.approx(1 / (1 + math.exp(-config.beta_bias_init)))


def test_half_life_covers_rows_that_differ(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    """The fastest, the median and the slowest row are told apart; a gate that is open wide halves at once."""
    model = attach_memory(make_frozen("llama"), DeltaMemConfig(rank=3), seed=0)
    with torch.no_grad():
        model.layers[0].beta_bias.copy_(torch.tensor([0.0, 200.0, -5.0]))
    save_adapter(model, tmp_path)
    fastest, median, slowest = describe_adapter(tmp_path).layers[0].half_life
    assert fastest == 0.0
    assert median == pytest.approx(1.0)
    assert slowest == pytest.approx(math.log(2) / math.log(1 + math.exp(-5)), rel=1e-4)


def test_sizes_are_those_of_weights_and_states(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    """Parameters are counted, files measured, and the state is what the model's empty memory holds."""
    model = attach_memory(make_frozen("llama"), DeltaMemConfig(rank=4, num_states=2, target_layers=(1,)), seed=0)
    save_adapter(model, tmp_path)
    described = describe_adapter(tmp_path)
    assert described.format == "project"
    assert described.config == model.config
    assert [layer.name for layer in described.layers] == ["model.layers.1.self_attn"]
    assert described.parameters == sum(p.numel() for p in model.memory_layers.parameters())
    assert described.file_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert described.state_bytes == sum(4 * t.numel() for t in model.empty_memory().layers.values())


def test_layers_are_in_the_decoders_order(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    """Layer 10 comes after layer 9, whatever the order in the file."""
    config = DeltaMemConfig(rank=2)
    tensors = attach_memory(make_frozen("llama"), config, seed=0).adapter_tensors()
    many = {name.replace(".1.", f".{n}."): t for n in (10, 9, 0) for name, t in tensors.items() if ".1." in name}
    write_published(tmp_path, config, many)
    assert [layer.name.split(".")[2] for layer in describe_adapter(tmp_path).layers] == ["0", "9", "10"]


@pytest.mark.parametrize("case", ["tsw_qwen3_qo", "msw_qwen3_qo", "ssw_qwen3_qo"])
def test_published_adapters_convert_without_loss(case: str, tmp_path: Path) -> None:
    """Into this project's format and back again: same options, same weights; both forms describe the same adapter."""
    source = GOLDEN / case / "adapter"
    assert convert_adapter(source, tmp_path / "ours") == "project"
    assert convert_adapter(tmp_path / "ours", tmp_path / "theirs") == "published"
    first, ours, theirs = (read_adapter(p) for p in (source, tmp_path / "ours", tmp_path / "theirs"))
    assert first.config == ours.config == theirs.config
    for adapter in (ours, theirs):
        assert adapter.tensors.keys() == first.tensors.keys()
        assert all(torch.equal(adapter.tensors[name], t) for name, t in first.tensors.items())
    assert describe_adapter(source).layers == describe_adapter(tmp_path / "ours").layers


def test_a_folder_that_holds_an_adapter_is_not_overwritten(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    """Converting onto an adapter, even itself, is an AdapterError and changes no file."""
    saved(make_frozen, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(AdapterError, match="holds an adapter already"):
        convert_adapter(tmp_path, tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_weights_that_do_not_fit_each_other_are_refused(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    """Missing, additional and misshapen weights, and none at all, are AdapterErrors before anything is written."""
    config = DeltaMemConfig(rank=2)
    tensors = attach_memory(make_frozen("llama"), config, seed=0).adapter_tensors()
    first = "model.layers.0.self_attn"
    spoilt = {
        "needs a matrix .*memory_q_proj": {n: t for n, t in tensors.items() if n != f"{first}.memory_q_proj"},
        "missing .*beta_bias": {n: t for n, t in tensors.items() if n != f"{first}.beta_bias"},
        "not expected .*surprise": tensors | {f"{first}.surprise": torch.zeros(1)},
        "memory_k_proj must be": tensors | {f"{first}.memory_k_proj": torch.zeros(2, 3)},
        "no weights": {},
    }
    for number, (reason, weights) in enumerate(spoilt.items()):
        write_published(tmp_path / str(number), config, weights)
        with pytest.raises(AdapterError, match=reason):
            convert_adapter(tmp_path / str(number), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_own_files_that_are_broken_are_refused(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    """A description of another format or version, and weights that cannot be read, are AdapterErrors."""
    saved(make_frozen, tmp_path)
    file = tmp_path / CONFIG_FILE
    good = file.read_text(encoding="utf-8")
    for text, reason in {
        "[": "is not an adapter description",
        good.replace("deltamem-adapter", "lora"): "has format 'lora'",
        good.replace('"version": 1', '"version": 2'): "has version 2",
    }.items():
        file.write_text(text, encoding="utf-8")
        with pytest.raises(AdapterError, match=reason):
            load_adapter(make_frozen("llama"), tmp_path)
    file.write_text(good, encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(AdapterError, match="cannot be read"):
        load_adapter(make_frozen("llama"), tmp_path)


def test_parameters_are_counted_without_weights(make_frozen: MakeFrozen, tmp_path: Path) -> None:
    """A folder with a description alone is enough to count."""
    model = make_frozen("qwen3")
    model.config.save_pretrained(tmp_path)
    assert count_parameters(tmp_path) == sum(p.numel() for p in model.parameters())
    assert not (tmp_path / WEIGHTS_FILE).exists()
