"""Bring a ledger's tables to the form that this version knows."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import column, inspect, select, table
from sqlalchemy.engine import Connection

from ..errors import LedgerError
from .tables import REVISION, VERSION_TABLE, metadata


def upgrade(connection: Connection, name: str, *, migrate: bool) -> None:
    """Upgrade the ledger on ``connection``, inside its transaction, if it is older than ours.

    Raises :class:`LedgerError` if it is newer, belongs to another program, or is older and
    ``migrate`` is False. ``name`` is the ledger's name for messages.
    """
    found = _revision(connection, name)
    if found == REVISION:
        return
    # Imported only where it is needed: a start with an up-to-date ledger is 0.1 s faster.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    # a percent sign would be taken for an interpolation
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerError(
            f"ledger {name} was written by a newer version (its revision is {found}, this "
            f"version knows up to {REVISION}): upgrade jupyterhub-gpuspawner, or restore the "
            "backup made before the upgrade"
        )
    if not migrate:
        raise LedgerError(
            f"ledger {name} has revision {found or 'none'} and needs {REVISION}: "
            "start the scheduler once, it upgrades the ledger"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision(connection: Connection, name: str) -> str | None:
    """Return the revision of the tables; None for an empty database."""
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE not in tables:
        foreign = sorted(tables)[:3]
        if foreign:
            raise LedgerError(
                f"ledger {name}: the database holds tables of another program "
                f"({', '.join(foreign)} …); give the ledger a database of its own"
            )
        return None
    versions = table(VERSION_TABLE, column("version_num"))
    revision = connection.execute(select(versions.c.version_num)).scalar()
    missing = sorted(set(metadata.tables) - tables) if revision == REVISION else []
    if missing:
        raise LedgerError(f"ledger {name} is damaged: tables {', '.join(missing)} are missing")
    return str(revision) if revision is not None else None
