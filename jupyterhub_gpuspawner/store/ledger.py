"""The ledger: every decision of the scheduler, durable before anybody acts on it."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Select, and_, delete, insert, or_, select, update
from sqlalchemy.engine import Connection

from ..errors import DoubleClaim, LedgerError, LedgerFenced, LedgerUnknown
from ..scheduler.decisions import Decision, LeaseStored, Noted
from ..scheduler.models import Lease
from . import tables
from .backup import back_up
from .database import CommitLost, Database
from .failures import USER_MESSAGE, translate, words
from .migrate import upgrade
from .replay import OPEN_ENTRIES, JournalRow, Snapshot, snapshot
from .rows import Rows, read, read_many, to_rows
from .writer import Writer


class Ledger:
    """The durable memory of one scheduler. Made by :meth:`open`; also a context manager.

    Safe to use from several threads; calls wait for each other. Every error is a
    :class:`LedgerError` and means that nothing of the call happened, except
    :class:`LedgerUnknown`, after which the caller has to :meth:`load` again. The ledger stays
    usable after each of them.
    """

    #: names this ledger for ever: containers and the engine's owner volume carry it
    id: str
    #: 0 until :meth:`raise_epoch`
    epoch: int

    def __init__(self, database: Database) -> None:
        self._database = database
        self._commits = 0
        self._writer = Writer(database.dialect)
        self.epoch = 0
        with database.transaction(write=False) as connection:
            self.id = connection.execute(select(tables.meta.c.ledger)).scalar_one()

    @classmethod
    def open(cls, url: str, *, migrate: bool = True) -> Ledger:
        """Open the ledger at ``url``, take its lock, create or upgrade it where needed.

        ``url`` is ``sqlite:////folder/file`` (file 0600; folder 0700 if it is not there) or a
        PostgreSQL URL of SQLAlchemy. Raises :class:`LedgerLocked` if another scheduler has
        it, :class:`LedgerFull` if it can't be written, else :class:`LedgerError`.
        """
        database = Database(url)
        try:
            with database.transaction(write=True) as connection:
                upgrade(connection, database.name, migrate=migrate)
                _ensure_meta(connection)
            return cls(database)
        except CommitLost as error:
            database.close()
            raise _commit_error(error, database.name) from error
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def raise_epoch(self) -> int:
        """Begin a new epoch and return its number; older schedulers can't write any more."""
        meta = tables.meta
        try:
            with self._database.transaction(write=True) as connection:
                connection.execute(
                    update(meta).values(epoch=meta.c.epoch + 1, commits=meta.c.commits + 1)
                )
                epoch, commits = connection.execute(select(meta.c.epoch, meta.c.commits)).one()
        except CommitLost as error:
            # An epoch that nobody uses does no harm: the caller may simply try again.
            raise _commit_error(error, self._database.name) from error
        self.epoch, self._commits = epoch, commits
        return self.epoch

    def commit(self, decisions: Sequence[Decision], now: float) -> None:
        """Store ``decisions`` in one transaction; durable when it returns.

        ``now`` is in POSIX seconds. An empty sequence does nothing. Raises
        :class:`LedgerFenced` (a younger scheduler writes), :class:`DoubleClaim` (an atom or a
        server would be in two live leases), :class:`LedgerFull`, :class:`LedgerLocked`,
        :class:`LedgerUnknown`, else :class:`LedgerError`.
        """
        if not decisions:
            return
        rows = to_rows(decisions, now=now, epoch=self.epoch)
        try:
            with self._database.transaction(write=True) as connection:
                self._fence(connection)
                self._writer.write(connection, rows)
        except CommitLost as error:
            self._settle(error)
        except DoubleClaim as error:
            raise DoubleClaim(f"{error}; {_describe(rows)}", error.user_message) from error
        self._commits += 1

    def load(self) -> Snapshot:
        """Return what is open: waiting entries, live leases, devices and nodes.

        Raises :class:`LedgerError` if the claims and the leases contradict each other, which
        only a change from outside can cause.
        """
        leases = select(tables.leases.c.payload).where(tables.leases.c.live.is_(True))
        states = [state.value for state in OPEN_ENTRIES]
        entries = select(tables.entries.c.payload).where(tables.entries.c.state.in_(states))
        found: list[Decision] = []
        with _no_collection(), self._database.transaction(write=False) as connection:
            for query in (
                entries,
                leases,
                select(tables.devices.c.payload),
                select(tables.nodes.c.payload),
                select(tables.bookings.c.payload).where(tables.bookings.c.live.is_(True)),
            ):
                found += self._read(connection, query)
            claims = connection.execute(select(tables.claims)).all()
        loaded = snapshot(found)
        held = {(c.device, c.atom, c.lease_id) for lease in loaded.leases for c in lease.claims}
        if held != {tuple(row) for row in claims}:
            raise LedgerError(
                f"ledger {self._database.name}: claims and leases contradict each other; "
                "restore a backup, nothing is granted on it"
            )
        return loaded

    def journal(self, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        """Return up to ``limit`` journal rows with ``seq > after``, oldest first."""
        journal = tables.journal
        query = select(journal).where(journal.c.seq > after).order_by(journal.c.seq).limit(limit)
        with self._database.transaction(write=False) as connection:
            rows = connection.execute(query).all()
        return [self._row(row) for row in rows]

    def leases(
        self, user: str | None = None, live: bool | None = None, limit: int = 100
    ) -> list[Lease]:
        """Return up to ``limit`` leases, the newest first, ended ones too.

        ``user`` is one user's name, None = everybody; ``live`` picks live or ended ones,
        None = both.
        """
        columns = tables.leases.c
        query = select(columns.payload).order_by(columns.granted_at.desc(), columns.id.desc())
        if user is not None:
            query = query.where(columns.username == user)
        if live is not None:
            query = query.where(columns.live.is_(live))
        with self._database.transaction(write=False) as connection:
            found = self._read(connection, query.limit(limit))
        return [decision.lease for decision in found if isinstance(decision, LeaseStored)]

    def granted(
        self, since: float, until: float, after: tuple[float, str] = (0.0, ""), limit: int = 1000
    ) -> list[Lease]:
        """Return up to ``limit`` leases granted from ``since`` to before ``until``, oldest first.

        Live and ended ones. ``after`` is (granted at, id)
        of the last one of the part before.
        """
        columns = tables.leases.c
        query = (
            select(columns.payload)
            .where(columns.granted_at >= since, columns.granted_at < until)
            .where(
                or_(
                    columns.granted_at > after[0],
                    and_(columns.granted_at == after[0], columns.id > after[1]),
                )
            )
            .order_by(columns.granted_at, columns.id)
            .limit(limit)
        )
        with self._database.transaction(write=False) as connection:
            found = self._read(connection, query)
        return [decision.lease for decision in found if isinstance(decision, LeaseStored)]

    def notes(self, before: int | None = None, limit: int = 100) -> list[JournalRow]:
        """Return up to ``limit`` notes of the journal, newest first; with ``seq < before``."""
        journal = tables.journal
        query = select(journal).where(journal.c.kind == Noted.__name__)
        if before is not None:
            query = query.where(journal.c.seq < before)
        with self._database.transaction(write=False) as connection:
            rows = connection.execute(query.order_by(journal.c.seq.desc()).limit(limit)).all()
        return [self._row(row) for row in rows]

    def prune_journal(self, before: float) -> int:
        """Remove journal rows older than ``before`` (POSIX seconds); return how many.

        The last row about each thing stays, so that the journal still replays to the same
        state. Notes are removed. Raises like :meth:`commit`.
        """
        old, newer = tables.journal, tables.journal.alias()
        outdated = (
            select(newer.c.seq)
            .where(newer.c.kind == old.c.kind, newer.c.subject == old.c.subject)
            .where(newer.c.seq > old.c.seq)
            .exists()
        )
        statement = delete(old).where(old.c.time < before, (old.c.kind == "Noted") | outdated)
        removed = 0
        try:
            with self._database.transaction(write=True) as connection:
                self._fence(connection)
                removed = connection.execute(statement).rowcount
        except CommitLost as error:
            self._settle(error)
        self._commits += 1
        return removed

    def backup(self, path: str) -> None:
        """Write a copy of an SQLite ledger to the new file ``path`` (0600) while it is in use.

        Raises :class:`LedgerError` if ``path`` exists or can't be written.
        """
        back_up(self._database.place, path)

    def close(self) -> None:
        """Close the ledger and give its lock back. May be called twice."""
        self._database.close()

    def _fence(self, connection: Connection) -> None:
        if self.epoch < 1 or not self._writer.fence(connection, self.epoch):
            raise LedgerFenced(
                f"ledger {self._database.name}: epoch {self.epoch} is not the current one; "
                "a younger scheduler writes this ledger and this one must end",
                USER_MESSAGE,
            )

    def _settle(self, lost: CommitLost) -> None:
        """COMMIT failed. Raise the reason if it did not happen, :class:`LedgerUnknown` else."""
        name = self._database.name
        known, found = self._commits, None
        try:
            with self._database.transaction(write=True) as connection:
                # PostgreSQL may still be at work on it: FOR UPDATE waits for the row
                query = select(tables.meta.c.commits).with_for_update()
                self._commits = found = connection.execute(query).scalar_one()
        except (LedgerError, CommitLost):
            pass
        if found == known:
            raise _commit_error(lost, name) from lost
        raise LedgerUnknown(
            f"ledger {name}: the answer to a commit was lost ({words(lost.__cause__ or lost)}); "
            "what it holds has to be loaded again",
            USER_MESSAGE,
        ) from lost

    def _row(self, row: Any) -> JournalRow:
        where = f"ledger {self._database.name}: journal {row.seq}"
        return JournalRow(
            seq=row.seq, time=row.time, epoch=row.epoch, decision=read(row.payload, where)
        )

    def _read(self, connection: Connection, query: Select[Any]) -> list[Decision]:
        where = f"ledger {self._database.name}: a row"
        return read_many(connection.execute(query).scalars().all(), where)


@contextmanager
def _no_collection() -> Iterator[None]:
    """All that is made meanwhile stays: to look for garbage in it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _ensure_meta(connection: Connection) -> None:
    """Give a new ledger its identity."""
    meta = tables.meta
    if connection.execute(select(meta.c.ledger)).first() is None:
        connection.execute(
            insert(meta).values(
                one=1, ledger=uuid.uuid4().hex, epoch=0, commits=0, created=time.time()
            )
        )


def _commit_error(lost: CommitLost, name: str) -> LedgerError:
    cause = lost.__cause__
    return translate(cause if isinstance(cause, Exception) else lost, name)


def _describe(rows: Rows) -> str:
    wanted = [
        f"{claim['device']}/{claim['atom']} for lease {claim['lease_id']}"
        for of_lease in rows.claims.values()
        for claim in of_lease
    ]
    more = f" and {len(wanted) - 8} more" if len(wanted) > 8 else ""
    return f"claims wanted: {', '.join(wanted[:8]) or 'none'}{more}"
