"""Compare the cost of calls that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

__all__ = ["Clock", "median_ratios", "synchronised", "take_turns"]

Clock = Callable[[], float]


def synchronised() -> float:
    """Give the wall clock's seconds, once the GPU, where there is one, has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, clock: Clock = time.process_time
) -> dict[str, list[float]]:
    """Return the seconds of each call in each round; every second round runs them in the reverse order.

    A change of the machine's load, or of its temperature, meets all of them alike. The first run of each is not timed.
    The usual clock counts this process's CPU seconds, so that other programs on the machine count little.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else reversed(list(calls)):
            begin = clock()
            calls[name]()
            seconds[name].append(clock() - begin)
    return seconds


def median_ratios(seconds: Mapping[str, Sequence[float]], base: str) -> dict[str, float]:
    """Return, for each other name, the median over the rounds of its seconds over those of `base` in that round."""
    return {
        name: statistics.median(mine / theirs for mine, theirs in zip(times, seconds[base], strict=True))
        for name, times in seconds.items()
        if name != base
    }
