"""The life of a lease, from grant to release (two-phase start; release needs proof)."""

from __future__ import annotations

from ..errors import RefusedError
from . import events
from .core import Core
from .decisions import DeviceStored, EntryStored, LeaseStored, Noted
from .models import Claim, Device, EntryState, Lease, LeaseState, Mode, QueueEntry, Reason, Target
from .values import replace


def bind_asked(core: Core, event: events.BindAsked, now: float) -> None:
    """Record the container before it may start; refused once the target is GONE."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is not None and lease.container_id == event.container_id:
        if lease.target is Target.RUN:
            return
    elif (
        lease is not None
        and lease.state is LeaseState.RESERVED
        and event.container_id not in core.tables.lease_of_container
    ):
        _bind(core, lease, event.container_id, now)
        return
    state = lease.state.value if lease is not None else "over"
    raise RefusedError(
        f"lease {event.lease_id}: container {event.container_id[:12]} may not start: {state}",
        "The GPUs were given back before the server started. Start it again.",
        reason=(lease.reason or Reason.STOPPED).value if lease else Reason.STOPPED.value,
    )


def _bind(core: Core, lease: Lease, container_id: str, now: float) -> None:
    starting = replace(lease, state=LeaseState.STARTING, container_id=container_id, moved_at=now)
    core.emit(LeaseStored(lease=starting))
    entry = core.tables.entries.get(lease.id)
    if entry is not None and entry.state is EntryState.GRANTED:
        core.emit(EntryStored(entry=replace(entry, state=EntryState.BOUND)))
        core.forget_waiter(entry.id)


def container_running(core: Core, event: events.ContainerRunning, now: float) -> None:
    """The recorded container was seen running."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is not None and lease.state is LeaseState.STARTING:
        core.emit(LeaseStored(lease=replace(lease, state=LeaseState.RUNNING, moved_at=now)))


def stop_wanted(core: Core, event: events.StopWanted, now: float) -> None:
    """Store that the server shall go, before anybody stops it."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is not None and lease.target is Target.RUN:
        stop(core, lease, event.reason, event.note, now)


def stop(core: Core, lease: Lease, reason: Reason, note: str, now: float) -> None:
    """Store the intent. Without a container on record that is all: nothing can start now."""
    stopping = replace(
        lease,
        state=LeaseState.STOPPING,
        target=Target.GONE,
        reason=reason,
        note=note,
        moved_at=now,
    )
    core.emit(LeaseStored(lease=stopping))
    if lease.container_id is None:
        release(core, stopping, "", now)


def stop_hung(core: Core, event: events.StopHung, now: float) -> None:
    """Nobody knows what still runs on the devices: they are out of service until a reboot."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is None or lease.target is not Target.GONE or lease.quarantined:
        return
    core.emit(LeaseStored(lease=replace(lease, quarantined=True)))
    for device_id in lease.devices:
        if device_id in core.tables.devices:
            note = event.note or f"a stop hung (lease {lease.id})"
            status = replace(core.tables.status[device_id], quarantined=True, note=note)
            core.emit(DeviceStored(device=core.tables.devices[device_id], status=status))


