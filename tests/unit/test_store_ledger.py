"""What the ledger keeps, refuses and gives back; ``tests/postgres`` runs this file too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jupyterhub_gpuspawner.errors import DoubleClaim, LedgerError, LedgerFenced
from jupyterhub_gpuspawner.scheduler.decisions import (
    BookingStored,
    EntryStored,
    LeaseStored,
    Noted,
)
from jupyterhub_gpuspawner.scheduler.models import Claim, EntryState, LeaseState
from jupyterhub_gpuspawner.store import Ledger, Snapshot, replay
from tests.unit.store_values import (
    Place,
    ended,
    entry,
    grant,
    key,
    lease,
    one_of_each,
    whole_journal,
)

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    ledger = place.new()
    yield ledger
    ledger.close()


def test_what_was_committed_is_there_after_a_restart(ledger: Ledger, place: Place) -> None:
    node, device, leased, waiting, booked, _ = one_of_each()
    ledger.commit(one_of_each(), now=5.0)
    ledger.close()
    with Ledger.open(place.url) as again:
        assert again.id == ledger.id
        assert again.load() == Snapshot(
            entries=(waiting.entry,),  # type: ignore[union-attr]
            leases=(leased.lease,),  # type: ignore[union-attr]
            devices=((device.device, device.status),),  # type: ignore[union-attr]
            nodes=(node.node,),  # type: ignore[union-attr]
            bookings=(booked.booking,),  # type: ignore[union-attr]
        )
        assert [row.decision for row in again.journal()] == one_of_each()


def test_a_booking_that_is_over_is_not_loaded(ledger: Ledger) -> None:
    (booked,) = [d for d in one_of_each() if isinstance(d, BookingStored)]
    ledger.commit([booked, BookingStored(booking=booked.booking.ended())], now=5.0)
    assert ledger.load().bookings == ()
    assert replay(ledger.journal()) == ledger.load()


def test_journal_rows_carry_time_and_epoch_and_come_in_pages(ledger: Ledger) -> None:
    ledger.commit(one_of_each(), now=5.0)
    ledger.raise_epoch()
    ledger.commit([Noted(kind="again", text="more")], now=6.5)
    first = ledger.journal(limit=2)
    rest = ledger.journal(after=first[-1].seq)
    assert [(row.time, row.epoch) for row in first + rest] == [(5.0, 1)] * 6 + [(6.5, 2)]
    assert [row.seq for row in first + rest] == sorted({row.seq for row in first + rest})


def test_every_epoch_is_higher_also_after_a_restart(ledger: Ledger, place: Place) -> None:
    assert (ledger.epoch, ledger.raise_epoch(), ledger.epoch) == (1, 2, 2)
    ledger.close()
    with Ledger.open(place.url) as again:
        assert again.epoch == 0
        assert again.raise_epoch() == 3


def test_nothing_is_written_before_an_epoch_was_raised(ledger: Ledger, place: Place) -> None:
    ledger.close()
    with Ledger.open(place.url) as again:
        with pytest.raises(LedgerFenced, match="epoch 0 is not the current one"):
            again.commit(grant(1), now=0.0)
        assert again.load() == Snapshot()


def test_a_second_claim_on_an_atom_is_refused_and_nothing_of_it_stays(ledger: Ledger) -> None:
    ledger.commit(grant(1), now=0.0)
    before, rows = ledger.load(), len(whole_journal(ledger))
    thief = [*grant(2), LeaseStored(lease=lease("lease-3", "GPU-3", "GPU-1", user="eve"))]
    with pytest.raises(DoubleClaim, match=r"claims wanted: .*GPU-1/0 for lease lease-3$"):
        ledger.commit(thief, now=1.0)
    assert ledger.load() == before
    assert len(whole_journal(ledger)) == rows
    ledger.commit(grant(2), now=2.0)
    assert len(ledger.load().leases) == 2


def test_a_server_has_one_live_lease(ledger: Ledger) -> None:
    ledger.commit([LeaseStored(lease=lease("a", "GPU-1"))], now=0.0)
    with pytest.raises(DoubleClaim, match="the server has a live lease already"):
        ledger.commit([LeaseStored(lease=lease("b"))], now=1.0)
    other = replace(lease("b"), key=key("alice", "second"))
    ledger.commit([LeaseStored(lease=other)], now=1.0)
    assert [found.id for found in ledger.load().leases] == ["a", "b"]


def test_an_ended_lease_gives_its_atoms_to_the_next_in_the_same_commit(ledger: Ledger) -> None:
    first, second = lease("a", "GPU-1"), lease("b", "GPU-1")
    ledger.commit([LeaseStored(lease=first)], now=0.0)
    ledger.commit([LeaseStored(lease=second), LeaseStored(lease=ended(first))], now=1.0)
    assert ledger.load().leases == (second,)


def test_claims_follow_the_lease_when_they_change(ledger: Ledger) -> None:
    two = lease("a", "GPU-1", "GPU-2")
    ledger.commit([LeaseStored(lease=two)], now=0.0)
    ledger.commit([LeaseStored(lease=lease("a", "GPU-2"))], now=1.0)
    ledger.commit([LeaseStored(lease=lease("b", "GPU-1", user="bob"))], now=2.0)
    held = [claim.device for found in ledger.load().leases for claim in found.claims]
    assert sorted(held) == ["GPU-1", "GPU-2"]


def test_an_atom_twice_in_one_lease_is_refused(ledger: Ledger) -> None:
    with pytest.raises(DoubleClaim):
        ledger.commit([LeaseStored(lease=lease("a", "GPU-1", "GPU-1"))], now=0.0)


def test_a_claim_of_another_lease_is_refused(ledger: Ledger) -> None:
    wrong = replace(lease("a"), claims=(Claim(device="GPU-1", atom=0, lease_id="b"),))
    with pytest.raises(LedgerError, match="lease a carries a claim of another lease"):
        ledger.commit([LeaseStored(lease=wrong)], now=0.0)


def test_a_value_that_could_not_be_read_again_is_not_stored(ledger: Ledger) -> None:
    wrong = replace(lease("a"), granted_at=float("inf"))
    with pytest.raises(LedgerError, match=r"LeaseStored\.lease\.granted_at: inf is not a finite"):
        ledger.commit([*grant(1), LeaseStored(lease=wrong)], now=0.0)
    with pytest.raises(LedgerError, match="surrogates not allowed"):
        ledger.commit([LeaseStored(lease=lease("a", user="\ud800"))], now=0.0)
    assert ledger.load() == Snapshot()


def test_odd_names_are_kept_as_they_are(ledger: Ledger) -> None:
    user = "<img src=x onerror=alert(1)>' OR 1=1 -- %s %(id)s \N{SNOWMAN}"
    kept = replace(lease("a", "GPU-1", user=user), note="\ud800 last words\x00")
    ledger.commit([LeaseStored(lease=kept)], now=0.0)
    assert ledger.load().leases == (kept,)
    assert ledger.leases(user=user) == [kept]


def test_load_gives_open_things_only_and_in_order(ledger: Ledger) -> None:
    for number, state in enumerate(EntryState):
        stored = entry(f"entry-{state}", f"user-{number}", seq=9 - number, state=state)
        ledger.commit([EntryStored(entry=stored)], now=0.0)
    for number, held in enumerate(LeaseState):
        stored_lease = lease(f"lease-{held}", f"GPU-{number}", user=f"user-{number}", state=held)
        ledger.commit([LeaseStored(lease=replace(stored_lease, granted_at=-number))], now=0.0)
    loaded = ledger.load()
    assert [found.state for found in loaded.entries] == ["bound", "granted", "queued"]
    assert [found.state for found in loaded.leases] == [
        "stopping",
        "running",
        "starting",
        "reserved",
    ]
    assert replay(whole_journal(ledger)) == loaded


def test_the_history_of_leases_is_asked_by_user_and_state(ledger: Ledger) -> None:
    for number in range(5):
        ledger.commit(grant(number), now=0.0)
    third = grant(3)[0].lease  # type: ignore[union-attr]
    ledger.commit([LeaseStored(lease=ended(third))], now=1.0)
    assert [found.id for found in ledger.leases(limit=2)] == ["lease-4", "lease-3"]
    assert [found.id for found in ledger.leases(live=True)] == [
        "lease-4",
        "lease-2",
        "lease-1",
        "lease-0",
    ]
    assert ledger.leases(live=False) == [ended(third)]
    assert ledger.leases(user="user-3", live=True) == []
    assert ledger.leases(user="nobody") == []


def test_leases_are_read_by_when_they_were_granted_in_parts(ledger: Ledger) -> None:
    leases = [lease(f"lease-{n}", user=f"user-{n}") for n in range(5)]
    dated = [replace(one, granted_at=float(10 + n // 2)) for n, one in enumerate(leases)]
    ledger.commit([LeaseStored(lease=one) for one in dated[::-1]], now=5.0)
    first = ledger.granted(10.0, 12.0, limit=3)
    assert [one.id for one in first] == ["lease-0", "lease-1", "lease-2"]
    after = (first[-1].granted_at, first[-1].id)
    assert [one.id for one in ledger.granted(10.0, 12.0, after, 3)] == ["lease-3"]
    assert ledger.granted(11.0, 11.0) == []


def test_notes_are_read_from_the_newest_one_back(ledger: Ledger) -> None:
    notes = [Noted(kind="admin", text=f"act {n}") for n in range(3)]
    for note in notes:
        ledger.commit([note, *one_of_each()[:1]], now=5.0)
    rows = ledger.notes(limit=2)
    assert [row.decision for row in rows] == notes[:0:-1]
    assert [row.decision for row in ledger.notes(rows[-1].seq)] == notes[:1]


def test_a_pruned_journal_is_shorter_and_says_the_same(ledger: Ledger) -> None:
    moving = lease("a", "GPU-1")
    for moment in range(10):
        moved = replace(moving, moved_at=float(moment))
        note = Noted(kind="moved", text=str(moment))
        ledger.commit([LeaseStored(lease=moved), note], now=float(moment))
    ledger.commit(grant(7), now=3.0)
    assert ledger.prune_journal(before=8.0) == 16
    rows = whole_journal(ledger)
    assert len(rows) == 6
    assert replay(rows) == ledger.load()
    assert ledger.prune_journal(before=8.0) == 0


def test_claims_changed_from_outside_are_noticed(ledger: Ledger, place: Place) -> None:
    ledger.commit(grant(1), now=0.0)
    place.outside("DELETE FROM claims")
    with pytest.raises(LedgerError, match="claims and leases contradict each other"):
        ledger.load()


def test_threads_take_turns(ledger: Ledger) -> None:
    def commit(first: int) -> None:
        for number in range(first, first + 10):
            ledger.commit(grant(number), now=0.0)

    threads = [threading.Thread(target=commit, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.load().leases) == 30
    assert replay(whole_journal(ledger)) == ledger.load()
