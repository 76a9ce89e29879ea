"""Bookings: devices that an admin keeps for some users in a window of time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import BookingStored
from jupyterhub_gpuspawner.scheduler.models import Admin, Booking, Reason, Settings
from jupyterhub_gpuspawner.scheduler.policy import HOUR, Fairness
from tests.unit.scheduler_world import World, gpu

COURSE = ("course",)


def cancel(world: World, booking: str) -> None:
    world.do(events.BookingCancelled(booking_id=booking))


def test_in_its_window_a_booked_gpu_goes_only_to_those_it_is_booked_for() -> None:
    world = World("g1", "g2")
    world.book("g1", lasts=4 * HOUR)
    assert world.devices_of(world.ask("ann", length=HOUR)) == {"g2"}
    assert world.why_not("bob", length=HOUR) is Reason.DEVICE_RESERVED
    assert world.devices_of(world.ask("cy", groups=COURSE)) == {"g1"}


def test_who_wants_more_than_what_is_booked_hears_of_the_booking_before_what_is_broken() -> None:
    world = World("g0", "g1", "g2")
    world.book("g0", lasts=4 * HOUR)
    world.run("ann", length=HOUR)
    world.do(events.AdminAsked(admin=Admin.CORDONED, device="g2"))
    assert world.why_not("bob", 3, length=HOUR) is Reason.DEVICE_RESERVED


def test_a_user_may_be_named_instead_of_a_group() -> None:
    world = World("g1")
    world.book("g1", users=("dan",))
    assert world.why_not("ann") is Reason.DEVICE_RESERVED
    assert world.granted(world.ask("dan"))


def test_those_it_is_booked_for_take_what_is_booked_and_leave_the_rest_to_others() -> None:
    world = World("g1", gpu("h1", "n2"), gpu("h2", "n2"))
    world.book("h2")
    assert world.devices_of(world.ask("cy", groups=COURSE)) == {"h2"}
    assert world.devices_of(world.ask("dan", groups=COURSE)) == {"g1"}, "more than is booked"


def test_what_is_booked_of_another_kind_comes_first_too() -> None:
    world = World("g1", gpu("h2", model="H100", memory=80 << 30))
    world.book("h2")
    assert world.devices_of(world.ask("cy", groups=COURSE)) == {"h2"}
    other = World("g1", gpu("h2", model="H100", memory=80 << 30))
    other.book("h2")
    assert other.devices_of(other.ask("cy", 2, groups=COURSE)) == {"g1", "h2"}


def test_before_the_window_others_have_it_if_they_end_in_time() -> None:
    world = World("g1")
    world.book("g1", begins=4 * HOUR)
    for length in (None, 5 * HOUR):
        assert world.why_not("ann", length=length) is Reason.DEVICE_RESERVED
        world.cancel(world.state.tables.queued_of[next(iter(world.state.tables.queued_of))])
    assert world.granted(world.ask("bob", length=4 * HOUR))


def test_as_the_window_comes_nearer_a_length_no_longer_fits() -> None:
    world = World("g1", "g2")
    world.book("g1", begins=4 * HOUR)
    world.run("ann", length=9 * HOUR)
    bob = world.run("bob", length=HOUR)
    world.tick(2 * HOUR)
    cy = world.ask("cy", length=3 * HOUR)
    assert world.why("cy") is Reason.WAITING_FOR_DEVICES
    world.end(bob)
    assert world.why("cy") is Reason.DEVICE_RESERVED
    world.tick(2 * HOUR + 3600.0)
    assert world.granted(cy), "the window is over"


def test_after_the_window_it_is_for_everybody_and_forgotten() -> None:
    world = World("g1")
    world.book("g1", lasts=60)
    ann = world.ask("ann")
    world.tick(59)
    assert not world.granted(ann)
    world.tick(1)
    assert world.granted(ann)
    assert world.state.tables.bookings == {} == world.state.tables.bookings_of
    assert [stored.booking.over for stored in world.history(BookingStored)] == [False, True]


def test_a_cancelled_booking_keeps_nothing() -> None:
    world = World("g1")
    booking = world.book("g1")
    ann = world.ask("ann")
    cancel(world, booking)
    assert world.granted(ann)
    cancel(world, booking)
    cancel(world, "nothing")


def test_what_runs_at_the_beginning_is_not_stopped() -> None:
    world = World("g1")
    lease = world.run("ann")
    world.book("g1", begins=60)
    world.tick(600)
    assert world.lease(lease).live
    cy = world.ask("cy", groups=COURSE)
    bob = world.ask("bob", length=60)
    world.end(lease)
    assert world.granted(cy)
    assert not world.granted(bob)


def test_the_first_in_line_waits_for_the_end_of_a_booking_and_others_pass_it() -> None:
    world = World("g1", "g2", settings=Settings(fairness=Fairness(by_usage=False)))
    world.book("g1", lasts=4 * HOUR)
    world.ask("ann", 2, length=8 * HOUR)
    assert world.why("ann") is Reason.DEVICE_RESERVED
    assert world.granted(world.ask("bob", length=4 * HOUR)), "it ends with the booking"
    cy = world.ask("cy", length=9 * HOUR, groups=COURSE)
    assert world.devices_of(cy) == {"g1"}, "what is booked is theirs, whoever is first"


def test_who_waits_very_long_keeps_no_gpu_from_those_it_is_booked_for() -> None:
    fairness = Fairness(age_first=None, age_guard=100.0)
    world = World("g1", "g2", settings=Settings(fairness=fairness))
    hog = world.run("hog")
    world.ask("ann", 2)
    world.book("g2", "g1", begins=50)
    world.tick(200)
    assert world.devices_of(world.ask("cy", groups=COURSE)) == {"g2"}
    assert world.lease(hog).live


def test_gpus_by_name_respect_a_booking_too() -> None:
    world = World("g1", "g2")
    world.book("g1")
    assert world.why_not("root", devices=("g1",), admin=True) is Reason.DEVICE_RESERVED


def test_the_same_booking_again_is_no_news() -> None:
    world = World("g1")
    world.book("g1")
    (booking,) = world.state.tables.bookings.values()
    assert world.do(events.Booked(booking=booking)) == []


def test_a_restart_keeps_the_bookings() -> None:
    world = World("g1")
    world.book("g1")
    again = world.restart()
    again.do(events.NodeReconciled(node="n1"))
    assert again.why_not("ann") is Reason.DEVICE_RESERVED


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "known"}, "the id is in use"),
        ({"over": True}, "the id is in use"),
        ({"ends_at": 1000.0}, "the end has to be after the beginning, and to come"),
        ({"starts_at": 9000.0}, "the end has to be after the beginning, and to come"),
        ({"devices": ()}, "it needs GPUs, and users or groups that they are for"),
        ({"groups": ()}, "it needs GPUs, and users or groups that they are for"),
        ({"devices": ("x",)}, "there is no GPU x"),
        ({"devices": ("g1",)}, "GPU g1 is booked already (exam)"),
    ],
)
def test_a_booking_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    world = World("g1", "g2")
    known = Booking(
        id="known", name="exam", devices=("g1",), groups=COURSE, starts_at=1000.0, ends_at=9000.0
    )
    world.do(events.Booked(booking=known))
    wrong = replace(known, **{"id": "new", "devices": ("g2",), **changes})
    with pytest.raises(RefusedError) as refused:
        world.do(events.Booked(booking=wrong))
    assert refused.value.reason == Reason.BOOKING_REFUSED.value
    assert refused.value.user_message == f"This can't be booked: {words}."


def test_windows_that_only_touch_do_not_overlap() -> None:
    world = World("g1")
    world.book("g1", lasts=60)
    world.book("g1", begins=60)
    assert len(world.state.tables.bookings_of["g1"]) == 2


def test_a_server_without_a_gpu_waits_for_memory_whatever_is_booked() -> None:
    world = World("g1")
    world.run("ann", 0, memory=80 << 30)
    world.book("g1")
    waits = world.ask("bob", 0, memory=10 << 30)
    assert not world.granted(waits)
    world.end("e1")
    assert world.granted(waits)


def test_what_is_booked_for_the_first_one_is_free_for_him_when_who_has_it_ends() -> None:
    world = World("g1", settings=Settings(fairness=Fairness(by_usage=False)))
    world.run("ann", length=HOUR)
    world.book("g1", begins=HOUR / 2, lasts=4 * HOUR)
    world.ask("cy", groups=COURSE)
    queue = world.state._queue
    (place,) = queue.line.places.values()
    reserved = queue.backfill.reserve(place.shape.want)
    assert reserved is not None and reserved.at == world.now + HOUR


def test_a_booking_does_not_let_one_pass_who_takes_the_memory_of_the_first_one() -> None:
    world = World("g1", "g2", settings=Settings(fairness=Fairness(by_usage=False)))
    world.run("ann", length=2 * HOUR, memory=60 << 30)
    (free,) = world.free()
    world.book(free)
    world.ask("bob", memory=70 << 30)
    assert world.why_not("cy", groups=COURSE, memory=20 << 30) is Reason.BEHIND_OTHERS
    assert world.granted(world.ask("dan", groups=COURSE, memory=10 << 30))
