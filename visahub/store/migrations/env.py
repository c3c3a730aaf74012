"""Runs migrations on the connection that `Store.upgrade` gives, within its transaction."""

from alembic import context

from visahub.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
context.run_migrations()
