"""Past its length a server goes only for somebody who waits, and only after a warning."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import (
    LeaseState,
    Limits,
    Mode,
    NodeState,
    Reason,
    Settings,
    Target,
)
from jupyterhub_gpuspawner.scheduler.policy import HOUR, Budget, Fairness, Share
from tests.unit.scheduler_world import GIB, World, gpu

WARNING = 1800.0


def site(*devices: Any, **settings: Any) -> World:
    return World(*devices, settings=Settings(reclaim_warning=WARNING, **settings))


def stays(world: World, lease_id: str) -> bool:
    lease = world.lease(lease_id)
    return lease.state is LeaseState.RUNNING and not lease.warned and lease.stop_at is None


def warned(world: World, lease_id: str) -> bool:
    lease = world.lease(lease_id)
    return lease.state is LeaseState.RUNNING and lease.warned and lease.stop_at is not None


def stopped(world: World, lease_id: str) -> bool:
    lease = world.lease(lease_id)
    gone = lease.state is LeaseState.STOPPING and lease.target is Target.GONE
    return gone and lease.reason is Reason.RECLAIMED


def extend(world: World, lease_id: str, seconds: float) -> None:
    world.do(events.ExtensionAsked(lease_id=lease_id, ends_at=world.now + seconds))


def test_past_its_length_a_server_stays_as_long_as_nobody_waits() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    world.tick(100 * HOUR)
    assert stays(world, ann)


def test_within_its_length_it_stays_whoever_waits() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    world.ask("bob")
    world.tick(HOUR - 1)
    assert stays(world, ann)


def test_a_server_without_a_length_is_never_taken_back() -> None:
    world = site("g1")
    ann = world.run("ann")
    world.ask("bob")
    world.tick(1000 * HOUR)
    assert stays(world, ann)


def test_without_the_option_nothing_is_taken_back() -> None:
    world = World("g1")
    ann = world.run("ann", length=HOUR)
    world.ask("bob")
    world.tick(100 * HOUR)
    assert stays(world, ann)


def test_it_is_warned_then_stopped_and_the_one_who_waits_is_granted() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    bob = world.ask("bob", length=HOUR)
    world.tick(HOUR)
    assert warned(world, ann)
    assert world.lease(ann).stop_at == world.now + WARNING
    world.tick(WARNING - 1)
    assert warned(world, ann), "never before its warned end"
    world.tick(1)
    assert stopped(world, ann)
    world.gone(ann)
    assert world.granted(bob)


def test_the_warning_is_withdrawn_when_nobody_waits_any_more() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    bob = world.ask("bob")
    world.tick(HOUR)
    world.cancel(bob)
    world.tick(WARNING)
    assert stays(world, ann)
    world.ask("cy")
    world.tick(1)
    assert world.lease(ann).stop_at == world.now + WARNING, "a new warning, in full"


def test_who_could_not_use_it_takes_nothing_from_anybody() -> None:
    world = site("g1", gpu("h1", "n2", model="H100"))
    ann = world.run("ann", length=HOUR, model="A100")
    world.run("bob", model="H100")
    world.ask("cy", model="H100")
    world.ask("ann/b", 1, id="limited")
    world.detach("limited")
    world.tick(2 * HOUR)
    assert stays(world, ann)


def test_who_waits_for_a_limit_of_his_own_takes_nothing_from_anybody() -> None:
    world = site("g1", "g2", limits=Limits(per_user=1))
    ann = world.run("ann", length=HOUR)
    world.run("bob")
    world.ask("bob/b")
    world.tick(2 * HOUR)
    assert stays(world, ann)


def test_no_more_have_to_go_than_are_needed_and_the_longest_past_its_end_goes_first() -> None:
    world = site("g1", "g2", "g3")
    ann = world.run("ann", length=2 * HOUR)
    bob = world.run("bob", length=HOUR)
    cy = world.run("cy", length=9 * HOUR)
    world.ask("dan")
    world.tick(3 * HOUR)
    assert (warned(world, bob), stays(world, ann), stays(world, cy)) == (True, True, True)
    world.ask("eve")
    world.tick(1)
    assert warned(world, ann)
    world.tick(WARNING)
    assert stopped(world, bob) and stopped(world, ann)


def test_what_stops_already_counts_for_those_who_wait() -> None:
    world = site("g1", "g2")
    ann = world.run("ann", length=HOUR)
    bob = world.run("bob", length=HOUR)
    world.ask("cy")
    world.stop(bob)
    world.tick(2 * HOUR)
    assert stays(world, ann)


def test_a_large_request_is_not_helped_by_half() -> None:
    world = site("g1", "g2")
    ann = world.run("ann", length=HOUR)
    world.run("bob", length=90 * HOUR)
    world.ask("cy", 2)
    world.tick(2 * HOUR)
    assert stays(world, ann)


def test_borrowed_gpus_go_first() -> None:
    shares = (Share(name="lab", quota=2), Share(name="course", quota=0))
    world = site("g1", "g2", fairness=Fairness(shares=shares))
    ann = world.run("ann", length=HOUR, groups=("lab",))
    bob = world.run("bob", length=2 * HOUR, groups=("course",))
    world.ask("cy")
    world.tick(3 * HOUR)
    assert warned(world, bob), "it is past its end for a shorter time, and borrows"
    assert stays(world, ann)


def test_one_lease_of_many_gpus_is_one_that_goes() -> None:
    world = site("g1", "g2", "g3")
    ann = world.run("ann", 2, length=HOUR)
    bob = world.run("bob", length=HOUR)
    world.ask("cy", 2)
    world.tick(2 * HOUR)
    assert (warned(world, ann), stays(world, bob)) == (True, True)


def test_memory_is_taken_back_where_it_is_what_is_missing() -> None:
    world = site("g1", "g2", cpu_overcommit=1.0)
    ann = world.run("ann", 0, length=HOUR, memory=60 * GIB, cpu=1.0)
    world.ask("cy", memory=40 * GIB, cpu=2.0)
    world.ask("dan", 0, memory=81 * GIB // 2)
    world.tick(2 * HOUR)
    assert warned(world, ann)


def test_memory_that_stays_helps_nobody() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    world.run("bob", 0, memory=60 * GIB)
    world.ask("cy", memory=40 * GIB)
    world.tick(2 * HOUR)
    assert stays(world, ann)


def test_of_a_shared_gpu_one_slot_is_enough() -> None:
    world = site(gpu("s1", mode=Mode.SLOTS, atoms=2))
    ann = world.run("ann", length=HOUR, sharing=Mode.SLOTS)
    bob = world.run("bob", length=2 * HOUR, sharing=Mode.SLOTS)
    world.ask("cy", sharing=Mode.SLOTS)
    world.tick(3 * HOUR)
    assert (warned(world, ann), stays(world, bob)) == (True, True)


def test_instances_of_a_gpu_go_for_one_who_waits_for_the_whole() -> None:
    parts = [gpu(f"m{n}", mode=Mode.MIG, parent="g1", memory=GIB) for n in (1, 2)]
    world = site("g1", *parts)
    ann = world.run("ann", length=HOUR, sharing=Mode.MIG)
    bob = world.run("bob", length=HOUR, sharing=Mode.MIG)
    world.ask("cy")
    world.tick(2 * HOUR)
    assert warned(world, ann) and warned(world, bob)


def test_of_a_silent_node_nothing_is_warned_stopped_or_withdrawn() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    world.ask("bob")
    world.tick(HOUR)
    world.node_is(NodeState.SILENT)
    world.tick(WARNING + HOUR)
    assert world.lease(ann).warned and world.lease(ann).state is LeaseState.RUNNING
    world.report()
    world.do(events.NodeReconciled(node="n1"))
    world.tick(1)
    assert stopped(world, ann)


def test_who_was_stopped_is_not_in_turn_stopping_the_other() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    bob = world.ask("bob", length=HOUR)
    world.tick(HOUR)
    world.tick(WARNING)
    world.gone(ann)
    world.bind(bob)
    world.running(bob)
    world.ask("ann", length=HOUR)
    world.tick(HOUR - 1)
    assert stays(world, bob), "each has a whole length"


def test_an_extension_moves_the_end_while_nobody_waits() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    world.tick(HOUR / 2)
    extend(world, ann, HOUR)
    extend(world, ann, HOUR)
    assert world.lease(ann).ends_at == world.now + HOUR
    world.ask("bob")
    world.tick(HOUR - 1)
    assert stays(world, ann)
    world.tick(1)
    assert warned(world, ann)


@pytest.mark.parametrize(
    ("seconds", "waits", "reason"),
    [
        (HOUR + 1, False, Reason.TOO_LONG),
        (HOUR, True, Reason.OTHERS_WAIT),
        (HOUR, False, Reason.USER_BUDGET),
    ],
)
def test_an_extension_is_refused_with_the_reason(
    seconds: float, waits: bool, reason: Reason
) -> None:
    week = 7 * 24 * HOUR
    world = site("g1", limits=Limits(user_budgets={"ann": Budget(hours=1.5, period=week)}))
    ann = world.run("ann", length=HOUR)
    world.tick(HOUR - 10)
    if waits:
        world.ask("bob")
    with pytest.raises(RefusedError) as refused:
        extend(world, ann, seconds)
    assert refused.value.reason == reason.value
    assert "." in refused.value.user_message


def test_what_is_over_or_has_no_end_is_not_extended() -> None:
    world = site("g1")
    ann = world.run("ann")
    extend(world, ann, HOUR)
    assert world.lease(ann).ends_at is None
    world.end(ann)
    with pytest.raises(RefusedError):
        extend(world, ann, HOUR)


def test_a_warning_survives_a_restart() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    bob = world.ask("bob")
    world.tick(HOUR)
    again = world.restart()
    again.tick(1)
    assert again.lease(ann).warned, "nothing is known of the node yet"
    again.report()
    again.ask("bob", id=bob)
    again.do(events.NodeReconciled(node="n1"))
    again.tick(1)
    assert again.lease(ann).stop_at == world.lease(ann).stop_at


def test_who_is_to_come_back_keeps_the_warning_and_only_who_is_there_lets_it_end() -> None:
    world = site("g1")
    ann = world.run("ann", length=HOUR)
    world.ask("bob", groups=("x",))
    world.tick(HOUR)
    again = world.restart()
    again.report()
    again.do(events.NodeReconciled(node="n1"))
    again.now += WARNING
    again.state._core.awaited = dict.fromkeys(again.state._core.awaited, again.now + 5)
    again.tick()
    assert warned(again, ann), "bob may not come back"
    again.tick(6)
    assert stays(again, ann), "he did not"


def test_of_two_on_one_gpu_the_one_within_its_length_stays() -> None:
    world = site(gpu("s1", mode=Mode.SLOTS, atoms=2))
    ann = world.run("ann", length=HOUR, sharing=Mode.SLOTS)
    bob = world.run("bob", length=100 * HOUR, sharing=Mode.SLOTS)
    world.ask("cy", sharing=Mode.SLOTS)
    world.tick(2 * HOUR)
    assert warned(world, ann) and stays(world, bob)


def test_nobody_is_warned_for_two_whom_it_would_not_help() -> None:
    world = site("g1", "g2")
    ann = world.run("ann", length=HOUR)
    bob = world.run("bob", length=100 * HOUR)
    world.ask("cy", 2)
    world.ask("dan", 2)
    world.tick(2 * HOUR)
    assert stays(world, ann) and stays(world, bob)
