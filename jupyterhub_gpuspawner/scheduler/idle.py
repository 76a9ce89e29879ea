"""Taking back GPUs that nobody uses: a warning, a deadline, and then the stop.

A server is used while one of its kernels or terminals is, or one of its GPUs computes. Whoever
is not known to be unused is left alone: only where server and GPUs were seen idle for the whole
time, without a gap, a warning is given, and only where they were so for the whole warning, the
server is stopped.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import RefusedError
from . import events, leases
from .core import Core
from .decisions import LeaseStored
from .models import Lease, LeaseState, Reason, Target

NOTE = "nobody used its GPUs, kernels or terminals"


def activity_seen(core: Core, event: events.ActivitySeen, now: float) -> None:
    """Remember when a server was last used."""
    if event.lease_id not in core.tables.leases:
        return
    used_at = None if event.idle_for is None else now - event.idle_for
    core.idle.server(event.lease_id, used_at, now)
    if event.groups is not None:
        core.idle.groups[event.lease_id] = event.groups


def look(core: Core, now: float) -> None:
    """Warn, stop, or withdraw a warning. For each tick."""
    core.idle.forget(core.tables.leases)
    for lease in list(core.tables.leases.values()):
        if (
            (core.settings.idle.active or lease.idle)
            and lease.state is LeaseState.RUNNING
            and lease.claims
            # another warning has its own end
            and (lease.idle or not lease.warned)
            # of what is not known nothing is said, and no warning is taken back
            and lease.node in core.ready
            and not lease.uncertain
        ):
            _look_at(core, lease, now)


def _look_at(core: Core, lease: Lease, now: float) -> None:
    idle = core.settings.idle
    timeout = idle.timeout_of(core.idle.groups.get(lease.id, lease.groups))
    if timeout is None or now < _protected_until(core, lease):
        _withdraw(core, lease)
        return
    quiet = core.idle.quiet(lease.id, lease.devices, now)
    if quiet is None:
        return
    if not lease.idle:
        if quiet.lasts(now) >= timeout:
            end = now + idle.warning
            core.emit(LeaseStored(lease=replace(lease, warned=True, idle=True, stop_at=end)))
    elif now - quiet.used_at < timeout:
        _withdraw(core, lease)
    elif now >= (lease.stop_at or now) and quiet.lasts(now) >= idle.warning:
        leases.stop(core, lease, Reason.IDLE, NOTE, now)


def _protected_until(core: Core, lease: Lease) -> float:
    # it moved to RUNNING last
    return max(lease.moved_at + core.settings.idle.min_runtime, lease.kept_until or 0.0)


def _withdraw(core: Core, lease: Lease) -> None:
    if lease.idle:
        core.emit(LeaseStored(lease=replace(lease, warned=False, idle=False, stop_at=None)))


def keep_asked(core: Core, event: events.KeepAsked, now: float) -> None:
    """Leave a server alone for a while. May be repeated."""
    lease = core.tables.leases.get(event.lease_id)
    if lease is None or lease.target is not Target.RUN:
        raise RefusedError(
            f"lease {event.lease_id}: not kept: it is over",
            "The server is over.",
            reason=Reason.STOPPED.value,
        )
    kept = max(lease.kept_until or 0.0, now + core.settings.idle.extension)
    lease = replace(lease, kept_until=kept)
    if lease.idle:
        lease = replace(lease, warned=False, idle=False, stop_at=None)
    core.emit(LeaseStored(lease=lease))
