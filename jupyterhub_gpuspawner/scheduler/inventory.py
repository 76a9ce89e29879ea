"""What exists: nodes and devices as their sources report them."""

from __future__ import annotations

from . import events, lost, transitions
from .core import Core
from .decisions import DeviceStored, LeaseStored, NodeStored
from .models import Admin, Device, DeviceStatus, Health, NodeState
from .values import replace

#: seconds of a server after which what its GPUs computed is put on record
RECORD = 3600.0


def node_reported(core: Core, event: events.NodeReported, now: float) -> None:
    """Take in what a node has. What it no longer lists stays known, but is not present."""
    old = core.tables.nodes.get(event.node.name)
    boot_id, rebooted = event.node.boot_id, False
    if old is not None:
        # a boot id that could not be read proves no reboot
        boot_id = boot_id or old.boot_id
        rebooted = old.boot_id not in ("", boot_id)
    admin = old.admin if old is not None else Admin.OPEN
    node = replace(event.node, state=NodeState.UP, admin=admin, boot_id=boot_id)
    if node != old:
        core.emit(NodeStored(node=node))
    if rebooted:
        # what happened meanwhile is unknown: compare again before the next grant
        core.set_ready(node.name, False)
        lost.give_back(core, node.name, now)
    for device, status in event.devices:
        _device_reported(core, replace(device, node=node.name), status, rebooted)
        working = event.working.get(device.id)
        for lease_id in dict.fromkeys(core.tables.claims.get(device.id, {}).values()):
            core.idle.worked(core.tables.leases[lease_id], device.id, working, now)
        core.idle.device(device.id, working, now)
    listed = {device.id for device, _ in event.devices}
    for device_id in sorted(core.tables.devices_of_node[node.name] - listed):
        known = core.tables.status[device_id]
        quarantined = known.quarantined and not rebooted
        gone = replace(known, present=False, quarantined=quarantined, note="no longer reported")
        _store_device(core, core.tables.devices[device_id], gone)
    _settle(core, listed - event.occupied, now if event.taken_at is None else event.taken_at)
    _mark_uncertain(core, node.name, False)
    _record_work(core, node.name)


def _record_work(core: Core, node: str) -> None:
    """Put what leases of the node have computed on record, now and then: a restart forgets it."""
    for lease_id, (watched, computed) in list(core.idle.work.items()):
        lease = core.tables.leases.get(lease_id)
        if lease is not None and lease.node == node and watched >= RECORD * len(lease.claims):
            del core.idle.work[lease_id]
            watched, computed = lease.watched + watched, lease.computed + computed
            core.emit(LeaseStored(lease=replace(lease, watched=watched, computed=computed)))


def _settle(core: Core, empty: set[str], seen_at: float) -> None:
    """Devices seen empty may be granted again, unless they were released after the look."""
    for device_id in empty & core.settling.keys():
        if seen_at >= core.settling[device_id]:
            core.settle(device_id)


def _device_reported(core: Core, device: Device, status: DeviceStatus, rebooted: bool) -> None:
    old, known = core.tables.status.get(device.id), core.tables.devices.get(device.id)
    claimed = device.id in core.tables.claims
    if old is not None and known is not None:
        if claimed and known.node != device.node:
            # two machines show one id: believe the one whose lease holds it
            return
        status = _merge(old, status, claimed, rebooted)
        if claimed:
            # how a device is divided changes only when nobody holds a part of it
            device = known
    _store_device(core, device, replace(status, present=True))


def _merge(old: DeviceStatus, new: DeviceStatus, claimed: bool, rebooted: bool) -> DeviceStatus:
    """The new measurement, with what is not the source's to say."""
    health = new.health
    if old.health is Health.BAD and (claimed or health is Health.SUSPECT):
        # BAD ends by a re-check with nobody on it, and then it ends as OK
        health = Health.BAD
    quarantined = old.quarantined and not rebooted
    note = new.note
    if old.present and (quarantined or old.admin is not Admin.OPEN):
        note = note or old.note
    return replace(new, health=health, admin=old.admin, quarantined=quarantined, note=note)


def _store_device(core: Core, device: Device, status: DeviceStatus) -> None:
    known = (core.tables.devices.get(device.id), core.tables.status.get(device.id))
    if known != (device, status):
        core.emit(DeviceStored(device=device, status=status))


def node_reconciled(core: Core, event: events.NodeReconciled, now: float) -> None:
    """From now on the node takes part in grants."""
    core.set_ready(event.node, True)


def node_changed(core: Core, event: events.NodeChanged, now: float) -> None:
    """The node went silent or down: nothing is known, nothing is released."""
    node = core.tables.nodes.get(event.node)
    if node is None:
        return
    if node.state is not event.state:
        if event.state not in transitions.NODE[node.state]:
            # silence of a node that was declared down is no news
            return
        core.emit(NodeStored(node=replace(node, state=event.state)))
    if event.state is not NodeState.UP:
        # what happened meanwhile is unknown: compare again before the next grant
        core.set_ready(event.node, False)
    _mark_uncertain(core, event.node, event.state is not NodeState.UP)


def images_seen(core: Core, event: events.ImagesSeen, now: float) -> None:
    """Know where images are. Not stored: who tells it tells it again."""
    for image, nodes in event.images.items():
        core.tables.note_image(image, nodes)


def _mark_uncertain(core: Core, node: str, uncertain: bool) -> None:
    for lease in list(core.tables.leases.values()):
        if lease.node == node and lease.uncertain is not uncertain:
            core.emit(LeaseStored(lease=replace(lease, uncertain=uncertain)))


def admin_asked(core: Core, event: events.AdminAsked, now: float) -> None:
    """Cordon, drain or open; the facet is the admin's alone."""
    node = core.tables.nodes.get(event.node or "")
    if node is not None and node.admin is not event.admin:
        core.emit(NodeStored(node=replace(node, admin=event.admin)))
    if event.device is not None and event.device in core.tables.devices:
        status = replace(core.tables.status[event.device], admin=event.admin, note=event.note)
        _store_device(core, core.tables.devices[event.device], status)
