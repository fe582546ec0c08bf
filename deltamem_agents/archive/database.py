"""Open the database of the archive: SQLite made fit for several processes, or Postgres; migrated when it is opened."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from filelock import FileLock
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from backbone import ConfigError
from deltamem_agents._files import make_private
from deltamem_agents.archive.errors import ArchiveError
from deltamem_agents.installing import install_extra

__all__ = ["READ_ONLY", "empty_log", "open_database", "read_snapshot"]

READ_ONLY = {"archive_read_only": True}
"""Execution options of a connection that only reads: on SQLite it then takes no write lock."""

_FORMS = "sqlite:///relative/file, sqlite:////absolute/file or postgresql://user@host/database"
_BUSY_SECONDS = 30
_WAL_BYTES = 16 * 2**20
_CACHE_KIBIBYTES = (
    32 * 2**10
)  # of each connection; SQLite's own 2 MiB is less than one question reads of a large archive
# Any constant will do, so long as every version of this project uses the same.
_MIGRATION_LOCK = 5_031_972_611
_MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> Engine:
    """Open a database by URL, and bring its tables up to date.

    Raises ConfigError for a URL of another kind, for SQLite in memory (the record has to outlive its process), and for
    Postgres without the extra `postgres`; ArchiveError for tables made by a newer version of this project.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"a database URL is {_FORMS}") from error
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:":
        return _open_sqlite(parsed, Path(parsed.database))
    if parsed.drivername in {"postgresql", "postgres"}:
        return _open_postgres(parsed)
    # The URL may hold a password, so only its scheme is shown.
    raise ConfigError(f"a database URL is {_FORMS}; got one that begins {parsed.drivername!r} and names no such place")


def empty_log(engine: Engine) -> None:
    """Empty SQLite's write-ahead log, which may still hold what was deleted; a reader that is busy defers it."""
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        finally:
            connection.close()


@contextlib.contextmanager
def read_snapshot(engine: Engine) -> Iterator[Connection]:
    """Read what one moment has, however many queries it takes."""
    # SQLite's transactions are that anyway.
    level = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**READ_ONLY, **level) as connection:
        yield connection


def _open_sqlite(url: URL, path: Path) -> Engine:
    # Errors name no parameters: they are texts, and errors are logged.
    arguments = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    # Two processes that switch one new file to WAL at once get "database is locked" whatever the timeout.
    with FileLock(f"{path}.lock", timeout=_BUSY_SECONDS, mode=0o600):
        make_private(path)
        _migrate(engine)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    # Python's own transaction control is off: it would begin a transaction at the first write, too late to wait for it.
    connection.isolation_level = None
    for setting in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"journal_size_limit={_WAL_BYTES}",
        f"cache_size=-{_CACHE_KIBIBYTES}",
        "secure_delete=ON",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("archive_read_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _open_postgres(url: URL) -> Engine:
    try:
        engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, hide_parameters=True)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(f"a postgresql:// archive needs an extra: {install_extra('postgres')} ({error})") from error
    _migrate(engine)
    return engine


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        engine.dispose()
        raise ArchiveError(
            f"the archive's tables were made by a newer version of this project; upgrade it ({error})"
        ) from error
    except SQLAlchemyError as error:
        engine.dispose()
        reason = getattr(error, "orig", None) or error
        raise ArchiveError(f"the archive's database cannot be opened: {reason}") from error
    except BaseException:
        engine.dispose()
        raise
