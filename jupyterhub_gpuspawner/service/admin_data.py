"""What the admin page shows: the map of devices, the line, bookings and groups. Pure.

For who may see everybody's, or a group's: of that the servers and requests, and all machines. It
is made for each change while the page is open, so of a long line only the beginning is in it; the
rest is in the API's ``queue``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..i18n import Words
from ..scheduler.models import Admin, Device, Health, Lease, Reason
from ..scheduler.state import SchedulerState
from . import booked
from .page_data import View
from .summary import device_facts, node_row, unavailable
from .words import REASONS

#: requests that are shown, and those of which the expected start is worked out
SHOWN, EXPECTED = 500, 10
#: seconds after which what was seen of a device's work says nothing of now
STALE = 300.0


def admin_map(view: View, words: Words) -> list[dict[str, Any]]:
    """The machines, each with its devices."""
    state = view.state
    devices: dict[str, list[Device]] = {name: [] for name in state.tables.nodes}
    for device in state.tables.devices.values():
        devices.setdefault(device.node, []).append(device)
    waits = _wanted(view)
    say = _said(words)
    return [
        {
            **_node(state, name, say),
            "pulls": view.pulled_on(name),
            "waiting": waits.get(name, 0),
            "devices": [
                _device(view, device, say)
                for device in sorted(found, key=lambda one: (one.index, one.id))
            ],
        }
        for name, found in sorted(devices.items())
        if name in state.tables.nodes
    ]


def _said(words: Words) -> Callable[[Reason | None], str]:
    """What is said of a reason, in the reader's words; each looked up once."""
    told: dict[Reason | None, str] = {None: ""}

    def say(reason: Reason | None) -> str:
        if reason not in told:
            assert reason is not None
            told[reason] = words(REASONS[reason])
        return told[reason]

    return say


def _wanted(view: View) -> dict[str, int]:
    """Node -> requests that wait and ask for that node by name."""
    found: dict[str, int] = {}
    for entry in view.state.tables.queued():
        if entry.request.node is not None:
            found[entry.request.node] = found.get(entry.request.node, 0) + 1
    return found


def _node(state: SchedulerState, name: str, say: Callable[[Reason | None], str]) -> dict[str, Any]:
    row = node_row(state, name)
    reason = None if row["reason"] is None else Reason(row["reason"])
    return {**row, "why": say(reason), "admin": state.tables.nodes[name].admin.value}


def _device(view: View, device: Device, say: Callable[[Reason | None], str]) -> dict[str, Any]:
    state = view.state
    status = state.tables.status[device.id]
    reason = unavailable(state, device)
    holders = _holders(state, device)
    busy = bool(holders) or reason is Reason.DEVICE_BUSY
    work = state.last_work(device.id)
    return {
        **device_facts(device),
        "state": _state(busy, reason, status.admin),
        "health": _health(status.present, status.quarantined, status.health),
        "admin": status.admin.value,
        "why": "" if reason in (None, Reason.DEVICE_BUSY) else say(reason),
        "note": status.note if view.viewer.admin else "",
        "holders": [
            {"lease": lease.id, "server": str(lease.key), "since": lease.granted_at}
            for lease in holders
            if view.viewer.may_see(lease)
        ],
        "computes": None if work is None or state.now - work[1] > STALE else work[0] == work[1],
    }


def _holders(state: SchedulerState, device: Device) -> list[Lease]:
    claims = state.tables.claims.get(device.id)
    if not claims:
        return []
    ids = dict.fromkeys(claims.values())
    return [state.tables.leases[id] for id in ids if id in state.tables.leases]


def _state(busy: bool, reason: Reason | None, admin: Admin) -> str:
    if busy:
        return "busy"
    if reason is None:
        return "free"
    return "kept" if admin is not Admin.OPEN else "out"


def _health(present: bool, quarantined: bool, health: Health) -> str:
    if quarantined:
        return "quarantined"
    return health.value if present else "missing"


def admin_line(view: View, words: Words) -> dict[str, Any]:
    """The beginning of the line, and how long it is; for a leader, the group's requests in it."""
    state = view.state
    if view.viewer.admin:
        waiting, starts = view.once("beginning", lambda: state.beginning(SHOWN, EXPECTED))
        total = len(state.tables.queued_of)
    else:
        waiting = [place for place in view.line() if view.viewer.may_see(place.entry)]
        total, starts = len(waiting), view.starts()
    say = _said(words)
    return {
        "total": total,
        "items": [
            {
                "id": place.entry.id,
                "position": place.position,
                "server": str(place.entry.key),
                "gpus": place.entry.request.count,
                "profile": place.entry.profile,
                "why": say(place.reason),
                "since": place.entry.submitted_at,
                "expected_at": starts.get(place.entry.id),
                "priority": place.entry.priority,
            }
            for place in waiting[:SHOWN]
        ],
    }


def admin_servers(view: View, words: Words) -> list[dict[str, Any]]:
    """Servers that hold something, GPUs or not, oldest first."""
    found = filter(view.viewer.may_see, view.state.tables.leases.values())
    leases = sorted(found, key=lambda lease: lease.granted_at)
    devices = view.state.tables.devices
    return [
        {
            "id": lease.id,
            "server": str(lease.key),
            "profile": lease.profile,
            "node": lease.node,
            "indexes": [devices[id].index for id in lease.devices if id in devices],
            "simulated": any(devices[id].simulated for id in lease.devices if id in devices),
            "state": lease.state.value,
            "uncertain": lease.uncertain,
            "since": lease.granted_at,
            "ends_at": lease.ends_at,
            "stop_at": lease.stop_at,
        }
        for lease in leases
    ]


def admin_bookings(view: View, words: Words) -> list[dict[str, Any]]:
    """Bookings, the earliest first."""
    return booked.bookings(view)


def admin_groups(view: View, words: Words) -> list[dict[str, Any]]:
    """Groups with limits, shares and budgets."""
    return booked.groups(view)


def admin_data(view: View, words: Words) -> dict[str, Any]:
    """All of it, as the page has it at first."""
    return {name: look(view, words) for name, look in TOPICS.items()}


#: name of a topic -> what it tells
TOPICS: dict[str, Callable[[View, Words], Any]] = {
    "map": admin_map,
    "line": admin_line,
    "servers": admin_servers,
    "bookings": admin_bookings,
    "groups": admin_groups,
}
