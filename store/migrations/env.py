"""What alembic runs to apply the steps: on the connection that ``store.migration`` hands over."""

from __future__ import annotations

from alembic import context

from store.migration import VERSION_TABLE
from store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
