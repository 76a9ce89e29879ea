"""The line: who is looked at first, and why somebody has to wait.

Policy here is first come, first served. A younger request may pass an older one only on what
the older one could not use: other devices, and memory that it does not need. Requests that wait
for their own user's limit hold nobody up. (Another order is another ``order`` function.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from . import filters, placement, quota
from .models import Claim, Device, GPURequest, Node, QueueEntry, Reason, Settings
from .tables import Tables

#: entries in the order in which they are to be served
Order = Callable[[Tables, float], list[QueueEntry]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """What a waiting user may know."""

    entry: QueueEntry
    #: 1 = next
    position: int
    reason: Reason


def first_come(tables: Tables, now: float) -> list[QueueEntry]:
    """Order of arrival. ``now`` is there for policies that look at the clock."""
    return tables.queued()


@dataclass(kw_only=True, slots=True)
class Held:
    """What older waiting requests could use, and therefore nobody younger may take."""

    devices: set[str] = field(default_factory=set)
    #: node -> bytes, of the first one that waits for the node
    memory: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)


class Pass:
    """One look along the line. Decides on each entry in turn, with what the others left."""

    def __init__(self, tables: Tables, settings: Settings, ready: Iterable[str]) -> None:
        self._tables = tables
        self._settings = settings
        self._ready = frozenset(ready)
        self._held = Held()
        #: requests that already found nothing in this pass: the same again need not look
        self._hopeless: set[GPURequest] = set()

    def judge(
        self, entry: QueueEntry, settling: frozenset[str]
    ) -> tuple[str, tuple[Claim, ...]] | Reason:
        """The node and claims for ``entry`` now, or why it waits (it then holds its place)."""
        if entry.key in self._tables.lease_of:
            return Reason.PREVIOUS_SERVER
        limited = quota.not_now(self._settings.limits, entry, self._tables)
        if limited is not None:
            return limited
        if entry.request in self._hopeless:
            return Reason.BEHIND_OTHERS
        reasons: dict[Reason, int] = {}
        offers = [
            offer
            for node in self._tables.nodes.values()
            if (offer := self._offer(node, entry.request, settling, reasons)) is not None
        ]
        chosen = placement.choose(offers, entry.request, entry.id)
        if chosen is not None:
            return chosen
        self._hopeless.add(entry.request)
        self._hold(entry.request)
        return why(reasons)

    def _offer(
        self,
        node: Node,
        request: GPURequest,
        settling: frozenset[str],
        reasons: dict[Reason, int],
    ) -> placement.Offer | None:
        """What the node could give; the reasons against are counted into ``reasons``."""
        closed = filters.node_open(node, node.name in self._ready)
        if closed is not None:
            reasons[closed] = reasons.get(closed, 0) + 1
            return None
        free = []
        for device in self.suitable(node.name, request):
            reason, atoms = self._free(device, settling)
            if reason is None:
                free.append((device, tuple(atoms)))
            else:
                reasons[reason] = reasons.get(reason, 0) + 1
        if len(free) < request.count:
            return None
        left = self._memory_left(node, request)
        if left < 0:
            reasons[Reason.NODE_MEMORY] = reasons.get(Reason.NODE_MEMORY, 0) + 1
            return None
        if self._cpu_left(node, request) < 0:
            reasons[Reason.NODE_CPU] = reasons.get(Reason.NODE_CPU, 0) + 1
            return None
        return placement.Offer(node=node.name, free=tuple(free), memory_left=left)

    def suitable(self, node: str, request: GPURequest) -> list[Device]:
        """Devices of the node of the kind asked for, in whatever state."""
        if request.count == 0:
            return []
        devices = (self._tables.devices[id] for id in self._tables.devices_of_node[node])
        return [device for device in devices if filters.suits(device, request) is None]

    def _free(self, device: Device, settling: frozenset[str]) -> tuple[Reason | None, list[int]]:
        reason = filters.usable(self._tables.status[device.id])
        if reason is not None:
            return reason, []
        atoms = self._tables.free_atoms(device)
        if not atoms or device.id in settling:
            return Reason.DEVICE_BUSY, []
        if device.id in self._held.devices:
            return Reason.BEHIND_OTHERS, []
        return None, atoms

    def _memory_left(self, node: Node, request: GPURequest) -> int:
        if request.memory == 0:
            return 0
        budget = filters.memory_budget(node, self._settings)
        granted = self._tables.memory_granted(node.name) + self._held.memory.get(node.name, 0)
        return budget - granted - request.memory

    def _cpu_left(self, node: Node, request: GPURequest) -> float:
        if request.cpu == 0:
            return 0.0
        budget = filters.cpu_budget(node, self._settings)
        granted = self._tables.cpu_granted(node.name) + self._held.cpu.get(node.name, 0.0)
        return budget - granted - request.cpu

    def _hold(self, request: GPURequest) -> None:
        for node in self._tables.nodes.values():
            devices = self.suitable(node.name, request)
            if len(devices) < request.count:
                continue
            self._held.devices.update(device.id for device in devices)
            self._held.memory.setdefault(node.name, request.memory)
            self._held.cpu.setdefault(node.name, request.cpu)


def why(reasons: Mapping[Reason, int]) -> Reason:
    """The one reason a person is told, where several stand in the way.

    What the admin can mend comes before what only time mends.
    """
    for reason in (
        Reason.NODE_NOT_READY,
        Reason.NODE_CORDONED,
        Reason.NODE_MEMORY,
        Reason.NODE_CPU,
        Reason.DEVICE_BUSY,
        Reason.BEHIND_OTHERS,
    ):
        if reason in reasons:
            return Reason.WAITING_FOR_DEVICES if reason is Reason.DEVICE_BUSY else reason
    blocked = [reason for reason in reasons if reason.value.startswith("device_")]
    return max(blocked, key=lambda reason: reasons[reason]) if blocked else Reason.IMPOSSIBLE


def impossible(tables: Tables, settings: Settings, request: GPURequest) -> str | None:
    """Why no node could ever serve ``request``, in words; None where one could, all being free.

    Says None while no node is known: an empty inventory proves nothing.
    """
    if not tables.nodes:
        return None
    most = 0
    for node in tables.nodes.values():
        ids = tables.devices_of_node[node.name]
        kinds = [
            device
            for id in ids
            if tables.status[id].present
            and filters.suits(device := tables.devices[id], request) is None
        ]
        budget = filters.memory_budget(node, settings)
        if len(kinds) < request.count:
            most = max(most, len(kinds))
        elif request.memory <= budget and request.cpu <= filters.cpu_budget(node, settings):
            return None
        else:
            most = request.count
    if most >= request.count:
        largest = max(filters.memory_budget(node, settings) for node in tables.nodes.values())
        return f"no node can give {request.memory} bytes of memory; the largest gives {largest}"
    kind = f" of model {request.model}" if request.model else ""
    return f"no node has {request.count} GPUs{kind}; the largest has {most}"
