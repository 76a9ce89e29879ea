"""Taking back what is past its length, where somebody waits who could use it.

The end of a length is not the end of a server. Past it the server is warned only when a request
waits that could start in its place, and stopped when the warning has run out and that is still
so; when it is not, the warning is withdrawn. Within its length no server is ever touched, so
that each grant is worth its whole length and nobody is stopped in turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import RefusedError
from . import events, leases
from .core import Core
from .decisions import LeaseStored
from .models import Device, Lease, LeaseState, Mode, Reason, Target
from .queue import Queue
from .rooms import Room, Want
from .values import replace

#: leases that have to end before a device is free
Holders = frozenset[str]


@dataclass(eq=False, slots=True)
class _Plan:
    """Who would have to go, so that those who wait could start."""

    core: Core
    #: lease id -> lease past its length
    overdue: dict[str, Lease]
    victims: set[str] = field(default_factory=set)
    #: devices that are meant for somebody who waits already
    taken: set[str] = field(default_factory=set)
    #: node -> bytes, and 1e-9 processors, that are
    memory: dict[str, int] = field(default_factory=dict)
    cpus: dict[str, int] = field(default_factory=dict)

    def holders(self, device: Device) -> Holders | None:
        """Those past their length who hold the device; None = somebody else does."""
        tables = self.core.tables
        own = list(tables.claims.get(device.id, {}).values())
        if device.mode is Mode.SLOTS and own:
            # one slot is enough
            free = len(own) < device.atoms
            own = [] if free else [min(own, key=self._rank)]
        for relative in tables.relatives(device.id):
            own += tables.claims.get(relative, {}).values()
        leaving = {id for id in own if tables.leases[id].target is Target.GONE}
        staying = frozenset(own) - leaving
        return staying if staying <= self.overdue.keys() else None

    def _rank(self, lease_id: str) -> tuple[bool, bool, bool, float, str]:
        """Who goes first: the warned, those on borrowed GPUs, the longest past the end."""
        lease = self.overdue.get(lease_id)
        if lease is None:
            gone = self.core.tables.leases[lease_id].target is Target.GONE
            return (not gone, False, False, 0.0, lease_id)
        return (False, not lease.warned, not _borrows(self.core, lease), lease.ends_at or 0.0, "")

    def serve(self, want: Want, rooms: list[Room]) -> None:
        """Find what the request could have, with as few as possible to go."""
        found: list[tuple[int, int, str, set[str], list[str]]] = []
        for room in rooms:
            chosen = self._on(want, room)
            if chosen is not None:
                devices, more = chosen
                fresh = sum(not self.overdue[id].warned for id in more)
                found.append((fresh, len(more), room.name, more, devices))
        if found:
            _, _, node, more, devices = min(found, key=lambda item: item[:3])
            self.victims |= more
            self.taken.update(devices)
            self.memory[node] = self.memory.get(node, 0) + want.memory
            self.cpus[node] = self.cpus.get(node, 0) + want.cpus

    def _on(self, want: Want, room: Room) -> tuple[list[str], set[str]] | None:
        """(devices, who more has to go) on this node; None where it would not be enough."""
        candidates = dict(self._candidates(want, room))
        devices: list[str] = []
        more: set[str] = set()
        while len(devices) < want.count:
            if not candidates:
                return None
            going = self.victims | more
            best = min(
                candidates,
                key=lambda id: (
                    len(candidates[id] - going),
                    sorted(map(self._rank, candidates[id] - going)),
                    id,
                ),
            )
            more |= candidates.pop(best) - self.victims
            devices.append(best)
        return (devices, more) if self._holds(want, room, more) else None

    def _candidates(self, want: Want, room: Room) -> Iterator[tuple[str, Holders]]:
        for kind in want.kinds:
            shelf = room.shelves.get(kind)
            for device_id in want.among(shelf.usable) - self.taken if shelf is not None else ():
                holders = self.holders(self.core.tables.devices[device_id])
                if holders is not None:
                    yield device_id, holders

    def _holds(self, want: Want, room: Room, more: set[str]) -> bool:
        """Whether memory and processors do, perhaps when others past their length go as well."""
        core = self.core
        here = [core.tables.leases[id] for id in core.tables.leases_of_node[room.name]]
        spare = sorted(
            (v.id for v in here if v.id in self.overdue and v.id not in self.victims | more),
            key=self._rank,
        )
        while True:
            going = [v for v in here if v.target is Target.GONE or v.id in self.victims | more]
            memory = room.memory + sum(v.request.memory for v in going)
            memory -= self.memory.get(room.name, 0)
            cpus = 0 if room.cpus is None else room.cpus - self.cpus.get(room.name, 0)
            cpus += sum(round(v.request.cpu * 1e9) for v in going)
            fits = not want.cpus or room.cpus is None or cpus >= want.cpus
            if fits and (not want.memory or memory >= want.memory):
                return True
            if not spare:
                return False
            more.add(spare.pop(0))


def _borrows(core: Core, lease: Lease) -> bool:
    """Whether a group of the lease's user holds more than is its own."""
    return any(part.name and part.held > part.quota for part in core.usage.leaf(lease.groups).path)


