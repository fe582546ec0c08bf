"""What a checkpoint keeps of the decisions about messages that are still in the window."""

import hashlib
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from langchain_core.messages import BaseMessage

from backbone import StateFormatError
from deltamem_agents.messages import to_entries
from deltamem_agents.policy import Retain, describe
from deltamem_agents.working_memory import DIGEST_BYTES

if TYPE_CHECKING:
    from deltamem_agents._turn import TurnRequest

__all__ = [
    "TAINTED",
    "Kept",
    "Said",
    "as_decided",
    "decided_from_bytes",
    "decided_key",
    "decided_to_bytes",
    "names_of",
    "said_of",
]

TAINTED: Final = bytes(DIGEST_BYTES)
"""The name of no message: kept as quarantined once a text of the thread was, which may have left the window since."""

# A decision's name, what was decided, and the factor that the memory fades by before the message.
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


class Said(NamedTuple):
    """Hold a message, the identity that the memory knows it by, and the name of what is decided about it."""

    digest: bytes
    name: bytes
    message: BaseMessage


def said_of(messages: Sequence[BaseMessage]) -> list[Said]:
    """Name messages; raises PromptError as `to_entries` does."""
    entries = to_entries(messages) if messages else []
    return [
        Said(entry.digest, _name(entry.digest, message), message)
        for entry, message in zip(entries, messages, strict=True)
    ]


def names_of(message: BaseMessage) -> set[bytes]:
    """Return the names that a decision about this message may have; older versions took the identity."""
    (said,) = said_of([message])
    return {said.digest, said.name}


def _name(digest: bytes, message: BaseMessage) -> bytes:
    # With what policies see of it, so that a message that is edited under its id is asked about again.
    seen = describe(message)
    shown = "\0".join((*seen.calls, seen.text)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(digest + shown, digest_size=DIGEST_BYTES).digest()


def decided_key(key: str) -> str:
    """Name the state's key for what was decided, beside that of the memory."""
    return f"{key}_decided"


def as_decided(request: "TurnRequest", decided: Mapping[bytes, Kept]) -> "TurnRequest":
    """Return a request that writes what was decided to be written, and fades what was decided to fade."""
    # Older checkpoints name decisions by the identity alone.
    about = [(one.digest, decided.get(one.name, decided.get(one.digest, Kept()))) for one in said_of(request.messages)]
    unwritten = frozenset(digest for digest, kept in about if not kept.working)
    decays = {digest: kept.decay for digest, kept in about if kept.working and kept.decay < 1}
    return replace(request, unwritten=unwritten, decays=decays)


def decided_to_bytes(decided: Mapping[bytes, Kept], of: Collection[bytes]) -> bytes:
    """Write what was decided under these names, in the order of the decisions; equal ones give equal bytes."""
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
