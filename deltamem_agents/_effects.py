"""Write a procedure once that is done in the caller's thread, or without blocking an event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, TypeVar

__all__ = ["Effect", "Steps", "ado", "blocking", "do"]

T = TypeVar("T")


class Effect(NamedTuple):
    """Hold something to be done, in both ways; a generator that yields it is sent what comes of it."""

    now: Callable[[], Any]
    later: Callable[[], Awaitable[Any]]


Steps = Generator[Effect, Any, T]


def blocking(work: Callable[[], Any]) -> Effect:
    """Make an effect of a call that may take a while."""
    return Effect(work, lambda: asyncio.to_thread(work))


def do(steps: Steps[T]) -> T:
    """Do every effect, and return what the generator returns."""
    try:
        effect = next(steps)
        while True:
            effect = steps.send(effect.now())
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def ado(steps: Steps[T]) -> T:
    """Do every effect without blocking the event loop, and return what the generator returns."""
    try:
        effect = next(steps)
        while True:
            effect = steps.send(await effect.later())
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
