"""Feed the vector index from the outbox, in batches; a batch that is cut off at any point is simply done again."""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    belongs,
    changes,
    entry_texts,
    existing_spaces,
    known_index,
    remember_index,
    vector_ids,
)
from deltamem_agents.archive.places import IndexPlace, open_place

__all__ = ["BATCH", "REMEDY", "Indexer", "open_indexer"]

Vectors = NDArray[np.float32]

BATCH = 256
"""How many writes go into the index at a time."""

REMEDY = "run `deltamem archive rebuild`"
_REFUSED_SECONDS = 60.0  # how long a refused text is left alone


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
        self._refused: dict[str, tuple[float, EmbeddingError]] = {}  # entries: when to try again, and what was said
        self.manifest = manifest
        self.chroma = place.open(manifest)

    def close(self) -> None:
        """Close Chroma and let another owner have the directory."""
        with self._lock:
            try:
                self.chroma.close()
            finally:
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

    @property
    def refusal(self) -> EmbeddingError | None:
        """Return what the model said of a text that it has refused, None if it has refused none of the outbox."""
        return next((error for _, error in tuple(self._refused.values())), None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the index as it is meanwhile."""
        with self._lock, self._place.feeding():
            yield

    def catch_up(self, *, again: bool = False) -> None:
        """Do all that the outbox holds.

        again: also what the model refused a moment ago; raises what it says if it refuses it again.
        """
        if again:
            with self._lock:
                self._refused.clear()
        while self.batch():
            pass
        if again and self.refusal is not None:
            raise self.refusal

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
        """Do the oldest writes of the outbox; return how many were looked at.

        Texts that the model refuses stay behind, and are left out for a minute (`refusal`). Raises EmbeddingError if
        it refuses every text.
        """
        with self._lock, self._place.feeding():
            self.refresh()
            now = time.monotonic()
            self._refused = {entry: said for entry, said in self._refused.items() if said[0] > now}
            with self._engine.connect().execution_options(**READ_ONLY) as connection:
                todo = changes(connection, BATCH, besides=self._refused.keys())
                texts = entry_texts(connection, {change.entry for change in todo})
                spaces = existing_spaces(connection)
            if not todo:
                return 0
            vectors = self._vectors(texts)
            done = [change for change in todo if change.entry not in texts or change.entry in vectors]
            if done:
                self._apply(done, vectors, spaces)
                self._finish(done)
            return len(todo)

    def _vectors(self, texts: dict[str, list[str]]) -> dict[str, Vectors]:
        """Embed all entries that can be; note what the model says of the others."""
        found, refused = self._embedder.embed_entries(texts)
        for vectors in found.values():
            if len(vectors):
                self._require_size(vectors[0])
        again = time.monotonic() + _REFUSED_SECONDS
        self._refused |= {entry: (again, error) for entry, error in refused.items()}
        return found

    def _apply(self, done: Sequence[Change], vectors: dict[str, Vectors], spaces: set[int]) -> None:
        gone: dict[int, dict[str, None]] = defaultdict(dict)  # an entry that was written and deleted comes twice
        here: dict[int, dict[str, Vectors]] = defaultdict(dict)
        for change in done:
            ids = vector_ids(change.entry, change.vectors)
            if change.entry in vectors:
                here[change.space] |= dict(zip(ids, vectors[change.entry], strict=True))
            else:
                gone[change.space] |= dict.fromkeys(ids)
        for space, names in gone.items():
            if space in spaces:
                self.chroma.delete(space, list(names))
            else:
                self.chroma.drop(space)
        for space, found in here.items():
            self.chroma.upsert(space, found)

    def _finish(self, done: Sequence[Change]) -> None:
        manifest = replace(self.manifest, generation=self.manifest.generation + 1)
        self._place.write(manifest)
        known = KnownIndex(manifest.id, manifest.generation)
        with self._engine.begin() as connection:
            acknowledge(connection, known, [change.seq for change in done])
        # Not before: if this fails again and again, the manifest is still one batch ahead of the record at most.
        self.manifest = manifest

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
            f"the index in {place} was made by {manifest.model}, and {embedder.name} was given; {REMEDY} or, "
            "with these embeddings, `rebuild()` of a store that is not open, or give the embeddings that made it"
        )
    if known is None:
        with engine.begin() as connection:
            remember_index(connection, KnownIndex(manifest.id, manifest.generation))
        return manifest
    # A batch that the record does not know of is done again.
    return replace(manifest, generation=known.generation)
