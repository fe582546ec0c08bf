"""Make a vector index anew from the record, and compare an index with the record."""

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select

from deltamem_agents.archive.database import READ_ONLY
from deltamem_agents.archive.directory import Manifest
from deltamem_agents.archive.embeddings import Embedder
from deltamem_agents.archive.errors import VectorIndexError
from deltamem_agents.archive.indexer import belongs, embed
from deltamem_agents.archive.outbox import (
    KnownIndex,
    all_entries,
    changes,
    known_index,
    last_change,
    pending,
    remember_index,
    vector_ids,
)
from deltamem_agents.archive.places import IndexPlace, OpenIndex, is_server, open_place
from deltamem_agents.archive.tables import items, records

__all__ = ["Progress", "Verification", "compare", "rebuild_index", "verify_index"]

Progress = Callable[[int, int], None]
"""Called with how many entries are done, and how many there are."""


def rebuild_index(engine: Engine, place: IndexPlace, embedder: Embedder, progress: Progress | None) -> int:
    """Embed every entry into a new folder, switch to it, and remove all others; return the number of vectors.

    Writes that happen meanwhile stay in the outbox. A rebuild that is cut off leaves the old index as it was, or
    one that the record does not know and that is not used.
    """
    with engine.connect().execution_options(**READ_ONLY) as connection:
        seen = last_change(connection)
        total = sum(connection.execute(select(func.count()).select_from(t)).scalar_one() for t in (records, items))
    folder = place.new_folder()
    manifest = Manifest(uuid.uuid4().hex, 1, embedder.name, 0, folder)
    chroma = place.open(manifest)
    count = done = dims = 0
    try:
        for page in all_entries(engine):
            named = [(space, name) for space, entry, texts in page for name in vector_ids(entry, len(texts))]
            vectors = embed(embedder, [text for _, _, texts in page for text in texts])
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
        remember_index(connection, KnownIndex(manifest.id, manifest.generation), up_to=seen)
    place.remove_others(folder)
    return count


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
    """Compare the ids in the index with those that the record calls for; without an index, only count."""
    with engine.connect().execution_options(**READ_ONLY) as connection:
        counts = [connection.execute(select(func.count()).select_from(t)).scalar_one() for t in (records, items)]
        waiting = pending(connection)
        if chroma is None:
            return Verification(counts[0], counts[1], 0, 0, 0, waiting, fault)
        late = {(change.space, name) for change in changes(connection, waiting) for name in _ids(change)}
    expected = _expected(engine)
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


def _expected(engine: Engine) -> set[tuple[int, str]]:
    return {
        (space, name)
        for page in all_entries(engine)
        for space, entry, texts in page
        for name in vector_ids(entry, len(texts))
    }


def _ids(change: Any) -> list[str]:
    return vector_ids(change.entry, change.vectors)
