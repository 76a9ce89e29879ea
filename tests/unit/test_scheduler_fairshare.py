"""The order of the line: usage, shares, priorities, age."""

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.scheduler.models import Limits, Reason, Settings
from jupyterhub_gpuspawner.scheduler.policy import DAY, HOUR, Fairness, Share
from tests.unit.scheduler_world import GIB, World, used_now

UNI = (
    Share(name="physics", quota=2),
    Share(name="theory", parent="physics"),
    Share(name="lasers", parent="physics", weight=3.0),
    Share(name="teaching", quota=1, borrow=1),
)


def world_with(*gpus: str, limits: Limits | None = None, **fairness) -> World:
    return World(*gpus, settings=Settings(fairness=Fairness(**fairness), limits=limits or Limits()))


def line(world: World) -> list[str]:
    return [user for user, _ in world.line()]


def had(world: World, user: str, hours: float, groups: tuple[str, ...] = ()) -> None:
    """The user had a GPU for so long."""
    lease = world.run(user, groups=groups, length=hours * HOUR)
    world.tick(hours * HOUR)
    world.end(lease)


# -- usage -----------------------------------------------------------------------------------


def test_who_has_used_less_is_served_first():
    world = world_with("g1")
    had(world, "ann", 10)
    world.run("bob", length=HOUR)
    world.ask("ann")
    world.ask("bob/two")
    world.ask("cy")
    assert line(world) == ["cy", "bob/two", "ann"]


def test_equal_users_are_served_in_the_order_of_arrival():
    world = world_with("g1")
    world.run("ann")
    for user in ("bob", "cy", "dan"):
        world.ask(user)
    assert line(world) == ["bob", "cy", "dan"]


def test_a_grant_is_charged_for_its_whole_length_at_once():
    world = world_with("g1", "g2")
    world.run("ann", length=24 * HOUR)
    world.run("bob", length=1 * HOUR)
    world.ask("ann/two")
    world.ask("bob/two")
    assert line(world) == ["bob/two", "ann/two"]


def test_what_was_not_used_is_refunded_at_the_end():
    world = world_with("g1", "g2")
    ann = world.run("ann", length=24 * HOUR)
    world.run("bob", length=4 * HOUR)
    world.tick(HOUR)
    world.end(ann)
    world.run("cy", length=24 * HOUR)
    world.ask("bob/two")
    world.ask("ann/two")
    assert line(world) == ["ann/two", "bob/two"]


def test_a_lease_that_never_started_costs_nothing():
    world = world_with("g1")
    world.cancel(world.ask("ann", length=24 * HOUR))
    (account,) = world.state._core.usage._accounts.values()
    assert account.used == 0.0


def test_a_request_without_a_length_is_charged_for_a_day():
    world = world_with("g1", "g2")
    world.run("ann")
    world.run("bob", length=23 * HOUR)
    world.ask("ann/two")
    world.ask("bob/two")
    assert line(world) == ["bob/two", "ann/two"]


def test_old_usage_counts_half_after_each_half_life():
    world = world_with("g1", half_life=DAY)
    had(world, "ann", 10)
    world.tick(3 * DAY)
    had(world, "bob", 2)
    world.run("cy", length=24 * HOUR)
    world.ask("ann", length=HOUR)
    world.ask("bob", length=HOUR)
    assert line(world) == ["ann", "bob"]
    usage = world.state._core.usage
    ann = usage.account("hub", "ann", ())
    granted = 1000.0
    expected = 10 * HOUR * 2 ** -((world.now - granted) / DAY)
    assert used_now(usage, ann, world.now) == pytest.approx(expected)


def test_centuries_of_half_lives_overflow_nothing():
    world = world_with("g1", half_life=60.0)
    for _ in range(5):
        had(world, "ann", 100)
        had(world, "bob", 101)
    world.tick(1000 * HOUR)
    had(world, "ann", 0.02)
    world.run("cy")
    world.ask("ann", length=60.0)
    world.ask("bob", length=60.0)
    assert line(world) == ["bob", "ann"]


