"""A recovery is over only when every server and everybody who waits is right again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.auditor.book import Book
from tests.soak.people import Guard
from tests.soak.recovery import Before, lost_places, lost_servers

BEFORE = Before(when=10.0, servers={"alice": "c1"}, waiting=frozenset({"e1"}))


@pytest.mark.parametrize(
    ("running", "models", "lost"),
    [
        pytest.param({"alice": "c1"}, {"alice": {"ready": True}}, False, id="known"),
        pytest.param({"alice": "c1"}, {"alice": {"pending": "stop"}}, False, id="stops"),
        pytest.param({"alice": "c1"}, {"alice": {}}, True, id="forgotten"),
        pytest.param({"alice": "c1"}, {}, True, id="no such user"),
        pytest.param({}, {"alice": {}}, False, id="ended meanwhile"),
        pytest.param({"alice": "c2"}, {"alice": {}}, False, id="another one"),
    ],
)
def test_a_server_that_the_hub_forgot_is_seen(
    running: dict[str, str], models: dict[str, Any], lost: bool
) -> None:
    assert bool(lost_servers(BEFORE, running, models)) is lost


@pytest.mark.parametrize(
    ("boot", "lost"), [pytest.param("new", False, id="new"), pytest.param("old", True, id="old")]
)
def test_who_waits_for_a_hub_that_is_gone_is_seen(boot: str, lost: bool) -> None:
    leases = {
        "l1": {"granted_at": 5.0, "boot_id": "old"},
        "l2": {"granted_at": 11.0, "boot_id": "new"},
    }
    waiting = {"e1": {"boot_id": boot}, "e2": {"boot_id": "old"}}
    book = Book(ledger="l", epoch=1, journal=(), leases=leases, claims=frozenset(), waiting=waiting)
    assert bool(lost_places(BEFORE, book)) is lost


class Protected:
    """Stands for the auditor: whom it protects."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.protect = self.names.add
        self.release = self.names.discard


def test_a_server_that_is_about_to_be_broken_is_not_held_until_the_next_one_is_asked_for() -> None:
    auditor: Any = Protected()
    guard = Guard(auditor=auditor)
    guard.asked("ann")
    # its container runs, and its user does not know that yet
    assert guard.victim(lambda: ("ann", "c1")) == "c1"

    guard.hold("ann")
    assert not auditor.names

    guard.drop("ann")
    guard.asked("ann")
    guard.hold("ann")
    assert auditor.names == {"ann"}
    assert guard.victim(lambda: ("ann", "c2")) == "c2"
    assert not auditor.names
