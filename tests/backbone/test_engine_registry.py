import importlib.util
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from backbone import AdapterError, Backbone, EngineClosedError, MemoryModel, save_adapter
from backbone.engine import EngineRegistry, default_registry, shared_engine


@pytest.fixture
def saved(
    make_model: Callable[..., MemoryModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> dict[str, Path]:
    """Save a small backbone and its adapter, and return what to load them by."""
    model = make_model()
    save_adapter(model, tmp_path / "adapter")
    frozen = type(model.backbone)(model.backbone.config)
    frozen.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(str(tmp_path / "model"))
    return {"model": tmp_path / "model", "adapter": tmp_path / "adapter"}


class CountingLoader:
    """Load slowly, and count; fail the first `failures` times."""

    def __init__(self, backbone: Backbone, failures: int = 0) -> None:
        self.backbone, self.failures = backbone, failures
        self.calls: list[tuple[Any, ...]] = []
        self.lock = threading.Lock()

    def __call__(self, model: str | Path | None, **options: Any) -> Backbone:
        """Load, or fail."""
        with self.lock:
            self.calls.append((model, options))
            failing = len(self.calls) <= self.failures
        time.sleep(0.05)
        if failing:
            raise AdapterError("the disk was away")
        return self.backbone


@pytest.fixture
def backbone(model: MemoryModel, tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """Return a loaded backbone."""
    return Backbone(model, tokenizer)


def test_threads_that_ask_at_once_share_one_load(backbone: Backbone) -> None:
    """Sixteen threads that want the same engine get the same one, loaded once."""
    load = CountingLoader(backbone)
    registry = EngineRegistry(load)
    with ThreadPoolExecutor(16) as pool:
        engines = list(pool.map(lambda _: registry.get("some/model", adapter="a"), range(16)))
    assert len(set(engines)) == 1
    assert engines[0].backbone is backbone
    assert len(load.calls) == 1


def test_every_argument_tells_engines_apart(backbone: Backbone) -> None:
    """Another model, adapter, revision, device or dtype is another engine; a path and its text are the same."""
    load = CountingLoader(backbone)
    registry = EngineRegistry(load)
    choices: list[dict[str, Any]] = [
        {},
        {"model": "a"},
        {"adapter": "a"},
        {"revision": "a"},
        {"device": "cpu"},
        {"dtype": torch.bfloat16},
    ]
    assert len({registry.get(**choice) for choice in choices}) == len(choices)
    assert registry.get(Path("a")) is registry.get("a")
    assert registry.get(device=torch.device("cpu")) is registry.get(device="cpu")
    assert load.calls[-1] == (None, {"adapter": None, "revision": None, "device": None, "dtype": torch.bfloat16})


def test_a_failed_load_reaches_everyone_who_waited_and_is_tried_again(backbone: Backbone) -> None:
    """All who waited get the loader's error, and the next to ask loads."""
    load = CountingLoader(backbone, failures=1)
    registry = EngineRegistry(load)
    waiting = threading.Barrier(4)

    def ask(_: int) -> str:
        waiting.wait()
        with pytest.raises(AdapterError) as error:
            registry.get("m")
        return str(error.value)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["the disk was away"] * 4
    assert len(load.calls) == 1
    assert registry.get("m").backbone is backbone


def test_close_closes_what_was_loaded_and_asking_again_loads_afresh(backbone: Backbone) -> None:
    """An engine from before close takes no jobs; the registry goes on."""
    load = CountingLoader(backbone)
    registry = EngineRegistry(load)
    first = registry.get("m")
    registry.close()
    with pytest.raises(EngineClosedError):
        first.submit(lambda: (n for n in range(1)))
    second = registry.get("m")
    assert second is not first
    assert list(second.submit(lambda: (n for n in range(2)))) == [0, 1]
    registry.close()


def test_threads_that_are_first_to_ask_get_one_default_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads a process starts with, and however long making a registry takes, there is one."""
    spec = importlib.util.find_spec("backbone.engine")
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)  # as in a process in which nobody has asked yet
    spec.loader.exec_module(fresh)
    begin = fresh.EngineRegistry.__init__

    def slow(registry: EngineRegistry) -> None:
        time.sleep(0.1)
        begin(registry)

    monkeypatch.setattr(fresh.EngineRegistry, "__init__", slow)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: fresh.default_registry(), range(8)))) == 1


def test_the_default_registry_is_one_and_loads_real_files(saved: dict[str, Path]) -> None:
    """shared_engine loads backbone, adapter and tokenizer from disk, and gives the same engine again."""
    try:
        engine = shared_engine(saved["model"], adapter=saved["adapter"])
        assert engine is default_registry().get(str(saved["model"]), adapter=str(saved["adapter"]))
        assert isinstance(engine.backbone.model, MemoryModel)
        assert engine.backbone.tokenizer.eos_token == "<|im_end|>"
    finally:
        default_registry().close()
