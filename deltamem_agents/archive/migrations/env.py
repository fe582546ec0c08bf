"""Run migrations on the connection that `open_database` hands over; Alembic loads this file, nothing imports it."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="archive_schema",
    # SQLite can roll back a change of tables, when the transaction is begun by us and not by Python's driver.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
