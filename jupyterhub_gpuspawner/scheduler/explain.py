"""Why somebody waits, and why a server got the devices it has: as data, for one request.

For a grant in the past the tables are those of that moment, made again from the journal: what was
decided is read, and only the view of the nodes is worked out anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from . import filters
from .capacity import Capacity
from .decisions import Decision, EntryStored, LeaseStored
from .models import Lease, LeaseState, Reason, Settings
from .reasons import against, why
from .rooms import Room, Want
from .tables import Tables
from .topology import Board
from .transitions import IllegalTransition


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeAnswer:
    """What one node had for the request."""

    node: str
    #: suitable devices: free, and those that could be given out if nobody held them
    free: int
    usable: int
    #: NVLinks among the best free ones, as many as are asked for; None = they don't tell
    links: int | None
    #: why it could not serve the request; None = it could
    reason: Reason | None


def nodes(tables: Tables, capacity: Capacity, want: Want) -> tuple[NodeAnswer, ...]:
    """All nodes, by name. ``capacity`` is up to date."""
    rooms = sorted(capacity.rooms.values(), key=lambda room: room.name)
    return tuple(_answer(tables, room, want) for room in rooms if room.name in tables.nodes)


def _answer(tables: Tables, room: Room, want: Want) -> NodeAnswer:
    shelves = [room.shelves[kind] for kind in want.kinds if kind in room.shelves]
    free = {id for shelf in shelves for id in want.among(shelf.free)}
    links = None
    if room.board is not None and 1 < want.count <= len(free) and free <= room.board.rows.keys():
        links = room.board.nvlinks(free, want.count)
    return NodeAnswer(
        node=room.name,
        free=len(free),
        usable=sum(len(want.named(shelf.usable)) for shelf in shelves),
        links=links,
        reason=_reason(tables, room, want),
    )


def _reason(tables: Tables, room: Room, want: Want) -> Reason | None:
    if not room.suits(want):
        return Reason.NODE_OTHER
    if room.closed is None and room.free(want) >= want.count and room.holds(want):
        return None
    found = against(tables, room, want)
    if found:
        return why(found)
    # it has no device of that kind: say what its own ones lack
    lacks = Counter(filters.kind_suits(kind.sample, want.request) for kind in room.shelves)
    del lacks[None]
    return max(lacks, key=lambda r: (lacks[r], str(r)), default=Reason.WAITING_FOR_DEVICES)


class Past:
    """The journal up to the grant of one lease. Feed it with ``take`` until that is true."""

    def __init__(self, lease_id: str) -> None:
        self._lease_id = lease_id
        self._tables = Tables()
        #: the lease as it was granted, once it was met
        self.lease: Lease | None = None
        #: when it was asked for, POSIX seconds; None = the journal doesn't say
        self.asked_at: float | None = None

    def take(self, decision: Decision) -> bool:
        """Take in one decision, in order; True where it is the grant, after which all is known."""
        if isinstance(decision, EntryStored) and decision.entry.id == self._lease_id:
            self.asked_at = decision.entry.submitted_at
        if isinstance(decision, LeaseStored) and decision.lease.id == self._lease_id:
            if decision.lease.state is LeaseState.RESERVED:
                self.lease = decision.lease
            return True
        try:
            self._tables.apply(decision)
        except IllegalTransition:
            # of a thing whose beginning was removed from the journal
            return False
        return False

    def nodes(self, settings: Settings) -> tuple[NodeAnswer, ...]:
        """All nodes as they were; whether each was reconciled then is not in the journal."""
        assert self.lease is not None, "the grant was not met"
        tables = self._tables
        capacity = Capacity(tables, settings, tables.nodes.keys(), ())
        capacity.update()
        return nodes(tables, capacity, capacity.want(self.lease.request))

    def links(self) -> int | None:
        """NVLinks among what it got; None = not known, or a single GPU."""
        assert self.lease is not None, "the grant was not met"
        got = [self._tables.devices[id] for id in self.lease.devices if id in self._tables.devices]
        if len(got) < 2 or not all(device.bonds for device in got):
            return None
        board = Board.of(got)
        return board.nvlinks(board.rows, len(got))
