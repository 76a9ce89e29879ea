"""S4 to S7 and S9: each kind of violation, planted, is seen; a clean history passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.auditor import Auditor, grants, rules
from tests.auditor.book import Book, Row
from tests.auditor.history import LEASE, OPEN, USER, Container, History
from tests.auditor.rules import Quota, Rules
from tests.auditor.verdict import Kind
from tests.unit.test_auditor_judge import LEDGER, history, kinds, server

GB = 2**30
MEMORY = {"/e": 10 * GB}


def owned(user: str, *devices: str, memory: int = 0, lease: str = "", **more: Any) -> Container:
    one = server(user, *devices, **more)
    one.id += lease
    one.memory = memory * GB
    one.labels |= {USER: user.partition("/")[0], LEASE: lease or user}
    return one


def judged(seen: History, **decided: Any) -> list[Kind]:
    return kinds(rules.judge(seen, LEDGER, Rules(**decided), MEMORY))


def test_what_keeps_to_every_rule_passes() -> None:
    seen = history(
        owned("alice", "M-0", memory=4, run=(1, 5)),
        owned("bob", "M-1", memory=4, run=(2, OPEN)),
        owned("carol", "G-1", memory=4, run=(5, OPEN)),
    )
    assert not judged(
        seen,
        quotas=[Quota(users=frozenset({"alice", "bob"}), most=2)],
        barred={"M-0": [(2, 9)], "G-1": [(0, 5)]},
        inventory=frozenset({"M-0", "M-1", "G-1"}),
        parents={"M-0": "G-0", "M-1": "G-0"},
    )


@pytest.mark.parametrize("names", [("alice", "bob"), ("bob", "alice")])
def test_a_part_of_a_gpu_beside_the_whole_is_seen(names: tuple[str, str]) -> None:
    seen = history(owned(names[0], "M-0", run=(1, 5)), owned(names[1], "G-0", run=(4, 9)))
    assert judged(seen, parents={"M-0": "G-0"}) == [Kind.OVER]


def test_more_memory_than_a_machine_may_give_is_seen_at_the_start_that_takes_it() -> None:
    seen = history(owned("alice", memory=5), owned("bob", memory=4, run=(2, OPEN)))
    assert judged(seen) == [Kind.OVER]
    assert judged(seen, reserve=0.0) == []
    apart = history(owned("alice", memory=5, run=(1, 2)), owned("bob", memory=4, run=(2, OPEN)))
    assert judged(apart) == []


def test_a_start_above_a_quota_is_seen_and_one_before_it_is_not() -> None:
    seen = history(owned("alice", "G-0"), owned("alice/two", "G-1", run=(5, OPEN)))
    both = frozenset({"alice"})
    assert judged(seen, quotas=[Quota(users=both, most=1, since=3)]) == [Kind.QUOTA]
    assert judged(seen, quotas=[Quota(users=both, most=1, since=6)]) == []
    assert judged(seen, quotas=[Quota(users=frozenset({"bob"}), most=0)]) == []


def test_a_start_with_a_device_that_is_barred_or_unknown_is_seen() -> None:
    seen = history(owned("alice", "G-0", run=(5, 6)))
    assert judged(seen, barred={"G-0": [(4, OPEN)]}) == [Kind.BARRED]
    assert judged(seen, barred={"G-0": [(1, 5)]}) == []
    assert judged(seen, inventory=frozenset({"G-1"})) == [Kind.BARRED]


def test_two_containers_that_ran_for_one_lease_are_seen() -> None:
    twice = history(
        owned("alice", "G-0", lease="l", run=(1, 2)), owned("bob", "G-0", lease="l", run=(3, 4))
    )
    assert judged(twice) == [Kind.REPEATED]
    never = history(owned("alice", lease="l", runs=[]), owned("bob", lease="l"))
    assert judged(never) == []


def test_what_an_admin_decides_is_judged_from_that_moment_on(tmp_path: Path) -> None:
    auditor = Auditor([tmp_path / "none.sock"], LEDGER)
    auditor.bar("G-0")
    auditor.unbar("G-0")
    auditor.limit({"alice"}, 1)
    ((since, until),) = auditor.rules.barred["G-0"]
    assert 0 < since <= until < OPEN
    assert auditor.rules.quotas[0].since >= until


# -- the ledger -----------------------------------------------------------------------------


def device(id: str, parent: str | None = None, atoms: int = 1, **status: Any) -> Row:
    value = {"device": {"id": id, "parent": parent, "atoms": atoms}, "status": status}
    return Row(seq=0, epoch=1, kind="DeviceStored", subject=id, value=value)


def node(**more: Any) -> Row:
    value = {"node": {"name": "n", "memory": 10 * GB, "state": "up", "admin": "open", **more}}
    return Row(seq=0, epoch=1, kind="NodeStored", subject="n", value=value)


def lease(id: str, *devices: str, state: str = "reserved", atom: int = 0, memory: int = 0) -> Row:
    value = {
        "state": state, "node": "n", "key": {"user": id}, "granted_at": 5.0,
        "request": {"memory": memory * GB},
        "claims": [{"device": name, "atom": atom} for name in devices],
    }  # fmt: skip
    return Row(seq=0, epoch=1, kind="LeaseStored", subject=id, value=value)


def entry(id: str, state: str = "queued", lease_id: str | None = None) -> Row:
    value = {"state": state, "key": {"user": "alice"}, "lease_id": lease_id}
    return Row(seq=0, epoch=1, kind="EntryStored", subject=id, value=value)


def told(*rows: Row, **decided: Any) -> list[Kind]:
    book = Book(ledger="l", epoch=1, journal=rows, leases={}, claims=frozenset())
    return kinds(grants.grant_errors(book, Rules(**decided)))


def test_a_clean_journal_passes() -> None:
    rows = [node(), device("G-0"), device("M-0", "G-1"), device("G-1")]
    rows += [entry("e"), lease("a", "G-0", memory=4), entry("e", "granted", "a")]
    rows += [lease("a", "G-0", state="released"), device("G-0", health="bad"), entry("f")]
    assert told(*rows, lease("b", "M-0", memory=8)) == []


@pytest.mark.parametrize(
    "status",
    [
        {"health": "suspect"}, {"health": "bad"}, {"admin": "cordoned"}, {"admin": "draining"},
        {"foreign": True}, {"quarantined": True}, {"present": False},
    ],
    ids=str,
)  # fmt: skip
def test_a_grant_of_a_device_that_is_not_free_to_give_is_seen(status: dict[str, Any]) -> None:
    before = [node(), device("G-0", **status)]
    assert told(*before, lease("a", "G-0")) == [Kind.BARRED]
    # what is found running is adopted, whatever its device is like
    assert told(*before, lease("a", "G-0", state="running")) == []


def test_a_grant_on_a_closed_node_or_of_an_unknown_device_is_seen() -> None:
    assert told(node(), lease("a", "G-0")) == [Kind.BARRED]
    assert told(node(state="silent"), device("G-0"), lease("a", "G-0")) == [Kind.BARRED]
    assert told(node(admin="draining"), lease("a")) == [Kind.BARRED]


def test_a_grant_of_more_than_there_is_is_seen() -> None:
    assert told(node(), device("S-0", atoms=2), lease("a", "S-0", atom=2)) == [Kind.OVER]
    part = [node(), device("G-0"), device("M-0", "G-0")]
    assert told(*part, lease("a", "M-0"), lease("b", "G-0")) == [Kind.OVER]
    assert told(*part, lease("a", "G-0"), lease("b", "M-0")) == [Kind.OVER]
    assert told(node(), lease("a", memory=5), lease("b", memory=4)) == [Kind.OVER]


def test_a_grant_above_a_quota_is_seen() -> None:
    rows = [node(), device("G-0"), device("G-1"), lease("a", "G-0"), lease("b", "G-1")]
    both = frozenset({"a", "b"})
    assert told(*rows, quotas=[Quota(users=both, most=1)]) == [Kind.QUOTA]
    assert told(*rows, quotas=[Quota(users=both, most=1, since=6.0)]) == []
    assert told(*rows, quotas=[Quota(users=both, most=2)]) == []


def test_what_was_repeated_and_happened_twice_is_seen() -> None:
    assert told(entry("e"), entry("e"), entry("f")) == [Kind.REPEATED]
    assert told(entry("e"), entry("e", "cancelled"), entry("f")) == []
    second = [entry("e", "granted", "a"), entry("e", "bound", "b")]
    assert told(entry("e"), *second) == [Kind.REPEATED]
