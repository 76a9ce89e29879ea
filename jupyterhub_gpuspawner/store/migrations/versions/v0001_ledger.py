"""The first ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table. Written out: it stays as it is when ``tables.py`` moves on."""
    op.create_table(
        "meta",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("ledger", sa.String(32), nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("commits", sa.BigInteger, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.CheckConstraint("one = 1", name="meta_one_row"),
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("hub", sa.Text, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("servername", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_index("entries_state", "entries", ["state"])
    _create_leases()
    op.create_table(
        "devices",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_table(
        "journal",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("journal_subject", "journal", ["kind", "subject"])


def _create_leases() -> None:
    leases = op.create_table(
        "leases",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.Column("hub", sa.Text, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("servername", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("granted_at", sa.Float, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_index("leases_username", "leases", ["username", "granted_at"])
    op.create_index("leases_granted_at", "leases", ["granted_at"])
    op.create_index(
        "leases_one_live",
        "leases",
        ["hub", "username", "servername"],
        unique=True,
        sqlite_where=leases.c.live.is_(True),
        postgresql_where=leases.c.live.is_(True),
    )
    op.create_table(
        "claims",
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("atom", sa.Integer, nullable=False),
        sa.Column(
            "lease_id", sa.Text, sa.ForeignKey("leases.id", name="claims_lease"), nullable=False
        ),
        sa.PrimaryKeyConstraint("device", "atom", name="claims_pkey"),
    )
    op.create_index("claims_lease_id", "claims", ["lease_id"])
