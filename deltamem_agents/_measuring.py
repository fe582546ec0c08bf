"""Gather what the memory makes of single messages while prompts are read."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from backbone import DeltaMemError, Telemetry, TokenPrompt

if TYPE_CHECKING:
    from deltamem_agents._turn import TurnRequest

__all__ = ["Measure", "MessageSignals", "Meter", "forgiving"]

_log = logging.getLogger(__name__)


class MessageSignals(NamedTuple):
    """Hold a message's surprise and write gate, means over its tokens and the memory's layers; see Telemetry."""

    surprise: float
    gate: float


Measure = Callable[["TurnRequest", frozenset[bytes]], Mapping[bytes, MessageSignals]]
"""Read a request, and return the signals of the messages with these digests."""


def forgiving(measure: Measure) -> Measure:
    """Measure, or nothing: a reply that no window can show has been said all the same, and counts as not measured."""

    def measured(request: "TurnRequest", wanted: frozenset[bytes]) -> Mapping[bytes, MessageSignals]:
        try:
            return measure(request, wanted)
        except DeltaMemError as error:
            _log.warning("the surprise of a reply is not known: %s", type(error).__name__)
            return {}

    return measured


class _Sum(NamedTuple):
    surprise: float = 0.0
    gate: float = 0.0
    tokens: int = 0


class Meter:
    """Take the telemetry of prompts and say what it comes to for each message.

    owners: which message a segment belongs to. whole: the adapter writes segments, so a later figure of a segment is of
    all of it so far, not of what was added.
    """

    def __init__(self, owners: Mapping[int, bytes], *, whole: bool) -> None:
        self._owners = owners
        self._whole = whole
        self._sums: dict[int, _Sum] = {}

    def first_token(self, prompt: TokenPrompt) -> int | None:
        """Return the place of the first token that is to be measured, None if there is none."""
        segments = prompt.segment_ids or ()
        return next((place for place, segment in enumerate(segments) if segment in self._owners), None)

    def take(self, prompt: TokenPrompt, measured: Sequence[tuple[int, int, Telemetry]]) -> None:
        """Add what the pieces of a prompt have measured."""
        for begin, end, telemetry in measured:
            tokens = Counter((prompt.segment_ids or ())[begin:end])
            layers = [torch.stack([layer.surprise[0], layer.write_gate[0]]) for layer in telemetry.layers.values()]
            figures = torch.stack(layers).nanmean(0).T.tolist()
            for segment, (surprise, gate) in zip(telemetry.ids[0].tolist(), figures, strict=True):
                if segment in self._owners and not math.isnan(surprise):
                    self._add(segment, surprise, gate, tokens[segment])

    def signals(self) -> dict[bytes, MessageSignals]:
        """Give the figures of every message of which something was written."""
        totals: dict[bytes, _Sum] = {}
        for segment, part in self._sums.items():
            surprise, gate, tokens = totals.get(self._owners[segment], _Sum())
            total = _Sum(surprise + part.surprise, gate + part.gate, tokens + part.tokens)
            totals[self._owners[segment]] = total
        return {name: MessageSignals(t.surprise / t.tokens, t.gate / t.tokens) for name, t in totals.items()}

    def _add(self, segment: int, surprise: float, gate: float, tokens: int) -> None:
        before = self._sums.get(segment, _Sum())
        if self._whole:
            tokens += before.tokens
            before = _Sum()
        total = before.tokens + tokens
        self._sums[segment] = _Sum(before.surprise + surprise * tokens, before.gate + gate * tokens, total)
