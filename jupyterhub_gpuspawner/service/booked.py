"""Bookings and groups, as people and programs write and read them. Pure but for new ids."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..errors import RequestError
from ..scheduler.budgets import MONDAY, period_of
from ..scheduler.models import Booking
from ..scheduler.policy import HOUR, Budget
from ..scheduler.state import SchedulerState
from .bodies import Book
from .identity import HUB
from .page_data import View, Viewer


def booking_of(body: Book, state: SchedulerState) -> Booking:
    """The booking; a node stands for all of its devices. RequestError where one has none."""
    on_nodes = [state.tables.devices_of_node.get(node) or set() for node in body.nodes]
    devices = {*body.devices}.union(*on_nodes) if all(on_nodes) else set()
    if not devices:
        raise RequestError("devices, nodes: no GPU of these is known")
    return Booking(
        id=body.id or uuid.uuid4().hex,
        name=body.name,
        devices=tuple(sorted(devices)),
        groups=tuple(body.groups),
        users=tuple(body.users),
        starts_at=body.starts_at,
        ends_at=body.ends_at,
    )


def bookings(view: View) -> list[dict[str, Any]]:
    """All bookings that are not over, the earliest first."""
    found = sorted(view.state.tables.bookings.values(), key=lambda b: (b.starts_at, b.id))
    return [_booking_row(booking, view.viewer) for booking in found]


def _booking_row(booking: Booking, viewer: Viewer) -> dict[str, Any]:
    mine = viewer.name in booking.users and bool(viewer.name)
    led = [group for group in booking.groups if viewer.admin or group in viewer.groups]
    return {
        "id": booking.id,
        "name": booking.name,
        "devices": list(booking.devices),
        "groups": led,
        "users": list(booking.users) if viewer.admin else [viewer.name] if mine else [],
        "starts_at": booking.starts_at,
        "ends_at": booking.ends_at,
    }


def groups(view: View) -> list[dict[str, Any]]:
    """The groups that have servers, requests, or numbers of their own; for users the own ones."""
    state, viewer = view.state, view.viewer
    limits, fairness = state.settings.limits, state.settings.fairness
    held, waiting = _counts(state)
    names = {*held, *waiting, *limits.groups, *limits.group_budgets, *fairness.priorities}
    names.update(share.name for share in fairness.shares)
    if not viewer.admin:
        names &= viewer.groups | _own(state, viewer)
    return [_group_row(state, name, held[name], waiting[name]) for name in sorted(names)]


def _counts(state: SchedulerState) -> tuple[Counter[str], Counter[str]]:
    held: Counter[str] = Counter()
    for lease in state.tables.leases.values():
        for group in set(lease.groups):
            held[group] += len(lease.claims)
    waiting = Counter(group for entry in state.tables.queued() for group in entry.groups)
    return held, waiting


def _own(state: SchedulerState, viewer: Viewer) -> set[str]:
    """The viewer's groups, as far as servers and requests tell."""
    items: Iterable[Any] = (*state.tables.leases.values(), *state.tables.queued())
    return {group for item in items if viewer.owns(item.key) for group in item.groups}


def _group_row(state: SchedulerState, name: str, held: int, waiting: int) -> dict[str, Any]:
    limits, fairness = state.settings.limits, state.settings.fairness
    share = next((share for share in fairness.shares if share.name == name), None)
    return {
        "name": name,
        "held": held,
        "waiting": waiting,
        "limit": limits.groups.get(name),
        "quota": None if share is None else share.quota,
        "borrow": None if share is None else share.borrow,
        "weight": None if share is None else share.weight,
        "parent": "" if share is None else share.parent,
        "priority": fairness.priorities.get(name, 0),
        **_budget(state, name, limits.group_budgets.get(name)),
    }


def _budget(state: SchedulerState, name: str, budget: Budget | None) -> dict[str, Any]:
    if budget is None:
        fields = ("budget_hours", "budget_period", "spent_hours", "period_ends_at")
        return dict.fromkeys(fields)
    ends_at = MONDAY + (period_of(budget, state.now) + 1) * budget.period
    return {
        "budget_hours": budget.hours,
        "budget_period": budget.period,
        "spent_hours": state.spent(HUB, name, budget) / HOUR,
        "period_ends_at": ends_at,
    }
