"""A small installation to play scheduler in: one line for each thing that happens to it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import (
    BookingStored,
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
    from_json,
    to_json,
)
from jupyterhub_gpuspawner.scheduler.fairshare import Account, Usage
from jupyterhub_gpuspawner.scheduler.models import (
    Admin,
    Booking,
    Device,
    DeviceStatus,
    EntryState,
    GPURequest,
    Lease,
    LeaseState,
    Limits,
    Node,
    NodeState,
    Reason,
    ServerKey,
    Settings,
)
from jupyterhub_gpuspawner.scheduler.state import SchedulerState
from jupyterhub_gpuspawner.scheduler.tables import Tables

GIB = 2**30
OK = DeviceStatus()


def key(user: str) -> ServerKey:
    """``"ann"`` or ``"ann/train"``."""
    name, _, server = user.partition("/")
    return ServerKey(hub="hub", user=name, server=server)


def gpu(name: str, node: str = "n1", **fields: Any) -> Device:
    """A simulated GPU of 40 GiB, unless ``fields`` say otherwise."""
    known = {"model": "A100", "memory": 40 * GIB, "simulated": True, "index": int(name[-1])}
    return Device(id=name, node=node, **{**known, **fields})


def machine(name: str = "n1", **fields: Any) -> Node:
    """A node with 100 GiB and 16 CPUs."""
    known = {"memory": 100 * GIB, "cpus": 16.0, "boot_id": f"{name}-boot-1"}
    return Node(name=name, **{**known, **fields})


def dump(tables: Tables) -> dict[str, Any]:
    """All of the tables as plain values, for comparison."""
    nonzero = {
        name: {key: number for key, number in getattr(tables, name).items() if number}
        for name in ("_by_user", "_by_group", "_memory", "_nano_cpus", "_waiting")
    }
    sets = {
        name: {key: set(ids) for key, ids in getattr(tables, name).items() if ids}
        for name in ("devices_of_node", "children")
    }
    plain = ("bookings", "devices", "status", "nodes", "entries", "leases", "lease_of", "queued_of")
    index = ("lease_of_container", "claims")
    return {**{name: dict(getattr(tables, name)) for name in plain + index}, **nonzero, **sets}


def stored(tables: Tables) -> list[Decision]:
    """What a ledger would give back: open entries, live leases, devices, nodes."""
    return [
        *(NodeStored(node=node) for node in tables.nodes.values()),
        *(DeviceStored(device=d, status=tables.status[d.id]) for d in tables.devices.values()),
        *(BookingStored(booking=booking) for booking in tables.bookings.values()),
        *(LeaseStored(lease=lease) for lease in tables.leases.values()),
        *(EntryStored(entry=entry) for entry in tables.entries.values()),
    ]


def used_now(usage: Usage, account: Account, now: float) -> float:
    """GPU seconds of an account, decayed to ``now``."""
    return account.used / usage._weight(now)


class World:
    """A scheduler and short words for events. Every event is validated, and journaled."""

    def __init__(
        self, *devices: Device | str, ready: bool = True, settings: Settings | None = None
    ) -> None:
        self.now = 1000.0
        self.state = SchedulerState(settings or Settings(), epoch=1)
        self.journal: list[Decision] = []
        self.devices = [gpu(d) if isinstance(d, str) else d for d in devices]
        self.nodes = {name: machine(name) for name in {d.node for d in self.devices} or {"n1"}}
        self._ids = 0
        for name in sorted(self.nodes):
            self.report(name)
            if ready:
                self.do(events.NodeReconciled(node=name))

    # -- events --------------------------------------------------------------------------

    def do(self, event: events.Event) -> list[Decision]:
        """Handle one event, and check what must hold after every one."""
        decided = self.state.handle(event, self.now)
        self.state.validate()
        self.journal += [from_json(json.loads(json.dumps(to_json(d)))) for d in decided]
        return decided

    def ask(
        self,
        user: str,
        count: int = 1,
        *,
        boot: str = "boot-1",
        groups: tuple[str, ...] = (),
        id: str | None = None,
        admin: bool = False,
        **request: Any,
    ) -> str:
        """A spawn asks for GPUs; returns the id of the entry that is open for it then."""
        self._ids += 1
        wanted = GPURequest(count=count, **request)
        entry_id = id or f"e{self._ids}"
        who = key(user)
        self.do(
            events.Submitted(
                entry_id=entry_id,
                key=who,
                groups=groups,
                request=wanted,
                boot_id=boot,
                admin=admin,
            )
        )
        tables = self.state.tables
        return tables.queued_of.get(who) or tables.lease_of[who]

    def bind(self, lease_id: str, container: str | None = None) -> list[Decision]:
        return self.do(
            events.BindAsked(lease_id=lease_id, container_id=container or f"c-{lease_id}")
        )

    def running(self, lease_id: str) -> list[Decision]:
        return self.do(events.ContainerRunning(lease_id=lease_id))

    def run(self, user: str, count: int = 1, **fields: Any) -> str:
        """A server that is granted and runs; returns its lease."""
        lease_id = self.ask(user, count, **fields)
        self.bind(lease_id)
        self.running(lease_id)
        return lease_id

    def stop(self, lease_id: str, reason: Reason = Reason.STOPPED) -> list[Decision]:
        return self.do(events.StopWanted(lease_id=lease_id, reason=reason))

    def gone(
        self, lease_id: str, container: str | None = None, reason: Reason = Reason.VANISHED
    ) -> list[Decision]:
        return self.do(
            events.ContainerGone(
                lease_id=lease_id, container_id=container or f"c-{lease_id}", reason=reason
            )
        )

    def end(self, lease_id: str) -> None:
        """The server is stopped and its container is seen gone."""
        self.stop(lease_id)
        self.gone(lease_id)

    def cancel(self, entry_id: str) -> list[Decision]:
        return self.do(events.Cancelled(entry_id=entry_id))

    def detach(self, entry_id: str) -> list[Decision]:
        return self.do(events.Detached(entry_id=entry_id))

    def take(self, entry_id: str) -> list[Decision]:
        return self.do(events.Taken(entry_id=entry_id))

    def find(self, user: str, container: str, *ids: str, lease: str = "old", **more: Any) -> None:
        self.do(
            events.ContainerFound(
                lease_id=lease,
                container_id=container,
                key=key(user),
                node="n1",
                devices=ids,
                request=GPURequest(count=len(ids), **more),
            )
        )

    def report(
        self,
        node: str = "n1",
        *,
        but: Iterable[str] = (),
        occupied: Iterable[str] = (),
        taken_at: float | None = None,
        boot: str | None = None,
        **status: DeviceStatus,
    ) -> list[Decision]:
        """The sources list all devices of the node, ``but`` some; ``status`` by device id."""
        seen = self.nodes[node]
        if boot is not None:
            seen = machine(node, boot_id=boot)
        return self.do(
            events.NodeReported(
                node=seen,
                devices=tuple(
                    (d, status.get(d.id, OK))
                    for d in self.devices
                    if d.node == node and d.id not in but
                ),
                occupied=frozenset(occupied),
                taken_at=taken_at,
            )
        )

    def tick(self, seconds: float = 0.0) -> list[Decision]:
        self.now += seconds
        return self.do(events.Tick())

    def book(self, *devices: str, begins: float = 0.0, lasts: float = 3600.0, **who: Any) -> str:
        """An admin books devices from ``begins`` seconds from now on; returns the id."""
        self._ids += 1
        starts = self.now + begins
        booking = Booking(
            id=f"b{self._ids}",
            devices=devices,
            starts_at=starts,
            ends_at=starts + lasts,
            **(who or {"groups": ("course",)}),
        )
        self.do(events.Booked(booking=booking))
        return booking.id

    def node_is(self, state: NodeState, node: str = "n1") -> list[Decision]:
        return self.do(events.NodeChanged(node=node, state=state))

    def admin(self, admin: Admin, **what: str) -> list[Decision]:
        return self.do(events.AdminAsked(admin=admin, **what))

    def limit(self, **limits: Any) -> list[Decision]:
        return self.do(events.SettingsChanged(settings=Settings(limits=Limits(**limits))))

    def restart(self) -> World:
        """Another scheduler, built from what the ledger holds; no node is reconciled yet."""
        other = World.__new__(World)
        other.__dict__.update(self.__dict__)
        other.state = SchedulerState(self.state.settings, epoch=2)
        other.state.restore(stored(self.state.tables), self.now)
        other.state.validate()
        return other

    # -- looking -------------------------------------------------------------------------

    def lease(self, lease_id: str) -> Lease:
        return self.state.tables.leases[lease_id]

    def devices_of(self, lease_id: str) -> set[str]:
        return set(self.lease(lease_id).devices)

    def granted(self, entry_id: str) -> bool:
        lease = self.state.tables.leases.get(entry_id)
        return lease is not None and lease.state is LeaseState.RESERVED

    def gone_for_good(self, entry_id: str) -> EntryState | None:
        """The state in which an entry was closed; None while it is open."""
        if entry_id in self.state.tables.entries:
            return None
        states = [d.entry.state for d in self.history(EntryStored) if d.entry.id == entry_id]
        return states[-1]

    def history(self, kind: type[Any]) -> list[Any]:
        return [decision for decision in self.journal if isinstance(decision, kind)]

    def line(self) -> list[tuple[str, Reason]]:
        """Who waits, first one first, and why."""
        return [(str(w.entry.key), w.reason) for w in self.state.waiting()]

    def why(self, user: str) -> Reason:
        return dict(self.line())[user]

    def one(self, **fields: Any) -> GPURequest:
        """A request for one GPU."""
        return GPURequest(count=1, **fields)

    def why_not(self, user: str, count: int = 1, **fields: Any) -> Reason:
        """Why a request that is made now waits."""
        self.ask(user, count, **fields)
        return self.why(user)

    def free(self) -> set[str]:
        return {id for id in self.state.tables.devices if self.state.device_state(id) is None}
