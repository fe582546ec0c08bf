"""Make the tables of the archive."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the record, the store's items, and what is needed to search them."""
    _spaces()
    _records()
    _messages()
    _items()
    _search()


def _spaces() -> None:
    op.create_table(
        "archive_spaces",
        sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(6), nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("next_position", sa.Integer, nullable=False),
        sa.Column("entries", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("archive_spaces_namespace", "archive_spaces", ["kind", "namespace"], unique=True)


def _records() -> None:
    op.create_table(
        "archive_records",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("space", sa.BigInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("thread", sa.Text),
        sa.Column("message_id", sa.Text),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("trust", sa.Integer, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("supersedes", sa.String(32)),
        sa.Column("superseded_by", sa.String(32)),
        sa.Column("superseded_at", sa.BigInteger),
    )
    newest = sa.text("superseded_by IS NULL")
    op.create_index(
        "archive_records_content",
        "archive_records",
        ["namespace", "hash"],
        unique=True,
        sqlite_where=newest,
        postgresql_where=newest,
    )
    op.create_index("archive_records_space", "archive_records", ["space", "position"], unique=True)
    op.create_index("archive_records_thread", "archive_records", ["space", "thread", "position"])
    op.create_index("archive_records_created", "archive_records", ["namespace", "created"])
    op.create_index("archive_records_expires", "archive_records", ["expires"])


def _messages() -> None:
    op.create_table(
        "archive_messages",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("thread", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("record", sa.String(32), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("archive_messages_record", "archive_messages", ["record"])


def _items() -> None:
    op.create_table(
        "archive_items",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("space", sa.BigInteger, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("texts", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.BigInteger, nullable=False),
        sa.Column("ttl_minutes", sa.Float),
        sa.Column("expires", sa.BigInteger),
    )
    op.create_index("archive_items_key", "archive_items", ["space", "key"], unique=True)
    op.create_index("archive_items_space", "archive_items", ["space", "position"], unique=True)
    op.create_index("archive_items_updated", "archive_items", ["updated"])
    op.create_index("archive_items_expires", "archive_items", ["expires"])


def _search() -> None:
    op.create_table(
        "archive_outbox",
        sa.Column("seq", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("space", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.String(32), nullable=False),
        sa.Column("vectors", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "archive_postings",
        sa.Column("space", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("term", sa.Text, primary_key=True),
        sa.Column("block", sa.Integer, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "archive_blocks",
        sa.Column("space", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("block", sa.Integer, primary_key=True),
        sa.Column("lengths", sa.LargeBinary, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "archive_settings",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
