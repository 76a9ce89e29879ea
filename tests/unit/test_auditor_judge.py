"""Each kind of violation is seen in a rigged history, and a clean one passes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.auditor import judge
from tests.auditor.history import ANY, OPEN, PREFIX, Container, History
from tests.auditor.judge import Now
from tests.auditor.verdict import Finding, Kind, Verdict

LEDGER = "l1"
Run = tuple[float, float]


def server(
    name: str, *devices: str, run: tuple[float, float] = (1, OPEN), **more: Any
) -> Container:
    labels = {
        PREFIX + "ledger": LEDGER,
        PREFIX + "kind": "server",
        PREFIX + "name": name,
        PREFIX + "devices": ",".join(devices),
    }
    values = {"injected": frozenset(devices), "state": "running", "runs": [run], **more}
    return Container(id=f"id-{name}", engine="/e", labels={**labels}, **values)


def stranger(*devices: str, run: Run = (1, OPEN), engine: str = "/e") -> Container:
    return Container(id="x" + engine, engine=engine, injected=frozenset(devices), runs=[run])


def history(*containers: Container) -> History:
    return History(containers={one.id: one for one in containers})


def kinds(findings: Any) -> list[Kind]:
    return [one.kind for one in findings]


def test_a_clean_history_passes() -> None:
    first = server("alice", "S-0", run=(1, 5), kernel=frozenset({"S-0"}), gone=6.0)
    second = server("bob", "S-0", run=(5, OPEN))
    third = server("carol", "S-1", run=(2, OPEN))
    seen = history(first, second, third)
    now = Now(
        containers=(second, third),
        networks=(("net", {PREFIX + "ledger": LEDGER}, 0),),
        volumes=(
            ("home", {PREFIX + "ledger": LEDGER, PREFIX + "kind": "home"}),
            ("gpus-owner", {PREFIX + "ledger": LEDGER, PREFIX + "kind": "owner"}),
            ("somebody's", {}),
        ),
    )
    findings = [
        *judge.doubled(seen),
        *judge.differing(seen, LEDGER),
        *judge.stopped(seen, LEDGER, {"bob": [(6, OPEN)], "alice": [(6, OPEN)]}),
        *judge.leaked(now, {"bob", "carol"}),
    ]
    assert findings == []
    assert Verdict.of(findings).ok


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(server("a", "S-0", run=(1, 5)), server("b", "S-0", run=(4, 6)), id="overlap"),
        pytest.param(server("a", "S-0", run=(1, 9)), server("b", "S-0", run=(4, 6)), id="inside"),
        pytest.param(server("a", "S-0"), server("b", "S-1", "S-0"), id="one of two"),
        pytest.param(server("a", "S-0"), stranger("S-0"), id="with a stranger's container"),
        pytest.param(server("a", "S-0"), stranger(ANY), id="with one that has all"),
        pytest.param(server("a", "S-0"), stranger("S-0", engine="/f"), id="on another engine"),
        pytest.param(
            server("a", "S-0"),
            server("b", injected=None, kernel=frozenset({"S-0"})),
            id="seen by the kernel only",
        ),
    ],
)
def test_a_device_in_two_running_containers_is_seen(left: Container, right: Container) -> None:
    assert kinds(judge.doubled(history(left, right))) == [Kind.DOUBLE]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(server("a", "S-0", run=(1, 5)), server("b", "S-0", run=(5, 6)), id="after"),
        pytest.param(server("a", "S-0"), server("b", "S-1"), id="another device"),
        pytest.param(server("a", "S-0"), server("b", "S-0", runs=[]), id="never started"),
        pytest.param(server("a", "S-0"), stranger(ANY, engine="/f"), id="all of another engine"),
        pytest.param(server("a", "S-0"), server("b"), id="no device"),
    ],
)
def test_what_is_not_shared_is_not_reported(left: Container, right: Container) -> None:
    assert kinds(judge.doubled(history(left, right))) == []


def test_other_devices_than_labelled_are_seen() -> None:
    engine = server("a", "S-0", injected=frozenset({"S-0", "S-1"}))
    inside = server("b", "S-2", kernel=frozenset({"S-3"}))
    missing = server("c", "S-4", injected=frozenset())
    assert kinds(judge.differing(history(engine, inside, missing), LEDGER)) == [Kind.DEVICES] * 3


def test_a_foreign_container_may_have_any_devices() -> None:
    assert kinds(judge.differing(history(stranger("S-0")), LEDGER)) == []
    assert kinds(judge.differing(history(server("a", "S-0", injected=frozenset())), "l2")) == []


def test_a_protected_server_that_ends_is_seen() -> None:
    seen = history(server("a", run=(1, 5)))
    assert kinds(judge.stopped(seen, LEDGER, {"a": [(2, OPEN)]})) == [Kind.STOPPED]
    assert kinds(judge.stopped(seen, LEDGER, {"a": [(2, 4)]})) == []
    assert kinds(judge.stopped(seen, LEDGER, {"a": [(6, OPEN)]})) == []
    assert kinds(judge.stopped(seen, LEDGER, {"b": [(2, OPEN)]})) == []


@pytest.mark.parametrize("state", ["created", "exited", "running", "dead"])
def test_a_container_that_nobody_owns_is_seen(state: str) -> None:
    now = Now(containers=(server("a", state=state),))
    assert kinds(judge.leaked(now, set())) == [Kind.LEAK]


def test_an_ended_container_of_a_server_that_should_run_is_two_findings() -> None:
    now = Now(containers=(server("a", state="exited"),))
    assert kinds(judge.leaked(now, {"a"})) == [Kind.LEAK, Kind.STOPPED]


def test_a_server_that_should_run_and_does_not_is_seen() -> None:
    assert kinds(judge.leaked(Now(containers=()), {"a"})) == [Kind.STOPPED]


def test_two_containers_of_one_server_are_seen() -> None:
    now = Now(containers=(server("a"), server("a")))
    assert kinds(judge.leaked(now, {"a"})) == [Kind.LEAK]


def test_volumes_that_nobody_owns_are_seen() -> None:
    anonymous = ("0" * 64, {"com.docker.volume.anonymous": ""})
    odd = ("odd", {PREFIX + "ledger": LEDGER, PREFIX + "kind": "scratch"})
    now = Now(containers=(), volumes=(anonymous, odd))
    assert kinds(judge.leaked(now, set())) == [Kind.LEAK, Kind.LEAK]
    used = Now(containers=(), volumes=(anonymous,), used_volumes=frozenset({"0" * 64}))
    assert kinds(judge.leaked(used, set())) == []


def test_a_verdict_counts_each_violation_once_and_says_it() -> None:
    double = Finding(Kind.DOUBLE, "S-0 in a and b")
    verdict = Verdict.of([double, double, Finding(Kind.LEAK, "c is left")])
    assert (verdict.double_grants, verdict.leaked_containers, verdict.lost_gpus) == (1, 1, 0)
    assert not verdict.ok
    assert str(verdict) == "double_grants: S-0 in a and b\nleaked_containers: c is left"
