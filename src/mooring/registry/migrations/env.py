"""Alembic's entry: runs the migrations on the connection that `registry.database` hands over."""

from alembic import context

from mooring.registry.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
