"""What a ledger holds, and how the journal becomes it. Pure: no database here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..scheduler.decisions import (
    BookingStored,
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
)
from ..scheduler.models import Booking, Device, DeviceStatus, EntryState, Lease, Node, QueueEntry

#: entries that a scheduler still has to care for
OPEN_ENTRIES = (EntryState.QUEUED, EntryState.GRANTED, EntryState.BOUND)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All that a scheduler needs to go on after a start. Two equal ledgers give equal ones."""

    #: QUEUED, GRANTED and BOUND, by arrival
    entries: tuple[QueueEntry, ...] = ()
    #: live ones, oldest first
    leases: tuple[Lease, ...] = ()
    #: every device ever reported, by node and index
    devices: tuple[tuple[Device, DeviceStatus], ...] = ()
    #: by name
    nodes: tuple[Node, ...] = ()
    #: those that are not over, by id
    bookings: tuple[Booking, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalRow:
    """One decision, as it was taken."""

    #: grows with each row; gaps are normal
    seq: int
    #: POSIX seconds
    time: float
    #: of the scheduler that decided
    epoch: int
    decision: Decision


def snapshot(decisions: Iterable[Decision]) -> Snapshot:
    """Return what holds after ``decisions``, the last one about each thing counting."""
    entries: dict[str, QueueEntry] = {}
    leases: dict[str, Lease] = {}
    devices: dict[str, tuple[Device, DeviceStatus]] = {}
    nodes: dict[str, Node] = {}
    bookings: dict[str, Booking] = {}
    for decision in decisions:
        if isinstance(decision, EntryStored):
            entries[decision.entry.id] = decision.entry
        elif isinstance(decision, LeaseStored):
            leases[decision.lease.id] = decision.lease
        elif isinstance(decision, DeviceStored):
            devices[decision.device.id] = (decision.device, decision.status)
        elif isinstance(decision, NodeStored):
            nodes[decision.node.name] = decision.node
        elif isinstance(decision, BookingStored):
            bookings[decision.booking.id] = decision.booking
    return Snapshot(
        entries=tuple(
            sorted(
                (entry for entry in entries.values() if entry.state in OPEN_ENTRIES),
                key=lambda entry: (entry.seq, entry.id),
            )
        ),
        leases=tuple(
            sorted(
                (lease for lease in leases.values() if lease.live),
                key=lambda lease: (lease.granted_at, lease.id),
            )
        ),
        devices=tuple(
            sorted(devices.values(), key=lambda pair: (pair[0].node, pair[0].index, pair[0].id))
        ),
        nodes=tuple(sorted(nodes.values(), key=lambda node: node.name)),
        bookings=tuple(bookings[id] for id in sorted(bookings) if not bookings[id].over),
    )


def replay(rows: Iterable[JournalRow]) -> Snapshot:
    """Return what the journal says, its rows in order of ``seq``.

    Equal to what ``Ledger.load`` reads from the projections: nothing is decided again.
    """
    return snapshot(row.decision for row in rows)
