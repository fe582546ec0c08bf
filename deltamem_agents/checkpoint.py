"""Open LangGraph's own checkpointers by URL, with strict serialisation."""

import contextlib
import importlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from types import ModuleType, TracebackType
from typing import Any

import aiosqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from backbone import ConfigError
from deltamem_agents._files import make_private
from deltamem_agents._serde import CheckpointSerializer, encrypting, redacting
from deltamem_agents.installing import install_extra

__all__ = ["CheckpointerOpener", "open_checkpointer"]

Saver = BaseCheckpointSaver[Any]
Make = Callable[..., Any]

_FORMS = "memory://, sqlite:///relative/file, sqlite:////absolute/file, sqlite:///:memory: or postgresql://user@host/database"
_BUSY_SECONDS = 30.0
_POOL_SIZE = 8
_SQLITE_SAMPLE = "SELECT type, checkpoint FROM checkpoints WHERE {} ORDER BY rowid DESC LIMIT 1"
_POSTGRES_SAMPLE = "SELECT type, blob FROM checkpoint_blobs WHERE {} LIMIT 1"


class CheckpointerOpener:
    """Open a checkpointer for one `with` or one `async with` block, and close it at the end."""

    def __init__(
        self,
        sync: Callable[[], AbstractContextManager[Saver]],
        asynchronous: Callable[[], AbstractAsyncContextManager[Saver]],
    ) -> None:
        """Take the two ways to open; nothing is opened yet."""
        self._sync = sync
        self._async = asynchronous
        self._open: AbstractContextManager[Saver] | None = None
        self._aopen: AbstractAsyncContextManager[Saver] | None = None

    def __enter__(self) -> Saver:
        """Open for synchronous graphs; tables are made if they are missing."""
        self._open = self._sync()
        return self._open.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.__exit__(kind, error, trace)

    async def __aenter__(self) -> Saver:
        """Open for asynchronous graphs; tables are made if they are missing."""
        self._aopen = self._async()
        return await self._aopen.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        if self._aopen is not None:
            await self._aopen.__aexit__(kind, error, trace)


def open_checkpointer(url: str, *, redact: bool = True, aes_key: str | bytes | None = None) -> CheckpointerOpener:
    """Name a checkpointer by URL, to be opened with `with` (invoke, stream) or `async with` (ainvoke, astream).

    Accepts memory://, sqlite:///file and postgresql://…. Values are stored in strict msgpack: a type that the graph's
    schema does not name comes back as plain data, and never runs code. redact: secrets in any string are replaced by
    placeholders before they are written. aes_key: 16, 24 or 32 bytes; values are encrypted with it. A new SQLite file
    is readable by its owner only. Raises ConfigError for any other URL or key, for Postgres without the extra
    `postgres`, for a key without the extra `aes`, and on opening a database that was written with another key.
    """
    scheme, separator, rest = url.partition("://")
    make = partial(_saver, redact, aes_key)
    make(InMemorySaver)  # so that a key that cannot work is refused here
    if separator and scheme == "memory" and not rest.strip("/"):
        return CheckpointerOpener(lambda: _memory(make), lambda: _memory_async(make))
    if separator and scheme == "sqlite" and rest.startswith("/") and rest != "/":
        path = rest.removeprefix("/")
        return CheckpointerOpener(lambda: _sqlite(path, make), lambda: _sqlite_async(path, make))
    if separator and scheme in {"postgresql", "postgres"} and rest:
        _postgres_module("langgraph.checkpoint.postgres")
        return CheckpointerOpener(lambda: _postgres(url, make), lambda: _postgres_async(url, make))
    # The URL may hold a password, so only its scheme is shown.
    raise ConfigError(f"a checkpointer URL is {_FORMS}; got one that begins {(scheme + separator)[:20]!r}")


def _saver(redact: bool, aes_key: str | bytes | None, kind: type[Saver], *connection: Any) -> Any:
    """Make a saver of LangGraph's with this project's serializer."""
    serde = CheckpointSerializer(redacts=redact)
    made = redacting(kind) if redact else kind
    return made(*connection, serde=serde if aes_key is None else encrypting(serde, aes_key))


@contextlib.contextmanager
def _memory(make: Make) -> Iterator[Saver]:
    yield make(InMemorySaver)


@contextlib.asynccontextmanager
async def _memory_async(make: Make) -> AsyncIterator[Saver]:
    with _memory(make) as saver:
        yield saver


@contextlib.contextmanager
def _sqlite(path: str, make: Make) -> Iterator[Saver]:
    if path != ":memory:":
        make_private(path)
    # Shared between threads on purpose: the saver takes its own lock around every statement.
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)) as connection:
        saver = make(SqliteSaver, connection)
        saver.setup()
        _require_readable(saver, connection.execute(_sample(saver, _SQLITE_SAMPLE)).fetchone())
        yield saver


@contextlib.asynccontextmanager
async def _sqlite_async(path: str, make: Make) -> AsyncIterator[Saver]:
    if path != ":memory:":
        make_private(path)
    async with aiosqlite.connect(path, timeout=_BUSY_SECONDS) as connection:
        saver = make(AsyncSqliteSaver, connection)
        await saver.setup()
        async with connection.execute(_sample(saver, _SQLITE_SAMPLE)) as cursor:
            _require_readable(saver, await cursor.fetchone())
        yield saver


@contextlib.contextmanager
def _postgres(url: str, make: Make) -> Iterator[Saver]:
    pool_module = _postgres_module("psycopg_pool")
    saver_module = _postgres_module("langgraph.checkpoint.postgres")
    with pool_module.ConnectionPool(url, min_size=1, max_size=_POOL_SIZE, kwargs=_connection_options()) as pool:
        saver = make(saver_module.PostgresSaver, pool)
        saver.setup()
        with pool.connection() as connection:
            _require_readable(saver, connection.execute(_sample(saver, _POSTGRES_SAMPLE)).fetchone())
        yield saver


@contextlib.asynccontextmanager
async def _postgres_async(url: str, make: Make) -> AsyncIterator[Saver]:
    pool_module = _postgres_module("psycopg_pool")
    saver_module = _postgres_module("langgraph.checkpoint.postgres.aio")
    options = _connection_options()
    async with pool_module.AsyncConnectionPool(url, min_size=1, max_size=_POOL_SIZE, kwargs=options) as pool:
        saver = make(saver_module.AsyncPostgresSaver, pool)
        await saver.setup()
        async with pool.connection() as connection:
            sample = await connection.execute(_sample(saver, _POSTGRES_SAMPLE))
            _require_readable(saver, await sample.fetchone())
        yield saver


def _sample(saver: Saver, statement: str) -> str:
    """Return what finds a value to try: with a key an encrypted one, since older threads may be in the clear."""
    encrypted = isinstance(saver.serde, EncryptedSerializer)
    return statement.format("type LIKE '%+%'" if encrypted else "type <> 'empty'")


def _require_readable(saver: Saver, row: Any) -> None:
    """Read one stored value, so that a wrong key is found before anything is written beside what it cannot read."""
    if row is not None:
        saver.serde.loads_typed(tuple(row.values()) if isinstance(row, dict) else tuple(row))


def _connection_options() -> dict[str, Any]:
    """Give what the Postgres saver asks of a connection."""
    rows = _postgres_module("psycopg.rows")
    return {"autocommit": True, "prepare_threshold": 0, "row_factory": rows.dict_row}


def _postgres_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"a postgresql:// checkpointer needs an extra: {install_extra('postgres')} ({error})"
        ) from error