def test_usage_is_known_again_after_a_restart():
    world = world_with("g1")
    had(world, "ann", 5)
    world.run("cy")
    ann, bob = world.ask("ann"), world.ask("bob")
    again = world.restart()
    past = [d for d in world.history(LeaseStored) if not d.lease.live]
    again.state.restore(past, again.now)
    assert line(again) == line(world) == ["bob", "ann"]
    assert {ann, bob} <= set(again.state.tables.entries)


def test_without_fair_shares_the_order_is_that_of_arrival():
    world = world_with("g1", by_usage=False)
    had(world, "ann", 10)
    world.run("cy")
    world.ask("ann")
    world.ask("bob")
    assert line(world) == ["ann", "bob"]


# -- shares ----------------------------------------------------------------------------------


def test_a_group_below_its_quota_comes_first_whatever_it_has_used():
    world = world_with("g1", "g2", shares=UNI)
    had(world, "ann", 50, ("theory",))
    world.run("cy")
    world.run("dan")
    world.ask("eve")
    world.ask("ann", groups=("theory",))
    assert line(world) == ["ann", "eve"]


def test_the_weight_of_a_group_divides_its_usage():
    world = world_with("g1", shares=UNI)
    had(world, "ann", 2, ("lasers",))
    had(world, "bob", 1, ("theory",))
    world.run("cy")
    world.ask("bob", groups=("theory",))
    world.ask("ann", groups=("lasers",))
    assert line(world) == ["ann", "bob"]


def test_members_of_a_share_with_parts_are_one_part_of_it():
    world = world_with("g1", shares=UNI)
    had(world, "ann", 2, ("theory",))
    world.run("cy")
    world.ask("ann", groups=("theory",))
    world.ask("pat", groups=("physics",))
    assert line(world) == ["pat", "ann"], "theory has used more than the others of physics"
    usage = world.state._core.usage
    assert usage.leaf(("physics",)) is not usage.leaf(("theory",))


def test_a_group_may_borrow_only_so_many():
    world = world_with("g1", "g2", "g3", shares=UNI)
    first = world.run("ann", groups=("teaching",))
    world.run("bob", groups=("teaching",))
    cy = world.ask("cy", groups=("teaching",))
    assert world.why("cy") is Reason.GROUP_LIMIT
    assert world.granted(world.ask("dan", 0, groups=("teaching",)))
    assert world.granted(world.ask("eve"))
    world.end(first)
    assert world.granted(cy)


def test_two_gpus_are_not_granted_where_one_is_left_to_borrow():
    world = world_with("g1", "g2", "g3", shares=UNI)
    world.run("ann", groups=("teaching",))
    world.ask("bob", 2, groups=("teaching",))
    assert world.why("bob") is Reason.GROUP_LIMIT


def test_more_than_a_group_may_ever_hold_is_refused_at_once():
    world = world_with("g1", "g2", "g3", shares=UNI)
    with pytest.raises(RefusedError) as caught:
        world.ask("ann", 3, groups=("teaching",))
    assert caught.value.reason == Reason.ABOVE_GROUP_LIMIT


def test_a_user_of_two_shares_belongs_to_the_first_one_listed():
    world = world_with("g1", shares=UNI)
    usage = world.state._core.usage
    assert usage.leaf(("teaching", "theory")).name == "theory"
    assert usage.leaf(("nobody", "else")).name == ""


