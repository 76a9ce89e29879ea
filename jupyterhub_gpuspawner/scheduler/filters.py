"""May this device, or this node, serve this request? Yes (None), or the reason why not."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .models import (
    Admin,
    Device,
    DeviceStatus,
    GPURequest,
    Health,
    Node,
    NodeState,
    Reason,
    Settings,
)


def suits(device: Device, request: GPURequest) -> Reason | None:
    """Whether the device is of the kind asked for, whatever its state."""
    if device.mode is not request.sharing:
        return Reason.DEVICE_SHARING
    if request.model is not None and not fnmatchcase(
        device.model.casefold(), request.model.casefold()
    ):
        return Reason.DEVICE_MODEL
    if device.memory < request.min_memory:
        return Reason.DEVICE_MEMORY
    return None


def usable(status: DeviceStatus) -> Reason | None:
    """Whether the device may be given out at all now (S7); claims are looked at elsewhere."""
    if status.quarantined:
        return Reason.DEVICE_QUARANTINED
    if not status.present or status.health is not Health.OK:
        return Reason.DEVICE_UNHEALTHY
    if status.admin is not Admin.OPEN:
        return Reason.DEVICE_CORDONED
    if status.foreign:
        return Reason.DEVICE_FOREIGN
    return None


def node_open(node: Node, ready: bool) -> Reason | None:
    """Whether the node takes new servers. ``ready``: reconciled in this epoch."""
    if node.state is not NodeState.UP or not ready:
        return Reason.NODE_NOT_READY
    if node.admin is not Admin.OPEN:
        return Reason.NODE_CORDONED
    return None


def memory_budget(node: Node, settings: Settings) -> int:
    """Bytes that the memory limits on a node may add up to (S5)."""
    return int(node.memory * (1 - settings.memory_reserve))


def nano_cpus(cpus: float) -> int:
    """Processors in Docker's own unit. Whole numbers add up exactly, floats don't."""
    return round(cpus * 1_000_000_000)


def cpu_budget(node: Node, settings: Settings) -> int | None:
    """Sum that the CPU limits on a node may reach, in 1e-9 processors; None = no bound."""
    if settings.cpu_overcommit is None:
        return None
    return nano_cpus(node.cpus * settings.cpu_overcommit)


def large_enough(node: Node, request: GPURequest, settings: Settings) -> bool:
    """Whether memory and CPUs would do for the request if the node were empty."""
    cpus = cpu_budget(node, settings)
    return request.memory <= memory_budget(node, settings) and (
        cpus is None or nano_cpus(request.cpu) <= cpus
    )
