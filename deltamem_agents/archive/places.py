"""Name where a vector index can be: a directory of this process, or a Chroma server that processes share."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from deltamem_agents.archive.directory import IndexDirectory, Manifest

__all__ = ["IndexPlace", "OpenIndex", "is_server", "open_place"]

Vectors = NDArray[np.float32]


class OpenIndex(Protocol):
    """Store and compare the vectors of each space; vector ids are chosen by the caller."""

    def upsert(self, space: int, vectors: Mapping[str, Vectors]) -> None:
        """Store vectors by id, replacing those that are there."""

    def delete(self, space: int, ids: Sequence[str]) -> None:
        """Remove vectors by id; unknown ids are no error."""

    def drop(self, space: int) -> None:
        """Remove all vectors of a space."""

    def query(self, space: int, vector: Vectors, limit: int) -> dict[str, float]:
        """Return the ids of the nearest vectors with their cosine similarity, the nearest first."""

    def ids(self, space: int) -> set[str]:
        """Return the ids of all vectors of a space."""

    def spaces(self) -> set[int]:
        """Return the spaces that have vectors."""

    def close(self) -> None:
        """Write what is not yet written, and close."""


class IndexPlace(Protocol):
    """Keep the manifest of an index, and its vectors.

    shared: other processes may feed and replace the index while this one uses it.
    """

    @property
    def shared(self) -> bool:
        """Say whether the index can change under its user."""

    def feeding(self) -> AbstractContextManager[None]:
        """Keep others from feeding the index meanwhile."""

    def read(self) -> Manifest | None:
        """Return the manifest, or None where there is no index."""

    def write(self, manifest: Manifest) -> None:
        """Replace the manifest."""

    def new_folder(self) -> str:
        """Return the name of a new, empty folder."""

    def open(self, manifest: Manifest) -> OpenIndex:
        """Open the manifest's folder; raises IndexBrokenError if it cannot be read."""

    def remove(self, folder: str) -> None:
        """Remove a folder that nobody has open."""

    def remove_others(self, kept: str) -> None:
        """Remove every folder but `kept`."""

    def release(self) -> None:
        """Give up what was held."""


def is_server(index: str | Path) -> bool:
    """Say whether an index is named by URL, and not by the path of a directory."""
    return isinstance(index, str) and "://" in index


def open_place(engine: Engine, index: str | Path) -> IndexPlace:
    """Open a directory, or the server of a URL, for the index of a record.

    Raises ConfigError for a URL that names no server, IndexBusyError for a directory that another owner has, and
    IndexUnreachableError for a server that does not answer.
    """
    if not is_server(index):
        return IndexDirectory(Path(index))
    # Only for a server is Chroma itself needed in this process, and it takes seconds to import.
    from deltamem_agents.archive.server import IndexServer  # noqa: PLC0415

    return IndexServer(engine, str(index))
