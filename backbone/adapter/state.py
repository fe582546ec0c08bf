"""Hold the working memory as a value."""

from collections.abc import Callable, Collection, Mapping, Sequence
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

        Equal states give equal bytes. Raises StateNotFiniteError if a value is NaN, infinite or beyond ±1e6.
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

    def interpolate(self, other: "MemoryState", weight: float) -> "MemoryState":
        """Mix two memories, (1 - weight) · this + weight · other; an open message counts as ended.

        Layers read linearly, so from equal inputs a mixed layer reads the same mix of what the two would read. Raises
        StateMismatchError unless both are of one adapter, backbone and batch size, ValueError for a weight outside 0
        to 1.
        """
        _require_share("weight", weight)
        pairs = self._paired(other)
        return MemoryState({name: torch.lerp(a, b, weight) for name, (a, b) in pairs.items()}, self.fingerprint)

    def decay(self, factor: float) -> "MemoryState":
        """Scale every state by a factor of 0 (empty) to 1 (unchanged): all is read that much more faintly.

        An open message counts as ended. Raises ValueError for another factor.
        """
        _require_share("factor", factor)
        if factor == 0:  # not a product, which is NaN where a state is infinite
            return self.reset(self.layers)
        return MemoryState({name: tensor * factor for name, tensor in self.layers.items()}, self.fingerprint)

    def reset(self, names: Collection[str]) -> "MemoryState":
        """Empty the layers of these names and keep the others; an open message counts as ended.

        Raises StateMismatchError for a name that is not in `layers`.
        """
        if unknown := sorted(set(names) - self.layers.keys()):
            raise StateMismatchError(f"cannot reset {unknown}; the memory has {sorted(self.layers)}")
        layers = {name: torch.zeros_like(t) if name in names else t for name, t in self.layers.items()}
        return MemoryState(layers, self.fingerprint)

    def norms(self) -> dict[str, Tensor]:
        """Give the Frobenius norm of each state, by layer name [B, H]; 0 is an empty state."""
        return {name: torch.linalg.matrix_norm(tensor) for name, tensor in self.layers.items()}

    def distance(self, other: "MemoryState") -> Tensor:
        """Give how far apart two memories are, [B]: the root of the summed squares of all differences.

        Raises StateMismatchError unless both are of one adapter, backbone and batch size.
        """
        squares = [(a - b).square().flatten(1).sum(1) for a, b in self._paired(other).values()]
        return torch.stack(squares).sum(0).sqrt()

    def _paired(self, other: "MemoryState") -> dict[str, tuple[Tensor, Tensor]]:
        if other.fingerprint != self.fingerprint:
            raise StateMismatchError(
                f"the memories belong to different adapters or backbones, {self.fingerprint[:12]} and "
                f"{other.fingerprint[:12]}"
            )
        mine, theirs = ({name: t.shape for name, t in state.layers.items()} for state in (self, other))
        if mine != theirs:
            raise StateMismatchError(
                f"the memories must have equal layers, shapes and batch size, got batches of {self.batch_size} and "
                f"{other.batch_size}"
            )
        return {name: (tensor, other.layers[name].to(tensor.device)) for name, tensor in self.layers.items()}

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


def _require_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {value}")


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
