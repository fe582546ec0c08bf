"""Count what an archive holds, and what it takes on disk."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import func, make_url, select, text

from deltamem_agents.archive.database import READ_ONLY, open_database
from deltamem_agents.archive.outbox import pending
from deltamem_agents.archive.places import is_server
from deltamem_agents.archive.tables import items, messages, records, spaces

__all__ = ["statistics"]


def statistics(database_url: str, index: str | Path | None) -> dict[str, Any]:
    """Return counts of records (at their newest version), versions, messages, items, namespaces and pending writes.

    bytes_on_disk: of the database; index_bytes: of the index directory, 0 without one, None on a server. Bytes per
    record follow from them.
    """
    engine = open_database(database_url)
    try:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            newest = select(func.count()).select_from(records).where(records.c.superseded_by.is_(None))
            counts = {
                name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in (("versions", records), ("messages", messages), ("items", items))
            }
            namespaces = connection.execute(select(func.count(spaces.c.namespace.distinct()))).scalar_one()
            found = {"records": connection.execute(newest).scalar_one(), **counts, "namespaces": namespaces}
            found["pending"] = pending(connection)
            if engine.dialect.name == "postgresql":
                size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
            else:
                database = str(make_url(database_url).database)
                size = _bytes(Path(f"{database}{end}") for end in ("", "-wal", "-shm"))
    finally:
        engine.dispose()
    index_bytes = 0 if index is None else None if is_server(index) else _bytes(Path(index).rglob("*"))
    return {**found, "bytes_on_disk": int(size), "index_bytes": index_bytes}


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())
