"""The connection: one writer, explicit transactions, and errors that say what they mean."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ..errors import LedgerError, LedgerLocked
from .failures import USER_MESSAGE, translate
from .lock import FileLock
from .place import Place, find, prepare_file, prepare_folder

#: seconds to wait for another program's lock; the scheduler is better told soon
BUSY_TIMEOUT = 0.25
#: seconds that a database server gets to take a connection
CONNECT_TIMEOUT = 5
#: seconds after which a database server that says nothing at all counts as gone, and we for it
_SILENCE = 15
#: two numbers that name our advisory lock in a PostgreSQL database ("gpus", "ledg")
_ADVISORY = (0x67707573, 0x6C656467)
#: bytes; SQLite checks a file up to this size in well under a second when it is opened
_CHECK_LIMIT = 128 << 20


class CommitLost(Exception):
    """COMMIT itself failed: whether the transaction happened has to be looked up."""


class Database:
    """The one connection of this process to its ledger, and the lock that goes with it.

    Usable from several threads: one transaction at a time. After an error the next
    transaction connects anew if it has to. Raises errors of the ``LedgerError`` family.
    """

    def __init__(self, url: str) -> None:
        self.place: Place = find(url)
        self.name = self.place.name
        self._guard = threading.RLock()
        self._connection: Connection | None = None
        self._lock: FileLock | None = None
        path = self.place.path
        if path is not None:
            prepare_folder(path)
            self._lock = FileLock(f"{path}.lock", path)
        try:
            if path is not None:
                prepare_file(path)
            self._engine = _engine(self.place)
            with self.transaction(write=False) as connection:
                _check(connection, self.name)
        except BaseException:
            self.close()
            raise

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's; its name is ``sqlite`` or ``postgresql``."""
        return self._engine.dialect

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Connection]:
        """Run the block in one transaction: all of it happens, or nothing.

        A reading transaction sees one state of the ledger. Raises :class:`CommitLost` if it
        is not known whether a writing one happened; every other error means that it did not.
        """
        with self._guard:
            connection = self._begin(write)
            try:
                yield connection
            except BaseException as error:
                self._roll_back(connection)
                if isinstance(error, Exception) and not isinstance(error, CommitLost):
                    raise self._translate(error) from error
                raise
            try:
                connection.commit()
            except BaseException as error:
                self._roll_back(connection)
                if isinstance(error, Exception):
                    raise CommitLost from error
                raise

    def disconnect(self) -> None:
        """Drop the connection; the next transaction opens a new one. The file lock stays."""
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(SQLAlchemyError):
                    connection.invalidate()
                with contextlib.suppress(SQLAlchemyError):
                    connection.close()

    def close(self) -> None:
        """Close the connection and give the lock back. May be called twice."""
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(SQLAlchemyError):
                    connection.close()
            if self._lock is not None:
                self._lock.close()

    def _begin(self, write: bool) -> Connection:
        """Return the connection in a transaction; a connection that has died is made anew once."""
        old = self._connection is not None and self.place.path is None
        try:
            connection = self._connect()
            connection.info["write"] = write
            connection.begin()
        except Exception as error:
            self.disconnect()
            if old and isinstance(error, SQLAlchemyError):
                # Nothing was done on it yet: the server may only have been restarted.
                return self._begin(write)
            raise self._translate(error) from error
        return connection

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            if self.dialect.name == "postgresql":
                _take_advisory_lock(self._connection, self.name)
        return self._connection

    def _roll_back(self, connection: Connection) -> None:
        dbapi = self._engine.dialect.loaded_dbapi
        try:
            connection.rollback()
            if not connection.invalidated:
                # SQLAlchemy thinks that a transaction is over after a failed COMMIT. SQLite
                # keeps it open where the disk is full.
                connection.connection.rollback()
        except (SQLAlchemyError, dbapi.Error):
            self.disconnect()
        else:
            if connection.invalidated:
                self.disconnect()

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, (LedgerError, SQLAlchemyError, sqlite3.Error)):
            return translate(error, self.name)
        if isinstance(error, (ValueError, OverflowError)):
            # A value that the driver can't send, such as half of a surrogate pair.
            return LedgerError(f"ledger {self.name}: {error}; nothing happened", USER_MESSAGE)
        return error


def _engine(place: Place) -> Engine:
    if place.path is not None:
        # isolation_level None: Python's sqlite3 begins no transaction by itself. Ours are
        # explicit, so that reading and DDL are inside them too (SQLAlchemy's documentation,
        # "SQLite: Enabling Non-Legacy SQLite Transactional Modes").
        arguments: dict[str, Any] = {
            "timeout": BUSY_TIMEOUT,
            "check_same_thread": False,
            "isolation_level": None,
        }
        engine = create_engine(place.url, poolclass=NullPool, connect_args=arguments)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        # A server whose machine is cut off gives no error: the kernel has to make one.
        arguments = {
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives_idle": _SILENCE // 3,
            "keepalives_interval": _SILENCE // 3,
            "keepalives_count": 2,
            "tcp_user_timeout": _SILENCE * 1000,
            **{name: str(value) for name, value in place.url.query.items()},
        }
        engine = create_engine(place.url, poolclass=NullPool, connect_args=arguments)
        event.listen(engine, "connect", _set_up_postgresql)
        event.listen(engine, "begin", _begin_postgresql)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    try:
        # WAL: readers and the writer don't wait for each other. FULL: an answered commit
        # survives a power cut; NORMAL would lose the last ones in WAL mode.
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
    finally:
        cursor.close()


def _set_up_postgresql(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    try:
        # An answered commit survives a crash, also where the server was set to be quick.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') = 'off'"
        )
        # The lock of a scheduler whose machine lost its power must not hold for hours.
        for name, value in (("idle", _SILENCE), ("interval", 5), ("count", 3)):
            cursor.execute(f"SET tcp_keepalives_{name} = {value}")
        connection.commit()
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once: "locked" is said before anything was done.
    words = "BEGIN IMMEDIATE" if connection.info.get("write", True) else "BEGIN"
    connection.exec_driver_sql(words)


def _begin_postgresql(connection: Connection) -> None:
    if connection.info.get("write", True):
        milliseconds = int(BUSY_TIMEOUT * 1000)
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _check(connection: Connection, name: str) -> None:
    """Refuse a damaged SQLite file now, not in the middle of a grant."""
    if connection.dialect.name != "sqlite":
        return
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    if pages * size <= _CHECK_LIMIT:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found != "ok":
            found = " ".join(str(found).split())
            raise LedgerError(
                f"ledger {name} is damaged ({found}): restore a backup or move it away"
            )


def _take_advisory_lock(connection: Connection, name: str) -> None:
    """Take the session's lock; PostgreSQL drops it when the connection ends.

    It needs a session of its own: a pooler in transaction mode (PgBouncer) would break it. The
    epoch still keeps an older scheduler from writing then.
    """
    keys = {"one": _ADVISORY[0], "two": _ADVISORY[1]}
    with connection.begin():
        query = text("SELECT pg_try_advisory_lock(CAST(:one AS int), CAST(:two AS int))")
        if connection.execute(query, keys).scalar_one():
            return
        holder = connection.execute(
            text(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted "
                "AND classid = :one AND objid = :two AND objsubid = 2 AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            ),
            keys,
        ).scalar()
    raise LedgerLocked(
        f"ledger {name} is in use by the database session with pid {holder}; "
        "one scheduler may have it at a time"
    )
