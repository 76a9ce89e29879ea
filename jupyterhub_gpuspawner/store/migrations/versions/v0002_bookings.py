"""Bookings of devices for a window of time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "bookings",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
    )
