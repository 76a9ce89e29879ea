"""The life of a lease, from grant to release (two-phase start; release needs proof)."""

from __future__ import annotations

from dataclasses import replace

from ..errors import RefusedError
from . import events
from .core import Core
from .decisions import EntryStored, LeaseStored, Noted
from .models import Claim, EntryState, Lease, LeaseState, QueueEntry, Reason, Target


def bind_asked(core: Core, event: events.BindAsked, now: float) -> None:
    """Record the container before it may start; refused once the target is GONE."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is not None and lease.container_id == event.container_id:
        if lease.target is Target.RUN:
            return
    elif lease is not None and lease.state is LeaseState.RESERVED:
        core.emit(
            LeaseStored(
                lease=replace(
                    lease,
                    state=LeaseState.STARTING,
                    container_id=event.container_id,
                    moved_at=now,
                )
            )
        )
        entry = core.tables.entries.get(lease.id)
        if entry is not None and entry.state is EntryState.GRANTED:
            core.emit(EntryStored(entry=replace(entry, state=EntryState.BOUND)))
            core.attached.discard(entry.id)
            core.detached.pop(entry.id, None)
        return
    state = lease.state.value if lease is not None else "over"
    raise RefusedError(
        f"lease {event.lease_id}: container {event.container_id[:12]} may not start: {state}",
        "The GPUs were given back before the server started. Start it again.",
        reason=(lease.reason or Reason.STOPPED).value if lease else Reason.STOPPED.value,
    )


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
        _release(core, stopping, now)


def container_gone(core: Core, event: events.ContainerGone, now: float) -> None:
    """Proof for the recorded container: give its atoms back."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is None or lease.container_id != event.container_id:
        return
    if lease.target is Target.RUN:
        stop(core, lease, event.reason, event.note, now)
        lease = core.tables.leases[event.lease_id]
    _release(core, lease, now)


def _release(core: Core, lease: Lease, now: float) -> None:
    core.emit(
        LeaseStored(lease=replace(lease, state=LeaseState.RELEASED, released_at=now, moved_at=now))
    )
    core.settling.update(
        id for id in lease.devices if id in core.tables.devices and not _dummy(core, id)
    )
    entry = core.tables.entries.get(lease.id)
    if entry is not None:
        bound = entry.state is EntryState.BOUND
        core.end_entry(entry, EntryState.DONE if bound else EntryState.CANCELLED)


def _dummy(core: Core, device_id: str) -> bool:
    """Simulated devices have no memory that could still be in use."""
    return core.tables.devices[device_id].simulated


def container_found(core: Core, event: events.ContainerFound, now: float) -> None:
    """Adopt a running container of ours that no live lease knows; never kill it."""
    if any(lease.container_id == event.container_id for lease in core.tables.leases.values()):
        return
    key = event.key
    if key in core.tables.lease_of:
        key = replace(key, server=f"{key.server}@{event.container_id[:12]}")
    if event.lease_id in core.tables.leases or key in core.tables.lease_of:
        return
    claims = []
    for device_id in event.devices:
        device = core.tables.devices.get(device_id)
        free = core.tables.free_atoms(device) if device is not None else []
        claims += [Claim(device=device_id, atom=atom, lease_id=event.lease_id) for atom in free]
    lease = Lease(
        id=event.lease_id,
        key=key,
        request=event.request,
        profile=event.profile,
        node=event.node,
        claims=tuple(claims),
        state=LeaseState.RUNNING,
        container_id=event.container_id,
        granted_at=now,
        moved_at=now,
        epoch=core.epoch,
    )
    core.emit(LeaseStored(lease=lease))
    missing = sorted(set(event.devices) - set(lease.devices))
    text = f"container {event.container_id[:12]} was running without a lease and is adopted"
    if missing:
        text += f"; it also uses {', '.join(missing)}, which others hold"
    core.emit(Noted(kind="adopted", text=text, subject=str(key)))


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
    core.reasons.pop(entry.id, None)


def expire(core: Core, now: float) -> None:
    """Take back leases for which no container was made in time."""
    for lease in list(core.tables.leases.values()):
        late = now - lease.moved_at > core.settings.bind_deadline
        if lease.state is LeaseState.RESERVED and late:
            stop(core, lease, Reason.START_TIMEOUT, "no container was made in time", now)
