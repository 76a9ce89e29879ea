"""What a user's own pages show: servers, places in the queue, what was had. Pure.

Of others there are numbers only. Times are POSIX seconds, texts are in the reader's language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..i18n import Words
from ..scheduler.models import Lease, LeaseState, QueueEntry, Reason
from ..scheduler.policy import DAY, HOUR
from ..scheduler.queue import Waiting
from ..scheduler.quota import user_limit
from .identity import HUB
from .page_data import View, lease_row
from .summary import device_facts, device_row, devices_of
from .words import REASONS, why_stopped

#: ended servers that are listed
SHOWN = 5
#: seconds over which use is summed up
WINDOW = 7 * DAY


def mine(view: View, words: Words) -> dict[str, Any]:
    """Everything of the viewer's own."""
    tables, user = view.state.tables, view.viewer.name
    leases = sorted(_leases(view).get(user, ()), key=lambda lease: lease.key.server)
    places = [place for place in _line(view).get(user, ()) if view.viewer.owns(place.entry.key)]
    ended = view.ended(user)
    groups = next(iter([*(one.groups for one in leases), *(p.entry.groups for p in places)]), ())
    return {
        "servers": [server(view, lease, words) for lease in leases],
        "waiting": [waiting(view, place, words) for place in places],
        "ended": [_ended(lease, words) for lease in ended[:SHOWN]],
        "home": view.home(user),
        "use": {
            "hours": f"{gpu_hours([*leases, *ended], view.now - WINDOW, view.now):g}",
            "held": tables.held_by((HUB, user)),
            "limit": user_limit(view.state.settings.limits, user),
            "budgets": [
                {
                    "group": "" if holder[1] == "user" else holder[2],
                    "hours": budget.hours,
                    "used": round(seconds / HOUR, 2),
                    "ends_at": ends_at,
                }
                for holder, budget, seconds, ends_at in view.state.standing(HUB, user, groups)
            ],
        },
    }


def free(view: View, words: Words) -> dict[str, Any]:
    """What there is of each kind on each machine, and when the next ones are free: for the form.

    Nobody's name or server is in it.
    """
    frees = view.state.frees()
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for device in devices_of(view.state):
        row = device_row(view.state, device)
        if row["reason"] not in (None, Reason.DEVICE_BUSY.value):
            frees.pop(device.id, None)
        kind = (device.node, device.model, device.memory, device.capability, device.mode)
        group = groups.setdefault(
            kind,
            {
                **{name: row[name] for name in ("node", "model", "memory", "capability", "pools")},
                "sharing": device.mode.value,
                "ids": [],
                "free": [],
                "next": [],
            },
        )
        group["ids"].append(device.id)
        if row["state"] == "free":
            group["free"].append(device.id)
        elif device.id in frees:
            group["next"].append(round(frees[device.id]))
    return {"groups": list(groups.values()), "waiting": len(view.state.tables.queued_of)}


def standing(view: View, words: Words) -> dict[str, Any]:
    """How many GPUs the viewer holds, and may hold."""
    limit = user_limit(view.state.settings.limits, view.viewer.name)
    return {"held": view.state.tables.held_by((HUB, view.viewer.name)), "limit": limit}


def use(view: View, words: Words) -> list[dict[str, Any]]:
    """What the viewer's servers were seen to use, beside their limits, for the charts."""
    found = []
    for lease in _leases(view).get(view.viewer.name, ()):
        if lease.state is LeaseState.RUNNING:
            devices = [_device(view, id) for id in lease.devices]
            seen = view.use(lease)
            measured = seen.pop("gpus", {})
            found.append(
                {
                    "id": lease.id,
                    "memory_limit": lease.request.memory,
                    "cpu_limit": lease.request.cpu,
                    "gpus": [{**device, "seen": measured.get(device["id"])} for device in devices],
                    **seen,
                }
            )
    return found


def _leases(view: View) -> dict[str, list[Lease]]:
    """Live leases of this Hub by user, made once for all who look."""

    def make() -> dict[str, list[Lease]]:
        found: dict[str, list[Lease]] = {}
        for lease in view.state.tables.leases.values():
            if lease.key.hub == HUB:
                found.setdefault(lease.key.user, []).append(lease)
        return found

    return view.once("leases by user", make)


def _line(view: View) -> dict[str, list[_Waits]]:
    """Who waits, by user, made once for all who look."""

    def make() -> dict[str, list[_Waits]]:
        found: dict[str, list[_Waits]] = {}
        gpus, users = 0, Counter[str]()
        for place in view.line():
            entry = place.entry
            others = len(users) - (entry.key.user in users)
            waits = _Waits(entry=entry, place=place, gpus=gpus, users=others)
            found.setdefault(entry.key.user, []).append(waits)
            gpus += entry.request.count
            users[entry.key.user] += 1
        return found

    return view.once("line by user", make)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waits:
    """A place, and what is ahead of it."""

    entry: QueueEntry
    place: Waiting
    #: GPUs that those ahead ask for
    gpus: int
    #: other users among them
    users: int


def server(view: View, lease: Lease, words: Words) -> dict[str, Any]:
    """A server that holds something."""
    row = lease_row(view.state, lease, view.starved)
    length = lease.request.length
    return {
        **row,
        "name": lease.key.server,
        "trouble": [words(text) for text in row["trouble"]],
        "gpus": [_device(view, id) for id in lease.devices],
        # as far as the scheduler allows at most
        "extendable": bool(length) and lease.state is LeaseState.RUNNING,
        "length": length,
        "past": lease.ends_at is not None and lease.ends_at <= view.now,
        "stop_is": "idle" if lease.idle else "past" if lease.stop_at else "",
    }


def _device(view: View, device_id: str) -> dict[str, Any]:
    device = view.state.tables.devices.get(device_id)
    if device is None:
        return {"id": device_id, "index": "?", "model": "", "memory": 0, "simulated": False}
    return device_facts(device)


def waiting(view: View, waits: _Waits, words: Words) -> dict[str, Any]:
    """A place in the queue. Who is ahead is told in numbers."""
    entry = waits.entry
    reason = waits.place.reason if view.excuse is None else view.excuse[0]
    return {
        "id": entry.id,
        "name": entry.key.server,
        "profile": entry.profile,
        "gpus": entry.request.count,
        "length": entry.request.length,
        "position": waits.place.position,
        "ahead": waits.place.position - 1,
        "ahead_gpus": waits.gpus,
        "ahead_users": waits.users,
        "reason": reason.value,
        "why": words(REASONS.get(reason, reason.value)),
        "since": entry.submitted_at,
        "expected_at": view.starts().get(entry.id),
    }


def _ended(lease: Lease, words: Words) -> dict[str, Any]:
    reason = lease.reason or Reason.STOPPED
    return {
        "id": lease.id,
        "name": lease.key.server,
        "profile": lease.profile,
        "gpus": len(lease.devices),
        "reason": reason.value,
        "why": words(REASONS.get(reason, reason.value)),
        # why_stopped has an admin's message in it as well
        "note": lease.note if not why_stopped(lease) or reason is Reason.EVICTED else "",
        "granted_at": lease.granted_at,
        "released_at": lease.released_at,
    }


def gpu_hours(leases: Iterable[Lease], begin: float, end: float) -> float:
    """GPU hours of the leases between two times."""
    total = 0.0
    for lease in leases:
        last = end if lease.released_at is None else min(lease.released_at, end)
        total += max(0.0, last - max(lease.granted_at, begin)) * len(lease.claims)
    return round(total / HOUR, 2)
