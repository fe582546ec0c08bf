"""Feed the vector index from the outbox, in batches; a batch that is cut off at any point is simply done again."""

import threading
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.directory import Manifest
from deltamem_agents.archive.embeddings import Embedder
from deltamem_agents.archive.errors import EmbeddingError, IndexBrokenError, IndexMismatchError
from deltamem_agents.archive.outbox import (
    Change,
    KnownIndex,
    acknowledge,
    changes,
    entry_texts,
    existing_spaces,
    known_index,
    remember_index,
    vector_ids,
)
from deltamem_agents.archive.places import IndexPlace, open_place

__all__ = ["BATCH", "REMEDY", "Indexer", "belongs", "embed", "open_indexer"]

Vectors = NDArray[np.float32]

BATCH = 256
"""How many writes go into the index at a time."""

REMEDY = "run `deltamem archive rebuild`"
_TRIES = 3


class Indexer:
    """Bring an index up to date, and search it.

    A batch goes into Chroma first, then into the manifest, then out of the outbox. What the batch does depends on what
    the record holds by then, and not on what it held when the write was announced: a late batch cannot bring back an
    entry that has been deleted since.
    """

    def __init__(self, engine: Engine, place: IndexPlace, manifest: Manifest, embedder: Embedder) -> None:
        """Take a place whose folder can be opened; `open_indexer` checks that."""
        self._engine = engine
        self._place = place
        self._embedder = embedder
        self._lock = threading.RLock()
        self.manifest = manifest
        self.chroma = place.open(manifest)

    def close(self) -> None:
        """Close Chroma and let another owner have the directory."""
        with self._lock:
            self.chroma.close()
            self._place.release()

    @property
    def shared(self) -> bool:
        """Say whether other processes may feed and replace the index."""
        return self._place.shared

    def nearest(self, space: int, vector: Vectors, limit: int) -> dict[str, float]:
        """Return the vector ids nearest to a vector with their cosine similarity, the nearest first.

        Raises IndexMismatchError if the vector is not of the index's size.
        """
        if not self.manifest.dims:
            return {}
        self._require_size(vector)
        return self.chroma.query(space, vector, limit)

    def embed_query(self, question: str) -> Vectors:
        """Return a question's vector; raises EmbeddingError if that fails."""
        vector: Vectors = embed(self._embedder, [question], query=True)[0]
        return vector

    def catch_up(self) -> None:
        """Do all that the outbox holds; raises the error of what failed, after all else is done."""
        while self.batch():
            pass

    def refresh(self) -> None:
        """Follow a shared index that another process has fed or made anew.

        Raises IndexBrokenError if it is gone, and IndexMismatchError if another model made the new one.
        """
        if not self._place.shared:
            return
        with self._lock:
            old, manifest = self.manifest, _usable(self._engine, self._place, self._embedder)
            if manifest.folder != old.folder:
                self.chroma.close()
                self.chroma = self._place.open(manifest)
            self.manifest = manifest

    def batch(self) -> int:
        """Do the oldest writes of the outbox; return how many were done."""
        with self._lock, self._place.feeding():
            self.refresh()
            with self._engine.connect().execution_options(**READ_ONLY) as connection:
                todo = changes(connection, BATCH)
                texts = entry_texts(connection, {change.entry for change in todo})
                spaces = existing_spaces(connection)
            if not todo:
                return 0
            vectors, failure = self._vectors(texts)
            done = [change for change in todo if change.entry not in texts or change.entry in vectors]
            self._apply(done, vectors, spaces)
            self._finish(done)
            if failure is not None:
                raise failure
            return len(done)

    def _vectors(self, texts: dict[str, list[str]]) -> tuple[dict[str, Vectors], EmbeddingError | None]:
        """Embed all entries, or those that can be; return the vectors of each, and the first failure."""
        try:
            return self._embedded(texts), None
        except EmbeddingError as error:
            if len(texts) == 1:
                return {}, error
            failure = error
        found: dict[str, Vectors] = {}
        failed = 0
        for entry, parts in texts.items():
            try:
                found |= self._embedded({entry: parts})
            except EmbeddingError:
                failed += 1
                if failed == _TRIES and not found:
                    break  # not one text but the model is at fault
        return found, failure

    def _embedded(self, texts: dict[str, list[str]]) -> dict[str, Vectors]:
        vectors = embed(self._embedder, [part for parts in texts.values() for part in parts])
        if len(vectors):
            self._require_size(vectors[0])
        found, start = {}, 0
        for entry, parts in texts.items():
            found[entry] = vectors[start : start + len(parts)]
            start += len(parts)
        return found

    def _apply(self, done: Sequence[Change], vectors: dict[str, Vectors], spaces: set[int]) -> None:
        gone: dict[int, list[str]] = defaultdict(list)
        here: dict[int, dict[str, Vectors]] = defaultdict(dict)
        for change in done:
            ids = vector_ids(change.entry, change.vectors)
            if change.entry in vectors:
                here[change.space] |= dict(zip(ids, vectors[change.entry], strict=True))
            else:
                gone[change.space] += ids
        for space, ids in gone.items():
            if space in spaces:
                self.chroma.delete(space, ids)
            else:
                self.chroma.drop(space)
        for space, found in here.items():
            self.chroma.upsert(space, found)

    def _finish(self, done: Sequence[Change]) -> None:
        self.manifest = replace(self.manifest, generation=self.manifest.generation + 1)
        self._place.write(self.manifest)
        known = KnownIndex(self.manifest.id, self.manifest.generation)
        with self._engine.begin() as connection:
            acknowledge(connection, known, [change.seq for change in done])

    def _require_size(self, vector: Vectors) -> None:
        if not self.manifest.dims:
            self.manifest = replace(self.manifest, dims=len(vector))
        elif len(vector) != self.manifest.dims:
            raise IndexMismatchError(
                f"the index holds vectors of {self.manifest.dims} numbers, and {self._embedder.name} now gives "
                f"{len(vector)}; {REMEDY}, or give the embeddings that made it"
            )


