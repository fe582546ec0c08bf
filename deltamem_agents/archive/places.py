"""Name where a vector index can be: a directory of this process, or a Chroma server that processes share."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine

from deltamem_agents.archive.chroma import ChromaIndex
from deltamem_agents.archive.directory import IndexDirectory, Manifest
from deltamem_agents.archive.server import IndexServer, is_server

__all__ = ["IndexPlace", "open_place"]


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

    def check(self, manifest: Manifest) -> None:
        """Raise IndexBrokenError if the manifest's folder cannot be read."""

    def open(self, manifest: Manifest) -> ChromaIndex:
        """Open the manifest's folder."""

    def remove_others(self, kept: str) -> None:
        """Remove every folder but `kept`."""

    def release(self) -> None:
        """Give up what was held."""


def open_place(engine: Engine, index: str | Path) -> IndexPlace:
    """Open a directory, or the server of a URL, for the index of a record.

    Raises ConfigError for a URL that names no server, IndexBusyError for a directory that another owner has, and
    IndexUnreachableError for a server that does not answer.
    """
    return IndexServer(engine, str(index)) if is_server(index) else IndexDirectory(Path(index))
