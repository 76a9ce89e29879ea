"""The tables of the ledger.

The journal is the history: one row per decision, in order. The other tables are projections
of it, kept in the same transaction: the last decision about each thing, with the columns that
queries need. ``payload`` is the decision as JSON text in both (:mod:`..scheduler.decisions`).

Text and not the database's JSON type: the same bytes come back from SQLite and PostgreSQL, and
PostgreSQL's ``jsonb`` refuses some strings that a container's last words may hold.

A change here needs a migration in ``migrations/versions`` (a test compares the two).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

#: newest migration; a ledger at this revision needs none
REVISION = "0002"
#: alembic's table has our name, so that it never meets the one of JupyterHub
VERSION_TABLE = "gpuspawner_version"

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    # exactly one row
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("ledger", String(32), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    # write transactions so far; tells after a lost answer whether a commit happened
    Column("commits", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    CheckConstraint("one = 1", name="meta_one_row"),
)

entries = Table(
    "entries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("hub", Text, nullable=False),
    # not "user": in PostgreSQL that word is the database's own user
    Column("username", Text, nullable=False),
    Column("servername", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Index("entries_state", "state"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("live", Boolean, nullable=False),
    Column("hub", Text, nullable=False),
    Column("username", Text, nullable=False),
    Column("servername", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("granted_at", Float, nullable=False),
    Column("payload", Text, nullable=False),
    Index("leases_username", "username", "granted_at"),
    Index("leases_granted_at", "granted_at"),
)
# One live lease per server, kept by the database and not by code around it.
Index(
    "leases_one_live",
    leases.c.hub,
    leases.c.username,
    leases.c.servername,
    unique=True,
    sqlite_where=leases.c.live.is_(True),
    postgresql_where=leases.c.live.is_(True),
)

claims = Table(
    "claims",
    metadata,
    Column("device", Text, nullable=False),
    Column("atom", Integer, nullable=False),
    Column("lease_id", Text, ForeignKey("leases.id", name="claims_lease"), nullable=False),
    # This key is the promise that no atom is ever granted twice.
    PrimaryKeyConstraint("device", "atom", name="claims_pkey"),
    Index("claims_lease_id", "lease_id"),
)

devices = Table(
    "devices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("node", Text, nullable=False),
    Column("payload", Text, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("payload", Text, nullable=False),
)

bookings = Table(
    "bookings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("live", Boolean, nullable=False),
    Column("payload", Text, nullable=False),
)

journal = Table(
    "journal",
    metadata,
    # SQLite counts by itself only in a column of type INTEGER
    Column(
        "seq",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("time", Float, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Index("journal_subject", "kind", "subject"),
    # a number is never used twice, not even after the newest rows were removed
    sqlite_autoincrement=True,
)
