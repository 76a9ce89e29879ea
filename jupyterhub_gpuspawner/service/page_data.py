"""What the page shows, and to whom. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..scheduler.models import Device, Health, Lease, QueueEntry, Reason, ServerKey
from ..scheduler.queue import Waiting
from ..scheduler.state import SchedulerState
from . import waiters
from .identity import HUB
from .summary import device_row, devices_of, node_row
from .words import REASONS

T = TypeVar("T")

#: shown instead of another user's name
SOMEBODY = "in use"


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewer:
    """Who looks."""

    name: str
    admin: bool = False
    #: groups of which everything may be seen, as by their leader
    groups: frozenset[str] = frozenset()

    @property
    def leads(self) -> bool:
        """Whether anything of others may be seen."""
        return self.admin or bool(self.groups)

    def owns(self, key: ServerKey) -> bool:
        """Whether it is one of the viewer's own servers."""
        return (key.hub, key.user) == (HUB, self.name)

    def may_see(self, item: Lease | QueueEntry) -> bool:
        """Whether the viewer may read whose it is."""
        return self.admin or self.owns(item.key) or not self.groups.isdisjoint(item.groups)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The state as a viewer may see it; others' names only for admins. Each part is a list."""

    state: SchedulerState
    viewer: Viewer
    #: ids of containers in which the kernel killed a process for memory
    starved: Collection[str] = ()
    #: POSIX seconds
    now: float = 0.0
    #: why nothing is granted to anybody now
    excuse: tuple[Reason, str] | None = None
    #: user -> servers that have ended, the newest first
    ended: Callable[[str], Sequence[Lease]] = lambda user: ()
    #: lease -> what its server was seen to use
    use: Callable[[Lease], dict[str, Any]] = lambda lease: {}
    #: user -> bytes and limit of the home, where it is too large
    home: Callable[[str], dict[str, int] | None] = lambda user: None
    #: node -> (image, how far it is) of images that are pulled there
    pulls: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    #: what was worked out already, for all who look at the same state
    memo: dict[str, Any] = field(default_factory=dict)

    def seen_by(self, viewer: Viewer) -> View:
        """The same state for somebody else."""
        # for each open page: `replace` takes three times as long
        return View(
            state=self.state,
            viewer=viewer,
            starved=self.starved,
            now=self.now,
            excuse=self.excuse,
            ended=self.ended,
            use=self.use,
            home=self.home,
            pulls=self.pulls,
            memo=self.memo,
        )

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for all viewers of this state."""
        if name not in self.memo:
            self.memo[name] = make()
        found: T = self.memo[name]
        return found

    def line(self) -> list[Waiting]:
        """The whole line, the next one first."""
        return self.once("line", self.state.waiting)

    def starts(self) -> dict[str, float | None]:
        """Entry -> when it will probably start."""
        return self.once("starts", lambda: self.state.starts() if self.line() else {})

    def nodes(self) -> list[dict[str, Any]]:
        """All machines."""
        return [self._node(name) for name in sorted(self.state.tables.nodes)]

    def _node(self, name: str) -> dict[str, Any]:
        row = node_row(self.state, name)
        reason = row["reason"]
        words = "" if reason is None else REASONS[Reason(reason)]
        return {**row, "explanation": words, "pulls": self.pulled_on(name)}

    def pulled_on(self, node: str) -> list[dict[str, str]]:
        """Images that a machine is told to have, and has not yet. For admins."""
        found = self.pulls.get(node, ()) if self.viewer.admin else ()
        return [{"image": image, "state": state} for image, state in found]

    def devices(self) -> list[dict[str, Any]]:
        """All devices."""
        return [_device(self.state, device, self.viewer) for device in devices_of(self.state)]

    def leases(self) -> list[dict[str, Any]]:
        """The leases of whom the viewer may see, oldest first."""
        leases = sorted(self.state.tables.leases.values(), key=lambda lease: lease.granted_at)
        return [
            lease_row(self.state, lease, self.starved)
            for lease in leases
            if self.viewer.may_see(lease)
        ]

    def queue(self) -> list[dict[str, Any]]:
        """Who waits, the next one first."""
        starts = self.starts()
        return [_place(place, self.viewer, starts.get(place.entry.id)) for place in self.line()]


#: name of a part -> what makes it
PARTS: dict[str, Callable[[View], list[dict[str, Any]]]] = {
    "nodes": View.nodes,
    "devices": View.devices,
    "leases": View.leases,
    "queue": View.queue,
}


def page_data(view: View) -> dict[str, Any]:
    """All parts."""
    return {name: part(view) for name, part in PARTS.items()}


def _device(state: SchedulerState, device: Device, viewer: Viewer) -> dict[str, Any]:
    row = device_row(state, device)
    holders = {
        state.tables.leases[lease_id].key: state.tables.leases[lease_id]
        for lease_id in state.tables.claims.get(device.id, {}).values()
        if lease_id in state.tables.leases
    }
    names = [str(key) if viewer.may_see(holders[key]) else SOMEBODY for key in sorted(holders)]
    reason = row["reason"]
    row["used_by"] = ", ".join(dict.fromkeys(names))
    row["explanation"] = "" if reason is None else REASONS[Reason(reason)]
    row["note"] = state.tables.status[device.id].note if viewer.admin else ""
    return row


def lease_row(state: SchedulerState, lease: Lease, starved: Collection[str] = ()) -> dict[str, Any]:
    """What is told of a lease to whom may see whose it is."""
    return {
        "id": lease.id,
        "server": str(lease.key),
        "profile": lease.profile,
        "node": lease.node,
        "devices": lease.devices,
        "indexes": [
            state.tables.devices[id].index for id in lease.devices if id in state.tables.devices
        ],
        "simulated": any(
            state.tables.devices[id].simulated for id in lease.devices if id in state.tables.devices
        ),
        "memory": lease.request.memory,
        "cap": lease.request.cap,
        "cpu": lease.request.cpu,
        "state": lease.state.value,
        "uncertain": lease.uncertain,
        "starved": lease.container_id in starved,
        "trouble": list(dict.fromkeys(_trouble(state, lease))),
        "granted_at": lease.granted_at,
        "ends_at": lease.ends_at,
        "stop_at": lease.stop_at,
        "idle": lease.idle,
        "kept_until": lease.kept_until,
    }


def _trouble(state: SchedulerState, lease: Lease) -> Iterator[str]:
    """What is wrong with the lease's own GPUs, for whoever uses them."""
    for device_id in lease.devices:
        device, status = state.tables.devices.get(device_id), state.tables.status.get(device_id)
        if device is None or status is None:
            continue
        if status.quarantined:
            yield f"GPU {device.index}: {REASONS[Reason.DEVICE_QUARANTINED]}"
        elif not status.present or status.health is not Health.OK:
            note = f" ({status.note})" if status.note else ""
            yield f"GPU {device.index}: {REASONS[Reason.DEVICE_UNHEALTHY]}{note}"


def _place(place: Any, viewer: Viewer, expected: float | None) -> dict[str, Any]:
    entry = place.entry
    mine = viewer.may_see(entry)
    line = waiters.queued(entry.id, place.position, place.reason)
    return {
        "id": entry.id if mine else "",
        "position": place.position,
        "server": str(entry.key) if mine else "",
        "gpus": entry.request.count,
        "message": line["message"] if mine else "",
        "since": entry.submitted_at,
        "priority": entry.priority,
        "expected_at": expected if mine else None,
    }
