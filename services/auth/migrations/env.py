"""What Alembic runs to apply revisions: over the connection of ``upgrade``, in one transaction."""

from alembic import context

from services.auth.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
