"""The line: who is looked at first, and why somebody has to wait.

Policy here is first come, first served. A younger request may pass an older one only on what
the older one could not use: other devices, and memory that it does not need. Requests that wait
for their own user's limit hold nobody up. (Another order is another ``order`` function.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..units import format_memory
from . import filters, placement, quota
from .models import Claim, Device, GPURequest, Mode, Node, QueueEntry, Reason, Settings
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
    #: node -> bytes, the most that one of those who wait for the node needs
    memory: dict[str, int] = field(default_factory=dict)
    #: the same in 1e-9 processors
    nano_cpus: dict[str, int] = field(default_factory=dict)


class Pass:
    """One look along the line. Decides on each entry in turn, with what the others left.

    Parameters
    ----------
    ready:
        Names of the nodes that were reconciled in this epoch.
    settling:
        Ids of free devices whose memory was not seen empty yet.
    """

    def __init__(
        self, tables: Tables, settings: Settings, ready: Iterable[str], settling: Iterable[str]
    ) -> None:
        self._tables = tables
        self._settings = settings
        self._ready = frozenset(ready)
        self._settling = frozenset(settling)
        self._held = Held()
        #: requests that already found nothing in this pass: the same again need not look
        self._hopeless: dict[GPURequest, Reason] = {}

    def judge(self, entry: QueueEntry) -> tuple[str, tuple[Claim, ...]] | Reason:
        """The node and claims for ``entry`` now, or why it waits (it then holds its place)."""
        if entry.key in self._tables.lease_of:
            return Reason.PREVIOUS_SERVER
        limited = quota.not_now(self._settings.limits, entry, self._tables)
        if limited is not None:
            return limited
        if entry.request in self._hopeless:
            return self._hopeless[entry.request]
        reasons: Counter[Reason] = Counter()
        offers = [
            offer
            for node in self._tables.nodes.values()
            if (offer := self._offer(node, entry.request, reasons)) is not None
        ]
        chosen = placement.choose(offers, entry.request, entry.id)
        if chosen is not None:
            return chosen
        self._hold(entry.request)
        return self._hopeless.setdefault(entry.request, why(reasons))

    def _offer(
        self, node: Node, request: GPURequest, reasons: Counter[Reason]
    ) -> placement.Offer | None:
        """What the node could give; the reasons against are counted into ``reasons``."""
        devices = self._suitable(node.name, request)
        closed = filters.node_open(node, node.name in self._ready)
        if closed is not None:
            if len(devices) >= request.count:
                reasons[closed] += 1
            return None
        free = []
        against: Counter[Reason] = Counter()
        for device in devices:
            reason, atoms = self._free(device)
            if reason is None:
                free.append((device, tuple(atoms)))
            else:
                against[reason] += 1
        if len(free) < request.count:
            reasons.update(_nearest(against, request.count - len(free)))
            return None
        memory_left = self._memory_left(node, request)
        short = self._too_small(node, request, memory_left)
        if short is not None:
            reasons[short] += 1
            return None
        return placement.Offer(node=node.name, free=tuple(free), memory_left=memory_left)

    def _suitable(self, node: str, request: GPURequest) -> list[Device]:
        """Devices of the node of the kind asked for, in whatever state."""
        if request.count == 0:
            return []
        devices = (self._tables.devices[id] for id in self._tables.devices_of_node[node])
        return [device for device in devices if filters.suits(device, request) is None]

    def _free(self, device: Device) -> tuple[Reason | None, list[int]]:
        reason = filters.usable(self._tables.status[device.id])
        if reason is not None:
            return reason, []
        atoms = self._tables.free_atoms(device)
        if not atoms or device.id in self._settling:
            return Reason.DEVICE_BUSY, []
        if device.id in self._held.devices:
            return Reason.BEHIND_OTHERS, []
        return None, atoms

    def _memory_left(self, node: Node, request: GPURequest) -> int:
        """Bytes that stay free after the grant; negative where it has no room (S5)."""
        budget = filters.memory_budget(node, self._settings)
        return budget - self._tables.memory_granted(node.name) - request.memory

    def _too_small(self, node: Node, request: GPURequest, memory_left: int) -> Reason | None:
        """What the node is short of. A request without a limit counts as nothing."""
        if request.memory:
            if memory_left < 0:
                return Reason.NODE_MEMORY
            if memory_left < self._held.memory.get(node.name, 0):
                return Reason.BEHIND_OTHERS
        budget = filters.cpu_budget(node, self._settings)
        if request.cpu and budget is not None:
            wanted = filters.nano_cpus(request.cpu)
            cpus_left = budget - self._tables.nano_cpus_granted(node.name) - wanted
            if cpus_left < 0:
                return Reason.NODE_CPU
            if cpus_left < self._held.nano_cpus.get(node.name, 0):
                return Reason.BEHIND_OTHERS
        return None

    def _hold(self, request: GPURequest) -> None:
        """Keep for ``request`` what it could use once others end; nothing where it never could."""
        cpu = filters.nano_cpus(request.cpu)
        for node in self._tables.nodes.values():
            devices = [
                device.id
                for device in self._suitable(node.name, request)
                if filters.usable(self._tables.status[device.id]) is None
            ]
            if len(devices) < request.count or not filters.large_enough(
                node, request, self._settings
            ):
                continue
            held = self._held
            held.devices.update(devices)
            held.memory[node.name] = max(held.memory.get(node.name, 0), request.memory)
            held.nano_cpus[node.name] = max(held.nano_cpus.get(node.name, 0), cpu)


def _nearest(against: Counter[Reason], missing: int) -> Counter[Reason]:
    """The reasons that count where ``missing`` devices are missing on a node.

    Busy ones are the obstacle only where their end would do; else the broken or closed ones are.
    """
    behind, busy = against.pop(Reason.BEHIND_OTHERS, 0), against.pop(Reason.DEVICE_BUSY, 0)
    if behind >= missing:
        return Counter([Reason.BEHIND_OTHERS])
    if behind + busy >= missing:
        return Counter([Reason.DEVICE_BUSY])
    return against


def why(reasons: Mapping[Reason, int]) -> Reason:
    """The one reason a person is told, where several stand in the way: the nearest to a grant."""
    for reason in (
        # of a node that has all the devices free
        Reason.BEHIND_OTHERS,
        Reason.NODE_MEMORY,
        Reason.NODE_CPU,
        # of a node that works
        Reason.DEVICE_BUSY,
        # of one that an admin has to look after
        Reason.NODE_NOT_READY,
        Reason.NODE_CORDONED,
    ):
        if reason in reasons:
            return Reason.WAITING_FOR_DEVICES if reason is Reason.DEVICE_BUSY else reason
    if not reasons:
        # no node has such devices (now)
        return Reason.WAITING_FOR_DEVICES
    return max(reasons, key=lambda reason: (reasons[reason], reason.value))


def impossible(tables: Tables, settings: Settings, request: GPURequest) -> str | None:
    """Why no node could ever serve ``request``, in words; None where one could, all being free.

    Says None while no node is known: an empty inventory proves nothing.
    """
    if not tables.nodes:
        return None
    if min(request.count, request.min_memory, request.memory, request.cpu) < 0:
        return "an amount is negative"
    most, equipped = 0, []
    for node in tables.nodes.values():
        count = sum(
            tables.status[id].present and filters.suits(tables.devices[id], request) is None
            for id in tables.devices_of_node[node.name]
        )
        most = max(most, count)
        if count >= request.count:
            if filters.large_enough(node, request, settings):
                return None
            equipped.append(node)
    if not equipped:
        return f"no node has {_in_words(request)}; the largest has {most}"
    memory = max(filters.memory_budget(node, settings) for node in equipped)
    if request.memory > memory:
        asked, largest = format_memory(request.memory), format_memory(memory)
        return f"no such node can give {asked} of memory; the largest gives {largest}"
    cpus = max(filters.cpu_budget(node, settings) or 0 for node in equipped) / 1e9
    return f"no such node can give {request.cpu:g} CPUs; the largest gives {cpus:g}"


def _in_words(request: GPURequest) -> str:
    """``2 GPUs of model *A100* with 40 GiB``, ``1 MIG instance``."""
    kind = {Mode.EXCLUSIVE: "GPU", Mode.SLOTS: "shared GPU", Mode.MIG: "MIG instance"}
    words = f"{request.count} {kind[request.sharing]}{'' if request.count == 1 else 's'}"
    if request.model is not None:
        words += f" of model {request.model}"
    if request.min_memory:
        words += f" with {format_memory(request.min_memory)}"
    return words
