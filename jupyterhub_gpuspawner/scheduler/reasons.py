"""Why a request waits, and why another can never be granted: for people, not for decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..units import format_memory
from . import filters
from .capacity import Capacity, Room, Want
from .models import GPURequest, Mode, Reason, Settings
from .tables import Tables


def why_none(tables: Tables, capacity: Capacity, want: Want) -> Reason:
    """Why no node has room for the request now."""
    reasons: Counter[Reason] = Counter()
    for room in capacity.rooms.values():
        _count(tables, room, want, reasons)
    return why(reasons)


def _count(tables: Tables, room: Room, want: Want, reasons: Counter[Reason]) -> None:
    """What is against the one node."""
    shelves = [room.shelves[kind] for kind in want.kinds if kind in room.shelves]
    if room.closed is not None:
        if sum(len(shelf.known) for shelf in shelves) >= want.count:
            reasons[room.closed] += 1
        return
    missing = want.count - sum(len(shelf.free) for shelf in shelves)
    if missing > 0:
        against: Counter[Reason] = Counter()
        for shelf in shelves:
            against[Reason.DEVICE_BUSY] += len(shelf.usable) - len(shelf.free)
            for device_id in shelf.known - shelf.usable:
                reason = filters.usable(tables.status[device_id])
                assert reason is not None
                against[reason] += 1
        reasons.update(_nearest(against, missing))
    elif want.memory > room.memory:
        reasons[Reason.NODE_MEMORY] += 1
    else:
        reasons[Reason.NODE_CPU] += 1


def _nearest(against: Counter[Reason], missing: int) -> Counter[Reason]:
    """The reasons that count where ``missing`` devices are missing on a node.

    Busy ones are the obstacle only where their end would do; else the broken or closed ones are.
    """
    if against.pop(Reason.DEVICE_BUSY, 0) >= missing:
        return Counter([Reason.DEVICE_BUSY])
    return against


def why(reasons: Mapping[Reason, int]) -> Reason:
    """The one reason a person is told, where several stand in the way: the nearest to a grant."""
    for reason in (
        # of a node that has all the devices free
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