def test_other_shares_keep_the_usage_and_stop_nothing():
    world = world_with("g1", "g2")
    had(world, "ann", 5, ("lasers",))
    ann = world.run("ann", groups=("lasers",), length=HOUR)
    world.run("cy", length=HOUR)
    world.ask("ann/two", groups=("lasers",))
    world.ask("bob", groups=("theory",))
    assert line(world) == ["bob", "ann/two"]
    usage = world.state._core.usage
    before = used_now(usage, usage.account("hub", "ann", ("lasers",)), world.now)
    fairness = Fairness(shares=UNI, half_life=DAY)
    world.do(events.SettingsChanged(settings=Settings(fairness=fairness)))
    usage = world.state._core.usage
    assert usage.leaf(("lasers",)).held == 1
    mine = usage.account("hub", "ann", ("lasers",))
    assert used_now(usage, mine, world.now) == pytest.approx(before)
    assert world.lease(ann).live


def test_a_user_at_the_limit_is_passed_over_but_not_for_a_server_without_gpu():
    world = world_with("g1", "g2", "g3", limits=Limits(per_user=1))
    world.run("ann")
    two = world.ask("ann/two")
    bare = world.ask("ann/three", 0)
    assert not world.granted(two) and world.granted(bare)


# -- priorities ------------------------------------------------------------------------------


@pytest.mark.parametrize("by_usage", [True, False])
def test_a_higher_priority_is_served_first(by_usage):
    world = world_with("g1", by_usage=by_usage, priorities={"exam": 5, "guests": -5})
    world.run("ann")
    world.ask("gus", groups=("guests",))
    world.ask("bob")
    exam = world.ask("eva", groups=("guests", "exam"))
    assert line(world) == ["eva", "bob", "gus"]
    world.end("e1")
    assert world.granted(exam)


@pytest.mark.parametrize("by_usage", [True, False])
def test_a_request_to_which_an_admin_gave_priority_is_served_first(by_usage):
    world = world_with("g1", by_usage=by_usage, priorities={"guests": -5})
    world.run("ann")
    world.ask("bob")
    world.ask("cy")
    gus = world.ask("gus", groups=("guests",))
    world.do(events.PriorityGiven(entry_id=gus, priority=4))
    assert line(world) == ["bob", "cy", "gus"], "it counts from where the groups put it"
    world.do(events.PriorityGiven(entry_id=gus, priority=6))
    world.do(events.PriorityGiven(entry_id=gus, priority=6))
    assert line(world) == ["gus", "bob", "cy"]
    assert world.ask("gus", groups=("guests",)) == gus, "who asks again keeps it"
    assert line(world) == ["gus", "bob", "cy"]
    world.end("e1")
    assert world.granted(gus)
    decided = world.do(events.PriorityGiven(entry_id=gus, priority=9))
    assert decided == [], "it waits no more"


# -- age -------------------------------------------------------------------------------------


def test_past_the_age_guard_nobody_younger_overtakes():
    world = world_with("g1", "g2", age_guard=DAY)
    had(world, "bob", 40)
    ann = world.run("ann", length=100 * HOUR)
    bob = world.ask("bob", 2, length=HOUR)
    short = world.ask("cy", length=HOUR)
    assert world.granted(short), "before, who ends in time passes"
    world.bind(short)
    world.end(short)
    world.tick(DAY + 1)
    assert not world.granted(world.ask("dan", length=HOUR)), "after it, nobody does"
    assert world.why("dan") is Reason.BEHIND_OTHERS
    assert line(world) == ["bob", "dan"]
    world.end(ann)
    assert world.granted(bob)


def test_shares_in_a_circle_are_refused():
    circle = (Share(name="a", parent="b"), Share(name="b", parent="a"))
    with pytest.raises(ValueError, match="shares a, b: the parent is no share, or a part"):
        world_with("g1", shares=circle)


def test_memory_and_processors_are_kept_for_the_old_one():
    settings = Settings(fairness=Fairness(age_guard=DAY), cpu_overcommit=0.5)
    world = World("g1", "g2", settings=settings)
    world.run("ann", memory=50 * GIB, cpu=4.0)
    world.ask("bob", memory=60 * GIB, cpu=6.0)
    world.tick(DAY + 1)
    assert not world.granted(world.ask("cy", 0, memory=30 * GIB, length=HOUR))
    assert not world.granted(world.ask("dan", 0, cpu=3.0, length=HOUR))
    assert world.granted(world.ask("eve", 0, cpu=2.0, memory=20 * GIB, length=HOUR)) is False
    assert world.granted(world.ask("fay", 0))


