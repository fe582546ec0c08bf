"""Hand a thread's memory to a model call and take the new one back, without passing it through the messages."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.types import StateSnapshot

from deltamem_agents.tracing import observed
from deltamem_agents.working_memory import WorkingMemory

if TYPE_CHECKING:
    from deltamem_agents._measuring import MessageSignals
    from deltamem_agents._turn import TurnRequest

    Measure = Callable[[TurnRequest, frozenset[bytes]], Mapping[bytes, MessageSignals]]

__all__ = [
    "MEMORY_KEY",
    "MemoryCell",
    "Settling",
    "TurnReport",
    "active_cell",
    "carried_memory",
    "memory_from",
    "use_memory",
    "watch_absorbing",
]

MEMORY_KEY: Final = "delta_mem"


@dataclass(frozen=True, slots=True)
class TurnReport:
    """Say what one model call read and absorbed.

    prompt_text: the prompt as the model saw it. window_messages: messages in it, without system messages.
    absorbed_messages, absorbed_tokens: absorbed over the whole thread. absorbed_now, tokens_now: by this call.
    """

    prompt_text: str
    prompt_tokens: int
    window_messages: int
    absorbed_messages: int
    absorbed_tokens: int
    absorbed_now: int
    tokens_now: int


class Settling(Protocol):
    """Decide about the messages of a model call before they are read; `RetentionCall` does."""

    def settle(self, request: "TurnRequest", measure: "Measure") -> "TurnRequest":
        """Return the request as it may be read and written."""

    async def asettle(self, request: "TurnRequest", measure: "Measure") -> "TurnRequest":
        """Settle without blocking the event loop."""


@dataclass(slots=True)
class MemoryCell:
    """Carry memory into model calls and out of them: what middleware and model share during one node.

    memory: what came in. out: set after a complete reply if the memory has changed. report: about the last reply.
    read_only: calls read the memory and never set out. absorb_only: they absorb what leaves the window, and answer
    nothing. settling: rules what calls write; None rules nothing.
    """

    memory: bytes | str | None = None
    out: bytes | None = None
    report: TurnReport | None = None
    read_only: bool = False
    absorb_only: bool = False
    settling: Settling | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def current(self) -> bytes | str | None:
        """Give the newest memory: what the last call left, else what came in."""
        return self.memory if self.out is None else self.out

    def record(self, memory: bytes | None, report: TurnReport) -> None:
        """Take the result of a complete reply; memory is None where it has not changed."""
        with self._lock:
            self.report = report
            if memory is None or self.read_only:
                return
            self.out = memory
        if report.absorbed_now:
            # The engine's thread has done it; what is measured here is how much, not how long.
            with observed("absorb") as absorbing:
                absorbing.count(messages=report.absorbed_now, tokens=report.tokens_now)
            if (turns := _TURNS.get()) is not None:
                turns.append(report)

    def update(self, key: str = MEMORY_KEY) -> dict[str, bytes]:
        """Give the graph update of a node: the new memory under its key, or nothing if it has not changed."""
        return {} if self.out is None else {key: self.out}


# A context variable, because a graph's node calls the model without a config, perhaps from another thread.
_CELL: ContextVar[MemoryCell | None] = ContextVar("deltamem_cell", default=None)


_TURNS: ContextVar[list[TurnReport] | None] = ContextVar("deltamem_turns", default=None)


@contextlib.contextmanager
def watch_absorbing() -> Iterator[list[TurnReport]]:
    """Gather the reports of those model calls inside the block that have absorbed something."""
    turns: list[TurnReport] = []
    token = _TURNS.set(turns)
    try:
        yield turns
    finally:
        _TURNS.reset(token)


@contextlib.contextmanager
def use_memory(
    memory: bytes | str | None = None,
    *,
    read_only: bool = False,
    absorb_only: bool = False,
    settling: Settling | None = None,
) -> Iterator[MemoryCell]:
    """Give the model calls inside the block a memory; take `cell.out` afterwards.

    Calls in one block, one after the other, go on from each other's memory. Memory that messages carry is not read.
    absorb_only: replies are empty, and cost nothing beyond what the memory absorbs. settling: decides what of the
    messages is written.
    """
    cell = MemoryCell(memory, read_only=read_only, absorb_only=absorb_only, settling=settling)
    token = _CELL.set(cell)
    try:
        yield cell
    finally:
        _CELL.reset(token)


def active_cell() -> MemoryCell | None:
    """Return the cell of the surrounding use_memory block, if there is one."""
    return _CELL.get()


def carried_memory(messages: Sequence[BaseMessage]) -> str | bytes | None:
    """Return the memory on the newest assistant message that carries one."""
    for message in reversed(messages):
        if isinstance(message, AIMessage) and (memory := message.response_metadata.get(MEMORY_KEY)) is not None:
            return memory  # type: ignore[no-any-return]
    return None


def memory_from(
    state: Mapping[str, Any] | StateSnapshot | Sequence[BaseMessage] | MemoryCell, *, key: str = MEMORY_KEY
) -> WorkingMemory | None:
    """Read the working memory out of a graph's state, a StateSnapshot, a list of messages or a cell.

    Returns None if there is none. Raises StateError for a memory that cannot be read. No model is needed, so adapter
    and shapes are not checked.
    """
    if isinstance(state, MemoryCell):
        found = state.current
    elif isinstance(state, (Mapping, StateSnapshot)):
        values: Mapping[str, Any] = state if isinstance(state, Mapping) else state.values
        found = values.get(key)
        if found is None:
            found = carried_memory(values.get("messages", ()))
    else:
        found = carried_memory(state)
    return None if found is None else WorkingMemory.from_bytes(found)
