"""Make the model calls of a replay: as the agent made them, up to the point where something would be said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableSequence

from backbone import ConfigError, default_registry
from deltamem_agents._turn import TurnRequest
from deltamem_agents.chat_models import ChatDeltaMem
from deltamem_agents.decided import Kept, as_decided
from deltamem_agents.forgetting.replay import Absorb
from deltamem_agents.memory_cell import use_memory

if TYPE_CHECKING:
    from deltamem_agents._measuring import Measure

__all__ = ["absorber", "clear_prefix_caches"]


def absorber(model: Runnable[Any, Any]) -> Absorb:
    """Return what absorbs as a model's turns do.

    model: a ChatDeltaMem, or what was made from one, called as the agent calls it: with its tools and its system
    prompt. Raises ConfigError if a call reaches no ChatDeltaMem.
    """

    def absorb(messages: Sequence[BaseMessage], memory: bytes | None, decided: Mapping[bytes, Kept]) -> bytes | None:
        with use_memory(memory, absorb_only=True, settling=_AsDecided(decided) if decided else None) as cell:
            model.invoke(list(messages))
        if cell.report is None:
            raise ConfigError("a memory is replayed by the model that wrote it; give a ChatDeltaMem, or one with tools")
        return memory if cell.out is None else cell.out

    return absorb


@dataclass(frozen=True, slots=True)
class _AsDecided:
    """Let a call write what policies have decided before, without asking them again."""

    decided: Mapping[bytes, Kept]

    def settle(self, request: TurnRequest, _: "Measure") -> TurnRequest:
        """Return the request as it was decided."""
        return as_decided(request, self.decided)

    async def asettle(self, request: TurnRequest, measure: "Measure") -> TurnRequest:
        """Do what `settle` does, which waits for nothing."""
        return self.settle(request, measure)


def clear_prefix_caches(model: Runnable[Any, Any] | None) -> int:
    """Drop the prefix caches of this model's registry, or of the default one; return how many pages went."""
    found = _chat_model(model)
    registry = None if found is None else found.registry
    return (default_registry() if registry is None else registry).clear_prefix_caches()


def _chat_model(model: Runnable[Any, Any] | None) -> ChatDeltaMem | None:
    while isinstance(model, (RunnableBinding, RunnableSequence)):
        model = model.bound if isinstance(model, RunnableBinding) else model.last
    return model if isinstance(model, ChatDeltaMem) else None