def container_gone(core: Core, event: events.ContainerGone, now: float) -> None:
    """Proof for the recorded container: give its atoms back."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is None or lease.container_id != event.container_id:
        return
    if lease.target is Target.RUN:
        stop(core, lease, event.reason, event.note, now)
        lease = core.tables.leases[event.lease_id]
    # the reason is why it was to go; last words of the container don't change that
    release(core, lease, event.note, now)


def release(core: Core, lease: Lease, last_words: str, now: float) -> None:
    """Its container is gone, as the caller knows: give its atoms back."""
    watched, computed = core.idle.work.pop(lease.id, (0.0, 0.0))
    released = replace(
        lease,
        state=LeaseState.RELEASED,
        released_at=now,
        moved_at=now,
        watched=lease.watched + watched,
        computed=lease.computed + computed,
        note=lease.note or last_words,
    )
    core.emit(LeaseStored(lease=released))
    for device_id in lease.devices:
        device = core.tables.devices.get(device_id)
        # simulated devices have no memory that could still be in use
        if device is not None and not device.simulated:
            core.settling[device_id] = now
            relatives = core.tables.relatives(device_id)
            core.settling.update(dict.fromkeys(relatives, now))
            core.tables.touched.update((device_id, *relatives))
    entry = core.tables.entries.get(lease.id)
    if entry is not None:
        bound = entry.state is EntryState.BOUND
        core.end_entry(entry, EntryState.DONE if bound else EntryState.CANCELLED)


def container_found(core: Core, event: events.ContainerFound, now: float) -> None:
    """Adopt a running container of ours that no live lease knows; never kill it."""
    if event.container_id in core.tables.lease_of_container:
        return
    lease_id, key, tail = event.lease_id, event.key, event.container_id[:12]
    if lease_id in core.tables.leases or lease_id in core.tables.entries:
        lease_id = f"{lease_id}@{tail}"
    if key in core.tables.lease_of:
        key = replace(key, server=f"{key.server}@{tail}")
    lease = Lease(
        id=lease_id,
        key=key,
        request=event.request,
        profile=event.profile,
        node=event.node,
        claims=_adopted_claims(core, event, lease_id),
        state=LeaseState.RUNNING,
        container_id=event.container_id,
        granted_at=now,
        moved_at=now,
        epoch=core.epoch,
    )
    core.emit(LeaseStored(lease=lease))
    missing = sorted(set(event.devices) - set(lease.devices))
    text = f"container {tail} was running without a lease and is adopted"
    if missing:
        text += f"; it also uses {', '.join(missing)}, which others hold"
    core.emit(Noted(kind="adopted", text=text, subject=str(key)))


def _adopted_claims(core: Core, event: events.ContainerFound, lease_id: str) -> tuple[Claim, ...]:
    """What the container uses, as far as it is free. Also devices that no source listed yet."""
    claims: list[Claim] = []
    for device_id in dict.fromkeys(event.devices):
        unlisted = Device(id=device_id, node=event.node)
        atoms = core.tables.free_atoms(core.tables.devices.get(device_id, unlisted))
        if event.request.sharing is Mode.SLOTS:
            atoms = atoms[:1]
        claims += [Claim(device=device_id, atom=atom, lease_id=lease_id) for atom in atoms]
    return tuple(claims)


def grant(core: Core, entry: QueueEntry, node: str, claims: tuple[Claim, ...], now: float) -> None:
    """Reserve the claims for the entry. Nothing has started yet."""
    length = entry.request.length
    lease = Lease(
        id=entry.id,
        key=entry.key,
        groups=entry.groups,
        request=entry.request,
        profile=entry.profile,
        node=node,
        claims=claims,
        boot_id=entry.boot_id,
        granted_at=now,
        moved_at=now,
        ends_at=None if length is None else now + length,
        epoch=core.epoch,
    )
    core.emit(LeaseStored(lease=lease))
    core.emit(EntryStored(entry=replace(entry, state=EntryState.GRANTED, lease_id=lease.id)))


def expire(core: Core, now: float) -> None:
    """Take back leases for which no container was made, or started, in time."""
    for lease in list(core.tables.leases.values()):
        age = now - lease.moved_at
        if lease.state is LeaseState.RESERVED and age > core.settings.bind_deadline:
            stop(core, lease, Reason.START_TIMEOUT, "no container was made in time", now)
        elif (
            lease.state is LeaseState.STARTING
            and age > core.settings.start_deadline
            # its container may run: only where the engine was asked in this epoch, and answers
            and lease.node in core.ready
            and not lease.uncertain
        ):
            stop(core, lease, Reason.START_TIMEOUT, "the container did not start in time", now)
