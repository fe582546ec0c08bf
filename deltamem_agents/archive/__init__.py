"""Keep what was said, verbatim, in SQL, and find it again by words and by meaning.

What is used beside `deltamem_agents.MemoryStore`; names are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltamem_agents.archive.errors import (
        ArchiveError,
        EmbeddingError,
        IndexBrokenError,
        IndexBusyError,
        IndexMismatchError,
        IndexUnreachableError,
        PolicyRefusedError,
        RecordConflictError,
        RecordInvalidError,
        RecordNotFoundError,
        VectorIndexError,
        VersionConflictError,
    )
    from deltamem_agents.archive.filters import RecordFilter
    from deltamem_agents.archive.record_store import RecordStore
    from deltamem_agents.archive.records import Record
    from deltamem_agents.archive.retriever import MemoryRetriever
    from deltamem_agents.archive.writes import NewRecord

_HOMES = {
    "errors": (
        "ArchiveError",
        "EmbeddingError",
        "IndexBrokenError",
        "IndexBusyError",
        "IndexMismatchError",
        "IndexUnreachableError",
        "PolicyRefusedError",
        "RecordConflictError",
        "RecordInvalidError",
        "RecordNotFoundError",
        "VectorIndexError",
        "VersionConflictError",
    ),
    "filters": ("RecordFilter",),
    "record_store": ("RecordStore",),
    "records": ("Record",),
    "retriever": ("MemoryRetriever",),
    "writes": ("NewRecord",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ArchiveError",
    "EmbeddingError",
    "IndexBrokenError",
    "IndexBusyError",
    "IndexMismatchError",
    "IndexUnreachableError",
    "MemoryRetriever",
    "NewRecord",
    "PolicyRefusedError",
    "Record",
    "RecordConflictError",
    "RecordFilter",
    "RecordInvalidError",
    "RecordNotFoundError",
    "RecordStore",
    "VectorIndexError",
    "VersionConflictError",
]


def __getattr__(name: str) -> Any:
    """Load a public name's module on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
