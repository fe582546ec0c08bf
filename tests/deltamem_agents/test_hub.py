"""Load models and adapters by name from a cache in huggingface_hub's layout, without a network."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from backbone import AdapterError, ConfigError, EngineRegistry, count_parameters, find_adapter, load_backbone
from backbone.adapter.files import read_adapter
from backbone.adapter.published import write_published
from deltamem_agents import ChatDeltaMem

MODEL, ADAPTER, PUBLISHED = "lab/tiny-instruct", "lab/delta-mem_tiny", "lab/delta-mem_tiny-published"
OLD, NEW = "1" * 40, "2" * 40


def store(cache: Path, name: str, commit: str, files: list[Path], *refs: str) -> None:
    """Put a repository's files into a cache: each content once in blobs/, links to it in snapshots/, names in refs/."""
    repository = cache / f"models--{name.replace('/', '--')}"
    for folder in ("blobs", "refs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True, exist_ok=True)
    for file in files:
        blob = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, repository / "blobs" / blob)
        (repository / "snapshots" / commit / file.name).symlink_to(Path("../../blobs") / blob)
    for ref in refs:
        (repository / "refs" / ref).write_text(commit, encoding="utf-8")


def files_of(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.is_file()]


@pytest.fixture
def cache(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fill a cache: a model, and an adapter with two versions, one of them in the published format too; go offline."""
    cache, published = tmp_path / "hub", tmp_path / "published"
    adapter = read_adapter(model_folder / "token")
    write_published(published, adapter.config, adapter.tensors)
    (published / "README.md").write_text("A tiny adapter.", encoding="utf-8")
    store(cache, MODEL, NEW, files_of(model_folder), "main")
    store(cache, ADAPTER, OLD, files_of(model_folder / "message"), "v1")
    store(cache, ADAPTER, NEW, files_of(model_folder / "token"), "main")
    store(cache, PUBLISHED, NEW, files_of(published), "main")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


@pytest.mark.parametrize("adapter", [ADAPTER, PUBLISHED, f"{ADAPTER}@{NEW}"])
def test_a_model_and_an_adapter_by_name_are_those_of_their_folders(
    adapter: str, cache: Path, make_model: Callable[..., ChatDeltaMem], registry: EngineRegistry
) -> None:
    """Names on the hub give the replies of the same files in folders, in either format."""
    by_name = make_model(model=MODEL, adapter=adapter)
    assert by_name.engine is not make_model().engine
    assert by_name.engine.backbone.model.fingerprint == make_model().engine.backbone.model.fingerprint
    assert by_name.invoke("hello you").text == make_model().invoke("hello you").text


@pytest.mark.parametrize("revision", ["v1", OLD])
def test_a_revision_pins_an_adapter(revision: str, cache: Path) -> None:
    """A branch, tag or commit after @ picks that version of the adapter."""
    assert find_adapter(f"{ADAPTER}@{revision}", model=MODEL).name == OLD
    assert load_backbone(MODEL, adapter=f"{ADAPTER}@{revision}").model.config.granularity == "message"
    assert load_backbone(MODEL, adapter=ADAPTER).model.config.granularity == "token"


def test_a_revision_pins_the_model(cache: Path, model_folder: Path, tmp_path: Path) -> None:
    """Revision picks the model's version, tokenizer included, and leaves the adapter's alone."""
    changed = tmp_path / "changed"
    shutil.copytree(model_folder, changed)
    (changed / "chat_template.jinja").write_text("old", encoding="utf-8")
    store(cache, MODEL, OLD, files_of(changed), "v1")
    old, new = load_backbone(MODEL, adapter=ADAPTER, revision="v1"), load_backbone(MODEL, adapter=ADAPTER)
    assert old.tokenizer.chat_template == "old"
    assert new.tokenizer.chat_template != "old"


def test_a_revision_reaches_the_model_from_chat(
    cache: Path, make_model: Callable[..., ChatDeltaMem], model_folder: Path
) -> None:
    """ChatDeltaMem hands its revision on: one that is not in the cache is an error, offline as here."""
    store(cache, MODEL, OLD, files_of(model_folder), "v1")
    assert make_model(model=MODEL, adapter=ADAPTER, revision="v1").invoke("hello").text
    with pytest.raises(ConfigError, match="no model can be loaded from lab/tiny-instruct"):
        make_model(model=MODEL, adapter=ADAPTER, revision="v2").invoke("hello")


@pytest.mark.parametrize("model", ["lab/unknown", "nowhere/of/all", "not valid!", "empty"])
def test_a_model_that_is_not_there_is_an_error_that_names_it(
    model: str, cache: Path, model_folder: Path, tmp_path: Path
) -> None:
    """A name that the hub's cache has not, one that no hub can have, a wrong path and a folder without a model."""
    (tmp_path / "empty").mkdir()
    wanted = tmp_path / model if model in {"empty", "nowhere/of/all"} else model
    for load in (lambda: load_backbone(wanted, adapter=model_folder / "token"), lambda: count_parameters(wanted)):
        with pytest.raises(ConfigError, match=f"no model can be loaded from .*{model}: it must be a folder"):
            load()


@pytest.mark.parametrize("adapter", ["lab/unknown", f"{ADAPTER}@v9", "lab/not valid!"])
def test_an_adapter_that_is_not_in_the_cache_is_an_error_offline(adapter: str, cache: Path) -> None:
    """Nothing is fetched in offline mode; the error names the adapter and says where it was looked for."""
    with pytest.raises(AdapterError, match=r"no adapter at .* nor in the hub's cache"):
        find_adapter(adapter, model=MODEL)


def test_only_an_adapters_files_are_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository that also holds other things, such as training states, costs only the adapter's own files."""
    asked = {}

    def note(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(cache)

    monkeypatch.setattr("backbone.loading.snapshot_download", note)
    find_adapter(f"{ADAPTER}@v1")
    assert asked == {
        "name": ADAPTER,
        "revision": "v1",
        "allow_patterns": [
            "adapter_config.json", "adapter_model.safetensors", "delta_mem_config.json", "delta_mem_adapter.pt",
        ],
    }  # fmt: skip
