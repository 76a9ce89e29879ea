"""Spawns that wait for their GPUs: who is connected, and what each was last told.

A waiter is *seated* at a queue entry. What it is told comes only from stored decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..scheduler import events
from ..scheduler.decisions import Decision
from ..scheduler.models import EntryState, Injection, Lease, LeaseState, Reason, ServerKey
from ..scheduler.state import SchedulerState
from . import words

#: device id -> how it gets into a container; None = not known yet
Injections = Callable[[str], "Injection | None"]
#: why nothing is granted to anybody at the moment, and a sentence; None = all is well
Excuse = Callable[[], tuple[Reason, str] | None]


@dataclass(kw_only=True, eq=False)
class Waiter:
    """One connected spawn."""

    #: what it asked, to be asked again after trouble
    event: events.Submitted
    #: id of its entry; at first the one it would get
    entry: str = ""
    #: what it should be told now: a line of the stream
    line: dict[str, Any] = field(default_factory=dict)
    #: something changed: look at ``line``
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: it has to be submitted (again)
    submit: bool = True
    #: the connection is gone, or another one took its place
    over: bool = False

    def tell(self, line: dict[str, Any]) -> None:
        """Set what it should be told."""
        if line != self.line:
            self.line = line
            self.changed.set()

    def end(self) -> None:
        """Nobody listens any more."""
        self.over = True
        self.changed.set()

    def cancel(self) -> None:
        """It shall not be submitted (again)."""
        self.submit = False
        self.tell(refused(Reason.CANCELLED, words.REASONS[Reason.CANCELLED]))

    @property
    def final(self) -> bool:
        """Whether the stream ends with the line."""
        return self.line.get("event") in ("granted", "refused")


class Waiters:
    """Everybody who waits, by entry."""

    def __init__(self, injections: Injections, excuse: Excuse, ledger: str = "") -> None:
        self._injections = injections
        self._excuse = excuse
        self._seats: dict[str, Waiter] = {}
        #: connected and not seated, in order of arrival
        self._standing: dict[Waiter, None] = {}
        #: id of the ledger; containers carry it
        self.ledger = ledger

    def __len__(self) -> int:
        return len(self._seats) + len(self._standing)

    def enter(self, waiter: Waiter) -> None:
        """A new connection: not in the queue yet."""
        self._standing[waiter] = None

    def seat(self, waiter: Waiter, state: SchedulerState) -> str:
        """Put the waiter at the entry that its request has become; the entry's id."""
        entry = entry_of(state, waiter.event.key) or waiter.event.entry_id
        older = self._seats.get(entry)
        if older is not None and older is not waiter:
            older.end()
        self._standing.pop(waiter, None)
        self._seats[entry] = waiter
        waiter.entry = entry
        waiter.submit = False
        waiter.tell(self.view(entry, state, positions(state)))
        return entry

    def leave(self, waiter: Waiter) -> bool:
        """The connection is over; whether the waiter sat at its entry until now."""
        self._standing.pop(waiter, None)
        if self._seats.get(waiter.entry) is waiter:
            del self._seats[waiter.entry]
            return True
        return False

    def publish(self, state: SchedulerState, decisions: Iterable[Decision] = ()) -> None:
        """Tell everybody who sits what holds now."""
        if self._seats:
            table = positions(state)
            for entry, waiter in self._seats.items():
                waiter.tell(self.view(entry, state, table))

    def stand_up(self) -> None:
        """The state was built anew: all have to submit again, in the order they had."""
        seated = sorted(self._seats.values(), key=lambda waiter: waiter.line.get("position", 0))
        self._seats.clear()
        self._standing = dict.fromkeys([*seated, *self._standing])
        for waiter in self._standing:
            waiter.submit = True
            waiter.changed.set()

    def excuse(self) -> None:
        """Tell all who have no decision why nothing moves at the moment, if so."""
        for waiter in [*self._standing, *self._seats.values()]:
            excuse = self._excuse()
            if excuse is not None and not waiter.final:
                position = waiter.line.get("position", 0)
                waiter.tell(queued(waiter.entry or waiter.event.entry_id, position, *excuse))

    def find(self, entry: str) -> Waiter | None:
        """The waiter that has, or would have, this entry."""
        for waiter in self._standing:
            if entry in (waiter.entry, waiter.event.entry_id):
                return waiter
        return self._seats.get(entry)

    def view(
        self, entry_id: str, state: SchedulerState, table: Mapping[str, tuple[int, Reason]]
    ) -> dict[str, Any]:
        """The line that describes an entry now."""
        lease = state.tables.leases.get(entry_id)
        if entry_id in table:
            position, reason = table[entry_id]
            text = words.waiting(reason, position - 1, only_simulated(state))
            return queued(entry_id, position, *(self._excuse() or (reason, text)))
        if lease is not None and lease.state is LeaseState.RESERVED:
            line = granted(lease, state, self.ledger, self._injections)
            return line or queued(entry_id, 1, *(self._excuse() or (Reason.SCHEDULER_STARTING,)))
        return refused(Reason.CANCELLED, words.REASONS[Reason.CANCELLED])


def entry_of(state: SchedulerState, key: ServerKey) -> str | None:
    """The entry of a server that waits, or was granted and is not used yet."""
    waiting = state.tables.queued_of.get(key)
    if waiting is not None:
        return waiting
    lease = state.tables.leases.get(state.tables.lease_of.get(key, ""))
    if lease is not None and lease.state is LeaseState.RESERVED:
        entry = state.tables.entries.get(lease.id)
        return entry.id if entry is not None and entry.state is EntryState.GRANTED else None
    return None


def positions(state: SchedulerState) -> dict[str, tuple[int, Reason]]:
    """Entry id -> (position from 1, reason) of all who wait."""
    return {place.entry.id: (place.position, place.reason) for place in state.waiting()}


def only_simulated(state: SchedulerState) -> bool:
    """Whether there are GPUs, and none of them is real."""
    devices = state.tables.devices.values()
    return bool(devices) and all(device.simulated for device in devices)


def queued(entry: str, position: int, reason: Reason, message: str | None = None) -> dict[str, Any]:
    """A line of the stream: it waits. ``position`` 0 = not known."""
    ahead = max(position - 1, 0)
    return {
        "event": "queued",
        "entry": entry,
        "position": position,
        "ahead": ahead,
        "reason": reason.value,
        "message": message if message is not None else words.waiting(reason, ahead),
    }


def refused(reason: Reason | str, message: str) -> dict[str, Any]:
    """The last line of a stream: no."""
    return {"event": "refused", "reason": str(reason), "message": message}


def granted(
    lease: Lease, state: SchedulerState, ledger: str, injections: Injections
) -> dict[str, Any] | None:
    """The last line of a stream: yes. None while it is not known how the devices get in."""
    devices = [state.tables.devices[id] for id in lease.devices if id in state.tables.devices]
    ways = {injections(device.id) for device in devices}
    if None in ways or len(devices) != len(lease.devices) or not state.is_ready(lease.node):
        return None
    # a server without GPU gets nothing in whichever way
    way = ways.pop() if ways else Injection.BIND
    assert way is not None
    return {
        "event": "granted",
        "entry": lease.id,
        "lease": {
            "id": lease.id,
            "node": lease.node,
            "ledger": ledger,
            "devices": [
                {
                    "id": device.id,
                    "index": device.index,
                    "model": device.model,
                    "memory": device.memory,
                    "simulated": device.simulated,
                    "cap": device.cap,
                    "mps": device.mps,
                }
                for device in devices
            ],
            "injection": way.value,
            "memory": lease.request.memory,
        },
    }