def test_when_all_are_old_the_oldest_is_served():
    world = world_with("g1", age_guard=DAY)
    ann = world.run("ann")
    bob, cy = world.ask("bob"), world.ask("cy")
    world.tick(DAY + 1)
    world.end(ann)
    assert world.granted(bob) and not world.granted(cy)


def test_past_the_age_guard_others_pass_on_what_the_old_one_can_not_use():
    world = World("g1", "h2", settings=Settings(fairness=Fairness(age_guard=DAY)))
    world.run("ann")
    world.ask("bob", 2)
    world.tick(DAY + 1)
    assert world.granted(world.ask("cy", 0))


def test_without_an_age_guard_nobody_is_old():
    world = world_with("g1", age_guard=None, age_first=None)
    had(world, "ann", 40)
    world.run("cy")
    world.ask("ann")
    world.tick(2.5 * DAY)
    world.ask("bob")
    assert line(world) == ["bob", "ann"]


def test_after_a_day_a_request_is_first_and_has_a_reservation():
    world = world_with("g1", "g2", age_guard=None)
    had(world, "bob", 40)
    world.run("ann", length=100 * HOUR)
    world.ask("bob", 2, length=HOUR)
    world.tick(DAY + 1)
    cy = world.ask("cy", 2, length=HOUR)
    assert line(world) == ["bob", "cy"]
    assert world.granted(world.ask("dan", length=HOUR)), "who delays nobody passes all the same"
    assert not world.granted(cy)


def test_what_the_length_weighs_beside_usage_is_the_admins_to_say():
    for weight, first in ((0.0, "ann"), (1.0, "ann"), (4.0, "bob")):
        world = world_with("g1", length_weight=weight)
        had(world, "bob", 30)
        world.run("cy")
        world.ask("ann", length=24 * HOUR)
        world.ask("bob", length=HOUR)
        assert line(world)[0] == first, f"a weight of {weight}"


def test_of_equal_users_the_one_who_asks_for_less_time_is_first():
    world = world_with("g1")
    world.run("ann")
    world.ask("bob", length=24 * HOUR)
    world.ask("cy", length=HOUR)
    world.ask("dan", 1, length=HOUR)
    assert line(world) == ["cy", "dan", "bob"]


def test_of_one_user_the_shorter_request_is_first():
    world = world_with("g1")
    world.run("ann")
    world.ask("bob/long", length=24 * HOUR)
    world.ask("bob/short", length=HOUR)
    assert line(world) == ["bob/short", "bob/long"]


def test_who_is_old_and_at_a_limit_of_his_own_holds_nobody_up():
    world = world_with("g1", "g2", limits=Limits(per_user=1), age_guard=DAY)
    world.run("ann")
    world.ask("ann/two")
    world.tick(DAY + 1)
    assert world.why("ann/two") is Reason.USER_LIMIT
    assert world.granted(world.ask("bob"))


def test_who_is_at_his_limit_in_a_higher_priority_holds_nobody_of_a_lower_one_up():
    settings = Settings(fairness=Fairness(priorities={"vip": 1}), limits=Limits(users={"ann": 1}))
    world = World("g1", "g2", "g3", "g4", settings=settings)
    world.run("ann", length=HOUR)
    world.ask("ann/two", groups=("vip",), length=HOUR)
    bob = world.ask("bob", 4, groups=("vip",), length=HOUR)
    cy = world.ask("cy", 4, length=HOUR)
    assert not world.granted(bob) and not world.granted(cy)
    assert world.granted(world.ask("dan", length=60.0)), "it ends before bob can start"
