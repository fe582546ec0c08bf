"""Hold the working memory as a value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from backbone.adapter import state_bytes
from backbone.errors import StateMismatchError


@dataclass(frozen=True, eq=False)
class OpenSegment:
    """Hold a message that has begun and may go on (message-level writing): what one pass would still know of it.

    `ids` [B] int, -1 is no open message; `counts` [B] written tokens so far; by layer name: `sums` [B, d] of their
    hidden states, and `before` [B, H, r, r], the state that the message's tokens read.
    """

    ids: Tensor
    counts: Tensor
    sums: Mapping[str, Tensor]
    before: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class MemoryState:
    """Hold the working memory of a batch of conversations: a value that no call ever changes.

    `layers`: attention module name → [B, H, r, r] float32, always as if a message that is still open had ended here.
    `fingerprint`: the adapter and backbone it belongs to. `open_segment`: see OpenSegment; it is not part of the bytes.
    """

    layers: Mapping[str, Tensor]
    fingerprint: str
    open_segment: OpenSegment | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        """Give the number of conversations."""
        return len(next(iter(self.layers.values())))

    @classmethod
    def zeros(
        cls,
        shapes: Mapping[str, tuple[int, int]],
        fingerprint: str,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> "MemoryState":
        """Make an empty memory; `shapes`: layer name → (state heads, rank)."""
        layers = {name: torch.zeros(batch_size, h, r, r, device=device) for name, (h, r) in shapes.items()}
        return cls(layers, fingerprint)

    def closed(self) -> "MemoryState":
        """Give this memory with an open message ended: a following token begins a new one, whatever its id."""
        return MemoryState(self.layers, self.fingerprint)

    def to(self, device: torch.device | str) -> "MemoryState":
        """Give this memory on a device."""
        return self._map(lambda tensor: tensor.to(device))

    def detach(self) -> "MemoryState":
        """Give this memory cut from the graph that computed it."""
        return self._map(Tensor.detach)

    @staticmethod
    def stack(states: Sequence["MemoryState"]) -> "MemoryState":
        """Join memories into one batch; raises StateMismatchError if they are not of one adapter and backbone."""
        if not states:
            raise StateMismatchError("expected at least one memory to stack, got none")
        first = states[0]
        for state in states[1:]:
            if state.fingerprint != first.fingerprint or state.layers.keys() != first.layers.keys():
                raise StateMismatchError(
                    f"cannot stack memories of adapters {first.fingerprint[:12]} and {state.fingerprint[:12]}"
                )
        layers = _concat([state.layers for state in states])
        if all(state.open_segment is None for state in states):
            return MemoryState(layers, first.fingerprint)
        like = next(state.open_segment for state in states if state.open_segment is not None)
        opened = [state.open_segment or _no_segment(state, like) for state in states]
        segment = OpenSegment(
            ids=torch.cat([o.ids for o in opened]),
            counts=torch.cat([o.counts for o in opened]),
            sums=_concat([o.sums for o in opened]),
            before=_concat([o.before for o in opened]),
        )
        return MemoryState(layers, first.fingerprint, segment)

    def split(self) -> list["MemoryState"]:
        """Give one memory per conversation of the batch."""
        return [self._map(partial(_row, i)) for i in range(self.batch_size)]

    def to_bytes(self) -> bytes:
        """Write `layers` as self-describing bytes (an open message counts as ended).

        Equal states give equal bytes. Raises StateNotFiniteError if a value is NaN or infinite.
        """
        return state_bytes.encode(self.layers, self.fingerprint)

    @staticmethod
    def from_bytes(data: bytes | str, *, expected_fingerprint: str | None = None) -> "MemoryState":
        """Read what `to_bytes` wrote, or its base64 text.

        Raises StateFormatError (truncated, altered, oversized), StateVersionError (newer), StateNotFiniteError, and
        StateMismatchError if `expected_fingerprint` is given and is not the state's.
        """
        layers, fingerprint = state_bytes.decode(data)
        if expected_fingerprint is not None and fingerprint != expected_fingerprint:
            raise StateMismatchError(
                f"the state belongs to adapter {fingerprint[:12]}, expected {expected_fingerprint[:12]}; "
                "load the adapter and backbone that wrote it"
            )
        return MemoryState(layers, fingerprint)

    def _map(self, f: Callable[[Tensor], Tensor]) -> "MemoryState":
        segment = self.open_segment
        if segment is not None:
            segment = OpenSegment(
                ids=f(segment.ids),
                counts=f(segment.counts),
                sums={name: f(t) for name, t in segment.sums.items()},
                before={name: f(t) for name, t in segment.before.items()},
            )
        return MemoryState({name: f(t) for name, t in self.layers.items()}, self.fingerprint, segment)


def _row(index: int, tensor: Tensor) -> Tensor:
    return tensor[index : index + 1]


def _concat(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    except RuntimeError as error:
        raise StateMismatchError(f"cannot stack memories whose states differ in shape: {error}") from error


def _no_segment(state: MemoryState, like: OpenSegment) -> OpenSegment:
    """Give the open segment of a memory that has none, so that it can stand in a batch beside one that has."""
    rows = state.batch_size
    return OpenSegment(
        ids=like.ids.new_full((rows,), -1),
        counts=like.counts.new_zeros(rows),
        sums={name: tensor.new_zeros(rows, tensor.shape[-1]) for name, tensor in like.sums.items()},
        before=state.layers,
    )
