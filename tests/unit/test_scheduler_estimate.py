"""When somebody will probably start: learnt stays, and the line played forward."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.estimate import MOST
from jupyterhub_gpuspawner.scheduler.models import Admin, Limits, Mode, Settings
from tests.unit.scheduler_world import GIB, World, gpu

HOUR = 3600.0


def learn(world: World, *hours: float, length: float = 4 * HOUR) -> None:
    """Servers of a length that stayed so long."""
    for number, stay in enumerate(hours):
        lease = world.run(f"old{number}", 1, length=length)
        world.now += stay * HOUR
        world.end(lease)


def expected(world: World, entry: str) -> float | None:
    """Hours from now."""
    at = world.state.starts()[entry]
    return None if at is None else (at - world.now) / HOUR


@pytest.mark.parametrize(
    ("hours", "already", "more"),
    [
        ((), 1.0, 3.0),
        ((1, 1, 2, 2), 1.0, 3.0),
        ((1, 1, 2, 2, 4), 0.0, 2.0),
        ((1, 1, 2, 2, 4), 3.0, 1.0),
        ((1, 1, 2, 2, 4), 5.0, 0.0),
        ((), 5.0, 0.0),
    ],
)
def test_a_server_is_expected_to_stay_as_long_as_others_did(hours, already, more):
    world = World("g0")
    learn(world, *hours)
    world.run("ann", 1, length=4 * HOUR)
    world.now += already * HOUR
    entry = world.ask("bob", 1, length=HOUR)
    assert expected(world, entry) == pytest.approx(more)


def test_each_one_in_line_starts_after_those_before():
    world = World("g0", "g1")
    world.run("ann", 1, length=4 * HOUR)
    world.run("bob", 1, length=HOUR)
    entries = [world.ask(user, 1, length=2 * HOUR) for user in ("cid", "dee", "eve")]
    assert sorted(expected(world, entry) for entry in entries) == pytest.approx([1, 3, 4])
    both = world.ask("fay", 2, length=24 * HOUR)
    assert expected(world, both) == pytest.approx(6)


def test_a_server_that_stops_is_gone_and_one_without_a_length_stays_a_day():
    world = World("g0", "g1")
    lease = world.run("ann", 1)
    world.run("bob", 1)
    entry = world.ask("cid", 1)
    assert expected(world, entry) == pytest.approx(24)
    world.stop(lease)
    assert expected(world, entry) == 0
    assert expected(world, world.ask("dee", 1)) == pytest.approx(24)


def test_slots_and_mig_instances_are_free_with_what_they_share():
    world = World(gpu("g0", mode=Mode.SLOTS, atoms=2))
    world.run("ann", 1, sharing=Mode.SLOTS, length=HOUR)
    world.run("bob", 1, sharing=Mode.SLOTS, length=2 * HOUR)
    assert expected(world, world.ask("cid", 1, sharing=Mode.SLOTS)) == pytest.approx(1)
    other = World(gpu("g0"), gpu("m1", mode=Mode.MIG, parent="g0"))
    other.run("ann", 1, length=HOUR)
    assert expected(other, other.ask("bob", 1, sharing=Mode.MIG)) == pytest.approx(1)


def test_the_machine_that_is_free_soonest_counts():
    world = World(gpu("g0", "n1"), gpu("g1", "n2"))
    world.run("ann", 1, node="n1", length=HOUR)
    world.run("bob", 1, node="n2", length=2 * HOUR)
    assert expected(world, world.ask("cid", 1)) == pytest.approx(1)


def test_where_nobody_can_say_nothing_is_said():
    world = World(gpu("g0", "n1"), gpu("g1", "n2"))
    world.run("ann", 1, node="n1", length=HOUR)
    waits = world.ask("bob", 1, node="n1")
    world.admin(Admin.CORDONED, node="n1")
    assert expected(world, waits) is None
    world.detach(waits)
    assert waits not in world.state.starts()


def test_a_free_gpu_that_is_kept_is_expected_now():
    world = World("g0", "g1", settings=Settings(limits=Limits(per_user=1)))
    world.run("ann", 1)
    assert expected(world, world.ask("ann/second", 1)) == 0


def test_a_server_without_gpu_that_waits_for_memory_is_expected_now():
    # memory is not looked at
    world = World("g0")
    world.ask("ann", 0, memory=60 * GIB)
    assert expected(world, world.ask("bob", 0, memory=60 * GIB)) == 0


def test_old_stays_are_forgotten_and_starts_that_failed_teach_nothing(monkeypatch):
    monkeypatch.setattr("jupyterhub_gpuspawner.scheduler.estimate._REMEMBERED", 6)
    world = World("g0")
    learnt = world.state._core.learnt
    learn(world, *[4] * 3, *[1] * 6)
    assert learnt.stay(4 * HOUR) == HOUR
    assert learnt.stay(4 * HOUR, 2 * HOUR) == 4 * HOUR
    world.stop(world.ask("ann", 1, length=8 * HOUR))
    assert learnt.stay(8 * HOUR) == 8 * HOUR


def test_each_is_expected_where_it_is_soonest_after_those_before():
    world = World(gpu("g0", "n1"), gpu("g1", "n2"), gpu("g2", "n3"))
    for hours in (1, 2, 3):
        world.run(f"holder{hours}", 1, length=hours * HOUR)
    entries = [world.ask(f"user{number}", 1, length=HOUR) for number in range(4)]
    assert [expected(world, entry) for entry in entries] == [1, 2, 2, 3]


def test_nobody_can_say_when_while_a_gpu_that_is_needed_is_kept_free():
    world = World("g0", "g1")
    world.do(events.AdminAsked(admin=Admin.CORDONED, device="g1"))
    assert expected(world, world.ask("ann", 2, length=HOUR)) is None


def test_only_the_first_ones_are_estimated():
    world = World("g0", settings=Settings(limits=Limits(queued_per_user=MOST + 9)))
    world.run("ann", 1)
    for number in range(MOST + 3):
        world.ask(f"bob/s{number}", 1)
    assert len(world.state.starts()) == MOST
