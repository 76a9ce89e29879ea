"""Who may pass the first in line: only who does not delay it (L4)."""

import pytest

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import Limits, Mode, Reason, Settings
from jupyterhub_gpuspawner.scheduler.policy import HOUR, Fairness, Share
from tests.unit.scheduler_world import GIB, World, gpu, key, machine

#: in order of arrival, so that the first in line is the one who came first
PLAIN = Settings(fairness=Fairness(by_usage=False))


def world_with(*gpus, **settings) -> World:
    return World(*gpus, settings=Settings(fairness=Fairness(by_usage=False), **settings))


@pytest.mark.parametrize(
    ("length", "passes"), [(HOUR, True), (2 * HOUR, True), (2 * HOUR + 1, False), (None, False)]
)
def test_who_ends_before_the_first_one_can_start_passes(length, passes):
    world = world_with("g1", "g2")
    world.run("ann", length=2 * HOUR)
    world.ask("bob", 2)
    assert world.granted(world.ask("cy", length=length)) is passes


def test_the_time_until_the_first_one_starts_runs_out():
    world = world_with("g1", "g2")
    world.run("ann", length=2 * HOUR)
    world.ask("bob", 2)
    world.tick(1.0)
    assert not world.granted(world.ask("cy", length=2 * HOUR))
    assert world.why("cy") is Reason.BEHIND_OTHERS


def test_past_the_end_of_what_runs_nobody_passes():
    world = world_with("g1", "g2")
    world.run("ann", length=HOUR)
    world.ask("bob", 2)
    world.tick(2 * HOUR)
    assert not world.granted(world.ask("cy", length=60.0))


def test_gpus_that_the_first_one_leaves_over_are_for_anybody():
    world = world_with("g1", "g2", "g3", "g4")
    ann = world.run("ann", 2, length=HOUR)
    bob = world.ask("bob", 3, length=HOUR)
    cy = world.ask("cy")
    dan = world.ask("dan")
    assert world.granted(cy) and not world.granted(dan)
    world.end(ann)
    assert world.granted(bob)


def test_the_node_that_is_free_soonest_is_kept_and_the_other_is_not():
    world = world_with("g1", "g2", gpu("h1", "n2"), gpu("h2", "n2"))
    world.run("ann", length=4 * HOUR)
    world.run("bob", 2, length=HOUR)
    cy = world.ask("cy", 2)
    assert world.granted(world.ask("dan", length=24 * HOUR)), "on the other node"
    assert not world.granted(world.ask("eve", length=24 * HOUR))
    (two,) = [v for v in world.state.tables.leases.values() if v.key.user == "bob"]
    world.end(two.id)
    assert world.granted(cy)


def test_where_somebody_stays_for_ever_who_has_an_end_may_pass():
    world = world_with("g1", "g2")
    world.run("ann")
    world.ask("bob", 2)
    assert not world.granted(world.ask("cy"))
    assert world.granted(world.ask("dan", length=24 * HOUR))


def test_a_lease_that_stops_counts_as_ended():
    world = world_with("g1", "g2")
    world.stop(world.run("ann"))
    world.ask("bob", 2)
    assert not world.granted(world.ask("cy", length=60.0)), "bob can start any moment"


def test_memory_that_the_first_one_leaves_over_is_for_anybody():
    world = world_with("g1", "g2")
    world.run("ann", memory=60 * GIB, length=HOUR)
    world.ask("bob", memory=30 * GIB)
    assert world.granted(world.ask("cy", 0, memory=20 * GIB))
    world.end("e1")
    assert not world.state.tables.queued_of


def test_the_reservation_waits_for_memory_as_well():
    world = world_with("g1", "g2", "g3")
    world.run("ann", memory=20 * GIB, length=HOUR)
    world.run("bob", memory=50 * GIB, length=3 * HOUR)
    world.ask("cy", memory=70 * GIB)
    assert world.granted(world.ask("dan", memory=10 * GIB, length=3 * HOUR))
    assert not world.granted(world.ask("eve", 0, memory=GIB))


def test_cpus_that_the_first_one_leaves_over_are_for_anybody():
    world = world_with("g1", "g2", cpu_overcommit=0.5)
    world.run("ann", cpu=6.0, length=HOUR)
    world.ask("bob", cpu=4.0, length=HOUR)
    assert not world.granted(world.ask("cy", 0, cpu=5.0))
    assert world.granted(world.ask("dan", 0, cpu=2.0))


