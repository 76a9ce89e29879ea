"""Unused GPUs are taken back after a warning; what is not known to be unused is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.scheduler.idle_facts import FRESH
from jupyterhub_gpuspawner.scheduler.models import LeaseState, NodeState, Reason, Settings, Target
from jupyterhub_gpuspawner.scheduler.policy import HOUR, Idle
from tests.unit.scheduler_world import World

TIMEOUT, WARNING, RUNTIME, KEPT = 2 * HOUR, HOUR / 2, HOUR, 8 * HOUR
LOOK = 240.0  # less than what is known lasts


def site(*devices: str, **idle: Any) -> World:
    policy = Idle(**{"timeout": TIMEOUT, "warning": WARNING, "min_runtime": RUNTIME, **idle})
    return World(*devices, settings=Settings(idle=policy, reclaim_warning=WARNING))


def looks(
    world: World,
    seconds: float,
    *leases: str,
    used: bool = False,
    working: dict[str, bool] | None = None,
    groups: tuple[str, ...] | None = None,
) -> None:
    """For that long, servers and devices are looked at again and again."""
    until = world.now + seconds
    states = {d.id: False for d in world.devices} if working is None else working
    while world.now < until:
        world.now = min(world.now + LOOK, until)
        for lease_id in leases:
            idle_for = 0.0 if used else world.now
            seen = events.ActivitySeen(lease_id=lease_id, idle_for=idle_for, groups=groups)
            world.do(seen)
        for node in world.nodes.values():
            devices = tuple((d, world.state.tables.status[d.id]) for d in world.devices)
            world.do(events.NodeReported(node=node, devices=devices, working=states))
        world.tick()


def warned(world: World, lease_id: str) -> bool:
    lease = world.lease(lease_id)
    return lease.idle and lease.warned and lease.stop_at is not None


def runs(world: World, lease_id: str) -> bool:
    lease = world.lease(lease_id)
    return lease.state is LeaseState.RUNNING and lease.target is Target.RUN


def test_an_unused_server_is_warned_and_then_stopped() -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, TIMEOUT - 1, ann)
    assert not warned(world, ann)
    looks(world, LOOK + 1, ann)
    assert warned(world, ann)
    assert world.lease(ann).stop_at == world.now + WARNING
    looks(world, WARNING - 1, ann)
    assert runs(world, ann), "never before its warned end"
    looks(world, 1, ann)
    lease = world.lease(ann)
    assert (lease.state, lease.target) == (LeaseState.STOPPING, Target.GONE)
    assert lease.reason is Reason.IDLE and lease.claims, "given back only on proof"


def test_without_a_time_out_nothing_is_stopped() -> None:
    world = site("g1", timeout=None)
    ann = world.run("ann")
    looks(world, 2 * TIMEOUT, ann)
    assert runs(world, ann) and not warned(world, ann)


def test_within_its_least_run_time_it_is_not_even_warned() -> None:
    world = site("g1", timeout=600.0)
    ann = world.run("ann")
    looks(world, RUNTIME - 1, ann)
    assert not warned(world, ann)
    looks(world, 2, ann)
    assert warned(world, ann)


def test_a_server_without_gpus_is_none_of_its_business() -> None:
    world = site("g1")
    ann = world.run("ann", 0)
    looks(world, 2 * TIMEOUT, ann)
    assert runs(world, ann) and not world.lease(ann).warned


@pytest.mark.parametrize("used", [{"used": True}, {"working": {"g1": True}}])
def test_kernels_or_gpu_in_use_keep_it(used: dict[str, Any]) -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, 2 * TIMEOUT, ann, **used)
    assert runs(world, ann) and not warned(world, ann)


def test_one_of_its_gpus_in_use_keeps_it() -> None:
    world = site("g1", "g2")
    ann = world.run("ann", 2)
    looks(world, 2 * TIMEOUT, ann, working={"g1": False, "g2": True})
    assert not warned(world, ann)


@pytest.mark.parametrize("used", [{"used": True}, {"working": {"g1": True}}])
def test_use_within_the_warning_withdraws_it(used: dict[str, Any]) -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, TIMEOUT + LOOK, ann)
    assert warned(world, ann)
    looks(world, LOOK, ann, **used)
    assert not warned(world, ann) and world.lease(ann).stop_at is None
    looks(world, TIMEOUT - LOOK, ann)
    assert not warned(world, ann), "the whole time counts anew"


@pytest.mark.parametrize("unknown", ["server", "device", "nothing at all"])
def test_what_is_not_known_is_never_stopped(unknown: str) -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, TIMEOUT + LOOK, ann)
    assert warned(world, ann)
    if unknown == "server":
        world.do(events.ActivitySeen(lease_id=ann, idle_for=None))
        looks(world, 2 * TIMEOUT)
    elif unknown == "device":
        looks(world, 2 * TIMEOUT, ann, working={})
    else:
        world.tick(2 * TIMEOUT)
    assert runs(world, ann)
    looks(world, WARNING - LOOK, ann)
    assert runs(world, ann), "it may have been used while nobody knew"
    looks(world, 2 * LOOK, ann)
    assert not runs(world, ann)


def test_a_gap_in_what_is_known_begins_the_time_anew() -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, TIMEOUT - LOOK, ann)
    world.tick(FRESH + LOOK)
    looks(world, TIMEOUT - LOOK, ann)
    assert not warned(world, ann)


def test_a_restart_of_the_scheduler_begins_the_time_anew_and_keeps_the_warning() -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, TIMEOUT + LOOK, ann)
    world = world.restart()
    world.do(events.NodeReconciled(node="n1"))
    assert warned(world, ann)
    world.tick(WARNING)
    assert runs(world, ann)
    looks(world, WARNING + LOOK, ann)
    assert not runs(world, ann)


def test_a_silent_node_stops_nothing() -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, TIMEOUT + LOOK, ann)
    world.node_is(NodeState.SILENT)
    world.tick(WARNING)
    assert runs(world, ann)


def test_groups_have_times_of_their_own_and_the_longest_counts() -> None:
    world = site("g1", "g2", groups={"staff": None, "students": 600.0}, min_runtime=0.0)
    bob = world.run("bob", groups=("students",))
    ann = world.run("ann", groups=("staff", "students"))
    looks(world, 600 + LOOK, ann, bob)
    assert warned(world, bob)
    looks(world, 2 * TIMEOUT, ann, bob)
    assert runs(world, ann) and not warned(world, ann) and not runs(world, bob)


def test_the_groups_that_the_hub_says_now_count() -> None:
    world = site("g1", groups={"staff": None}, min_runtime=0.0)
    ann = world.run("ann")
    looks(world, TIMEOUT + LOOK, ann)
    assert warned(world, ann)
    looks(world, LOOK, ann, groups=("staff",))
    assert not warned(world, ann)


def test_its_user_has_it_kept() -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, TIMEOUT + LOOK, ann)
    world.do(events.KeepAsked(lease_id=ann))
    assert not warned(world, ann) and world.lease(ann).kept_until == world.now + KEPT
    looks(world, KEPT - LOOK, ann)
    assert not warned(world, ann)
    looks(world, 2 * LOOK, ann)
    assert warned(world, ann)


def test_what_is_over_is_not_kept() -> None:
    world = site("g1")
    ann = world.run("ann")
    world.stop(ann)
    with pytest.raises(RefusedError, match="it is over"):
        world.do(events.KeepAsked(lease_id=ann))


def test_the_warning_of_a_server_past_its_length_is_another_one() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    world.ask("bob")
    looks(world, HOUR, ann)
    assert world.lease(ann).warned and not world.lease(ann).idle
    looks(world, WARNING, ann)
    assert world.lease(ann).reason is Reason.RECLAIMED


def test_what_gpus_compute_is_on_record_with_the_lease_when_it_ends() -> None:
    world = site("g1", "g2")
    ann = world.run("ann", 2)
    looks(world, LOOK)  # from here on it is known
    looks(world, 2 * LOOK, working={"g1": True, "g2": False})
    looks(world, LOOK, working={"g1": True})  # nobody knows of the other
    assert world.lease(ann).watched == 0, "not each look is worth a line in the journal"
    last = world.lease(ann)
    world.end(ann)
    (released,) = [
        d.lease
        for d in world.journal
        if isinstance(d, LeaseStored) and d.lease.id == ann and not d.lease.live
    ]
    assert (released.watched, released.computed) == (6 * LOOK - LOOK, 3 * LOOK)
    assert released.claims == last.claims


def test_what_gpus_compute_is_on_record_every_hour() -> None:
    world = site("g1", timeout=None)
    ann = world.run("ann")
    looks(world, 1.5 * HOUR, working={"g1": True})
    lease = world.lease(ann)
    assert HOUR <= lease.watched == lease.computed < 1.5 * HOUR


def test_a_gap_in_the_looks_is_not_counted() -> None:
    world = site("g1")
    ann = world.run("ann")
    looks(world, LOOK, working={"g1": True})
    world.now += FRESH + LOOK
    looks(world, LOOK, working={"g1": True})
    world.end(ann)
    (released,) = [
        d.lease for d in world.journal if isinstance(d, LeaseStored) and not d.lease.live
    ]
    assert released.watched == 0


def test_word_of_a_server_that_is_over_changes_nothing() -> None:
    world = World("g1")
    assert world.do(events.ActivitySeen(lease_id="over", idle_for=None)) == []


def test_a_server_that_was_not_warned_is_kept_all_the_same() -> None:
    world = World("g1")
    ann = world.run("ann")
    world.do(events.KeepAsked(lease_id=ann))
    kept = world.lease(ann).kept_until
    assert kept is not None and kept > world.now and not world.lease(ann).warned
