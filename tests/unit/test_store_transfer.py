"""A ledger moves to another database, and back; ``tests/postgres`` runs this file too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.errors import LedgerError, LedgerLocked
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored, Noted
from jupyterhub_gpuspawner.store import Ledger, transfer
from tests.unit.store_values import (
    Place,
    SQLitePlace,
    ended,
    grant,
    lease,
    one_of_each,
    whole_journal,
)

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> SQLitePlace:
    """A ledger in a file, with a history, whose newest journal rows are gone."""
    place = SQLitePlace(tmp_path / "source.sqlite")
    with place.new() as ledger:
        ledger.commit(one_of_each(), now=0.1)
        gone = replace(lease("old", "GPU-9", user="<b>\N{SNOWMAN}'"), note="\ud800 last\x00")
        ledger.commit([LeaseStored(lease=gone)], now=1 / 3)
        ledger.commit([LeaseStored(lease=ended(gone))], now=2.5)
        for number in range(10, 20):
            ledger.commit(grant(number), now=float(number))
        ledger.commit([Noted(kind="last", text="a note")], now=20.0)
        ledger.prune_journal(before=99.0)
    return place


def _everything(place: Place) -> tuple[object, ...]:
    with place.open_freed() as ledger:
        history = ledger.leases(limit=1000)
        return ledger.id, ledger.load(), whole_journal(ledger), history


def test_all_of_a_ledger_moves_there_and_back(
    source: SQLitePlace, place: Place, tmp_path: Path
) -> None:
    place.make_empty()
    said: list[tuple[str, int, int]] = []
    before = _everything(source)
    counts = transfer.copy(source.url, place.url, lambda *words: said.append(words))
    assert counts == {
        "meta": 1,
        "leases": 12,
        "claims": 11,
        "entries": 11,
        "devices": 1,
        "nodes": 1,
        "bookings": 1,
        "journal": len(before[2]),  # type: ignore[arg-type]
    }
    assert said == [(table, count, count) for table, count in counts.items()]
    assert _everything(place) == before
    back = SQLitePlace(tmp_path / "back.sqlite")
    transfer.copy(place.url, back.url)
    assert _everything(back) == _everything(source) == before


def test_the_copy_goes_on_where_the_ledger_was(source: SQLitePlace, place: Place) -> None:
    place.make_empty()
    transfer.copy(source.url, place.url)
    numbers = []
    for url in (source.url, place.url):
        with Ledger.open(url) as ledger:
            assert ledger.raise_epoch() == 2
            ledger.commit(grant(30), now=30.0)
            numbers.append(whole_journal(ledger)[-1].seq)
    # also the numbers of rows that are gone are not given again
    assert numbers[0] == numbers[1] > 26


def test_a_target_with_something_in_it_is_refused(source: SQLitePlace, place: Place) -> None:
    with place.new() as ledger:
        ledger.commit(grant(1), now=0.0)
    before = _everything(place)
    with pytest.raises(LedgerError, match=r"is not empty \(tables .*claims, .*nothing was copied"):
        transfer.copy(source.url, place.url)
    assert _everything(place) == before


def test_a_ledger_in_use_is_not_copied_nor_copied_over(source: SQLitePlace, place: Place) -> None:
    with place.new():
        for one, other in ((source.url, place.url), (place.url, source.url)):
            with pytest.raises(LedgerLocked, match="is in use by"):
                transfer.copy(one, other)


def test_a_copy_that_ends_in_the_middle_leaves_the_target_empty(
    source: SQLitePlace, place: Place
) -> None:
    place.make_empty()

    def stop(table: str, done: int, total: int) -> None:
        if table == "journal":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer.copy(source.url, place.url, stop)
    with pytest.raises(LedgerError, match="revision none"):
        Ledger.open(place.url, migrate=False)
    transfer.copy(source.url, place.url)
    assert _everything(place) == _everything(source)


def test_what_does_not_read_back_the_same_is_not_kept(
    source: SQLitePlace, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.make_empty()
    calls = iter(range(1000))
    # each reading seems another
    monkeypatch.setattr(transfer, "_digest", lambda rows: next(calls))
    with pytest.raises(LedgerError, match="table bookings does not read back as it was written"):
        transfer.copy(source.url, place.url)
    monkeypatch.undo()
    transfer.copy(source.url, place.url)


def test_a_ledger_that_contradicts_itself_is_not_copied(source: SQLitePlace, place: Place) -> None:
    place.make_empty()
    source.outside("DELETE FROM claims")
    with pytest.raises(LedgerError, match="claims and leases contradict each other"):
        transfer.copy(source.url, place.url)


def test_wrong_places_are_refused_and_nothing_is_made(
    source: SQLitePlace, place: Place, tmp_path: Path
) -> None:
    place.make_empty()
    with pytest.raises(LedgerError, match="there is nothing in it"):
        transfer.copy(place.url if "sqlite" not in place.url else _empty(tmp_path), source.url)
    with pytest.raises(LedgerError, match="it can't be copied to itself"):
        transfer.copy(source.url, source.url)
    with pytest.raises(LedgerError, match="nowhere: there is no such file"):
        transfer.copy(f"sqlite:///{tmp_path}/nowhere", place.url)
    assert not (tmp_path / "nowhere").exists()


def _empty(folder: Path) -> str:
    (folder / "empty.sqlite").touch()
    return f"sqlite:///{folder}/empty.sqlite"
