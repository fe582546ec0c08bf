"""What a checkpoint keeps of the decisions about messages that are still in the window."""

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from backbone import StateFormatError
from deltamem_agents.policy import Retain
from deltamem_agents.working_memory import DIGEST_BYTES

if TYPE_CHECKING:
    from deltamem_agents._turn import TurnRequest

__all__ = ["Kept", "as_decided", "decided_from_bytes", "decided_key", "decided_to_bytes"]

# A message's digest, what was decided, and the factor that the memory fades by before it.
_ENTRY: Final = struct.Struct(f"<{DIGEST_BYTES}sBd")
_UNWRITTEN, _QUARANTINED = 1, 2


@dataclass(frozen=True, slots=True)
class Kept:
    """Hold what was decided about one message, as far as the working memory is concerned."""

    working: bool = True
    quarantined: bool = False
    decay: float = 1.0

    @classmethod
    def of(cls, decision: Retain) -> "Kept":
        """Take it from a decision."""
        decay = 1.0 if decision.decay is None else decision.decay
        return cls(decision.working and not decision.quarantine, decision.quarantine, decay)


def decided_key(key: str) -> str:
    """Name the state's key for what was decided, beside that of the memory."""
    return f"{key}_decided"


def as_decided(request: "TurnRequest", decided: Mapping[bytes, Kept]) -> "TurnRequest":
    """Return a request that writes what was decided to be written, and fades what was decided to fade."""
    unwritten = frozenset(digest for digest, kept in decided.items() if not kept.working)
    decays = {digest: kept.decay for digest, kept in decided.items() if kept.working and kept.decay < 1}
    return replace(request, unwritten=unwritten, decays=decays)


def decided_to_bytes(decided: Mapping[bytes, Kept], of: Collection[bytes]) -> bytes:
    """Write what was decided about these messages, in the order of the decisions; equal ones give equal bytes."""
    return b"".join(
        _ENTRY.pack(digest, _UNWRITTEN * (not kept.working) + _QUARANTINED * kept.quarantined, kept.decay)
        for digest, kept in decided.items()
        if digest in of
    )


def decided_from_bytes(data: object) -> dict[bytes, Kept]:
    """Read what decided_to_bytes wrote, None is nothing; raises StateFormatError for anything else."""
    if data is None:
        return {}
    if not isinstance(data, bytes) or len(data) % _ENTRY.size:
        size = len(data) if isinstance(data, bytes) else type(data).__name__
        raise StateFormatError(f"kept decisions are bytes, {_ENTRY.size} for each message; got {size}")
    entries = {name: Kept(not flags & _UNWRITTEN, bool(flags & _QUARANTINED), decay)
               for name, flags, decay in _ENTRY.iter_unpack(data)}  # fmt: skip
    if not all(0 <= kept.decay <= 1 for kept in entries.values()):
        raise StateFormatError("kept decisions hold a factor outside 0 to 1; the bytes were altered")
    return entries
