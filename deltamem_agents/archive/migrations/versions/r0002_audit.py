"""Make the tables of the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the log, and the row that counts the entries of each namespace."""
    op.create_table(
        "audit",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("policy", sa.Text),
        sa.Column("policy_version", sa.Text),
        sa.Column("record_digest", sa.Text),
        sa.Column("record_id", sa.Text),
        sa.Column("thread", sa.Text),
        sa.Column("checkpoint", sa.Text),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_index("audit_thread", "audit", ["namespace", "thread", "action"])
    op.create_table(
        "audit_heads",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
