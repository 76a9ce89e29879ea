"""The statements of a commit, compiled once.

SQLAlchemy Core writes the SQL for each database, and this module keeps the result: finding it
again for each execution would cost more time than the database takes to run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table, bindparam, delete, insert, literal_column, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect

from . import tables
from .rows import Row, Rows


class Writer:
    """Writes the rows of a commit on a connection, inside the caller's transaction."""

    def __init__(self, dialect: Dialect) -> None:
        meta, claims = tables.meta, tables.claims
        fence = (
            update(meta)
            .where(meta.c.epoch == bindparam("mine"))
            .values(commits=meta.c.commits + literal_column("1"))
        )
        drop = delete(claims).where(claims.c.lease_id == bindparam("lease"))
        self._fence = _Prepared(fence, dialect)
        self._leases = _Prepared(_upsert(tables.leases, dialect), dialect)
        self._others = {
            table.name: _Prepared(_upsert(table, dialect), dialect)
            for table in (tables.entries, tables.devices, tables.nodes, tables.bookings)
        }
        self._drop_claims = _Prepared(drop, dialect)
        self._add_claims = _Prepared(insert(claims), dialect)
        columns = [column.name for column in tables.journal.columns if column.name != "seq"]
        self._journal = _Prepared(insert(tables.journal).inline(), dialect, columns)

    def fence(self, connection: Connection, epoch: int) -> bool:
        """Count one more commit if ``epoch`` is the current one; return whether it is.

        A row lock on PostgreSQL: two schedulers that both believe to be the one take turns,
        and the second finds the other's epoch.
        """
        return self._fence.run(connection, [{"mine": epoch}]) == 1

    def write(self, connection: Connection, rows: Rows) -> None:
        """Write journal, projections and claims."""
        # What ended first: it makes room for what begins in the same commit.
        leases = sorted(rows.leases.values(), key=lambda row: bool(row["live"]))
        self._leases.run(connection, leases)
        self._drop_claims.run(connection, [{"lease": lease} for lease in rows.claims])
        claims = [claim for of_lease in rows.claims.values() for claim in of_lease]
        self._add_claims.run(connection, claims)
        others = {
            "entries": rows.entries,
            "devices": rows.devices,
            "nodes": rows.nodes,
            "bookings": rows.bookings,
        }
        for name, values in others.items():
            self._others[name].run(connection, list(values.values()))
        self._journal.run(connection, rows.journal)


class _Prepared:
    """One statement as the driver takes it."""

    def __init__(self, statement: Any, dialect: Dialect, columns: list[str] | None = None) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        self._sql = str(compiled)
        # Names in order where the driver takes positions (SQLite), None where it takes names.
        self._names: list[str] | None = compiled.positiontup

    def run(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Execute for each of ``rows``; return the row count, 0 without rows."""
        if not rows:
            return 0
        names = self._names
        parameters: Any = rows
        if names is not None:
            parameters = [tuple([row[name] for name in names]) for row in rows]
        if len(rows) == 1:
            parameters = parameters[0]
        return connection.exec_driver_sql(self._sql, parameters).rowcount


def _upsert(table: Table, dialect: Dialect) -> Any:
    """Return INSERT … ON CONFLICT (key) DO UPDATE; both databases have it, alike."""
    module = postgresql if dialect.name == "postgresql" else sqlite
    statement = module.insert(table)
    keys = [column.name for column in table.primary_key]
    changed = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)
