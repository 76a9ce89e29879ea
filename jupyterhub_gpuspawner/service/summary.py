"""What the state looks like from outside, as data. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..scheduler import filters
from ..scheduler.models import Device, Reason, Target
from ..scheduler.state import SchedulerState


def summary(state: SchedulerState) -> dict[str, Any]:
    """Devices, nodes, length of the queue, free devices by model."""
    devices = [device_row(state, device) for device in devices_of(state)]
    free = Counter(row["model"] for row in devices if row["state"] == "free")
    return {
        "devices": devices,
        "nodes": [node_row(state, name) for name in sorted(state.tables.nodes)],
        "queue": len(state.tables.queued_of),
        "free": dict(free),
    }


def warned(state: SchedulerState) -> dict[str, Any]:
    """Servers with an end that was announced, and those that are kept, by lease."""
    leases = (lease for lease in state.tables.leases.values() if lease.target is Target.RUN)
    return {
        "warned": {
            lease.id: {
                "stop_at": lease.stop_at,
                "idle": lease.idle,
                "kept_until": lease.kept_until,
            }
            for lease in leases
            if lease.stop_at is not None or lease.kept_until is not None
        }
    }


def devices_of(state: SchedulerState) -> list[Device]:
    """All devices by node and index."""
    return sorted(
        state.tables.devices.values(), key=lambda device: (device.node, device.index, device.id)
    )


def device_facts(device: Device) -> dict[str, Any]:
    """What a device is, whatever becomes of it."""
    return {
        "id": device.id,
        "index": device.index,
        "model": device.model,
        "memory": device.memory,
        "simulated": device.simulated,
    }


def device_row(state: SchedulerState, device: Device) -> dict[str, Any]:
    """One device. ``state``: free, busy (leased, or just given back) or unavailable."""
    reason = unavailable(state, device)
    busy = bool(state.tables.claims.get(device.id)) or reason is Reason.DEVICE_BUSY
    return {
        **device_facts(device),
        "node": device.node,
        "capability": None if device.capability is None else list(device.capability),
        "booked": [
            {"name": b.name, "starts_at": b.starts_at, "ends_at": b.ends_at}
            for b in state.tables.bookings_of.get(device.id, ())
        ],
        "pools": pools_of(state, device.node),
        "state": "busy" if busy else "free" if reason is None else "unavailable",
        "reason": reason.value if reason else None,
    }


def pools_of(state: SchedulerState, node: str) -> list[str]:
    """The pools that the node is in."""
    settings = state.settings
    return [pool for pool in settings.pools if filters.in_pool(node, pool, settings)]


def unavailable(state: SchedulerState, device: Device) -> Reason | None:
    """Why a device can't be given out now, its node's state included; None = it is free."""
    own = state.device_state(device.id)
    if own is not None:
        return own
    node = state.tables.nodes.get(device.node)
    if node is None:
        return Reason.NODE_NOT_READY
    return filters.node_open(node, state.is_ready(node.name))


def node_row(state: SchedulerState, name: str) -> dict[str, Any]:
    """One machine; memory in bytes."""
    node = state.tables.nodes[name]
    closed = filters.node_open(node, state.is_ready(name))
    return {
        "name": name,
        "state": node.state.value,
        "reason": closed.value if closed else None,
        "memory": node.memory,
        "memory_granted": state.tables.memory_granted(name),
        "memory_budget": filters.memory_budget(node, state.settings),
        "cpus": node.cpus,
    }
