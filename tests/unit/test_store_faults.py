"""A younger scheduler, a lost answer, a kill; ``tests/postgres`` runs this file too."""

from __future__ import annotations

import os
import signal
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
from tests.unit.store_values import Place, grant, whole_journal

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    ledger = place.new()
    ledger.commit(grant(1), now=0.0)
    yield ledger
    ledger.close()


@contextmanager
def nothing_happens(ledger: Ledger, error: type[LedgerError], words: str) -> Iterator[None]:
    """The block fails with ``error``, changes nothing, and the ledger works before and after."""
    before, rows = ledger.load(), whole_journal(ledger)
    with pytest.raises(error, match=words) as caught:
        yield
    assert type(caught.value) is error
    assert "grants nothing" in caught.value.user_message
    assert ledger.load() == before
    assert whole_journal(ledger) == rows


def works(ledger: Ledger) -> None:
    ledger.commit(grant(99), now=9.0)
    assert ledger.load().leases[-1].id == "lease-99"
    assert replay(whole_journal(ledger)) == ledger.load()


def test_an_older_scheduler_is_fenced_off(ledger: Ledger, place: Place) -> None:
    place.outside("UPDATE meta SET epoch = epoch + 1")
    for _ in range(2):
        with nothing_happens(ledger, LedgerFenced, "epoch 1 is not the current one; a younger"):
            ledger.commit(grant(2), now=1.0)
    with pytest.raises(LedgerFenced):
        ledger.prune_journal(before=9.0)
    assert ledger.raise_epoch() == 3
    works(ledger)


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
        raise dialect.loaded_dbapi.OperationalError("disk I/O error")

    monkeypatch.setattr(dialect, "do_commit", do_commit)


def test_a_commit_that_failed_for_certain_says_why(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break_commits(ledger, monkeypatch, after=False, times=1)
    before = ledger
    with pytest.raises(LedgerFull, match="disk I/O error"):
        before.commit(grant(2), now=1.0)
    assert [found.id for found in ledger.load().leases] == ["lease-1"]
    works(ledger)


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
    works(ledger)


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
    works(ledger)


def test_a_dropped_connection_is_made_anew(ledger: Ledger) -> None:
    ledger._database.disconnect()
    assert len(ledger.load().leases) == 1
    ledger._database.disconnect()
    works(ledger)


_CHILD = """
import os, signal, sys
from jupyterhub_gpuspawner.store import Ledger
from tests.unit.store_values import grant
ledger = Ledger.open(sys.argv[1])
ledger.raise_epoch()
child = os.fork() if sys.argv[2] == "fork" else os.getpid()
if child == 0:
    signal.pause()
print(child, flush=True)
number = 0
while True:
    ledger.commit(grant(number), now=float(number))
    print(number, flush=True)
    number += 1
"""


def test_a_kill_in_the_middle_loses_nothing_that_was_answered(place: Place) -> None:
    root = Path(__file__).parents[2]
    place.new().close()
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, place.url, "fork" if place.forks else ""],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as child:
        assert child.stdout is not None
        survivor = int(child.stdout.readline())
        try:
            while child.stdout.readline() != "15\n":
                pass
            with pytest.raises(LedgerLocked, match=place.holder(child.pid)):
                Ledger.open(place.url)
            child.kill()
            child.wait()
            # The killed one's child may still live and must not keep the ledger.
            with place.open_freed() as ledger:
                loaded, rows = ledger.load(), whole_journal(ledger)
                assert ledger.raise_epoch() == 3
                works(ledger)
        finally:
            if survivor != child.pid:
                os.kill(survivor, signal.SIGKILL)
        answered = [15, *map(int, child.stdout.read().split())]
    # One more may be stored whose answer was never given.
    assert len(loaded.leases) in (answered[-1] + 1, answered[-1] + 2)
    assert len(loaded.entries) == len(loaded.leases)
    assert replay(rows) == loaded
