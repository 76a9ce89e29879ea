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
    """Whether the device is one that was asked for, whatever its state."""
    if request.devices and device.id not in request.devices:
        return Reason.DEVICE_OTHER
    return kind_suits(device, request)


def kind_suits(device: Device, request: GPURequest) -> Reason | None:
    """The same of all devices that differ in nothing but their ids."""
    if device.mode is not request.sharing:
        return Reason.DEVICE_SHARING
    if request.model is not None and not fnmatchcase(
        device.model.casefold(), request.model.casefold()
    ):
        return Reason.DEVICE_MODEL
    if device.memory < request.min_memory:
        return Reason.DEVICE_MEMORY
    if request.cap and not 0 < device.cap <= request.cap:
        return Reason.DEVICE_UNCAPPED
    least = request.min_capability
    if least is not None and (device.capability is None or device.capability < least):
        return Reason.DEVICE_CAPABILITY
    return None


def in_pool(node: str, pool: str, settings: Settings) -> bool:
    """Whether the node belongs to the pool."""
    return any(fnmatchcase(node, pattern) for pattern in settings.pools.get(pool, ()))


def node_suits(node: str, request: GPURequest, settings: Settings) -> Reason | None:
    """Whether the node is one that was asked for, whatever its state."""
    other = node == request.not_node or request.node not in (None, node)
    if other or (request.pool is not None and not in_pool(node, request.pool, settings)):
        return Reason.NODE_OTHER
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
