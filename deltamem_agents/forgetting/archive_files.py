"""The files of the archive: read to search them, and written anew without what was erased."""

from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from deltamem_agents.archive.tables import metadata

__all__ = ["archive_files", "overwrite_archive"]


def overwrite_archive(engine: Engine) -> str | None:
    """Write the archive's tables anew; return why that is impossible, None if it is done."""
    try:
        if engine.dialect.name == "sqlite":
            _vacuum_sqlite(engine)
        else:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for table in metadata.sorted_tables:
                    connection.execute(text(f"VACUUM (FULL) {table.name}"))
    except (SQLAlchemyError, OSError) as error:
        return f"the archive could not be written anew ({error}); call again when nobody uses it"
    return None


def _vacuum_sqlite(engine: Engine) -> None:
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("VACUUM")
        busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
        cursor.close()
    finally:
        connection.close()
    if busy:
        raise OSError("another connection reads its log")


def archive_files(engine: Engine) -> list[Path]:
    """Return the files of an archive in SQLite; none of one on a server."""
    name = engine.url.database if engine.dialect.name == "sqlite" else None
    return [path for end in ("", "-wal", "-shm") if name and (path := Path(name + end)).is_file()]
