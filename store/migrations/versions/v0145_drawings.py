"""Which drawing a job's prompt comes from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0145"
down_revision = "0110"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("drawing", sa.String(length=64), nullable=False, server_default=""))
