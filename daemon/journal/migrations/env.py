"""Runs migrations on the connection it is handed; alembic executes this file, nobody imports it."""

from alembic import context

from daemon.journal.schema import metadata

# SQLite can undo DDL too, once the driver lets us begin: a broken migration leaves nothing behind
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
