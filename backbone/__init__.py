"""Give language models a working memory: tokens and memory in, tokens and memory out.

Names are loaded on first use, so importing this package loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbone.adapter.config import DeltaMemConfig
    from backbone.adapter.describe import AdapterDescription, LayerDescription, describe_adapter
    from backbone.adapter.files import convert_adapter, load_adapter, save_adapter
    from backbone.adapter.model import HiddenOutput, MemoryModel, MemoryOutput, attach_memory
    from backbone.adapter.state import MemoryState
    from backbone.adapter.telemetry import LayerTelemetry, Telemetry
    from backbone.chat.template import RenderedPrompt, render_prompt
    from backbone.chat.text import TextStream
    from backbone.chat.tool_calls import (
        InvalidToolCall,
        ReasoningDelta,
        TextDelta,
        ToolCall,
        ToolCallParser,
    )
    from backbone.constraint import json_schema_constraint, tool_call_constraint
    from backbone.engine import Engine, EngineRegistry, default_registry, shared_engine
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
    from backbone.generation import (
        Constraint,
        Finished,
        Prefilled,
        decode,
        prefill,
    )
    from backbone.jobs import Job
    from backbone.loading import Backbone, count_parameters, find_adapter, load_backbone
    from backbone.prefix_cache import PrefixCache
    from backbone.sampling import Sampling
    from backbone.tiny.probes import RecallProbe, RecallQuestion, recall_probe
    from backbone.token_prompt import TokenPrompt

_HOMES = {
    "backbone.adapter.config": ("DeltaMemConfig",),
    "backbone.adapter.describe": ("AdapterDescription", "LayerDescription", "describe_adapter"),
    "backbone.adapter.files": (
        "convert_adapter",
        "load_adapter",
        "save_adapter",
    ),
    "backbone.adapter.model": (
        "HiddenOutput",
        "MemoryModel",
        "MemoryOutput",
        "attach_memory",
    ),
    "backbone.adapter.state": ("MemoryState",),
    "backbone.adapter.telemetry": ("LayerTelemetry", "Telemetry"),
    "backbone.chat.template": (
        "RenderedPrompt",
        "render_prompt",
    ),
    "backbone.chat.text": ("TextStream",),
    "backbone.chat.tool_calls": (
        "InvalidToolCall",
        "ReasoningDelta",
        "TextDelta",
        "ToolCall",
        "ToolCallParser",
    ),
    "backbone.constraint": (
        "json_schema_constraint",
        "tool_call_constraint",
    ),
    "backbone.engine": (
        "Engine",
        "EngineRegistry",
        "default_registry",
        "shared_engine",
    ),
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
    "backbone.generation": (
        "Constraint",
        "Finished",
        "Prefilled",
        "decode",
        "prefill",
    ),
    "backbone.jobs": ("Job",),
    "backbone.loading": (
        "Backbone",
        "count_parameters",
        "find_adapter",
        "load_backbone",
    ),
    "backbone.prefix_cache": ("PrefixCache",),
    "backbone.sampling": ("Sampling",),
    "backbone.tiny.probes": ("RecallProbe", "RecallQuestion", "recall_probe"),
    "backbone.token_prompt": ("TokenPrompt",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdapterDescription",
    "AdapterError",
    "Backbone",
    "ConfigError",
    "Constraint",
    "DeltaMemConfig",
    "DeltaMemError",
    "Engine",
    "EngineClosedError",
    "EngineRegistry",
    "Finished",
    "HiddenOutput",
    "InvalidToolCall",
    "Job",
    "LayerDescription",
    "LayerTelemetry",
    "MemoryModel",
    "MemoryOutput",
    "MemoryState",
    "Prefilled",
    "PrefixCache",
    "PromptError",
    "ReasoningDelta",
    "RecallProbe",
    "RecallQuestion",
    "RenderedPrompt",
    "Sampling",
    "StateError",
    "StateFormatError",
    "StateMismatchError",
    "StateNotFiniteError",
    "StateVersionError",
    "Telemetry",
    "TextDelta",
    "TextStream",
    "TokenPrompt",
    "ToolCall",
    "ToolCallParser",
    "UnsupportedModelError",
    "WindowOverflowError",
    "attach_memory",
    "convert_adapter",
    "count_parameters",
    "decode",
    "default_registry",
    "describe_adapter",
    "find_adapter",
    "json_schema_constraint",
    "load_adapter",
    "load_backbone",
    "prefill",
    "recall_probe",
    "render_prompt",
    "save_adapter",
    "shared_engine",
    "tool_call_constraint",
]


def __getattr__(name: str) -> Any:
    """Load a public name's module on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
