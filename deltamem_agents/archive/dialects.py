"""Write what SQLite and Postgres spell alike but SQLAlchemy types apart."""

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["insert_into"]


def insert_into(connection: Connection, table: Table) -> Any:
    """Return an insert into `table` that knows ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
