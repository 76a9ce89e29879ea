"""Bookings: devices that an admin keeps for some users in a window of time.

In its window a booked device is granted only to those it is booked for. Before, others may have
it if their length ends by the beginning. What runs on it at the beginning is not stopped.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from typing import TYPE_CHECKING

from ..errors import RefusedError
from . import events
from .core import Core
from .decisions import BookingStored
from .models import Booking, QueueEntry, Reason

if TYPE_CHECKING:
    from .rooms import Want
    from .tables import Tables

#: ids of devices
Ids = frozenset[str]
_NONE: Ids = frozenset()


def allows(booking: Booking, entry: QueueEntry) -> bool:
    """Whether it is made for the one who asks."""
    return entry.key.user in booking.users or not set(booking.groups).isdisjoint(entry.groups)


def mine(tables: Tables, entry: QueueEntry) -> Ids:
    """Ids of the bookings that are made for the one who asks."""
    if not tables.bookings:
        return _NONE
    return frozenset(b.id for b in tables.bookings.values() if allows(b, entry))


def blocks(booking: Booking, own: Collection[str], length: float | None, at: float) -> bool:
    """Whether it is in the way of a server that would start at this time."""
    ends = inf if length is None else at + length
    return booking.id not in own and at < booking.ends_at and ends > booking.starts_at


def seen_by(tables: Tables, want: Want, now: float) -> tuple[Ids, Ids]:
    """(devices that are kept from the request now, devices that are kept for it now)."""
    kept: set[str] = set()
    own: set[str] = set()
    if not want.count:
        return _NONE, _NONE
    for booking in tables.bookings.values():
        if blocks(booking, want.mine, want.request.length, now):
            kept.update(booking.devices)
        elif booking.id in want.mine and booking.starts_at <= now < booking.ends_at:
            own.update(booking.devices)
    return frozenset(kept), frozenset(own)


def earliest(tables: Tables, want: Want, device: str, at: float) -> float:
    """The first time from ``at`` on at which no booking of the device is in the way."""
    for booking in tables.bookings_of.get(device, ()):
        if blocks(booking, want.mine, want.request.length, at):
            at = booking.ends_at
    return at


# -- events ----------------------------------------------------------------------------------


def booked(core: Core, event: events.Booked, now: float) -> None:
    """Take in a booking; the same one again is no news."""
    booking = event.booking
    if core.tables.bookings.get(booking.id) == booking:
        return
    words = _wrong(core, booking, now)
    if words is not None:
        raise RefusedError(
            f"booking {booking.id}: {words}",
            f"This can't be booked: {words}.",
            reason=Reason.BOOKING_REFUSED.value,
        )
    core.emit(BookingStored(booking=booking))


def _wrong(core: Core, booking: Booking, now: float) -> str | None:
    tables = core.tables
    if booking.id in tables.bookings or booking.over:
        return "the id is in use"
    if not now < booking.ends_at or not booking.starts_at < booking.ends_at:
        return "the end has to be after the beginning, and to come"
    if not booking.devices or not (booking.users or booking.groups):
        return "it needs GPUs, and users or groups that they are for"
    for device in booking.devices:
        if device not in tables.devices:
            return f"there is no GPU {device}"
        for other in tables.bookings_of.get(device, ()):
            if other.starts_at < booking.ends_at and booking.starts_at < other.ends_at:
                return f"GPU {device} is booked already ({other.name or other.id})"
    return None


def cancelled(core: Core, event: events.BookingCancelled, now: float) -> None:
    """The devices are for everybody again. May be repeated."""
    _end(core, event.booking_id)


def expire(core: Core, now: float) -> None:
    """Close the bookings whose window is over."""
    for booking in [b for b in core.tables.bookings.values() if b.ends_at <= now]:
        _end(core, booking.id)


def _end(core: Core, booking_id: str) -> None:
    booking = core.tables.bookings.get(booking_id)
    if booking is not None:
        core.emit(BookingStored(booking=booking.ended()))
