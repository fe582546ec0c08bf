"""Say in which graph, thread and checkpoint the caller runs, with what data, and what it has read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from langgraph.runtime import Runtime, get_runtime

from deltamem_agents.policy.decisions import Trust

__all__ = ["Place", "current_place", "reading", "run_data", "thread_of", "trust_read"]

_TRUST_READ: ContextVar[Trust] = ContextVar("trust_read", default=Trust.HIGH)


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


@contextmanager
def reading(trust: Trust) -> Iterator[None]:
    """Let what is said and written inside be trusted no more than `trust`, which is that of what it may come from.

    An agent that a tool runs is inside as well, and what its own tools do.
    """
    token = _TRUST_READ.set(min(trust, _TRUST_READ.get()))
    try:
        yield
    finally:
        _TRUST_READ.reset(token)


def trust_read() -> Trust:
    """Return the lowest trust of what the caller may have read, HIGH outside a tool's call."""
    return _TRUST_READ.get()
