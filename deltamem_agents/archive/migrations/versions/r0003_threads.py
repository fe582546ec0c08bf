"""Make the table of the threads that a namespace knows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table, with every thread that an archived message or an entry of the audit log names."""
    op.create_table(
        "archive_threads",
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("thread", sa.Text, primary_key=True),
    )
    op.execute(
        "INSERT INTO archive_threads (namespace, thread) SELECT namespace, thread FROM archive_messages "
        "UNION SELECT namespace, thread FROM audit WHERE thread IS NOT NULL"
    )
