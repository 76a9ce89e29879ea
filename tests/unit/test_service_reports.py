"""Bookings, groups, usage, audit and priorities by the API: who may, and what it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.service import api_reports
from jupyterhub_gpuspawner.service.scopes import READ
from tests.unit.service_world import World, do_not_wait
from tests.unit.test_service_api import get, log_in  # noqa: F401 (a fixture)

# real sockets, files or processes
pytestmark = pytest.mark.slow

HOUR = 3600.0


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    do_not_wait(monkeypatch)
    return World(
        tmp_path,
        simulate=3,
        group_gpu_limits={"lab": 2},
        group_gpu_budgets={"lab": {"hours": 100, "period": "7d"}},
        shares={"lab": {"quota": 1, "borrow": 2}},
    )


def booking(world: World, **more: Any) -> dict[str, Any]:
    now = world.clock.now
    known = {"name": "exam", "nodes": ["n1"], "users": ["eve"], "groups": ["lab"]}
    return {**known, "starts_at": now + HOUR, "ends_at": now + 2 * HOUR, **more}


async def notes(world: World) -> list[tuple[str, str]]:
    _, found = await get(world, "audit")
    return [(row["subject"], row["text"]) for row in found["items"] if row["kind"] == "admin"]


async def test_a_booking_is_made_shown_and_cancelled(world: World, log_in: Any) -> None:  # noqa: F811
    async with world.running():
        code, made = await get(world, "bookings", body=booking(world, id="exam-1"))
        assert (code, made) == (200, {"ok": True, "id": "exam-1"})
        again = await get(world, "bookings", body=booking(world, id="exam-1"))
        assert again[0] == 200, "asking twice books once"
        code, answer = await get(world, "bookings", body=booking(world, id="other"))
        assert (code, answer["reason"]) == (409, "booking_refused")
        assert "booked already (exam)" in answer["message"]
        _, found = await get(world, "bookings")
        (row,) = found["items"]
        assert (len(row["devices"]), row["users"], row["groups"]) == (3, ["eve"], ["lab"])
        for name, users in (("eve", ["eve"]), ("mallory", [])):
            log_in(name)
            _, found = await get(world, "bookings", token=None)
            assert (found["items"][0]["users"], found["items"][0]["groups"]) == (users, [])
        said = await notes(world)
        assert (await get(world, "bookings/exam-1/cancel", body={}))[0] == 200
        assert (await get(world, "bookings/exam-1/cancel", body={}))[0] == 404
        assert (await get(world, "bookings"))[1]["total"] == 0
    assert said[-1] == ("exam-1", "booked 3 GPUs for lab, eve by service token (exam)")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"nodes": ["n9"]}, "no GPU of these is known"),
        ({"nodes": []}, "no GPU of these is known"),
        ({"colour": 1}, "colour"),
        ({"starts_at": "today"}, "starts_at"),
    ],
)
async def test_a_wrong_booking_is_400_and_says_why(
    world: World, more: dict[str, Any], words: str
) -> None:
    async with world.running():
        code, answer = await get(world, "bookings", body=booking(world, **more))
    assert (code, answer["reason"]) == (400, "bad_request")
    assert words in answer["message"]


async def test_a_group_is_shown_with_what_it_holds_and_may_hold(
    world: World,
    log_in: Any,  # noqa: F811
) -> None:
    async with world.running():
        async with world.ask("ann", 1, groups=["lab"]) as ann:
            await ann.until(event="granted")
        async with world.ask("bob", 2, groups=["lab"]) as bob:
            await bob.line()
            _, found = await get(world, "groups")
            log_in("mallory")
            _, none = await get(world, "groups", token=None)
            log_in("bob")
            _, own = await get(world, "groups", token=None)
    (row,) = found["items"]
    assert (row["name"], row["held"], row["waiting"], row["limit"]) == ("lab", 1, 1, 2)
    assert (row["quota"], row["borrow"], row["budget_hours"]) == (1, 2, 100.0)
    # without a length it is charged for a day
    assert row["spent_hours"] == 24.0
    assert row["period_ends_at"] > world.clock.now
    assert (none["items"], own["items"]) == ([], found["items"])


async def test_a_request_with_priority_is_next(world: World) -> None:
    async with world.running():
        await world.run("ann", 3)
        async with world.ask("bob", 3) as bob, world.ask("cy", 3) as cy:
            await bob.line()
            entry = (await cy.line())["entry"]
            path = f"queue/{entry}/priority"
            assert (await get(world, path, body={"priority": 7}))[0] == 200
            _, found = await get(world, "queue")
            assert [(row["server"], row["priority"]) for row in found["items"]] == [
                ("cy", 7),
                ("bob", 0),
            ]
            assert (await get(world, path, body={"priority": 1.5}))[0] == 400
            assert (await get(world, "queue/nobodys/priority", body={"priority": 1}))[0] == 404
            said = await notes(world)
    assert said[0] == ("cy", "priority 7 given by service token")


async def test_a_report_comes_from_the_ledger_in_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_reports, "PART", 2)
    async with world.running():
        for user in ("ann", "bob", "cy"):
            lease, container = await world.run(user)
            world.clock.now += HOUR
            await world.post(f"leases/{lease['id']}/stopping")
            world.engine.die(container)
            await world.post(f"leases/{lease['id']}/ended", {"exit_code": 0})
            await world.until_states("free", "free", "free")
        code, found = await get(world, "usage?by=user")
        table = await world.fetch("api/usage.csv?by=all")
        assert (await get(world, "usage?limit=1&offset=1"))[1]["items"] == found["items"][1:2]
        assert (await get(world, "usage?by=colour"))[0] == 400
        assert (await get(world, "usage?from=9&to=8"))[0] == 400
    assert code == 200
    assert [(row["who"], row["reserved_hours"]) for row in found["items"]] == [
        ("ann", 1.0),
        ("bob", 1.0),
        ("cy", 1.0),
    ]
    assert found["ends_at"] - found["starts_at"] == 30 * 24 * HOUR or found["starts_at"] == 0
    assert table.headers["Content-Type"].startswith("text/csv")
    assert table.body.decode().splitlines()[1].split(",")[3:5] == ["3", "3.000"]


async def test_the_audit_log_comes_newest_first_in_parts_and_not_to_users(
    world: World,
    log_in: Any,  # noqa: F811
) -> None:
    async with world.running():
        for admin in ("cordoned", "open", "draining"):
            await get(world, "nodes/n1/admin", body={"admin": admin})
        _, first = await get(world, "audit?limit=2")
        _, rest = await get(world, f"audit?limit=1000&before={first['next']}")
        log_in("ann")
        refused = await get(world, "audit", token=None)
    assert [row["text"].split()[1] for row in first["items"]] == ["draining", "open"]
    assert rest["items"][0]["text"].startswith("set cordoned")
    assert (rest["next"], refused[0]) == (None, 403)


async def test_an_admin_who_cancels_for_another_is_in_the_audit_log(world: World) -> None:
    async with world.running():
        await world.run("ann", 3)
        async with world.ask("bob") as bob:
            entry = (await bob.line())["entry"]
            await get(world, f"queue/{entry}/cancel", body={})
        assert ("bob", "request cancelled by service token") in await notes(world)


async def test_a_leader_of_a_group_sees_the_group_and_nobody_else(
    world: World,
    log_in: Any,  # noqa: F811
) -> None:
    log_in("lea", f"{READ}!group=lab")
    async with world.running():
        async with world.ask("ann", 1, groups=["lab"]) as ann:
            await ann.until(event="granted")
        await world.run("bob", 1)
        _, leases = await get(world, "leases", token=None)
        _, devices = await get(world, "devices", token=None)
        _, groups = await get(world, "groups", token=None)
        world.clock.now += HOUR
        _, usage = await get(world, "usage", token=None)
        audit = await get(world, "audit", token=None)
    assert [row["server"] for row in leases["items"]] == ["ann"]
    assert sorted(row["used_by"] for row in devices["items"]) == ["", "ann", "in use"]
    assert [row["name"] for row in groups["items"]] == ["lab"]
    assert [row["who"] for row in usage["items"]] == ["ann"]
    assert audit[0] == 403
    assert "bob" not in json.dumps([leases, devices, groups, usage])
