"""Name the tables of the audit log, and compute an entry's digest; the archive's migrations make the tables."""

import hashlib
import json

from sqlalchemy import BigInteger, Column, Index, MetaData, RowMapping, String, Table, Text

__all__ = ["FIRST", "REGISTRY", "audit", "digest_of", "heads", "metadata"]

metadata = MetaData()

audit = Table(
    "audit",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("action", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("policy", Text),
    Column("policy_version", Text),
    Column("record_digest", Text),
    Column("record_id", Text),
    Column("thread", Text),
    Column("checkpoint", Text),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Index("audit_thread", "namespace", "thread", "action"),
)
"""One row per entry; `time` is microseconds since 1970, `detail` is JSON. Rows are added and never changed."""

heads = Table(
    "audit_heads",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("entries", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
)
"""One row per namespace: how many entries it has, and the digest of the last one."""

FIRST = "0" * 64
"""What the first entry of a namespace has in place of the digest before it."""

REGISTRY = "[]"
"""The key of the log that notes which namespaces have one; it is no namespace's."""

_FORMAT = 1
_COVERED = [column.name for column in audit.c if column.name not in {"seq", "digest"}]


def digest_of(row: RowMapping | dict[str, object]) -> str:
    """Return the SHA-256 of everything in an entry but its number, which its place in the chain says."""
    # SQLite lets a tampered column hold bytes, which JSON does not know.
    covered = json.dumps([_FORMAT, *(row[name] for name in _COVERED)], default=repr)
    return hashlib.sha256(covered.encode()).hexdigest()
