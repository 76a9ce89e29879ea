"""GPU hours for users and groups in each period: charged at the grant, refunded at an early end."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.budgets import MONDAY
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.scheduler.models import Limits, Reason, Settings
from jupyterhub_gpuspawner.scheduler.policy import DAY, HOUR, Budget, Fairness
from jupyterhub_gpuspawner.scheduler.state import SchedulerState
from tests.unit.scheduler_world import World, key, stored

WEEK = 7 * DAY


def site(gpus: int = 4, **limits: Any) -> World:
    world = World(*(f"g{n}" for n in range(gpus)), settings=Settings(limits=Limits(**limits)))
    world.now = MONDAY + 100 * WEEK
    return world


def hours(amount: float, period: float = WEEK) -> Budget:
    return Budget(hours=amount, period=period)


def spent(world: World, kind: str, name: str, budget: Budget) -> float:
    return world.state._core.spent.spent(("hub", kind, name), budget, world.now) / HOUR


def test_a_grant_is_charged_for_its_whole_length_and_refunded_at_an_early_end() -> None:
    world = site(user_budget=hours(10))
    lease = world.run("ann", 2, length=4 * HOUR)
    assert spent(world, "user", "ann", hours(10)) == 8
    world.now += HOUR
    second = world.ask("ann/b", length=4 * HOUR)
    assert world.why("ann/b") is Reason.USER_BUDGET
    world.end(lease)
    assert spent(world, "user", "ann", hours(10)) == 2 + 4
    assert world.granted(second), "the refund was enough"


def test_who_waits_for_his_budget_holds_nobody_up() -> None:
    world = site(1, user_budget=hours(10))
    lease = world.run("ann", length=9 * HOUR)
    world.ask("ann/b", length=8 * HOUR)
    bob = world.ask("bob", length=8 * HOUR)
    world.now += 5 * HOUR
    world.end(lease)
    assert world.granted(bob)


def test_the_next_period_begins_on_monday_and_with_it_the_whole_budget() -> None:
    world = site(user_budget=hours(10))
    world.now += WEEK - HOUR
    world.run("ann", length=10 * HOUR)
    second = world.ask("ann/b", length=10 * HOUR)
    world.tick(HOUR - 1)
    assert world.why("ann/b") is Reason.USER_BUDGET
    world.tick(1)
    assert world.granted(second), "what was granted on Sunday counts in the old week"


def test_a_server_that_stays_longer_than_its_length_is_charged_for_that() -> None:
    world = site(user_budget=hours(10))
    lease = world.run("ann", length=HOUR)
    world.now += 7 * HOUR
    world.end(lease)
    assert spent(world, "user", "ann", hours(10)) == 7


def test_a_request_without_a_length_is_charged_for_the_length_of_the_settings() -> None:
    world = site(user_budget=hours(30))
    world.run("ann")
    assert spent(world, "user", "ann", hours(30)) == 24
    assert world.why_not("ann/b") is Reason.USER_BUDGET


@pytest.mark.parametrize(
    ("limits", "reason", "words"),
    [
        (
            {"user_budget": Budget(hours=10, period=WEEK)},
            Reason.ABOVE_USER_BUDGET,
            "You asked for 12 GPU hours; your budget is 10 GPU hours in 7 days.",
        ),
        (
            {"group_budgets": {"lab": Budget(hours=11.5, period=DAY)}},
            Reason.ABOVE_GROUP_BUDGET,
            "You asked for 12 GPU hours; your group's budget is 11.5 GPU hours in 24 h.",
        ),
    ],
)
def test_a_request_above_the_whole_budget_is_refused_with_the_numbers(
    limits: dict[str, Any], reason: Reason, words: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        site(**limits).ask("ann", 2, length=6 * HOUR, groups=("lab",))
    assert (refused.value.reason, refused.value.user_message) == (reason.value, words)


def test_all_of_a_users_groups_have_to_have_hours_left() -> None:
    world = site(group_budgets={"lab": hours(10), "all": hours(12)})
    world.run("ann", length=8 * HOUR, groups=("lab", "all"))
    assert world.granted(world.ask("bob", length=4 * HOUR, groups=("all",)))
    assert world.why_not("cy", length=2 * HOUR, groups=("lab", "all")) is Reason.GROUP_BUDGET
    assert world.granted(world.ask("dan", length=2 * HOUR, groups=("lab",)))
    assert world.granted(world.ask("eve", length=20 * HOUR))


def test_a_users_own_budget_replaces_the_one_for_all() -> None:
    world = site(user_budget=hours(1), user_budgets={"ann": hours(20), "root": None})
    assert world.granted(world.ask("ann", length=20 * HOUR))
    assert world.granted(world.ask("root", length=900 * HOUR))
    with pytest.raises(RefusedError):
        world.ask("bob", length=20 * HOUR)


def test_a_server_without_a_gpu_costs_nothing() -> None:
    world = site(user_budget=hours(0))
    assert world.granted(world.ask("ann", 0, length=20 * HOUR))
    with pytest.raises(RefusedError):
        world.ask("ann/b", length=HOUR)


def test_other_budgets_count_what_was_charged_under_the_old_ones() -> None:
    world = site(user_budget=hours(20))
    world.run("ann", length=8 * HOUR)
    world.do(events.SettingsChanged(settings=Settings(limits=Limits(user_budget=hours(10)))))
    assert world.why_not("ann/b", length=4 * HOUR) is Reason.USER_BUDGET
    world.do(events.SettingsChanged(settings=Settings()))
    assert world.granted("e2")
    world.ask("cy")
    world.do(events.SettingsChanged(settings=Settings(fairness=Fairness(by_usage=False))))


def test_after_a_restart_as_much_is_spent_as_before() -> None:
    world = site(user_budget=hours(10))
    world.run("ann", length=4 * HOUR)
    ended = world.run("ann/b", length=6 * HOUR)
    world.now += HOUR
    world.end(ended)
    had = [d for d in world.history(LeaseStored) if d.lease.id == ended][-1:]
    again = SchedulerState(world.state.settings, epoch=2)
    again.restore([*had, *stored(world.state.tables)], world.now)
    for state in (world.state, again):
        held = state._core.spent.spent(("hub", "user", "ann"), hours(10), world.now)
        assert held == 5 * HOUR


def test_periods_that_are_over_are_forgotten() -> None:
    world = site(1, user_budget=hours(10, DAY))
    for _ in range(1100):
        world.state.handle(
            events.Submitted(
                entry_id=f"x{world.now}", key=key("ann"), request=world.one(length=HOUR)
            ),
            world.now,
        )
        (lease,) = world.state.tables.leases.values()
        world.now += HOUR
        world.state.handle(events.StopWanted(lease_id=lease.id), world.now)
        world.now += 2 * HOUR
    ledger = world.state._core.spent
    assert len(ledger._charges) < 200
    assert len(ledger._sums) < 30


def test_what_is_left_of_the_budgets_of_a_user_and_of_his_groups_is_told() -> None:
    world = site(user_budget=hours(10), group_budgets={"lab": hours(20, DAY)})
    world.run("ann", length=4 * HOUR, groups=("all", "lab"))
    own, group = world.state.standing("hub", "ann", ("all", "lab"))
    assert own == (("hub", "user", "ann"), hours(10), 4 * HOUR, MONDAY + 101 * WEEK)
    assert group[0] == ("hub", "group", "lab") and group[2] == 4 * HOUR
    assert world.state.spent("hub", "lab", hours(20, DAY)) == 4 * HOUR
