"""A server that is killed, stopped, full or cut off, and a second scheduler."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jupyterhub_gpuspawner.errors import (
    LedgerError,
    LedgerFenced,
    LedgerFull,
    LedgerLocked,
    LedgerUnknown,
)
from jupyterhub_gpuspawner.store import Ledger, replay
from tests.faults.test_disk_full import fill, small_disk
from tests.postgres.cluster import Cluster, new_name
from tests.postgres.conftest import PostgresPlace, one_line
from tests.unit.store_values import grant, whole_journal
from tests.unit.test_store_faults import nothing_happens, works


@pytest.fixture
def ledger(place: PostgresPlace) -> Iterator[Ledger]:
    ledger = place.new()
    ledger.commit(grant(1), now=0.0)
    yield ledger
    ledger.close()


def _held(ledger: Ledger) -> list[str]:
    return [lease.id for lease in ledger.load().leases]


def _until_it_works(ledger: Ledger, number: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            ledger.commit(grant(number), now=float(number))
            return
        except LedgerError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_server_killed_in_the_middle_loses_nothing_that_was_answered(
    cluster: Cluster, ledger: Ledger
) -> None:
    answered = [1]
    enough = threading.Event()
    errors: list[LedgerError] = []

    def write() -> None:
        for number in range(2, 100_000):
            try:
                ledger.commit(grant(number), now=float(number))
            except LedgerError as error:
                errors.append(error)
                return
            answered.append(number)
            if number == 30:
                enough.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert enough.wait(60)
    cluster.kill()
    writer.join(60)
    (error,) = errors
    assert "onnection" in one_line(error) or "terminating" in one_line(error)
    # while it is away: one line, at once, and nothing granted
    with pytest.raises(LedgerError, match="tried again by itself"):
        ledger.commit(grant(0), now=0.0)
    cluster.start()
    _until_it_works(ledger, 0)
    held = _held(ledger)
    assert held[0] == "lease-0"
    # One more may be stored whose answer was never given.
    assert len(held) - 1 in (len(answered), len(answered) + 1)
    assert replay(whole_journal(ledger)) == ledger.load()


def test_a_stopped_server_comes_back(cluster: Cluster, ledger: Ledger) -> None:
    cluster.stop()
    for call in (lambda: ledger.commit(grant(2), now=1.0), ledger.load, ledger.raise_epoch):
        with pytest.raises(LedgerError, match="tried again by itself") as caught:
            call()
        one_line(caught.value)
        assert "grants nothing" in caught.value.user_message
    cluster.start()
    assert _held(ledger) == ["lease-1"]
    works(ledger)


def test_a_restart_of_the_server_between_two_grants_is_not_even_noticed(
    cluster: Cluster, ledger: Ledger
) -> None:
    cluster.stop()
    cluster.start()
    works(ledger)
    assert cluster.end_sessions(str(ledger._database.place.url.database)) == 1
    assert _held(ledger) == ["lease-1", "lease-99"]


def test_a_connection_cut_in_the_middle_of_a_grant_takes_all_of_it_back(
    cluster: Cluster, place: PostgresPlace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ledger._writer.write

    def cut(connection: Any, rows: Any) -> None:
        write(connection, rows)
        cluster.end_sessions(place.name)
        connection.exec_driver_sql("SELECT 1")

    monkeypatch.setattr(ledger._writer, "write", cut)
    with nothing_happens(ledger, LedgerError, "terminating connection"):
        ledger.commit(grant(2), now=1.0)
    monkeypatch.undo()
    works(ledger)


@pytest.mark.parametrize("after", [False, True])
def test_a_connection_cut_at_the_commit_is_looked_up(
    cluster: Cluster,
    place: PostgresPlace,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    dialect: Any = ledger._database.dialect
    commit = dialect.do_commit

    def cut(connection: Any) -> None:
        monkeypatch.undo()
        if after:
            commit(connection)
        cluster.end_sessions(place.name)
        connection.execute("SELECT 1")

    monkeypatch.setattr(dialect, "do_commit", cut)
    with pytest.raises(LedgerError, match="terminating connection") as caught:
        ledger.commit(grant(2), now=1.0)
    assert isinstance(caught.value, LedgerUnknown) == after
    assert _held(ledger) == ["lease-1", "lease-2"][: 1 + after]
    works(ledger)


def test_a_lock_of_another_program_is_reported_soon(place: PostgresPlace, ledger: Ledger) -> None:
    url = place.url.replace("+psycopg", "")
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE leases IN EXCLUSIVE MODE")
        with nothing_happens(ledger, LedgerLocked, "lock timeout; another program holds it"):
            ledger.commit(grant(2), now=1.0)
    works(ledger)


def test_a_scheduler_that_lost_its_connection_does_not_write_beside_the_next(
    cluster: Cluster, place: PostgresPlace, ledger: Ledger
) -> None:
    cluster.end_sessions(place.name)
    with Ledger.open(place.url) as next_one:
        assert next_one.raise_epoch() == 2
        for _ in range(2):
            with pytest.raises(LedgerLocked, match=place.holder(0)):
                ledger.commit(grant(2), now=1.0)
        next_one.commit(grant(3), now=1.0)
    with nothing_happens(ledger, LedgerFenced, "epoch 1 is not the current one"):
        ledger.commit(grant(2), now=1.0)
    assert _held(ledger) == ["lease-1", "lease-3"]


def test_a_server_set_to_forget_is_made_to_remember(place: PostgresPlace, ledger: Ledger) -> None:
    place.outside("ALTER ROLE gpus SET synchronous_commit = off")
    try:
        ledger._database.disconnect()
        with ledger._database.transaction(write=True) as connection:
            found = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
    finally:
        place.outside("ALTER ROLE gpus RESET synchronous_commit")
    assert found == "on"


def test_a_full_disk_of_the_server_takes_nothing_and_works_again_with_room(
    cluster: Cluster, template: str, tmp_path: Path
) -> None:
    with small_disk(cluster.folder("small"), 24 << 20) as disk:
        folder = cluster.folder("small/space")
        name = new_name()
        cluster.admin(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
        cluster.admin(f"CREATE DATABASE {name} OWNER gpus TEMPLATE {template} TABLESPACE {name}")
        with Ledger.open(cluster.url(name)) as ledger:
            ledger.raise_epoch()
            ledger.commit(grant(1), now=0.0)
            large = [decision for number in range(2, 2000) for decision in grant(number)]
            ballast = fill(disk)
            with nothing_happens(ledger, LedgerFull, "No space left .*look at free space"):
                ledger.commit(large, now=1.0)
            ballast.unlink()
            works(ledger)
        cluster.admin(f"DROP DATABASE {name}")
        cluster.admin(f"DROP TABLESPACE {name}")