def test_a_free_slot_that_the_first_one_does_not_need_is_for_anybody():
    world = world_with(gpu("s1", mode=Mode.SLOTS, atoms=3), gpu("s2", mode=Mode.SLOTS, atoms=1))
    world.run("ann", sharing=Mode.SLOTS, length=HOUR)
    world.run("bob", 1, sharing=Mode.SLOTS, length=HOUR)
    first = world.ask("cy", 2, sharing=Mode.SLOTS)
    assert not world.granted(first)
    assert world.granted(world.ask("dan", sharing=Mode.SLOTS)), "s1 has another slot left"
    assert not world.granted(world.ask("eve", sharing=Mode.SLOTS)), "this would be the last"


def test_without_backfill_all_wait_for_the_first_one():
    settings = Settings(fairness=Fairness(backfill=False))
    world = World("g1", "g2", gpu("h3", model="H100"), settings=settings)
    world.run("ann", model="A100", length=HOUR)
    world.ask("bob", 2, model="A100", length=60.0)
    assert not world.granted(world.ask("cy", model="H100", length=60.0))
    assert world.why("cy") is Reason.BEHIND_OTHERS


def test_without_backfill_who_can_never_start_now_holds_nobody_up():
    world = World("g1", "g2", settings=Settings(fairness=Fairness(backfill=False)))
    world.report(but=["g2"])
    world.devices.append(gpu("g3"))
    world.report()
    world.report(but=["g2", "g3"])
    world.ask("bob", 1)
    assert world.state.tables.leases


def test_many_shapes_can_be_first_one_after_the_other():
    world = world_with("g1", "g2")
    world.run("ann", length=1000 * HOUR)
    for number in range(40):
        first = world.ask(f"u{number}", 2, length=60.0 + number)
        assert not world.granted(world.ask("cy", length=2000 * HOUR))
        world.cancel(world.state.tables.queued_of[world.state.waiting()[1].entry.key])
        world.cancel(first)


def test_a_reservation_follows_its_nodes():
    world = world_with("g1", "g2", gpu("h1", "n2"), gpu("h2", "n2"))
    world.run("ann", 2, length=HOUR)
    world.run("bob", 1, length=2 * HOUR)
    world.ask("cy", 2)
    node = machine("n1", memory=100 * GIB)
    assert not world.granted(world.ask("dan", 2, length=24 * HOUR))
    world.do(events.NodeReported(node=node, devices=()))
    assert not world.granted(world.ask("eve", length=24 * HOUR)), "now cy waits for n2"


def test_who_may_not_pass_is_looked_at_again_when_another_node_has_room():
    world = world_with("g1", "g2", gpu("h1", "n2"))
    world.run("ann", node="n1", length=HOUR)
    eve = world.run("eve", node="n2")
    world.ask("bob", 2, length=HOUR)
    cy = world.ask("cy", length=9 * HOUR)
    assert not world.granted(cy), "it would delay bob"
    world.end(eve)
    assert world.granted(cy) and world.lease(cy).node == "n2"


@pytest.mark.parametrize("booked", [False, True])
def test_of_two_kinds_the_first_one_gets_the_node_that_is_free_soonest(booked):
    world = world_with("g1", gpu("h1", "n2", model="H100", memory=80 * GIB), gpu("k1", "n3"))
    world.run("ann", node="n1", length=4 * HOUR)
    world.run("bob", node="n2", length=HOUR)
    if booked:
        world.book("k1", lasts=1000 * HOUR)
    else:
        world.run("cy", node="n3", length=5 * HOUR)
    request = world.one(length=8 * HOUR)
    world.ask("dan", length=8 * HOUR)
    backfill, capacity = world.state._queue.backfill, world.state._queue.capacity
    reserved = backfill.reserve(capacity.want(request))
    assert (reserved.node, reserved.at) == ("n2", world.now + HOUR)


def test_a_group_that_waits_only_for_what_may_not_pass_is_not_looked_at():
    names = ("lab", "team", "crew", "last")
    shares = tuple(Share(name=name) for name in names)
    limits = Limits(users={"zed": 1})
    settings = Settings(fairness=Fairness(shares=shares), limits=limits)
    world = World("g1", "g2", "g3", settings=settings)
    world.run("zed", groups=("last",), length=10 * HOUR)
    world.run("run", length=2 * HOUR)
    world.ask("ann", 3, groups=("lab",))
    for name in ("team", "crew"):
        world.ask(name, groups=(name,))
    world.ask("zed/b", groups=("last",), length=60.0)
    who = ["ann", "team", "crew", "zed/b"]
    assert [user for user, _ in world.line()] == who
    assert not any(world.granted(world.state.tables.queued_of.get(key(u), "")) for u in who)
