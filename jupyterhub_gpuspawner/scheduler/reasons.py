"""Why a request waits, and why another can never be granted: for people, not for decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ..units import format_memory
from . import filters
from .capacity import Capacity
from .models import GPURequest, Mode, Reason, Settings
from .rooms import Room, Shelf, Want
from .tables import Tables


def why_none(tables: Tables, capacity: Capacity, want: Want) -> Reason:
    """Why no node has room for the request now."""
    reasons: Counter[Reason] = Counter()
    for room in capacity.rooms.values():
        _count(tables, room, want, reasons)
    return why(reasons)


def against(tables: Tables, room: Room, want: Want) -> Counter[Reason]:
    """What is against one node that has no room."""
    reasons: Counter[Reason] = Counter()
    _count(tables, room, want, reasons)
    return reasons


def _count(tables: Tables, room: Room, want: Want, reasons: Counter[Reason]) -> None:
    """Add what is against the one node."""
    if not room.suits(want):
        return
    shelves = [room.shelves[kind] for kind in want.kinds if kind in room.shelves]
    if room.closed is not None:
        if sum(len(want.named(shelf.known)) for shelf in shelves) >= want.count:
            reasons[room.closed] += 1
        return
    missing = want.count - room.free(want)
    if missing > 0:
        _count_devices(tables, shelves, want, missing, reasons)
    elif want.memory > room.memory:
        reasons[Reason.NODE_MEMORY] += 1
    else:
        reasons[Reason.NODE_CPU] += 1


def _count_devices(
    tables: Tables, shelves: list[Shelf], want: Want, missing: int, reasons: Counter[Reason]
) -> None:
    """Add what counts where ``missing`` devices are missing on a node.

    Busy ones are the obstacle only where their end would do, and no free ones that are booked
    for others would; else the broken or closed ones are.
    """
    busy = reserved = 0
    for shelf in shelves:
        free = want.named(shelf.free)
        busy += len(want.named(shelf.usable)) - len(free)
        reserved += len(free & want.avoid)
    if reserved >= missing:
        reasons[Reason.DEVICE_RESERVED] += 1
    elif busy >= missing:
        reasons[Reason.DEVICE_BUSY] += 1
    else:
        if reserved:
            reasons[Reason.DEVICE_RESERVED] += reserved
        for shelf in shelves:
            for device_id in want.named(shelf.known) - want.named(shelf.usable):
                reason = filters.usable(tables.status[device_id])
                assert reason is not None
                reasons[reason] += 1


def why(reasons: Mapping[Reason, int]) -> Reason:
    """The one reason a person is told, where several stand in the way: the nearest to a grant."""
    for reason in (
        # of a node that has all the devices free
        Reason.NODE_MEMORY,
        Reason.NODE_CPU,
        Reason.DEVICE_RESERVED,
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
    wrong = _wrong(tables, settings, request)
    if wrong is not None:
        return wrong
    most, equipped = 0, []
    for node in tables.nodes.values():
        if filters.node_suits(node.name, request, settings) is not None:
            continue
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
        return _too_few(request, most)
    memory = max(filters.memory_budget(node, settings) for node in equipped)
    if request.memory > memory:
        asked, largest = format_memory(request.memory), format_memory(memory)
        return f"no such node can give {asked} of memory; the largest gives {largest}"
    cpus = max(filters.cpu_budget(node, settings) or 0 for node in equipped) / 1e9
    return f"no such node can give {request.cpu:g} CPUs; the largest gives {cpus:g}"


def _wrong(tables: Tables, settings: Settings, request: GPURequest) -> str | None:
    """What is wrong with the request itself, or with the names in it."""
    if min(request.count, request.min_memory, request.cap, request.memory, request.cpu) < 0:
        return "an amount is negative"
    if request.cap and request.sharing is not Mode.SLOTS:
        return "only the memory of shared GPUs (slots) can be capped; others are the server's own"
    if request.devices and len(set(request.devices)) != request.count:
        return f"{len(set(request.devices))} GPUs are named, and {request.count} asked for"
    for device_id in request.devices:
        if device_id not in tables.devices:
            return f"there is no GPU {device_id}"
    if request.node is not None and request.node not in tables.nodes:
        return f"there is no node {request.node}; there are {_listed(tables.nodes)}"
    if request.pool is not None and request.pool not in settings.pools:
        return f"there is no pool {request.pool}; there are {_listed(settings.pools)}"
    return None


def _listed(names: Iterable[str]) -> str:
    """The first few of them."""
    known = sorted(names)
    return ", ".join(known[:8]) + (" and others" if len(known) > 8 else "") if known else "none"


def _too_few(request: GPURequest, most: int) -> str:
    where = ""
    if request.pool is not None:
        where += f" in pool {request.pool}"
    if request.node is not None:
        return f"node {request.node}{where} does not have {_in_words(request)}; it has {most}"
    if request.not_node is not None:
        where += f" but {request.not_node}"
    return f"no node{where} has {_in_words(request)}; the largest has {most}"


def _in_words(request: GPURequest) -> str:
    """``2 GPUs of model *A100* with 40 GiB``, ``1 MIG instance``."""
    kind = {Mode.EXCLUSIVE: "GPU", Mode.SLOTS: "shared GPU", Mode.MIG: "MIG instance"}
    words = f"{request.count} {kind[request.sharing]}{'' if request.count == 1 else 's'}"
    if request.model is not None:
        words += f" of model {request.model}"
    if request.min_memory:
        words += f" with {format_memory(request.min_memory)}"
    if request.cap:
        words += f" that MPS caps at {format_memory(request.cap)} or less"
    if request.min_capability is not None:
        words += " of compute capability {}.{} or newer".format(*request.min_capability)
    if request.devices:
        words += f" ({', '.join(request.devices)})"
    return words
