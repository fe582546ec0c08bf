"""Write what SQLite and Postgres spell alike but SQLAlchemy types apart."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["chunks", "insert_into"]

T = TypeVar("T")

_CHUNK = 5_000  # SQLite takes 32,766 parameters in a statement


def insert_into(connection: Connection, table: Table) -> Any:
    """Return an insert into `table` that knows ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts that fit into one statement."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
