"""Give LangChain and LangGraph agents a working memory that outlives the prompt.

Names are loaded on first use, so importing this package loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbone import (
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
    from deltamem_agents.archive.store import MemoryStore
    from deltamem_agents.chat_models import ChatDeltaMem
    from deltamem_agents.checkpoint import open_checkpointer
    from deltamem_agents.forgetting.receipt import ForgetReceipt
    from deltamem_agents.hybrid import HybridMemory
    from deltamem_agents.memory_cell import MemoryCell, TurnReport, active_cell, memory_from, use_memory
    from deltamem_agents.middleware import DeltaMemMessagesState, DeltaMemMiddleware, memory_node
    from deltamem_agents.recalled import recalled_text
    from deltamem_agents.working_memory import WorkingMemory

_HOMES = {
    "backbone": (
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
    "deltamem_agents.archive.store": ("MemoryStore",),
    "deltamem_agents.chat_models": ("ChatDeltaMem",),
    "deltamem_agents.checkpoint": ("open_checkpointer",),
    "deltamem_agents.forgetting.receipt": ("ForgetReceipt",),
    "deltamem_agents.hybrid": ("HybridMemory",),
    "deltamem_agents.memory_cell": ("MemoryCell", "TurnReport", "active_cell", "memory_from", "use_memory"),
    "deltamem_agents.middleware": ("DeltaMemMessagesState", "DeltaMemMiddleware", "memory_node"),
    "deltamem_agents.recalled": ("recalled_text",),
    "deltamem_agents.working_memory": ("WorkingMemory",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdapterError",
    "ChatDeltaMem",
    "ConfigError",
    "DeltaMemError",
    "DeltaMemMessagesState",
    "DeltaMemMiddleware",
    "EngineClosedError",
    "ForgetReceipt",
    "HybridMemory",
    "MemoryCell",
    "MemoryStore",
    "PromptError",
    "StateError",
    "StateFormatError",
    "StateMismatchError",
    "StateNotFiniteError",
    "StateVersionError",
    "TurnReport",
    "UnsupportedModelError",
    "WindowOverflowError",
    "WorkingMemory",
    "active_cell",
    "memory_from",
    "memory_node",
    "open_checkpointer",
    "recalled_text",
    "use_memory",
]


def __getattr__(name: str) -> Any:
    """Load a public name's module on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