def open_indexer(engine: Engine, index: str | Path, embedder: Embedder) -> Indexer:
    """Open the index of a record, or begin one.

    Raises:
        IndexBusyError: another process or store has the directory open.
        IndexBrokenError: the index is damaged, or not the one that the record knows.
        IndexMismatchError: it was made by another model.
        IndexUnreachableError: its server does not answer.
    """
    place = open_place(engine, index)
    try:
        with place.feeding():
            manifest = _usable(engine, place, embedder)
        return Indexer(engine, place, manifest, embedder)
    except BaseException:
        place.release()
        raise


def embed(embedder: Embedder, texts: Sequence[str], *, query: bool = False) -> Vectors:
    """Return the vectors [len(texts), dims]; whatever the model raises becomes an EmbeddingError."""
    try:
        return embedder.embed_query(texts[0])[None] if query else embedder.embed_texts(texts)
    except EmbeddingError:
        raise
    except Exception as error:
        raise EmbeddingError(f"{embedder.name} failed: {error}") from error


def _usable(engine: Engine, place: IndexPlace, embedder: Embedder) -> Manifest:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        known = known_index(connection)
    manifest = place.read()
    if manifest is None and known is None:
        manifest = Manifest(uuid.uuid4().hex, 0, embedder.name, 0, place.new_folder())
        place.write(manifest)
    elif manifest is None or not belongs(manifest, known):
        raise IndexBrokenError(f"the index in {place} is not the one that the record knows")
    if manifest.model != embedder.name:
        raise IndexMismatchError(
            f"the index in {place} was made by {manifest.model}, and {embedder.name} was given; {REMEDY}, or "
            "give the embeddings that made it"
        )
    if known is None:
        with engine.begin() as connection:
            remember_index(connection, KnownIndex(manifest.id, manifest.generation))
    return manifest


def belongs(manifest: Manifest, known: KnownIndex | None) -> bool:
    """Say whether an index is the record's, and not an older copy; the last batch may be one that was cut off."""
    if known is None:
        return manifest.generation == 0
    return manifest.id == known.id and manifest.generation - known.generation in {0, 1}
