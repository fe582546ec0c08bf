"""Name the tables of the archive; the migrations make them."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from deltamem_agents.archive.errors import RecordInvalidError

__all__ = [
    "UtcTime",
    "blocks",
    "from_microseconds",
    "items",
    "messages",
    "metadata",
    "outbox",
    "postings",
    "records",
    "settings",
    "spaces",
    "threads",
    "to_microseconds",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UtcTime(TypeDecorator[datetime]):
    """Store an aware time as microseconds since 1970, which every database keeps and compares exactly."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's
        """Turn a time into microseconds; raise RecordInvalidError for one without a time zone."""
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - as above
        """Turn microseconds into a time in UTC."""
        return None if value is None else from_microseconds(value)


def to_microseconds(time: datetime) -> int:
    """Return the microseconds since 1970; raises RecordInvalidError for a time without a time zone."""
    if time.tzinfo is None:
        raise RecordInvalidError(f"times carry a time zone, such as datetime.now(UTC); got {time!r}")
    return (time - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(microseconds: int) -> datetime:
    """Return the time in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


metadata = MetaData()

_SERIAL = BigInteger().with_variant(Integer, "sqlite")

spaces = Table(
    "archive_spaces",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("kind", String(6), nullable=False),
    Column("namespace", Text, nullable=False),
    Column("next_position", Integer, nullable=False),
    Column("entries", Integer, nullable=False),
    Index("archive_spaces_namespace", "kind", "namespace", unique=True),
    sqlite_autoincrement=True,
)
"""One row per namespace and kind of entry ("record" or "item"): what is searched together, and never with another."""

records = Table(
    "archive_records",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("space", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("thread", Text),
    Column("message_id", Text),
    Column("role", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("trust", Integer, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("expires", UtcTime),
    Column("version", Integer, nullable=False),
    Column("supersedes", String(32)),
    Column("superseded_by", String(32)),
    Column("superseded_at", UtcTime),
    Index("archive_records_space", "space", "position", unique=True),
    Index("archive_records_thread", "space", "thread", "position"),
    Index("archive_records_created", "namespace", "created"),
    Index("archive_records_expires", "expires"),
)
"""One row per version of a record; positions count the versions of a namespace in the order of their writing."""

# Only the newest version counts: a text may come back after another one has replaced it.
_newest = records.c.superseded_by.is_(None)
Index(
    "archive_records_content",
    records.c.namespace,
    records.c.hash,
    unique=True,
    sqlite_where=_newest,
    postgresql_where=_newest,
)

messages = Table(
    "archive_messages",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("thread", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("record", String(32), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("archive_messages_record", "record"),
)
"""Which record a message became; several messages with one text share a record.

A row outlives its record, so that the message is not archived again; only forgetting removes it.
"""

threads = Table(
    "archive_threads",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("thread", Text, primary_key=True),
)
"""The threads that have run in a namespace, until they are erased: what is archived of them may be nothing."""

items = Table(
    "archive_items",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("space", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("texts", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("updated", UtcTime, nullable=False),
    Column("ttl_minutes", Float),
    Column("expires", UtcTime),
    Index("archive_items_key", "space", "key", unique=True),
    Index("archive_items_space", "space", "position", unique=True),
    Index("archive_items_updated", "updated"),
    Index("archive_items_expires", "expires"),
)
"""A key of a LangGraph store; `value` and `texts` (what of it is searched) are JSON; a write renews the id."""

outbox = Table(
    "archive_outbox",
    metadata,
    Column("seq", _SERIAL, primary_key=True, autoincrement=True),
    Column("space", BigInteger, nullable=False),
    Column("entry", String(32), nullable=False),
    Column("vectors", Integer, nullable=False),
    sqlite_autoincrement=True,
)
"""Which entries the vector index has still to look at: those that are gone by then leave it, the others enter it.

`vectors` is how many vectors the entry has.
"""

postings = Table(
    "archive_postings",
    metadata,
    Column("space", BigInteger, primary_key=True, autoincrement=False),
    Column("term", Text, primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
"""The full-text index: for a term and a block of positions, where it occurs and how often."""

blocks = Table(
    "archive_blocks",
    metadata,
    Column("space", BigInteger, primary_key=True, autoincrement=False),
    Column("block", Integer, primary_key=True),
    Column("lengths", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
)
"""For a block of positions: how many terms each has, and the position before it in its thread."""

settings = Table(
    "archive_settings",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)
"""What the record knows of its vector index."""