def look(core: Core, queue: Queue, now: float) -> None:
    """Warn, stop, or withdraw a warning, as it follows from who waits. For each tick."""
    overdue = {
        lease.id: lease
        for lease in core.tables.leases.values()
        if lease.state is LeaseState.RUNNING
        and (lease.warned or (lease.ends_at is not None and lease.ends_at <= now))
        # it is about to go as it is, or to be used again
        and not lease.idle
        # of what is not known nothing is said, and no warning is taken back
        and lease.node in core.ready
        and not lease.uncertain
    }
    if not overdue:
        return
    warning = core.settings.reclaim_warning
    victims = set() if warning is None else _victims(core, queue, overdue, now)
    for lease in overdue.values():
        if lease.id not in victims or warning is None:
            if lease.warned:
                core.emit(LeaseStored(lease=replace(lease, warned=False, stop_at=None)))
        elif lease.stop_at is None:
            core.emit(LeaseStored(lease=replace(lease, warned=True, stop_at=now + warning)))
        elif lease.stop_at <= now and not core.awaited:
            # those who are to come back after a restart may not come
            note = "past its length, and somebody waited who could use the GPUs"
            leases.stop(core, lease, Reason.RECLAIMED, note, now)


def _victims(core: Core, queue: Queue, overdue: dict[str, Lease], now: float) -> set[str]:
    plan = _Plan(core, overdue)
    hopeless: set[Want] = set()
    for want in queue.stuck(now):
        if plan.victims >= overdue.keys():
            break
        if want in hopeless:
            continue
        before = len(plan.taken), dict(plan.memory), len(plan.victims)
        rooms = [room for room in queue.capacity.homes(want) if room.closed is None]
        plan.serve(want, rooms)
        if before == (len(plan.taken), plan.memory, len(plan.victims)):
            hopeless.add(want)
    return plan.victims


def extension_asked(core: Core, queue: Queue, event: events.ExtensionAsked, now: float) -> None:
    """Move the end of a length. May be repeated: the new end is a time."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is None or lease.target is not Target.RUN:
        raise RefusedError(
            f"lease {event.lease_id}: no extension: it is over",
            "The server is over.",
            reason=Reason.STOPPED.value,
        )
    if lease.ends_at is None or event.ends_at <= lease.ends_at:
        return
    _refuse_extension(core, queue, lease, event.ends_at, now)
    longer = replace(lease, ends_at=event.ends_at, warned=False, stop_at=None)
    core.emit(LeaseStored(lease=longer))


def _refuse_extension(core: Core, queue: Queue, lease: Lease, ends_at: float, now: float) -> None:
    length = lease.request.length or 0.0
    if ends_at > now + length:
        reason, words = Reason.TOO_LONG, "It may be extended by its own length from now, no more."
    elif queue.wanted(lease, now):
        reason, words = Reason.OTHERS_WAIT, "Somebody waits for the GPUs, so it is not extended."
    else:
        more = len(lease.claims) * (ends_at - (lease.ends_at or now))
        above = core.spent.not_now(lease.key, lease.groups, more, now)
        if above is None:
            return
        reason, words = above, "The budget has not enough GPU hours left for that."
    raise RefusedError(
        f"{lease.key}: no extension of lease {lease.id} ({reason})", words, reason=reason.value
    )
