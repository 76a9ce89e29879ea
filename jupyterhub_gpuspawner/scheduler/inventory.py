"""What exists: nodes and devices as their sources report them."""

from __future__ import annotations

from dataclasses import replace

from . import events
from .core import Core
from .decisions import DeviceStored, LeaseStored, NodeStored
from .models import Admin, Device, DeviceStatus, NodeState


def node_reported(core: Core, event: events.NodeReported, now: float) -> None:
    """Take in what a node has. What it no longer lists stays known, but is not present."""
    old = core.tables.nodes.get(event.node.name)
    rebooted = old is not None and old.boot_id != event.node.boot_id
    node = replace(event.node, state=NodeState.UP, admin=old.admin if old else Admin.OPEN)
    if node != old:
        core.emit(NodeStored(node=node))
    listed = {device.id for device, _ in event.devices}
    for device, status in event.devices:
        _device_reported(core, device, status, rebooted)
    for device_id in sorted(core.tables.devices_of_node[node.name] - listed):
        gone = replace(core.tables.status[device_id], present=False, note="no longer reported")
        _store_device(core, core.tables.devices[device_id], gone)
    core.settling -= listed
    _mark_uncertain(core, node.name, False)


def _device_reported(core: Core, device: Device, status: DeviceStatus, rebooted: bool) -> None:
    old = core.tables.status.get(device.id)
    if old is not None:
        status = replace(
            status,
            admin=old.admin,
            quarantined=old.quarantined and not rebooted,
            present=True,
        )
        if core.tables.claims.get(device.id):
            # how a device is divided changes only when nobody holds a part of it
            device = core.tables.devices[device.id]
    _store_device(core, device, status)


def _store_device(core: Core, device: Device, status: DeviceStatus) -> None:
    known = (core.tables.devices.get(device.id), core.tables.status.get(device.id))
    if known != (device, status):
        core.emit(DeviceStored(device=device, status=status))


def node_reconciled(core: Core, event: events.NodeReconciled, now: float) -> None:
    """From now on the node takes part in grants."""
    core.ready.add(event.node)


def node_changed(core: Core, event: events.NodeChanged, now: float) -> None:
    """The node went silent or down: nothing is known, nothing is released."""
    node = core.tables.nodes.get(event.node)
    if node is None:
        return
    if node.state is not event.state:
        core.emit(NodeStored(node=replace(node, state=event.state)))
    if event.state is not NodeState.UP:
        # what happened meanwhile is unknown: compare again before the next grant
        core.ready.discard(event.node)
    _mark_uncertain(core, event.node, event.state is not NodeState.UP)


def _mark_uncertain(core: Core, node: str, uncertain: bool) -> None:
    for lease in list(core.tables.leases.values()):
        if lease.node == node and lease.uncertain is not uncertain:
            core.emit(LeaseStored(lease=replace(lease, uncertain=uncertain)))


def admin_asked(core: Core, event: events.AdminAsked, now: float) -> None:
    """Cordon, drain or open; the facet is the admin's alone."""
    if event.node is not None and event.node in core.tables.nodes:
        core.emit(NodeStored(node=replace(core.tables.nodes[event.node], admin=event.admin)))
    if event.device is not None and event.device in core.tables.devices:
        status = replace(core.tables.status[event.device], admin=event.admin, note=event.note)
        _store_device(core, core.tables.devices[event.device], status)
