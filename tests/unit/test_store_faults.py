"""Real faults: a full disk, a lock, a younger scheduler, a lost answer, a kill."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import (
    LedgerError,
    LedgerFenced,
    LedgerFull,
    LedgerLocked,
    LedgerUnknown,
)
from jupyterhub_gpuspawner.store import Ledger, replay
from tests.unit.store_values import grant, new_ledger, whole_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = new_ledger(path)
    ledger.commit(grant(1), now=0.0)
    yield ledger
    ledger.close()


@contextmanager
def _nothing_happens(ledger: Ledger, error: type[LedgerError], words: str) -> Iterator[None]:
    """The block fails with ``error``, changes nothing, and the ledger works before and after."""
    before, rows = ledger.load(), whole_journal(ledger)
    with pytest.raises(error, match=words) as caught:
        yield
    assert type(caught.value) is error
    assert "grants nothing" in caught.value.user_message
    assert ledger.load() == before
    assert whole_journal(ledger) == rows


def _works(ledger: Ledger) -> None:
    ledger.commit(grant(99), now=9.0)
    assert ledger.load().leases[-1].id == "lease-99"
    assert replay(whole_journal(ledger)) == ledger.load()


def test_a_full_database_takes_nothing_and_works_again_with_room(ledger: Ledger) -> None:
    with ledger._database.transaction(write=False) as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    large = [decision for number in range(2, 60) for decision in grant(number)]
    with _nothing_happens(ledger, LedgerFull, "disk is full; it can't be written: look at free"):
        ledger.commit(large, now=1.0)
    with ledger._database.transaction(write=False) as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    _works(ledger)


def test_a_file_that_can_not_grow_takes_nothing_and_works_again(ledger: Ledger, path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = os.path.getsize(f"{path}-wal") + 100
    with _nothing_happens(ledger, LedgerFull, "disk I/O error; it can't be written"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            ledger.commit(grant(2), now=1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    _works(ledger)


def test_a_lock_of_another_program_is_reported_soon_and_reading_goes_on(
    ledger: Ledger, path: Path
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with _nothing_happens(ledger, LedgerLocked, "database is locked; another program holds"):
            ledger.commit(grant(2), now=1.0)
    finally:
        other.close()
    _works(ledger)


def test_an_older_scheduler_is_fenced_off(ledger: Ledger, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("UPDATE meta SET epoch = epoch + 1")
    other.close()
    for _ in range(2):
        with _nothing_happens(ledger, LedgerFenced, "epoch 1 is not the current one; a younger"):
            ledger.commit(grant(2), now=1.0)
    with pytest.raises(LedgerFenced):
        ledger.prune_journal(before=9.0)
    assert ledger.raise_epoch() == 3
    _works(ledger)


def _break_commits(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, *, after: bool, times: int
) -> None:
    """Let COMMIT answer with a disk error, after it happened or instead of it."""
    dialect: Any = ledger._database.dialect
    real, left = dialect.do_commit, times

    def do_commit(connection: Any) -> None:
        nonlocal left
        if left == 0:
            real(connection)
            return
        left -= 1
        if after:
            real(connection)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(dialect, "do_commit", do_commit)


def test_a_commit_that_failed_for_certain_says_why(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break_commits(ledger, monkeypatch, after=False, times=1)
    before = ledger
    with pytest.raises(LedgerFull, match="disk I/O error"):
        before.commit(grant(2), now=1.0)
    assert [found.id for found in ledger.load().leases] == ["lease-1"]
    _works(ledger)


def test_a_commit_whose_answer_was_lost_is_unknown_until_loaded_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break_commits(ledger, monkeypatch, after=True, times=1)
    with pytest.raises(LedgerUnknown, match=r"answer to a commit was lost .*disk I/O error"):
        ledger.commit(grant(2), now=1.0)
    assert [found.id for found in ledger.load().leases] == ["lease-1", "lease-2"]
    # The count of commits is right again: the next failure is told from success.
    _break_commits(ledger, monkeypatch, after=False, times=1)
    with pytest.raises(LedgerFull):
        ledger.commit(grant(3), now=1.0)
    _works(ledger)


def test_a_commit_that_can_not_be_looked_up_is_unknown(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = ledger._database._connect
    calls = []

    def once() -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise LedgerLocked("the database does not answer")
        return connect()

    _break_commits(ledger, monkeypatch, after=False, times=1)
    monkeypatch.setattr(ledger._database, "_connect", once)
    with pytest.raises(LedgerUnknown):
        ledger.commit(grant(2), now=1.0)
    assert len(ledger.load().leases) == 1
    _works(ledger)


def test_a_dropped_connection_is_made_anew(ledger: Ledger) -> None:
    ledger._database.disconnect()
    assert len(ledger.load().leases) == 1
    ledger._database.disconnect()
    _works(ledger)


_CHILD = """
import os, signal, sys
from pathlib import Path
from tests.unit.store_values import grant, new_ledger
ledger = new_ledger(Path(sys.argv[1]))
if (child := os.fork()) == 0:
    signal.pause()
print(child, flush=True)
number = 0
while True:
    ledger.commit(grant(number), now=float(number))
    print(number, flush=True)
    number += 1
"""


def test_a_kill_in_the_middle_loses_nothing_that_was_answered(path: Path) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as child:
        assert child.stdout is not None
        survivor = int(child.stdout.readline())
        try:
            while child.stdout.readline() != "15\n":
                pass
            with pytest.raises(LedgerLocked, match=f"in use by process {child.pid} "):
                Ledger.open(f"sqlite:///{path}")
            child.kill()
            child.wait()
            # The killed one's child still lives and must not keep the ledger.
            with Ledger.open(f"sqlite:///{path}") as ledger:
                loaded, rows = ledger.load(), whole_journal(ledger)
                assert ledger.raise_epoch() == 2
                _works(ledger)
        finally:
            os.kill(survivor, signal.SIGKILL)
        answered = [15, *map(int, child.stdout.read().split())]
    # One more may be stored whose answer was never given.
    assert len(loaded.leases) in (answered[-1] + 1, answered[-1] + 2)
    assert len(loaded.entries) == len(loaded.leases)
    assert replay(rows) == loaded
