"""Keep an index on a Chroma server, where several processes can search and feed it.

One server may hold the indexes of several records: the names of their collections begin with an id that the record
keeps. The manifest is the metadata of a collection without vectors.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import chromadb
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError
from filelock import FileLock
from sqlalchemy import Engine, select, text

from backbone import ConfigError
from deltamem_agents.archive.chroma import ChromaIndex
from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.dialects import insert_into
from deltamem_agents.archive.directory import Manifest
from deltamem_agents.archive.errors import IndexBrokenError, IndexUnreachableError
from deltamem_agents.archive.tables import settings

__all__ = ["IndexServer"]

_PORT = 8000
_SECURE_PORT = 443
# As with the lock of migrations, any constant will do.
_FEEDING_LOCK = 5_031_972_612


class IndexServer:
    """Read and write an index on a Chroma server.

    Any number of processes may have it open. Whoever feeds it holds a lock of the record's database meanwhile.
    """

    shared = True

    def __init__(self, engine: Engine, url: str) -> None:
        """Connect to http://host:port or https://host:port.

        Raises ConfigError for another URL, and IndexUnreachableError if no Chroma server answers there.
        """
        self._engine = engine
        self._url = url
        self._client = _connect(url)
        self._record = _record_id(engine)

    def __str__(self) -> str:
        return self._url

    @contextmanager
    def feeding(self) -> Iterator[None]:
        """Keep others from feeding the index meanwhile, by a lock of the record's database."""
        if self._engine.dialect.name == "postgresql":
            # Of a session and not of a transaction, which would stay open while texts are embedded.
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _FEEDING_LOCK})
                try:
                    yield
                finally:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _FEEDING_LOCK})
        else:
            with FileLock(f"{self._engine.url.database}.feeding.lock"):
                yield

    def read(self) -> Manifest | None:
        """Return the manifest, or None where there is no index; raises IndexBrokenError for a spoilt one."""
        try:
            found: Any = self._client.get_collection(self._manifest_name, embedding_function=None).metadata
        except NotFoundError:
            return None
        try:
            return Manifest(**found)
        except TypeError as error:
            raise IndexBrokenError(f"the manifest of the index at {self._url} cannot be read ({error})") from error

    def write(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        values: Any = asdict(manifest)
        try:
            self._client.get_collection(self._manifest_name, embedding_function=None).modify(metadata=values)
        except NotFoundError:
            self._client.create_collection(self._manifest_name, metadata=values, embedding_function=None)

    def new_folder(self) -> str:
        """Return what the names of a new index's collections have in common."""
        return uuid.uuid4().hex

    def open(self, manifest: Manifest) -> ChromaIndex:
        """Return the manifest's collections, over a connection of their own; raises IndexBrokenError if one fails."""
        index = ChromaIndex(_connect(self._url), f"{self._record}-{manifest.folder}-")
        try:
            index.check()
        except ChromaError as error:
            index.close()
            raise IndexBrokenError(f"the index at {self._url} cannot be read ({error})") from error
        return index

    def remove(self, folder: str) -> None:
        """Remove the collections of one index of this record."""
        for collection in self._client.list_collections():
            if collection.name.startswith(f"{self._record}-{folder}-"):
                self._client.delete_collection(collection.name)

    def remove_others(self, kept: str) -> None:
        """Remove the collections of this record that belong to another index than `kept`."""
        for collection in self._client.list_collections():
            own = collection.name.startswith(f"{self._record}-") and collection.name != self._manifest_name
            if own and not collection.name.startswith(f"{self._record}-{kept}-"):
                self._client.delete_collection(collection.name)

    def release(self) -> None:
        """Close the connection."""
        self._client.close()  # type: ignore[attr-defined] # missing from the interface, present in every client

    @property
    def _manifest_name(self) -> str:
        return f"{self._record}-index"


def _connect(url: str) -> ClientAPI:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.username:
        raise ConfigError(
            "an index is a directory, or a Chroma server as http://host:port or https://host:port (no path, no "
            f"password); got one that begins {parts.scheme!r}"
        )
    secure = parts.scheme == "https"
    try:
        return chromadb.HttpClient(
            host=parts.hostname,
            port=parts.port or (_SECURE_PORT if secure else _PORT),
            ssl=secure,
            settings=Settings(anonymized_telemetry=False),
        )
    except Exception as error:  # Chroma raises ValueError, httpx's errors and others
        raise IndexUnreachableError(f"no Chroma server answers at {url} ({error})") from error


def _record_id(engine: Engine) -> str:
    """Return the id of the record, which is made when it is first asked for."""
    chosen = select(settings.c.value).where(settings.c.name == "record")
    with engine.connect().execution_options(**READ_ONLY) as connection:
        found = connection.execute(chosen).scalar_one_or_none()
    if found is None:
        with engine.begin() as connection:
            insert = insert_into(connection, settings).values(name="record", value=uuid.uuid4().hex)
            connection.execute(insert.on_conflict_do_nothing())
            found = connection.execute(chosen).scalar_one()
    return str(found)
