"""Limits of users and groups: they delay and refuse, and never stop anything (S6)."""

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler.models import LeaseState, Limits, Reason, Settings
from tests.unit.scheduler_world import World

GPUS = ("g1", "g2", "g3", "g4")


def world_with(**limits) -> World:
    return World(*GPUS, settings=Settings(limits=Limits(**limits)))


@pytest.mark.parametrize(
    ("limits", "user", "groups", "count", "reason"),
    [
        ({"per_user": 2}, "ann", (), 3, Reason.ABOVE_USER_LIMIT),
        ({"per_user": 4, "users": {"ann": 1}}, "ann", (), 2, Reason.ABOVE_USER_LIMIT),
        ({"users": {"ann": 0}}, "ann", (), 1, Reason.ABOVE_USER_LIMIT),
        ({"groups": {"lab": 1}}, "ann", ("lab",), 2, Reason.ABOVE_GROUP_LIMIT),
        ({"groups": {"lab": 1, "all": 4}}, "ann", ("all", "lab"), 2, Reason.ABOVE_GROUP_LIMIT),
    ],
)
def test_more_than_a_limit_is_refused_at_once(limits, user, groups, count, reason):
    world = world_with(**limits)
    with pytest.raises(RefusedError) as caught:
        world.ask(user, count, groups=groups)
    assert caught.value.reason == reason
    assert caught.value.user_message == (f"You may hold fewer GPUs than the {count} you asked for.")
    assert f"asks for {count} GPUs, above the limit ({reason})" in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "user", "groups", "count"),
    [
        ({"per_user": 2}, "ann", (), 2),
        ({"per_user": 1, "users": {"ann": 3}}, "ann", (), 3),
        ({"groups": {"other": 1}}, "ann", ("lab",), 4),
        ({"users": {"ann": 0}, "groups": {"lab": 0}}, "ann", ("lab",), 0),
        ({}, "ann", (), 4),
    ],
)
def test_up_to_a_limit_is_granted(limits, user, groups, count):
    world = world_with(**limits)
    assert world.granted(world.ask(user, count, groups=groups))


def test_a_user_at_the_limit_waits_for_an_own_server_to_end():
    world = world_with(per_user=2)
    first = world.run("ann/a")
    world.run("ann/b")
    third = world.ask("ann/c")
    assert world.why("ann/c") is Reason.USER_LIMIT
    assert world.granted(world.ask("ann/free", 0))
    world.end(first)
    assert world.granted(third)


def test_a_group_at_its_limit_waits_for_a_server_of_its_members():
    world = world_with(groups={"lab": 2})
    ann = world.run("ann", groups=("lab",))
    world.run("bob", groups=("lab", "other"))
    cy = world.ask("cy", groups=("lab",))
    assert world.why("cy") is Reason.GROUP_LIMIT
    assert world.granted(world.ask("dan", groups=("other",)))
    world.end(ann)
    assert world.granted(cy)


def test_what_stops_still_counts_until_its_proof():
    world = world_with(per_user=1)
    first = world.run("ann/a")
    second = world.ask("ann/b")
    world.stop(first)
    assert world.why("ann/b") is Reason.USER_LIMIT
    world.gone(first)
    assert world.granted(second)


def test_a_lowered_limit_stops_nothing_and_a_raised_one_grants():
    world = world_with()
    servers = [world.run(f"ann/{n}", groups=("lab",)) for n in range(3)]
    world.limit(per_user=1, groups={"lab": 1})
    assert all(world.lease(id).state is LeaseState.RUNNING for id in servers)
    bob = world.ask("bob", groups=("lab",))
    assert world.why("bob") is Reason.GROUP_LIMIT
    world.limit(per_user=1)
    assert world.granted(bob)


def test_an_adopted_server_counts_for_its_user():
    world = world_with(per_user=1)
    world.find("ann", "c9", "g1")
    world.ask("ann/b")
    assert world.why("ann/b") is Reason.USER_LIMIT


def test_limits_are_of_one_hub():
    world = world_with(per_user=1)
    world.run("ann")
    other = world.state.tables.held_by_user
    key = world.state.tables.leases["e1"].key
    assert other(key) == 1
    assert other(type(key)(hub="hub-2", user="ann")) == 0
