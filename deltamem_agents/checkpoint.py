"""Open LangGraph's own checkpointers by URL, with strict serialisation."""

import contextlib
import importlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import ModuleType, TracebackType
from typing import Any

import aiosqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from backbone import ConfigError

__all__ = ["CheckpointerOpener", "open_checkpointer"]

Saver = BaseCheckpointSaver[Any]

_FORMS = "memory://, sqlite:///relative/file, sqlite:////absolute/file, sqlite:///:memory: or postgresql://user@host/database"
_BUSY_SECONDS = 30.0
_POOL_SIZE = 8


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


def open_checkpointer(url: str) -> CheckpointerOpener:
    """Name a checkpointer by URL, to be opened with `with` (invoke, stream) or `async with` (ainvoke, astream).

    Accepts memory://, sqlite:///file and postgresql://…. Values are stored in strict msgpack: a type that the graph's
    schema does not name comes back as plain data, and never runs code. Raises ConfigError for any other URL, and for
    Postgres without the extra `postgres`.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "memory" and not rest.strip("/"):
        return CheckpointerOpener(_memory, _memory_async)
    if separator and scheme == "sqlite" and rest.startswith("/") and rest != "/":
        path = rest.removeprefix("/")
        return CheckpointerOpener(lambda: _sqlite(path), lambda: _sqlite_async(path))
    if separator and scheme in {"postgresql", "postgres"} and rest:
        _postgres_module("langgraph.checkpoint.postgres")
        return CheckpointerOpener(lambda: _postgres(url), lambda: _postgres_async(url))
    # The URL may hold a password, so only its scheme is shown.
    raise ConfigError(f"a checkpointer URL is {_FORMS}; got one that begins {(scheme + separator)[:20]!r}")


def _serde() -> JsonPlusSerializer:
    return JsonPlusSerializer(allowed_msgpack_modules=None)


@contextlib.contextmanager
def _memory() -> Iterator[Saver]:
    yield InMemorySaver(serde=_serde())


@contextlib.asynccontextmanager
async def _memory_async() -> AsyncIterator[Saver]:
    with _memory() as saver:
        yield saver


@contextlib.contextmanager
def _sqlite(path: str) -> Iterator[Saver]:
    # Shared between threads on purpose: the saver takes its own lock around every statement.
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)) as connection:
        saver = SqliteSaver(connection, serde=_serde())
        saver.setup()
        yield saver


@contextlib.asynccontextmanager
async def _sqlite_async(path: str) -> AsyncIterator[Saver]:
    async with aiosqlite.connect(path, timeout=_BUSY_SECONDS) as connection:
        saver = AsyncSqliteSaver(connection, serde=_serde())
        await saver.setup()
        yield saver


@contextlib.contextmanager
def _postgres(url: str) -> Iterator[Saver]:
    pool_module = _postgres_module("psycopg_pool")
    saver_module = _postgres_module("langgraph.checkpoint.postgres")
    with pool_module.ConnectionPool(url, min_size=1, max_size=_POOL_SIZE, kwargs=_connection_options()) as pool:
        saver = saver_module.PostgresSaver(pool, serde=_serde())
        saver.setup()
        yield saver


@contextlib.asynccontextmanager
async def _postgres_async(url: str) -> AsyncIterator[Saver]:
    pool_module = _postgres_module("psycopg_pool")
    saver_module = _postgres_module("langgraph.checkpoint.postgres.aio")
    options = _connection_options()
    async with pool_module.AsyncConnectionPool(url, min_size=1, max_size=_POOL_SIZE, kwargs=options) as pool:
        saver = saver_module.AsyncPostgresSaver(pool, serde=_serde())
        await saver.setup()
        yield saver


def _connection_options() -> dict[str, Any]:
    """Give what the Postgres saver asks of a connection."""
    rows = _postgres_module("psycopg.rows")
    return {"autocommit": True, "prepare_threshold": 0, "row_factory": rows.dict_row}


def _postgres_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f'a postgresql:// checkpointer needs an extra: pip install "deltamem-agents[postgres]" ({error})'
        ) from error
