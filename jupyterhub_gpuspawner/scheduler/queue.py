"""The line: who is granted something next, and who may know what of it.

A decision takes four steps: which shapes of request fit anywhere now; the oldest beyond the age
guard, who hold all that they could use; the first in line, who gets a reservation if he can't
start; the others, as far as they delay nobody of those. After each grant it begins anew, because
a grant is charged and changes the order. So a second look right after finds nothing.

Right after a restart the spawns that wait connect again one by one. Whose turn it is although he
is not back yet gets nothing, but what he could use is kept, so that nobody overtakes by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from . import bookings, explain, filters, placement, quota
from .backfill import Backfill, Reservation
from .capacity import Allowed, Capacity
from .core import Core
from .estimate import MOST, Forecast
from .explain import NodeAnswer
from .fairshare import Account, Usage
from .line import Line, Place, Sought
from .models import Claim, Lease, QueueEntry, Reason
from .reasons import why_none
from .rooms import Kind, Room, Want

#: what is granted: to whom, where, what
Grant = tuple[QueueEntry, str, tuple[Claim, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """What a waiting user may know."""

    entry: QueueEntry
    #: 1 = next
    position: int
    reason: Reason


@dataclass(eq=False, slots=True)
class _Kept:
    """What is kept on one node for those beyond the age guard, and those who come back."""

    wants: list[Want] = field(default_factory=list)
    #: kinds of which any device will do for one of them
    kinds: set[Kind] = field(default_factory=set)
    #: bytes, the most that one of them needs
    memory: int = 0
    #: the same in 1e-9 processors
    cpus: int = 0


class Queue:
    """One for each state. Remembers what it has worked out until that changes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        tables = core.tables
        self.capacity = Capacity(tables, core.settings, core.ready, core.settling)
        self.line = Line(tables, self.capacity, core.usage, core.in_line)
        self.backfill = Backfill(tables, self.capacity, self.line.shapes.wished)
        #: a node that has room for it now, not always the best one; None = there is none
        self._fits: dict[Want, Room | None] = {}
        #: what has room somewhere and may not pass this reservation, until a node changes
        self._refused: tuple[Reservation | None, set[Want]] = (None, set())
        #: there were bookings at the last look
        self._booked = False

    def reorder(self, usage: Usage) -> None:
        """The order follows other rules from now on."""
        self.line = Line(self._core.tables, self.capacity, usage, self._core.in_line)
        self.backfill.wished = self.line.shapes.wished

    def follow(self) -> None:
        """Take in what has changed."""
        changed = self.capacity.update()
        if changed:
            self.backfill.changed(changed)
            self._recheck(changed)
            self._refused = (None, set())
        self.line.update()

    def next(self, now: float) -> Grant | None:
        """The next grant; None when there is nothing to grant."""
        self.follow()
        self._look_at_bookings(now)
        fits = self._fitting()
        if not fits:
            return None
        todo = Sought(mask=self.line.shapes.every())
        kept: dict[str, _Kept] = {}
        for place in self.line.old(now, todo, self.line.fairness.age_guard):
            assert place.shape is not None
            bit = place.shape.bit
            if self._limited(place, now) is not None:
                continue
            want = place.shape.want
            room = self._room(want, None, kept, now) if bit & fits else None
            if room is not None and self._there(place):
                return self._grant(place, room, want)
            todo.mask &= ~bit
            self._keep(want, kept)
        return self._next_young(now, fits, todo, kept)

    def _next_young(
        self, now: float, fits: int, todo: Sought, kept: dict[str, _Kept]
    ) -> Grant | None:
        head: Reservation | None = None
        refused: set[Want] = set()
        for place in self.line.walk(todo, now, self._full):
            if self._limited(place, now) is not None:
                continue
            assert place.shape is not None
            bit, want = place.shape.bit, place.shape.want
            if bit & fits:
                room = None if want in refused else self._room(want, head, kept, now)
                if room is None:
                    refused.add(want)
                elif self._there(place):
                    return self._grant(place, room, want)
                else:
                    refused = set()
                    self._keep(want, kept)
            else:
                # only before there is a reservation does anything else come up
                head = self.backfill.reserve(want)
                if head is not None:
                    if not self._core.settings.fairness.backfill:
                        return None
                    todo.mask &= fits
                    refused = self._refused_before(head, kept)
            todo.mask &= ~bit
            if not todo.mask & fits:
                return None
        return None

    def _refused_before(self, head: Reservation, kept: dict[str, _Kept]) -> set[Want]:
        """What an earlier pass found that may not pass the first one: time makes it no easier."""
        if kept or self.line.shapes.wished or self._core.tables.bookings:
            return set()
        if self._refused[0] is not head:
            self._refused = (head, set())
        return self._refused[1]

    def _look_at_bookings(self, now: float) -> None:
        """What is booked for whom changes as time passes."""
        self.backfill.now = now
        if not self._core.tables.bookings and not self._booked:
            return
        self._booked = bool(self._core.tables.bookings)
        for shape in self.line.shapes.of.values():
            want = shape.want
            seen = bookings.seen_by(self._core.tables, want, now)
            if seen != (want.avoid, want.prefer):
                want.avoid, want.prefer = seen
                self._fits.pop(want, None)
                self.backfill.forget(want)

    def _recheck(self, changed: set[str]) -> None:
        """What of the nodes that have changed follows for what fits anywhere."""
        capacity, fits = self.capacity, self._fits
        if len(fits) > 2 * len(self.line.shapes.of) + 16:
            # most of them nobody waits for any more
            fits.clear()
        rooms = [capacity.rooms[name] for name in changed]
        known = capacity.known
        for want, found in fits.items():
            if want.known != known:
                capacity.renewed(want)
            if found is None:
                for room in rooms:
                    if room.has(want):
                        fits[want] = room
                        break
            elif found.name in changed and not found.has(want):
                fits[want] = capacity.find(want)

    def _fitting(self) -> int:
        """Mask of the shapes that some node has room for now, whoever has to be first."""
        mask, fits = 0, self._fits
        # from here on all of them know the kinds that there are
        for (want, _), shape in self.line.shapes.of.items():
            if want not in fits:
                fits[want] = self.capacity.find(self.capacity.renewed(want))
            if fits[want] is not None:
                mask |= shape.bit
        return mask

    def _there(self, place: Place) -> bool:
        """Whether a spawn waits for it now; else it will be back soon, and its part is kept."""
        return place.entry.id in self._core.attached

    def _full(self, account: Account) -> bool:
        limit = quota.user_limit(self._core.settings.limits, account.key[1])
        return limit is not None and self._core.tables.held_by(account.key) >= limit

    def _limited(self, place: Place, now: float) -> Reason | None:
        entry, core = place.entry, self._core
        count = entry.request.count
        if not count:
            return None
        if quota.above_share(place.account.group, count):
            return Reason.GROUP_LIMIT
        own = quota.not_now(core.settings.limits, entry, core.tables)
        if own is not None or not core.spent.active:
            return own
        price = core.usage.price(entry)
        return core.spent.not_now(entry.key, entry.groups, price, now)

    def _grant(self, place: Place, room: Room, want: Want) -> Grant:
        entry, wished = place.entry, self.line.shapes.wished
        claims = placement.claims(self._core.tables, room, want, entry.id, wished)
        return entry, room.name, claims

    def _room(
        self, want: Want, head: Reservation | None, kept: dict[str, _Kept], now: float
    ) -> Room | None:
        return self.capacity.find(want, self._allowed(want, head, kept, now))

    def _allowed(
        self, want: Want, head: Reservation | None, kept: dict[str, _Kept], now: float
    ) -> Allowed | None:
        if head is None and not kept:
            return None

        def allowed(room: Room) -> bool:
            mine = kept.get(room.name)
            if mine is not None and not self._leaves(mine, want, room):
                return False
            return head is None or self.backfill.may_pass(head, want, room, now)

        return allowed

    # -- past their length -------------------------------------------------------------------

    def stuck(self, now: float) -> Iterator[Want]:
        """What those who wait would start now if there were room, in their order."""
        self.follow()
        self._look_at_bookings(now)
        fits = self._fitting()
        for entry in self.line.everybody(now):
            place = self.line.places[entry.id]
            if place.shape is None or place.shape.bit & fits:
                continue
            if self._limited(place, now) is None:
                yield self.capacity.renewed(place.shape.want)

    def wanted(self, lease: Lease, now: float) -> bool:
        """Whether somebody who waits could use a device of the lease."""
        tables, room = self._core.tables, self.capacity.rooms[lease.node]
        devices = [tables.devices[id] for id in lease.devices if id in tables.devices]
        return any(
            room in self.capacity.homes(want) and self.backfill.touches(device, want)
            for want in self.stuck(now)
            for device in devices
        )

    # -- the age guard -----------------------------------------------------------------------

    def _keep(self, want: Want, kept: dict[str, _Kept]) -> None:
        """Nobody younger takes what ``want`` could use, as soon as others have ended."""
        for room in self.capacity.homes(want):
            mine = kept.setdefault(room.name, _Kept())
            mine.wants.append(want)
            if want.only is None and not want.avoid:
                mine.kinds.update(want.kinds)
            mine.memory = max(mine.memory, want.memory)
            mine.cpus = max(mine.cpus, want.cpus)

    def _leaves(self, kept: _Kept, want: Want, room: Room) -> bool:
        """Whether ``want`` on the node touches nothing that is kept."""
        if want.memory and room.memory - want.memory < kept.memory:
            return False
        if want.cpus and room.cpus is not None and room.cpus - want.cpus < kept.cpus:
            return False
        if want.count and kept.kinds.issuperset(want.kinds):
            return False
        picked = placement.pick(self._core.tables, room, want, self.backfill.wished)
        return not any(
            self.backfill.touches(device, mine) for device, _ in picked for mine in kept.wants
        )

    # -- for people --------------------------------------------------------------------------

    def waiting(self, now: float) -> list[Waiting]:
        """The line as the people in it may see it, first one first."""
        self.follow()
        self._look_at_bookings(now)
        return self._told(self.line.everybody(now), now)

    def beginning(
        self, now: float, most: int, expected: int
    ) -> tuple[list[Waiting], dict[str, float | None]]:
        """What both :meth:`waiting` and :meth:`starts` say, of so many; quicker than the two."""
        self.follow()
        self._look_at_bookings(now)
        line = self.line.everybody(now)[:most]
        return self._told(line, now), self._forecast(line[: min(expected, MOST)], now)[0]

    def _told(self, line: list[QueueEntry], now: float) -> list[Waiting]:
        told: dict[Want, Reason] = {}
        return [
            Waiting(entry=entry, position=position, reason=self._why(entry, told, now))
            for position, entry in enumerate(line, start=1)
        ]

    def starts(self, now: float) -> dict[str, float | None]:
        """Entry -> when it will probably start, POSIX seconds, of the first ones in line."""
        self.follow()
        return self._forecast(self.line.everybody(now)[:MOST], now)[0]

    def frees(self, now: float) -> dict[str, float]:
        """Device -> when it will probably be free for who asks now, after all who wait."""
        self.follow()
        forecast = self._forecast(self.line.everybody(now)[:MOST], now)[1]
        tables = self._core.tables
        usable = (id for id in tables.devices if filters.usable(tables.status[id]) is None)
        return {id: forecast.free_at(id) for id in usable}

    def _forecast(
        self, line: list[QueueEntry], now: float
    ) -> tuple[dict[str, float | None], Forecast]:
        core = self._core
        places = [self.line.places[entry.id] for entry in line]
        wants = [
            (place.entry.id, self.capacity.renewed(place.shape.want))
            for place in places
            if place.shape is not None
        ]
        unbounded = core.settings.fairness.unbounded_length
        forecast = Forecast(core.tables, self.capacity, core.learnt, unbounded, now)
        found = forecast.starts(want for _, want in wants)
        return {entry_id: at for (entry_id, _), at in zip(wants, found, strict=True)}, forecast

    def nodes_for(self, entry: QueueEntry, now: float) -> tuple[NodeAnswer, ...]:
        """What each node has for one that waits."""
        self.follow()
        self._look_at_bookings(now)
        shape = self.line.places[entry.id].shape
        want = self.capacity.want(entry.request) if shape is None else shape.want
        return explain.nodes(self._core.tables, self.capacity, self.capacity.renewed(want))

    def _why(self, entry: QueueEntry, told: dict[Want, Reason], now: float) -> Reason:
        if entry.id not in self._core.attached:
            return Reason.NOT_ATTACHED
        if entry.key in self._core.tables.lease_of:
            return Reason.PREVIOUS_SERVER
        limited = self._limited(self.line.places[entry.id], now)
        if limited is not None:
            return limited
        shape = self.line.places[entry.id].shape
        assert shape is not None, "somebody waits for it, and its server is gone"
        want = self.capacity.renewed(shape.want)
        if want not in told:
            # there is room, and somebody else comes first
            free = self.capacity.find(want) is not None
            reason = why_none(self._core.tables, self.capacity, want)
            told[want] = Reason.BEHIND_OTHERS if free else reason
        return told[want]

    def validate(self) -> None:
        """Raise ``AssertionError`` where what is remembered is not what holds."""
        self.follow()
        self.capacity.validate()
        self.line.validate()
        for want, room in self._fits.items():
            found = self.capacity.find(self.capacity.renewed(want))
            assert (room is None) is (found is None), f"{want.request} fits the wrong way"
            assert room is None or room.has(want), f"{want.request} does not fit {room.name}"


#: makes a queue for a state; another one is another policy
Queues = Callable[[Core], Queue]
