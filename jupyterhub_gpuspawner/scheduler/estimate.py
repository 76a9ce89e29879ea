"""When somebody who waits will probably start: from how long servers really stay.

People choose a length that is enough, and often stay shorter. What servers of a length really
stayed, as a part of it, is learnt from those that have ended; a server that runs is expected to
stay as long as half of those that stayed at least as long as it has by now.

An estimate is not a promise, and no decision depends on it. It looks at GPUs, not at memory and
processors, and takes the line as it is now: somebody who comes later and passes is not foreseen.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from .capacity import Capacity
from .models import Lease, LeaseState, Mode, Target
from .rooms import Room, Want
from .tables import Tables

#: ended servers of a length that are remembered, and how many tell something
_REMEMBERED, _ENOUGH = 200, 5
#: places in line that are estimated; those behind are not worth the time
MOST = 100


@dataclass(eq=False, slots=True)
class _Stays:
    """How long servers of one length stayed, as parts of it."""

    recent: deque[float] = field(default_factory=deque)
    ordered: list[float] = field(default_factory=list)

    def add(self, part: float) -> None:
        self.recent.append(part)
        insort(self.ordered, part)
        if len(self.recent) > _REMEMBERED:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]


class Learnt:
    """How long servers really stay, by the length that was chosen."""

    def __init__(self) -> None:
        self._stays: dict[float, _Stays] = {}

    def follow(self, lease: Lease) -> None:
        """Learn from a lease that is over, if it ran and had a length."""
        length = lease.request.length
        if lease.state is not LeaseState.RELEASED or not length or lease.container_id is None:
            return
        assert lease.released_at is not None, "released, and nobody knows when"
        stayed = max(0.0, lease.released_at - lease.granted_at)
        self._stays.setdefault(length, _Stays()).add(stayed / length)

    def stay(self, length: float, already: float = 0.0) -> float:
        """Seconds that a server of this length probably stays that has for ``already``."""
        stays = self._stays.get(length)
        if stays is None or len(stays.ordered) < _ENOUGH:
            return max(length, already)
        begin = bisect_right(stays.ordered, already / length)
        longer = stays.ordered[begin:]
        # it has stayed longer than all of them
        return longer[(len(longer) - 1) // 2] * length if longer else max(length, already)


class Forecast:
    """Plays the line forward from now: each one starts where it is soonest, in order.

    ``unbounded`` is how long, in seconds, one without a length stays.
    """

    def __init__(
        self, tables: Tables, capacity: Capacity, learnt: Learnt, unbounded: float, now: float
    ) -> None:
        self._tables = tables
        self._capacity = capacity
        self._learnt = learnt
        self._unbounded = unbounded
        self._now = now
        #: device -> when it is free
        self._free_at: dict[str, float] = {}
        #: node -> which devices are meant -> when each of them is free, the first one first
        self._rows: dict[str, dict[int, list[tuple[float, str]]]] = {}
        #: (kinds, devices by name) -> a number for what is meant
        self._meant: dict[object, int] = {}

    def starts(self, wants: Iterable[Want]) -> list[float | None]:
        """POSIX seconds for each, in order; None = nobody can say."""
        return [self._start(want) for want in wants]

    def free_at(self, device_id: str) -> float:
        """When the device is probably free, after those whose start was asked for."""
        return self._when(device_id)

    def _start(self, want: Want) -> float | None:
        if not want.count:
            return self._now
        best: tuple[float, str] | None = None
        chosen: list[tuple[float, str]] = []
        meant = self._meant.setdefault((want.kinds, want.only), len(self._meant))
        for room in self._capacity.homes(want):
            if room.closed is None and len(row := self._row(want, meant, room)) >= want.count:
                found = (row[want.count - 1][0], room.name)
                if best is None or found < best:
                    best, chosen = found, row
        if best is None:
            return None
        start, node = best
        length = want.request.length
        stay = self._unbounded if length is None else self._learnt.stay(length)
        for _, device_id in chosen[: want.count]:
            self._free_at[device_id] = start + stay
        del self._rows[node]
        return start

    def _row(self, want: Want, meant: int, room: Room) -> list[tuple[float, str]]:
        rows = self._rows.setdefault(room.name, {})
        if meant not in rows:
            shelves = (room.shelves[kind] for kind in want.kinds if kind in room.shelves)
            ids = (id for shelf in shelves for id in want.named(shelf.usable))
            rows[meant] = sorted((self._when(id), id) for id in ids)
        return rows[meant]

    def _when(self, device_id: str) -> float:
        found = self._free_at.get(device_id)
        if found is None:
            found = self._free_at[device_id] = max(self._now, self._ending(device_id))
        return found

    def _ending(self, device_id: str) -> float:
        """When those who hold it will probably have ended."""
        tables, device = self._tables, self._tables.devices[device_id]
        own = tables.claims.get(device_id, {})
        ends = [self._end(tables.leases[id]) for id in own.values()]
        if device.mode is Mode.SLOTS:
            ends = [min(ends)] if len(own) == device.atoms else []
        for relative in tables.relatives(device_id):
            claims = tables.claims.get(relative, {})
            ends += [self._end(tables.leases[id]) for id in claims.values()]
        return max(ends, default=self._now)

    def _end(self, lease: Lease) -> float:
        if lease.target is Target.GONE:
            return self._now
        length, already = lease.request.length, self._now - lease.granted_at
        if length is None:
            return lease.granted_at + max(self._unbounded, already)
        return lease.granted_at + self._learnt.stay(length, already)
