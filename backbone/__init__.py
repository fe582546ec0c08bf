"""Give language models a working memory: tokens and memory in, tokens and memory out.

Names are loaded on first use, so importing this package loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbone.adapter.config import DeltaMemConfig
    from backbone.adapter.files import load_adapter, save_adapter
    from backbone.adapter.model import HiddenOutput, MemoryModel, MemoryOutput, attach_memory
    from backbone.adapter.state import MemoryState
    from backbone.errors import (
        AdapterError,
        ConfigError,
        DeltaMemError,
        EngineClosedError,
        PromptError,
        StateError,
        StateFormatError,
        StateMismatchError,
        StateNotFiniteError,
        StateVersionError,
        UnsupportedModelError,
        WindowOverflowError,
    )
    from backbone.loading import Backbone, load_backbone

_HOMES = {
    "backbone.adapter.config": ("DeltaMemConfig",),
    "backbone.adapter.files": ("load_adapter", "save_adapter"),
    "backbone.adapter.model": ("HiddenOutput", "MemoryModel", "MemoryOutput", "attach_memory"),
    "backbone.adapter.state": ("MemoryState",),
    "backbone.errors": (
        "AdapterError",
        "ConfigError",
        "DeltaMemError",
        "EngineClosedError",
        "PromptError",
        "StateError",
        "StateFormatError",
        "StateMismatchError",
        "StateNotFiniteError",
        "StateVersionError",
        "UnsupportedModelError",
        "WindowOverflowError",
    ),
    "backbone.loading": ("Backbone", "load_backbone"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdapterError",
    "Backbone",
    "ConfigError",
    "DeltaMemConfig",
    "DeltaMemError",
    "EngineClosedError",
    "HiddenOutput",
    "MemoryModel",
    "MemoryOutput",
    "MemoryState",
    "PromptError",
    "StateError",
    "StateFormatError",
    "StateMismatchError",
    "StateNotFiniteError",
    "StateVersionError",
    "UnsupportedModelError",
    "WindowOverflowError",
    "attach_memory",
    "load_adapter",
    "load_backbone",
    "save_adapter",
]


def __getattr__(name: str) -> Any:
    """Load a public name's module on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
