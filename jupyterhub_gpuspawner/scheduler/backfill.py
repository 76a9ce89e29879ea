"""When the first in line can start, and who may pass it without delaying that (EASY backfill).

The first one that can't start gets a *reservation*: the node that can serve it soonest, and the
time when enough of what runs there will have ended at its length class. Others may start now if
they use another node, or end by that time, or take only what the first one leaves over then.
(Lifka, The ANL/IBM SP scheduling system, 1995.)
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Container
from dataclasses import dataclass, field
from itertools import takewhile
from math import inf

from . import bookings, filters
from .capacity import Capacity
from .models import Device, Lease, Mode, Target
from .placement import pick
from .rooms import Kind, Room, Want
from .tables import Tables

#: shapes whose reservation is remembered; those that are first in line are few
_REMEMBERED = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """What the first in line will get, as far as the length classes tell."""

    want: Want
    node: str
    #: when, POSIX seconds; infinite where somebody without an end has to end first
    at: float
    #: devices of its kinds that it leaves over then
    spare: int
    #: bytes of memory limits that it leaves over then
    memory: int
    #: the same in 1e-9 processors; None = no bound
    cpus: int | None


@dataclass(eq=False, slots=True)
class _Known:
    """What is known of one shape: when each node could serve it."""

    #: number of the last change that was looked at
    seen: int
    by_node: dict[str, float] = field(default_factory=dict)
    #: (when, node), sorted
    order: list[tuple[float, str]] = field(default_factory=list)
    #: what follows from the first in the order
    reservation: Reservation | None = None


def end_of(lease: Lease) -> float:
    """When the lease will have ended: now if it stops, else at the end of its class."""
    if lease.target is Target.GONE:
        return lease.moved_at
    return inf if lease.ends_at is None else lease.ends_at


class Backfill:
    """Reservations, remembered node by node until something changes there.

    ``wished``: ids of devices that somebody waits for by name; others get them last.
    """

    def __init__(self, tables: Tables, capacity: Capacity, wished: Container[str] = ()) -> None:
        self.wished = wished
        #: time of the pass
        self.now = 0.0
        self._tables = tables
        self._capacity = capacity
        self._known: dict[Want, _Known] = {}
        #: node -> number of its last change, the latest one last
        self._changes: dict[str, int] = {}
        self._number = 0
        #: node -> device -> what :meth:`_ready` found since the node's last change
        self._ready_at: dict[str, dict[str, float]] = {}
        #: node -> kind -> when each usable device of it is free, since the node's last change
        self._kinds_at: dict[str, dict[Kind, list[float]]] = {}

    def changed(self, nodes: Collection[str]) -> None:
        """Something on these nodes is not what it was."""
        self._number += 1
        for name in nodes:
            self._changes.pop(name, None)
            self._ready_at.pop(name, None)
            self._kinds_at.pop(name, None)
            self._changes[name] = self._number

    def forget(self, want: Want) -> None:
        """Other devices are booked for others than before."""
        self._known.pop(want, None)

    def reserve(self, want: Want) -> Reservation | None:
        """A reservation for ``want``, which can't start now; None where no node could serve it."""
        known = self._known.get(want)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            known = self._known[want] = _Known(seen=self._number)
            self._renew(want, known, self._capacity.rooms)
        elif known.seen != self._number:
            latest = reversed(self._changes)
            stale = {*takewhile(lambda name: self._changes[name] > known.seen, latest)}
            known.seen = self._number
            self._renew(want, known, stale)
        return known.reservation

    def _renew(self, want: Want, known: _Known, stale: Collection[str]) -> None:
        """Look again at the nodes where something has changed."""
        first = known.order[0] if known.order else None
        for name in stale:
            before = known.by_node.pop(name, None)
            if before is not None:
                del known.order[bisect_left(known.order, (before, name))]
            room = self._capacity.rooms[name]
            if room.closed is None and room in self._capacity.homes(want):
                at = self._when(want, room)
                known.by_node[name] = at
                insort(known.order, (at, name))
        now_first = known.order[0] if known.order else None
        if now_first is None:
            known.reservation = None
        elif now_first != first or now_first[1] in stale:
            at, name = now_first
            known.reservation = self._reservation(want, self._capacity.rooms[name], at)

    def _when(self, want: Want, room: Room) -> float:
        """When enough devices, memory and processors of the node are free."""
        at = 0.0
        if want.count:
            at = self._ready_times(want, room)[want.count - 1]
        memory, cpus = room.memory, room.cpus
        if memory >= want.memory and (cpus is None or cpus >= want.cpus):
            return at
        leases = [self._tables.leases[id] for id in self._tables.leases_of_node[room.name]]
        # the node could serve it once all have ended, so that the end is never reached
        for lease in sorted(leases, key=end_of):  # pragma: no branch
            at = max(at, end_of(lease))
            memory += lease.request.memory
            cpus = None if cpus is None else cpus + filters.nano_cpus(lease.request.cpu)
            if memory >= want.memory and (cpus is None or cpus >= want.cpus):
                break
        return at

    def _reservation(self, want: Want, room: Room, at: float) -> Reservation:
        memory, cpus = room.memory, room.cpus
        for lease_id in self._tables.leases_of_node[room.name]:
            lease = self._tables.leases[lease_id]
            if end_of(lease) <= at:
                memory += lease.request.memory
                cpus = None if cpus is None else cpus + filters.nano_cpus(lease.request.cpu)
        ready = self._ready_times(want, room) if want.count else []
        return Reservation(
            want=want,
            node=room.name,
            at=at,
            spare=sum(time <= at for time in ready) - want.count,
            memory=memory - want.memory,
            cpus=None if cpus is None else cpus - want.cpus,
        )

    def _ready_times(self, want: Want, room: Room) -> list[float]:
        """When each usable device of the wanted kinds is free, soonest first."""
        times: list[float] = []
        booked = self._tables.bookings_of
        if not booked and want.only is None:
            for kind in want.kinds:
                if kind in room.shelves:
                    times += self._times_of(kind, room)
            times.sort()
            return times
        for kind in want.kinds:
            shelf = room.shelves.get(kind)
            if shelf is not None:
                free = want.among(shelf.free)
                times += [0.0] * len(free)
                taken = want.named(shelf.usable) - free
                times += [
                    self._ready_for(want, id) if id in booked else self._ready(id) for id in taken
                ]
        times.sort()
        return times

    def _times_of(self, kind: Kind, room: Room) -> list[float]:
        """The same of one kind, where no device of it is another's. For reading."""
        known = self._kinds_at.setdefault(room.name, {})
        times = known.get(kind)
        if times is None:
            shelf = room.shelves[kind]
            devices = self._tables.devices
            taken = [self._last_end(devices[id]) for id in shelf.usable - shelf.free]
            times = known[kind] = sorted([*([0.0] * len(shelf.free)), *taken])
        return times

    def _ready_for(self, want: Want, device_id: str) -> float:
        """The same for the request: what is booked for others has to be over, or far enough."""
        ready = self._ready(device_id)
        at = max(ready, self.now)
        free_at = bookings.earliest(self._tables, want, device_id, at)
        return ready if free_at == at else free_at

    def _ready(self, device_id: str) -> float:
        """When a device that is not free will be. 0 = as soon as its memory is seen empty."""
        device = self._tables.devices[device_id]
        known = self._ready_at.setdefault(device.node, {})
        if device_id not in known:
            known[device_id] = self._last_end(device)
        return known[device_id]

    def _last_end(self, device: Device) -> float:
        """When all who hold the device, or the same hardware, will have ended; 0 = now."""
        tables, leases = self._tables, self._tables.leases
        holders = tables.claims.get(device.id, {})
        ends = [end_of(leases[id]) for id in holders.values()]
        if device.mode is Mode.SLOTS:
            # the first slot that comes free is enough; there may be one
            ends = [min(ends)] if len(ends) == device.atoms else []
        for relative in tables.relatives(device.id):
            ends += [end_of(leases[id]) for id in tables.claims.get(relative, {}).values()]
        return max(ends) if ends else 0.0

    # -- passing -----------------------------------------------------------------------------

    def may_pass(self, held: Reservation, want: Want, room: Room, now: float) -> bool:
        """Whether ``want`` on ``room`` leaves the reservation as it is."""
        if room.name != held.node:
            return True
        length = want.request.length
        if length is not None and now + length <= held.at:
            return True
        if held.want.memory and want.memory > held.memory:
            return False
        if held.want.cpus and held.cpus is not None and want.cpus > held.cpus:
            return False
        if want.count <= held.spare:
            return True
        if _all_of(want, held.want):
            return False
        picked = pick(self._tables, room, want, self.wished)
        used = (device for device, atoms in picked if self._uses_up(device, atoms))
        return sum(self.touches(device, held.want) for device in used) <= held.spare

    def _uses_up(self, device: Device, atoms: list[int]) -> bool:
        """Whether nothing is left of the device; another slot of a shared one may be."""
        return len(self._tables.free_atoms(device)) <= len(atoms)

    def touches(self, device: Device, want: Want) -> bool:
        """Whether the device, or one that is the same hardware, is one that suits ``want``."""
        kind_of, relatives = self._capacity.kind_of, self._tables.relatives(device.id)
        if kind_of(device.id) in want.kinds and want.takes(device.id):
            return True
        return any(kind_of(id) in want.kinds and want.takes(id) for id in relatives)


def _all_of(want: Want, held: Want) -> bool:
    """Whether all that ``want`` may take is whole GPUs that would do for ``held``."""
    return (
        held.only is None
        and not held.avoid
        and all(k in held.kinds and k.sample.mode is Mode.EXCLUSIVE for k in want.kinds)
    )
