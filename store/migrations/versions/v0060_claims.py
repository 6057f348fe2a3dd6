"""Who works on which part of a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0060"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "claims",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("part", sa.String(length=80), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "part"),
    )
