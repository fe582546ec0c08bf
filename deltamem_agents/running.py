"""Say in which graph, thread and checkpoint the caller runs, and with what data."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from langgraph.runtime import Runtime, get_runtime

__all__ = ["Place", "current_place", "run_data", "thread_of"]


class Place(NamedTuple):
    """Name the thread and the checkpoint that a graph's node runs in, and its run context; empty outside a graph."""

    thread: str | None = None
    checkpoint: str | None = None
    run: Mapping[str, Any] = {}


def current_place() -> Place:
    """Return where the caller runs."""
    try:
        # A runnable that is no graph has a config, and a runtime that is None.
        runtime: Runtime[Any] | None = get_runtime()
    except (RuntimeError, KeyError):
        return Place()
    info = None if runtime is None else runtime.execution_info
    run = run_data(runtime)
    return Place(run=run) if info is None else Place(info.thread_id, info.checkpoint_id, run)


def run_data(runtime: Runtime[Any] | None) -> Mapping[str, Any]:
    """Return a graph's run context as policies see it: a mapping, or the fields of a dataclass or a model."""
    context = None if runtime is None else runtime.context
    return context if isinstance(context, Mapping) else getattr(context, "__dict__", {})


def thread_of(runtime: Runtime[Any] | None) -> str | None:
    """Return the name of the thread that a graph runs, if it has one."""
    return None if runtime is None or runtime.execution_info is None else runtime.execution_info.thread_id
