"""Keep vectors in Chroma: ids and vectors only, in cosine space, one collection for each space."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import chromadb
import numpy as np
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.errors import NotFoundError
from numpy.typing import NDArray

__all__ = ["ChromaIndex", "collection_name", "open_client"]

Vectors = NDArray[np.float32]

# How many neighbours are looked at: more than Chroma's default of 100, for small spaces to be searched exactly.
_SEARCH_WIDTH = 200
_PAGE = 5_000
# Of a collection that is opened so many vectors are read, or one in so many of a small one, which may have thousands
# like it: a file that was cut short lacks some of them.
_SAMPLES, _APART = 16, 100


def open_client(folder: str) -> ClientAPI:
    """Open Chroma in a folder, with its telemetry off; one process may do so at a time."""
    return chromadb.PersistentClient(path=folder, settings=Settings(anonymized_telemetry=False))


def collection_name(space: int) -> str:
    """Return the collection of a space; its number says nothing about the namespace."""
    return f"space-{space}"


class ChromaIndex:
    """Store and compare the vectors of each space; vector ids are chosen by the caller."""

    def __init__(self, client: ClientAPI, prefix: str = "") -> None:
        """Take an open client, which `close` closes, and what the names of these collections begin with."""
        self._client = client
        self._prefix = prefix
        self._collections: dict[int, Any] = {}

    def close(self) -> None:
        """Close the client."""
        self._client.close()  # type: ignore[attr-defined] # missing from the interface, present in every client

    def check(self) -> None:
        """Count and query every collection, and read some of it from end to end; raises whatever Chroma raises."""
        for collection in self._client.list_collections():
            if collection.name.startswith(self._prefix) and (count := collection.count()):
                for place in range(0, count, max(_APART, -(-count // _SAMPLES))):
                    some = collection.get(limit=1, offset=place, include=["embeddings"])["embeddings"]
                collection.query(query_embeddings=some, n_results=1)

    def upsert(self, space: int, vectors: Mapping[str, Vectors]) -> None:
        """Store vectors by id, replacing those that are there."""
        collection = self._collection(space, make=True)
        ids = list(vectors)
        most = self._client.get_max_batch_size()
        for start in range(0, len(ids), most):
            chosen = ids[start : start + most]
            collection.upsert(ids=chosen, embeddings=[vectors[name] for name in chosen])

    def delete(self, space: int, ids: Sequence[str]) -> None:
        """Remove vectors by id; unknown ids are no error."""
        collection = self._collection(space)
        if collection is not None and ids:
            collection.delete(ids=list(ids))

    def drop(self, space: int) -> None:
        """Remove all vectors of a space."""
        self._collections.pop(space, None)
        with contextlib.suppress(NotFoundError):
            self._client.delete_collection(self._name(space))

    def query(self, space: int, vector: Vectors, limit: int) -> dict[str, float]:
        """Return the ids of the nearest vectors with their cosine similarity, the nearest first."""
        collection = self._collection(space)
        try:
            count = 0 if collection is None else collection.count()
            if collection is None or not count:
                return {}
            found = collection.query(query_embeddings=[vector], n_results=min(limit, count), include=["distances"])
        except NotFoundError:  # it was dropped a moment ago
            return {}
        distances = np.nan_to_num(np.asarray(found["distances"][0], np.float64), nan=1.0)
        return dict(zip(found["ids"][0], (1 - distances).tolist(), strict=True))

    def ids(self, space: int) -> set[str]:
        """Return the ids of all vectors of a space, each of which is read; raises whatever Chroma raises."""
        found: set[str] = set()
        collection = self._collection(space)
        while collection is not None:
            page = collection.get(include=["embeddings"], limit=_PAGE, offset=len(found))["ids"]
            found.update(page)
            if len(page) < _PAGE:
                break
        return found

    def spaces(self) -> set[int]:
        """Return the spaces that have a collection."""
        first = f"{self._prefix}space-"
        names = (collection.name for collection in self._client.list_collections())
        return {int(name.removeprefix(first)) for name in names if name.startswith(first)}

    def _name(self, space: int) -> str:
        return self._prefix + collection_name(space)

    def _collection(self, space: int, *, make: bool = False) -> Any:
        if space not in self._collections:
            name = self._name(space)
            try:
                # Without embedding_function=None Chroma would download a model of its own.
                found = self._client.get_collection(name, embedding_function=None)
            except NotFoundError:
                if not make:
                    return None
                found = self._client.create_collection(
                    name,
                    embedding_function=None,
                    configuration={"hnsw": {"space": "cosine", "ef_search": _SEARCH_WIDTH}},
                )
            self._collections[space] = found
        return self._collections[space]
