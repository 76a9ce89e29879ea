"""What the admin page is told of a site."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jupyterhub_gpuspawner.i18n import words_of
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import Admin, DeviceStatus, Health
from jupyterhub_gpuspawner.service import admin_data
from jupyterhub_gpuspawner.service.page_data import View, Viewer
from tests.unit.scheduler_world import World

ENGLISH = words_of("en")


def told(world: World, topic: str) -> Any:
    view = View(state=world.state, viewer=Viewer(name="", admin=True), now=world.now)
    return admin_data.TOPICS[topic](view, ENGLISH)


def device(world: World, index: int) -> dict[str, Any]:
    (node,) = told(world, "map")
    found: dict[str, Any] = node["devices"][index]
    return found


def test_a_device_says_who_has_it_since_when() -> None:
    world = World("g0", "g1")
    begun = world.now
    lease = world.run("ann/train")
    world.now += 60
    world.tick()
    holders = device(world, 0)["holders"] + device(world, 1)["holders"]
    assert holders == [{"lease": lease, "server": "ann/train", "since": begun}]
    assert sorted(device(world, n)["state"] for n in (0, 1)) == ["busy", "free"]


@pytest.mark.parametrize(
    ("status", "health"),
    [
        (DeviceStatus(), "ok"),
        (DeviceStatus(health=Health.BAD, note="XID 79"), "bad"),
        (DeviceStatus(health=Health.SUSPECT), "suspect"),
    ],
)
def test_a_device_says_how_it_is_and_why(status: DeviceStatus, health: str) -> None:
    world = World("g0")
    node = world.nodes["n1"]
    world.do(events.NodeReported(node=node, devices=((world.devices[0], status),)))
    found = device(world, 0)
    assert (found["health"], found["note"]) == (health, status.note)
    assert found["state"] == ("free" if health == "ok" else "out")
    assert bool(found["why"]) is (health != "ok")


def test_a_device_that_is_kept_free_is_not_broken() -> None:
    world = World("g0")
    world.do(events.AdminAsked(admin=Admin.DRAINING, device="g0", note="the fan"))
    found = device(world, 0)
    assert (found["state"], found["admin"], found["note"]) == ("kept", "draining", "the fan")
    world.do(events.AdminAsked(admin=Admin.CORDONED, node="n1"))
    (node,) = told(world, "map")
    assert (node["admin"], node["why"]) == ("cordoned", "An administrator keeps the machine free.")


def test_a_device_says_whether_it_computes_while_that_is_known() -> None:
    world = World("g0", "g1")
    pairs = tuple((one, DeviceStatus()) for one in world.devices)
    working = {"g0": True, "g1": False}
    world.do(events.NodeReported(node=world.nodes["n1"], devices=pairs, working=working))
    assert [device(world, n)["computes"] for n in (0, 1)] == [True, False]
    world.now += admin_data.STALE + 1
    world.tick()
    assert [device(world, n)["computes"] for n in (0, 1)] == [None, None]


def test_of_a_long_line_the_beginning_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_data, "SHOWN", 2)
    monkeypatch.setattr(admin_data, "EXPECTED", 1)
    world = World("g0")
    world.run("ann", length=3600.0)
    entries = [world.ask(user, length=60.0) for user in ("bob", "cy", "dee")]
    line = told(world, "line")
    assert line["total"] == 3
    assert [row["id"] for row in line["items"]] == entries[:2]
    assert [row["position"] for row in line["items"]] == [1, 2]
    assert [row["expected_at"] is None for row in line["items"]] == [False, True]
    assert line["items"] == told(world, "line")["items"]
    full = [(place.entry.id, place.reason) for place in world.state.waiting()]
    waiting, starts = world.state.beginning(3, 3)
    assert [(place.entry.id, place.reason) for place in waiting] == full
    assert starts == world.state.starts()


def test_servers_without_gpus_are_told_too() -> None:
    world = World("g0")
    world.run("ann", 0)
    (row,) = told(world, "servers")
    assert (row["server"], row["indexes"], row["node"]) == ("ann", [], "n1")


def test_a_groups_leader_sees_the_groups_servers_and_requests_and_no_other_name() -> None:
    world = World("g0", "g1")
    world.run("ann", groups=("physics",))
    world.run("bob", groups=("art",))
    waits = world.ask("cy", groups=("physics",))
    world.ask("dee", groups=("art",))
    world.do(events.AdminAsked(admin=Admin.CORDONED, device="g0", note="bob broke it"))
    leader = Viewer(name="dave", groups=frozenset({"physics"}))
    view = View(state=world.state, viewer=leader, now=world.now)
    data = admin_data.admin_data(view, ENGLISH)
    assert [row["server"] for row in data["servers"]] == ["ann"]
    assert ([row["id"] for row in data["line"]["items"]], data["line"]["total"]) == ([waits], 1)
    assert [row["name"] for row in data["groups"]] == ["physics"]
    # what is free is for everybody to see, and who of the group has what
    (node,) = data["map"]
    assert [one["state"] for one in node["devices"]] == ["busy", "busy"]
    assert sum(len(one["holders"]) for one in node["devices"]) == 1
    assert not {"bob", "dee", "art"} & set(json.dumps(data).replace('"', " ").split())
