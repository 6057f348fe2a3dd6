"""Which studies are of the same patient, by a keyed digest. Instances that are already there stay without one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0110"
down_revision = "0135"


def upgrade() -> None:
    """Add the column and its index."""
    op.add_column("instances", sa.Column("patient_key", sa.String(length=64), nullable=True))
    op.create_index("instances_by_patient", "instances", ["patient_key"])
