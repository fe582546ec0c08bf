"""See the checkpoints of a thread as plain data, whichever of LangGraph's savers keeps them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import CheckpointMetadata

from deltamem_agents.forgetting.packed import Extension

__all__ = ["DROPPED", "Change", "CheckpointRows", "Moved", "Stored", "Write", "configured"]

DROPPED: Final = object()
"""Stands for a value that is to be removed."""


_OWN: Final = frozenset(CheckpointMetadata.__annotations__) - {"run_id"}  # a run's id can be a caller's


def configured(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a checkpoint's metadata a run was configured with."""
    return {name: value for name, value in metadata.items() if name not in _OWN}


class Moved(Exception):  # noqa: N818 - no error: the caller begins again
    """Say that a thread went on while it was being looked at."""


@dataclass(frozen=True, slots=True)
class Write:
    """Hold what a task wrote after a checkpoint; key: where the saver keeps it."""

    key: tuple[Any, ...]
    channel: str
    value: Any


@dataclass(frozen=True, slots=True)
class Stored:
    """Hold one checkpoint. source: what made it (input, loop, update, fork). versions: of its channels.

    metadata: what the run was configured with, by name; what else LangGraph keeps there is numbers and ids of its own.
    """

    space: str
    id: str
    parent: str | None
    source: str
    values: Mapping[str, Any]
    versions: Mapping[str, Any]
    writes: Sequence[Write] = ()
    body: Any = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """Hold what a checkpoint and the writes after it are to hold from now on; DROPPED removes a value or a write.

    unsaid: names of entries of its metadata that go.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    writes: Mapping[tuple[Any, ...], Any] = field(default_factory=dict)
    unsaid: Collection[str] = ()

    def __bool__(self) -> bool:
        """Tell whether anything changes."""
        return bool(self.values or self.writes or self.unsaid)


class CheckpointRows(Protocol):
    """Read and rewrite the rows of a saver."""

    @property
    def unread(self) -> list[str]:
        """Name what a search of the files does not read."""

    def threads(self) -> list[str]:
        """Return the threads that have checkpoints."""

    def first(self, thread: str) -> str | None:
        """Return the id of a thread's oldest checkpoint, None if it has none."""

    def load(self, thread: str) -> list[Stored]:
        """Return a thread's checkpoints, the oldest of each graph first."""

    def save(self, thread: str, seen: Sequence[Stored], changes: Mapping[tuple[str, str], Change]) -> None:
        """Change checkpoints, named by space and id, all or none; raises Moved if the thread is not as it was seen."""

    def remove(self, thread: str, checkpoints: Sequence[tuple[str, str]] | None = None) -> int:
        """Remove these checkpoints of a thread, or the whole thread; return how many went."""

    def copy(self, thread: str, target: str, checkpoints: Sequence[tuple[str, str]]) -> None:
        """Copy these checkpoints to another thread, with what tasks wrote after all but the last."""

    def overwrite(self) -> str | None:
        """Let no file keep the bytes of what was removed; return why that is impossible, None if it is done."""

    def files(self) -> list[Path]:
        """Return the files of the database, as far as they are on this machine."""

    def blobs(self, without: Collection[str] = ()) -> list[bytes]:
        """Return the bytes of every stored value and of all metadata, but for those of some threads."""

    def message(self, extension: Extension) -> BaseMessage:
        """Make the message that an extension holds."""
