"""A node that is declared gone for good: its users are free of it, and it is not free of them."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.scheduler.models import LeaseState, Limits, NodeState, Reason, Settings
from tests.unit.scheduler_world import World, gpu

LIMIT = Settings(limits=Limits(per_user=1))


def site(**fields) -> World:
    """Two nodes with a GPU each."""
    return World(gpu("g1"), gpu("g2", "n2"), **fields)


def lose(world: World, node: str = "n1", empty: bool = False):
    return world.do(events.NodeLost(node=node, empty=empty))


def silent(world: World, node: str = "n1") -> None:
    world.node_is(NodeState.SILENT, node)


def back(world: World, node: str = "n1", boot: str | None = None) -> None:
    world.report(node, boot=boot)
    world.do(events.NodeReconciled(node=node))


def test_a_node_that_answers_is_not_gone():
    world = site()
    lease = world.run("ann", node="n1")
    with pytest.raises(RefusedError) as refused:
        lose(world)
    assert "n1 answers, so it is not gone" in refused.value.user_message
    assert world.lease(lease).state is LeaseState.RUNNING


def test_nobody_knows_such_a_node():
    assert lose(site(), "n9") == []


def test_its_user_can_start_the_server_elsewhere_at_once():
    world = site(settings=LIMIT)
    world.run("ann", node="n1")
    silent(world)
    again = world.ask("ann")
    assert world.why("ann") is Reason.PREVIOUS_SERVER
    lose(world)
    assert world.state.tables.nodes["n1"].state is NodeState.DOWN
    assert world.lease(again).node == "n2"


def test_who_waits_only_for_a_limit_is_served():
    world = site(settings=LIMIT)
    world.run("ann", node="n1")
    second = world.ask("ann/two")
    silent(world)
    assert not world.granted(second)
    lose(world)
    assert world.granted(second)


def test_its_gpus_stay_held_until_what_ran_there_is_proven_gone():
    world = site()
    old = world.run("ann", node="n1")
    silent(world)
    lose(world)
    assert world.free() == {"g2"}
    back(world)
    bob = world.ask("bob", node="n1")
    assert not world.granted(bob)
    remnant = world.lease(f"{old}@lost")
    assert (remnant.reason, remnant.container_id) == (Reason.NODE_LOST, f"c-{old}")
    world.gone(remnant.id, f"c-{old}")
    assert world.granted(bob)


def test_another_boot_of_the_node_ends_what_ran_there():
    world = site()
    world.run("ann", node="n1")
    silent(world)
    lose(world)
    back(world, boot="n1-boot-2")
    assert world.free() == {"g1", "g2"}


def test_the_admins_second_word_ends_what_ran_there():
    world = site()
    world.run("ann", node="n1")
    other = world.run("bob", node="n2")
    silent(world)
    lose(world)
    back(world)
    assert not world.free()
    lose(world, empty=True)
    assert world.free() == {"g1"}
    assert world.lease(other).state is LeaseState.RUNNING


def test_the_second_word_alone_ends_nothing():
    world = site()
    lease = world.run("ann", node="n1")
    assert lose(world, empty=True) == []
    silent(world)
    assert lose(world, empty=True) == []
    assert world.lease(lease).uncertain


def test_a_lease_without_a_container_leaves_nothing():
    world = site()
    lease = world.ask("ann", node="n1")
    silent(world)
    lose(world)
    assert lease not in world.state.tables.leases
    assert not world.state.tables.leases
    with pytest.raises(RefusedError):
        world.bind(lease)


def test_a_stop_that_was_under_way_keeps_its_reason():
    world = site()
    lease = world.run("ann", node="n1")
    silent(world)
    world.stop(lease)
    lose(world)
    stored = [one.lease for one in world.history(LeaseStored)]
    ended = [one for one in stored if one.id == lease][-1]
    assert (ended.state, ended.reason) == (LeaseState.RELEASED, Reason.STOPPED)
    assert world.lease(f"{lease}@lost").reason is Reason.NODE_LOST


def test_it_may_be_said_again_and_a_server_may_be_lost_twice():
    world = site()
    first = world.run("ann", node="n1")
    silent(world)
    lose(world)
    assert lose(world) == []
    second = world.run("ann")
    silent(world, "n2")
    lose(world, "n2")
    names = {str(one.key) for one in world.state.tables.leases.values()}
    assert names == {"lost/ann", f"lost/ann/@c-{second}"}
    assert {first, second}.isdisjoint(world.state.tables.leases)


def test_it_is_known_after_a_restart():
    world = site()
    world.run("ann", node="n1")
    silent(world)
    lose(world)
    world = world.restart()
    back(world)
    back(world, "n2")
    assert world.free() == {"g2"}
