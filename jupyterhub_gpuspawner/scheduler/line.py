"""The waiting requests in the order in which they are to be served.

The order: whoever has waited very long, oldest first; then by priority; then down the tree of
groups: groups below their quota, then the one with the least decayed usage for its weight; in it
the user who will have had least with his next server; of his requests the one that costs least.

Requests that ask for the same are one *shape*, a bit in a mask. A walk along the line skips
whole users and groups that have nothing of the shapes looked for: with 5,000 requests of a dozen
shapes it meets a few dozen users, not 5,000 requests.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf

from . import bookings
from .capacity import Capacity
from .fairshare import Account, Group, Usage
from .models import QueueEntry
from .policy import Fairness
from .rooms import Want
from .tables import Tables


@dataclass(eq=False, slots=True)
class Shape:
    """Requests that differ in nothing but who asks."""

    #: one bit of a mask
    bit: int
    #: what it comes to here
    want: Want
    priority: int
    #: how many of them are served in their turn
    count: int = 0


@dataclass(eq=False, slots=True)
class Place:
    """Where an entry stands."""

    entry: QueueEntry
    account: Account
    #: None = it is not served whatever is free: nobody waits for it, or its server still runs
    shape: Shape | None
    priority: int = 0


@dataclass(eq=False, slots=True)
class Shapes:
    """The shapes that somebody waits for, and their masks."""

    of: dict[tuple[Want, int], Shape] = field(default_factory=dict)
    #: priority -> mask
    masks: dict[int, int] = field(default_factory=dict)
    #: mask of the shapes without GPU
    bare: int = 0
    #: device -> number of shapes that ask for it by name
    wished: dict[str, int] = field(default_factory=dict)

    def take(self, want: Want, priority: int) -> Shape:
        """The shape of one more request."""
        shape = self.of.get((want, priority))
        if shape is None:
            used = self.every()
            bit = ~used & (used + 1)
            shape = self.of[want, priority] = Shape(bit=bit, want=want, priority=priority)
            self.masks[priority] = self.masks.get(priority, 0) | bit
            if want.count == 0:
                self.bare |= bit
            self._wish(want, +1)
        shape.count += 1
        return shape

    def every(self) -> int:
        """Mask of all of them."""
        every = 0
        for mask in self.masks.values():
            every |= mask
        return every

    def drop(self, shape: Shape) -> None:
        """One request less of this shape."""
        shape.count -= 1
        if shape.count == 0:
            del self.of[shape.want, shape.priority]
            self.bare &= ~shape.bit
            self._wish(shape.want, -1)
            self.masks[shape.priority] &= ~shape.bit
            if not self.masks[shape.priority]:
                del self.masks[shape.priority]

    def _wish(self, want: Want, sign: int) -> None:
        for device_id in want.only or ():
            number = self.wished.get(device_id, 0) + sign
            if number:
                self.wished[device_id] = number
            else:
                del self.wished[device_id]


@dataclass(eq=False, slots=True)
class Sought:
    """The shapes that a walk looks for. Who walks may take shapes out on the way."""

    mask: int


class Line:
    """All waiting entries, by group and user.

    Parameters
    ----------
    in_line:
        Whether an entry is served in its turn; where that changes, it is among the touched ones.
    """

    def __init__(
        self,
        tables: Tables,
        capacity: Capacity,
        usage: Usage,
        in_line: Callable[[QueueEntry], bool],
    ) -> None:
        self._tables = tables
        self._capacity = capacity
        self._usage = usage
        self._in_line = in_line
        self.shapes = Shapes()
        self.places: dict[str, Place] = {}
        #: (seq, entry id), sorted
        self._by_age: list[tuple[int, str]] = []
        tables.touched_entries.update(tables.entries)

    @property
    def fairness(self) -> Fairness:
        """The policy in force."""
        return self._usage.fairness

    def update(self) -> None:
        """Take in what was touched since the last time."""
        touched, self._tables.touched_entries = self._tables.touched_entries, set()
        for entry_id in touched:
            place = self.places.pop(entry_id, None)
            if place is not None:
                self._remove(place)
            entry = self._tables.entries.get(entry_id)
            if entry is not None and self._tables.queued_of.get(entry.key) == entry_id:
                self.places[entry_id] = self._add(entry)

    def _add(self, entry: QueueEntry) -> Place:
        account = self._usage.account(entry.key.hub, entry.key.user, entry.groups)
        shape, priority = None, self.priority(entry)
        if self._in_line(entry):
            want = self._capacity.want(entry.request, bookings.mine(self._tables, entry))
            shape = self.shapes.take(want, priority)
        cost = self._usage.cost(entry)
        account.add((cost, entry.seq, entry.id), shape.bit if shape else 0)
        insort(self._by_age, (entry.seq, entry.id))
        return Place(entry=entry, account=account, shape=shape, priority=priority)

    def _remove(self, place: Place) -> None:
        entry = place.entry
        place.account.remove(entry.seq, entry.id, place.shape.bit if place.shape else 0)
        if place.shape is not None:
            self.shapes.drop(place.shape)
        del self._by_age[bisect_left(self._by_age, (entry.seq, entry.id))]

    def priority(self, entry: QueueEntry) -> int:
        """The highest that the user's groups give, and what an admin gave the request."""
        priorities = self.fairness.priorities
        groups = max((priorities.get(group, 0) for group in entry.groups), default=0)
        return groups + entry.priority

    # -- walking -----------------------------------------------------------------------------

    def old(self, now: float, sought: Sought, age: float | None) -> Iterator[Place]:
        """Grantable entries that have waited longer than ``age`` seconds, oldest first."""
        if age is None:
            return
        for _, entry_id in self._by_age:
            place = self.places[entry_id]
            if now - place.entry.submitted_at <= age:
                return
            if place.shape is not None and place.shape.bit & sought.mask:
                yield place

    def walk(self, sought: Sought, now: float, full: Callable[[Account], bool]) -> Iterator[Place]:
        """Grantable entries of the shapes that are sought, in order; some may come twice.

        ``full`` says of a user that he may hold no more GPUs. What it is asked for one walk
        may not change while it goes on, but for ``sought``, which may lose shapes: what was
        passed had none of those that are left, so that nobody has to begin anew.
        """
        yield from self.old(now, sought, self.fairness.age_first)
        for priority in sorted(self.shapes.masks, reverse=True):
            only = self.shapes.masks[priority]
            if not sought.mask & only:
                continue
            if self.fairness.by_usage:
                yield from self._down(self._usage.root, sought, only, full)
            else:
                yield from self._by_arrival(sought, only)

    def _by_arrival(self, sought: Sought, only: int) -> Iterator[Place]:
        for _, entry_id in self._by_age:
            place = self.places[entry_id]
            if place.shape is not None and place.shape.bit & sought.mask & only:
                yield place

    def _down(
        self, group: Group, sought: Sought, only: int, full: Callable[[Account], bool]
    ) -> Iterator[Place]:
        """Those in a group; ``only``: a mask of the shapes that may be granted in it."""
        if group.cap is not None and group.held >= group.cap:
            only &= self.shapes.bare
        if group.children:
            for child in group.ranked(sought.mask & only):
                if child.mask & sought.mask & only:
                    yield from self._down(child, sought, only, full)
            return
        for account in group.accounts():
            wanted = account.mask & sought.mask & only
            if wanted and full(account):
                wanted &= self.shapes.bare
            if wanted:
                yield from self._of(account, sought, wanted)
            elif not group.mask & sought.mask & only:
                return

    def _of(self, account: Account, sought: Sought, wanted: int) -> Iterator[Place]:
        for _, _, entry_id in account.spots:
            place = self.places[entry_id]
            if place.shape is not None and place.shape.bit & sought.mask & wanted:
                yield place
                if not sought.mask & wanted:
                    return

    def everybody(self, now: float) -> list[QueueEntry]:
        """All who wait, in order, also those whom nothing can be granted to at the moment."""
        ages = (self.fairness.age_guard, self.fairness.age_first)
        age = min((age for age in ages if age is not None), default=inf)
        places = [self.places[entry_id] for _, entry_id in self._by_age]
        late = [place for place in places if place.entry.submitted_at < now - age]
        if self.fairness.by_usage:
            places = [
                self.places[entry_id]
                for account in self._usage.root.in_order()
                for _, _, entry_id in account.spots
            ]
        if any(place.priority for place in places):
            # sorting is stable: within a priority the order stays
            places.sort(key=lambda place: -place.priority)
        if not late:
            return [place.entry for place in places]
        seen = {place.entry.id for place in late}
        return [place.entry for place in [*late, *(p for p in places if p.entry.id not in seen)]]

    # -- checking ----------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise ``AssertionError`` where the line differs from what should be in it."""
        waiting = {entry.id for entry in self._tables.queued()}
        assert waiting == set(self.places), "the line and the waiting entries differ"
        assert sorted(self._by_age) == self._by_age and len(self._by_age) == len(waiting)
        counts: dict[int, int] = {}
        for place in self.places.values():
            entry = place.entry
            assert entry == self._tables.entries[entry.id], "an old entry stands in line"
            assert place.priority == self.priority(entry), "an old priority counts"
            fit = self._in_line(entry)
            assert (place.shape is not None) is fit, f"{entry.id} is in line the wrong way"
            if place.shape is not None:
                counts[place.shape.bit] = counts.get(place.shape.bit, 0) + 1
        known = {shape.bit: shape.count for shape in self.shapes.of.values()}
        assert counts == known, "the shapes are counted wrongly"
        self._usage.root.validate()
