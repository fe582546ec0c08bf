"""Say what a working memory has absorbed, as far as it keeps that, and whether two are the same."""

from typing import Final

from deltamem_agents.working_memory import WorkingMemory

__all__ = ["absorbed_by", "forgets_digests", "same_memory"]

_TOLERANCE: Final = 1e-5


def absorbed_by(memory: bytes | None) -> set[bytes]:
    """Return the digests of what a memory has absorbed, as far as it keeps them."""
    return set() if memory is None else set(WorkingMemory.from_bytes(memory).digests)


def forgets_digests(memory: bytes | None) -> bool:
    """Tell whether a memory has absorbed more than it keeps digests of."""
    return memory is not None and WorkingMemory.from_bytes(memory).forgot_digests


def same_memory(one: bytes | None, other: bytes | None) -> bool:
    """Tell whether two memories are the same but for what another machine rounds otherwise."""
    if one is None or other is None:
        return one is other
    first, second = WorkingMemory.from_bytes(one), WorkingMemory.from_bytes(other)
    layers = second.state.layers
    close = all((layer - layers[name]).abs().max() < _TOLERANCE for name, layer in first.state.layers.items())
    return first.digests == second.digests and close
