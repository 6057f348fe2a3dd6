"""Which of a job's objects goes to which destination, and which takes its place where it is refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0135"
down_revision = "0075"


def upgrade() -> None:
    """Add the columns; what earlier versions wrote is for every destination, and nothing takes its place."""
    for name in ("variant", "needs", "fallback"):
        op.add_column("objects", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("objects", sa.Column("destinations", sa.Text(), nullable=True))
