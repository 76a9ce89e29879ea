"""Alembic runs this file; :mod:`..migrate` hands it the connection, inside a transaction."""

from __future__ import annotations

from alembic import context

from jupyterhub_gpuspawner.store.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite can't alter a column in place: alembic copies the table
    render_as_batch=True,
    # ours begins with BEGIN IMMEDIATE, so DDL is in the transaction on SQLite too
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
