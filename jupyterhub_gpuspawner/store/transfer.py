"""A ledger moves to another database: all of it, or nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Table, func, insert, inspect, select, text
from sqlalchemy.engine import Connection

from ..errors import LedgerError, LedgerUnknown
from . import tables
from .database import CommitLost, Database
from .failures import words
from .ledger import Ledger
from .migrate import upgrade
from .place import Place, find

#: hears of (table, rows done, rows in all)
Progress = Callable[[str, int, int], None]
#: rows that are read and written at once
_CHUNK = 2000
_DIGEST = 1 << 256


def copy(source: str, target: str, progress: Progress = lambda *_: None) -> dict[str, int]:
    """Copy the ledger at URL ``source`` to the empty database at URL ``target``.

    The same ledger afterwards: its id, its epoch, its whole journal. Both are locked meanwhile, so
    no scheduler may run on either. One transaction of the target holds it all, and is committed
    only after everything was read back and found the same.

    Returns the number of rows of each table. Raises :class:`LedgerError` if nothing was copied;
    :class:`LedgerUnknown` if that is not known.
    """
    origin, goal = find(source), find(target)
    if origin.url == goal.url:
        raise LedgerError(f"ledger {origin.name}: it can't be copied to itself")
    must_exist(origin)
    here = Database(source)
    try:
        _check_source(here)
        there = Database(target)
        try:
            with here.transaction(write=False) as old, there.transaction(write=True) as new:
                return _copy(old, new, there.name, progress)
        except CommitLost as lost:
            raise LedgerUnknown(
                f"ledger {there.name}: the answer to the commit was lost "
                f"({words(lost.__cause__ or lost)}); it holds all or nothing: the same command "
                "again copies it, or says that the target is not empty"
            ) from lost
        finally:
            there.close()
    finally:
        here.close()


def must_exist(place: Place) -> None:
    """Refuse an SQLite ledger that is not there: opening it would make a new one."""
    if place.path is not None and not os.path.exists(place.path):
        raise LedgerError(f"ledger {place.name}: there is no such file")


def _check_source(database: Database) -> None:
    with database.transaction(write=False) as connection:
        if not inspect(connection).get_table_names():
            raise LedgerError(f"ledger {database.name}: there is nothing in it")
        upgrade(connection, database.name, migrate=False)
    # what contradicts itself is not to be spread
    Ledger(database).load()


def _copy(old: Connection, new: Connection, name: str, progress: Progress) -> dict[str, int]:
    found = sorted(inspect(new).get_table_names())
    if found:
        raise LedgerError(
            f"ledger {name} is not empty (tables {', '.join(found[:3])} …); "
            "nothing was copied. Give a new database"
        )
    upgrade(new, name, migrate=True)
    counts: dict[str, int] = {}
    # in the order that foreign keys ask for
    for table in tables.metadata.sorted_tables:
        total = old.execute(select(func.count()).select_from(table)).scalar_one()
        wanted = done = 0
        for rows in _rows(old, table):
            new.execute(insert(table), [dict(row._mapping) for row in rows])
            wanted = (wanted + _digest(rows)) % _DIGEST
            done += len(rows)
            progress(table.name, done, total)
        if (done, wanted) != _read_back(new, table):
            raise LedgerError(
                f"ledger {name}: table {table.name} does not read back as it was written; "
                "nothing was copied"
            )
        counts[table.name] = done
    _go_on_counting(new, _last_number(old))
    return counts


def _rows(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    query = select(table).execution_options(yield_per=_CHUNK)
    yield from connection.execute(query).partitions()


def _read_back(connection: Connection, table: Table) -> tuple[int, int]:
    count = digest = 0
    for rows in _rows(connection, table):
        count += len(rows)
        digest = (digest + _digest(rows)) % _DIGEST
    return count, digest


def _digest(rows: Sequence[Any]) -> int:
    # A sum: databases order text each in their own way.
    return sum(
        int.from_bytes(hashlib.sha256(repr(tuple(row)).encode()).digest(), "big") for row in rows
    )


def _last_number(connection: Connection) -> int:
    """The highest number that the journal ever gave; its rows may be gone."""
    if connection.dialect.name == "sqlite":
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'journal'"
    else:
        query = "SELECT last_value FROM journal_seq_seq WHERE is_called"
    return int(connection.execute(text(query)).scalar() or 0)


def _go_on_counting(connection: Connection, last: int) -> None:
    """Have the journal's next number be the one after ``last``."""
    if not last:
        return
    if connection.dialect.name == "sqlite":
        # a unique name is all that SQLite asks of the rows of this table
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'journal'"))
        query = "INSERT INTO sqlite_sequence (name, seq) VALUES ('journal', :last)"
    else:
        query = "SELECT setval('journal_seq_seq', :last)"
    connection.execute(text(query), {"last": last})
