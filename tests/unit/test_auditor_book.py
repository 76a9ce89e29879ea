"""The ledger as a witness: contradictions in it, and with the facts, are seen."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.scheduler import transitions
from jupyterhub_gpuspawner.scheduler.models import EntryState, LeaseState
from tests.auditor import book
from tests.auditor.book import Book, Row
from tests.auditor.history import OPEN, PREFIX, Container
from tests.auditor.verdict import Kind
from tests.unit.store_values import new_ledger, one_of_each


def lease(id: str, state: str, *devices: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "state": state,
        "target": "gone" if state in book.GONE else "run",
        "key": {"hub": "", "user": id, "server": ""},
        "claims": [{"device": device, "atom": 0, "lease_id": id} for device in devices],
        "container_id": None if state == "reserved" else f"c-{id}",
        **more,
    }


def written(*leases: Mapping[str, Any], epoch: int = 1, epochs: tuple[int, ...] = ()) -> Book:
    """A book whose journal has these leases, and whose tables agree with it."""
    ages = epochs or (epoch,) * len(leases)
    rows = tuple(
        Row(seq=seq, epoch=age, kind="LeaseStored", subject=value["id"], value=value)
        for seq, (value, age) in enumerate(zip(leases, ages, strict=True), start=1)
    )
    live = {value["id"]: value for value in leases}
    live = {id: value for id, value in live.items() if value["state"] != "released"}
    claims = {(c["device"], c["atom"], id) for id, v in live.items() for c in v["claims"]}
    return Book(ledger="l", epoch=epoch, journal=rows, leases=live, claims=frozenset(claims))


def kinds(findings: Any) -> list[Kind]:
    return [one.kind for one in findings]


def whole_life(id: str, *devices: str) -> list[dict[str, Any]]:
    states = ("reserved", "starting", "running", "stopping", "released")
    return [lease(id, state, *devices) for state in states]


def container(id: str, *devices: str, state: str = "running") -> Container:
    labels = {PREFIX + "lease": id, PREFIX + "name": id}
    return Container(
        id=f"c-{id}", engine="/e", labels=labels, injected=frozenset(devices), state=state,
        runs=[(1, OPEN)],
    )  # fmt: skip


def test_a_clean_book_passes() -> None:
    clean = written(
        *whole_life("a", "S-0"),
        *whole_life("b", "S-0")[:3],
        epochs=(1, 1, 1, 2, 2, 2, 3, 3),
        epoch=3,
    )
    assert kinds(book.history_errors(clean)) == []
    assert kinds(book.facts_errors(clean, [container("b", "S-0")])) == []


@pytest.mark.parametrize(
    "leases",
    [
        pytest.param([lease("a", "starting")], id="begins in the middle"),
        pytest.param([lease("a", "reserved"), lease("a", "running")], id="skips a state"),
        pytest.param([lease("a", "reserved"), lease("a", "released")], id="no intent"),
        pytest.param([*whole_life("a"), lease("a", "reserved")], id="comes back"),
        pytest.param([lease("a", "reserved", target="gone")], id="target without its state"),
        pytest.param(
            [lease("a", "reserved"), lease("a", "starting", container_id=None)], id="no container"
        ),
        pytest.param(
            [*whole_life("a")[:2], lease("a", "running", container_id="other")],
            id="another one",
        ),
        pytest.param(
            [lease("a", "reserved"), lease("b", "reserved", key=lease("a", "x")["key"])],
            id="two live leases of one server",
        ),
    ],
)
def test_a_move_outside_the_table_is_seen(leases: list[dict[str, Any]]) -> None:
    assert Kind.BOOK in kinds(book.history_errors(written(*leases)))


def test_a_device_claimed_twice_at_any_time_is_seen() -> None:
    both = written(lease("a", "reserved", "S-0"), lease("b", "reserved", "S-0"))
    assert Kind.DOUBLE in kinds(book.history_errors(both))


def test_an_epoch_that_goes_back_is_seen() -> None:
    back = written(*whole_life("a")[:2], epochs=(2, 1), epoch=2)
    assert kinds(book.history_errors(back)) == [Kind.BOOK]
    beyond = written(lease("a", "reserved"), epochs=(3,), epoch=2)
    assert kinds(book.history_errors(beyond)) == [Kind.BOOK]


def test_claims_that_differ_from_the_journal_are_seen() -> None:
    clean = written(lease("a", "reserved", "S-0"))
    lost = Book(ledger="l", epoch=1, journal=clean.journal, leases=clean.leases, claims=frozenset())
    assert kinds(book.history_errors(lost)) == [Kind.BOOK]


def test_a_live_lease_without_its_container_is_a_lost_gpu() -> None:
    held = written(*whole_life("a", "S-0")[:3])
    assert kinds(book.facts_errors(held, [])) == [Kind.LOST]
    assert kinds(book.facts_errors(held, [container("z", state="created")])) == [Kind.LOST]
    reserved = written(lease("a", "reserved", "S-0"))
    assert kinds(book.facts_errors(reserved, [])) == [Kind.LOST]


def test_a_running_container_that_no_lease_has_is_seen() -> None:
    assert kinds(book.facts_errors(written(), [container("a", "S-0")])) == [Kind.BOOK]


def test_a_container_with_other_devices_than_its_lease_holds_is_seen() -> None:
    held = written(*whole_life("a", "S-0")[:3])
    assert kinds(book.facts_errors(held, [container("a", "S-1")])) == [Kind.DEVICES]


def test_the_tables_of_moves_are_those_of_the_scheduler() -> None:
    """Written down twice on purpose; this says where they part."""
    for moves, table, states in (
        (book.LEASE_MOVES, transitions.LEASE, LeaseState),
        (book.ENTRY_MOVES, transitions.ENTRY, EntryState),
    ):
        for state in states:
            assert moves[state.value] == {after.value for after in table[state]}


def test_a_real_ledger_is_read_without_the_product(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with new_ledger(path) as ledger:
        ledger.commit(one_of_each(), 1.0)
        found = book.read(str(path))
    assert (found.ledger, found.epoch) == (ledger.id, 1)
    assert found.claims == {("GPU-1", 0, "lease-1")}
    assert [finding.text for finding in book.history_errors(found)] == [
        "row 4: entry entry-1 None -> granted (S8)"  # the value of these tests has no past
    ]
    with closing(sqlite3.connect(path)) as broken, broken:
        broken.execute("DELETE FROM claims")
    assert Kind.BOOK in kinds(book.history_errors(book.read(str(path))))


def test_any_database_is_read_by_its_url(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with new_ledger(path) as ledger:
        ledger.commit(one_of_each(), 1.0)
    assert book.read(f"sqlite:///{path}") == book.read(str(path))
