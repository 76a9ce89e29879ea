"""A ledger as each released schema has it, as SQL text: ``tests/schemas/<revision>.sql``.

``python -m tests.schemas`` writes the one of the current schema where there is none yet. Run it
in the commit that adds an alembic revision, and never again for that revision: what is there was
written by the code of its time.

In each: alice's server runs in :data:`CONTAINER` with :data:`DEVICE`, bob waits for a GPU, and
carol's lease is over. The values stand for real ones and are replaced as text.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

FOLDER = Path(__file__).parent
#: of the ledger, of alice's lease, of her container, of her device, of the machine
LEDGER, LEASE, CONTAINER = "1edger00" * 4, "1ea5e000" * 4, "c0ffee00" * 8
DEVICE, NODE = "SIMULATED-schema-0", "schema"
#: of bob's entry
ENTRY = "e4724000" * 4
#: the epoch that wrote it
EPOCH = 7


def fixtures() -> dict[str, Path]:
    """Revision -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.sql"))}


def build(sql: str, path: Path) -> None:
    """Make a database at ``path`` from a fixture's text."""
    connection = sqlite3.connect(path)
    try:
        connection.executescript(sql)
        connection.commit()
    finally:
        connection.close()
