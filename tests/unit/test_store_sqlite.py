"""What only an SQLite ledger has: its file, its locks, its backup."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql

from jupyterhub_gpuspawner.errors import LedgerError, LedgerFull, LedgerLocked
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.store import Ledger
from jupyterhub_gpuspawner.store.writer import Writer
from tests.unit.store_values import grant, lease, new_ledger, one_of_each
from tests.unit.test_store_faults import nothing_happens, works

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = new_ledger(path)
    ledger.commit(grant(1), now=0.0)
    yield ledger
    ledger.close()


def test_a_full_database_takes_nothing_and_works_again_with_room(ledger: Ledger) -> None:
    with ledger._database.transaction(write=False) as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    large = [decision for number in range(2, 60) for decision in grant(number)]
    with nothing_happens(ledger, LedgerFull, "disk is full; it can't be written: look at free"):
        ledger.commit(large, now=1.0)
    with ledger._database.transaction(write=False) as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    works(ledger)


def test_a_file_that_can_not_grow_takes_nothing_and_works_again(ledger: Ledger, path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = os.path.getsize(f"{path}-wal") + 100
    with nothing_happens(ledger, LedgerFull, "disk I/O error; it can't be written"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            ledger.commit(grant(2), now=1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    works(ledger)


def test_a_lock_of_another_program_is_reported_soon_and_reading_goes_on(
    ledger: Ledger, path: Path
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with nothing_happens(ledger, LedgerLocked, "database is locked; another program holds"):
            ledger.commit(grant(2), now=1.0)
    finally:
        other.close()
    works(ledger)


def test_a_name_with_nul_is_kept(ledger: Ledger) -> None:
    kept = lease("a", user="a\x00b")
    ledger.commit([LeaseStored(lease=kept)], now=0.0)
    assert ledger.leases(user="a\x00b") == [kept]


def test_a_backup_is_a_ledger_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit(one_of_each(), now=0.0)
    target = tmp_path / "copy.sqlite"
    ledger.backup(str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    ledger.commit(grant(2), now=1.0)
    with Ledger.open(f"sqlite:///{target}") as copy:
        assert copy.id == ledger.id
        assert [found.id for found in copy.load().leases] == ["lease-1"]
    with pytest.raises(LedgerError, match=r"copy\.sqlite exists already"):
        ledger.backup(str(target))
    with pytest.raises(LedgerFull, match=r"can't be written: .*No such file"):
        ledger.backup(str(tmp_path / "nowhere" / "copy"))
    assert sorted(os.listdir(tmp_path)) == [
        "copy.sqlite",
        "copy.sqlite.lock",
        "ledger.sqlite",
        "ledger.sqlite-shm",
        "ledger.sqlite-wal",
        "ledger.sqlite.lock",
    ]


def test_the_database_is_set_up_for_durability(ledger: Ledger) -> None:
    with ledger._database.transaction(write=False) as connection:
        asked = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT payload FROM leases WHERE live IS 1"
        ).one()
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert "leases_one_live" in plan[-1]


def test_statements_exist_for_postgresql_too() -> None:
    writer = Writer(postgresql.dialect())  # type: ignore[no-untyped-call]
    assert "ON CONFLICT (id) DO UPDATE SET state = excluded.state" in writer._leases._sql
    assert writer._leases._names is None
    assert "RETURNING" not in writer._journal._sql
