"""Decisions as rows of the tables. Pure: no database here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import LedgerError
from ..scheduler.decisions import (
    BookingStored,
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
    from_json,
    to_json,
)
from ..scheduler.models import Lease, QueueEntry

Row = dict[str, Any]
#: rows that are parsed together
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What one commit writes. Only the last decision about a thing is in its projection."""

    journal: list[Row] = field(default_factory=list)
    entries: dict[str, Row] = field(default_factory=dict)
    leases: dict[str, Row] = field(default_factory=dict)
    devices: dict[str, Row] = field(default_factory=dict)
    nodes: dict[str, Row] = field(default_factory=dict)
    bookings: dict[str, Row] = field(default_factory=dict)
    #: lease id -> its claims, of every lease in this commit; empty when it ended
    claims: dict[str, list[Row]] = field(default_factory=dict)


def to_rows(decisions: Sequence[Decision], *, now: float, epoch: int) -> Rows:
    """Return the rows for ``decisions``. Raises :class:`LedgerError` for a wrong value."""
    rows = Rows()
    for decision in decisions:
        try:
            payload = json.dumps(to_json(decision), allow_nan=False, separators=(",", ":"))
        except ValueError as error:
            raise LedgerError(f"{type(decision).__name__}{error}; it can't be stored") from error
        subject = _project(rows, decision, payload)
        rows.journal.append(
            {
                "time": now,
                "epoch": epoch,
                "kind": type(decision).__name__,
                "subject": subject,
                "payload": payload,
            }
        )
    return rows


def read(payload: str, where: str) -> Decision:
    """Return the decision stored as ``payload``. Raises :class:`LedgerError`, naming ``where``."""
    try:
        return from_json(json.loads(payload))
    except ValueError as error:
        raise LedgerError(f"{where} can't be read: {error}") from error


def read_many(payloads: Sequence[str], where: str) -> list[Decision]:
    """The same of many, in less time: one text is parsed for some hundred rows."""
    found: list[Decision] = []
    for start in range(0, len(payloads), _AT_ONCE):
        some = payloads[start : start + _AT_ONCE]
        try:
            values = json.loads(f"[{','.join(some)}]")
            decisions = [from_json(value) for value in values]
        except ValueError:
            decisions = []
        # one by one where something is wrong, so that it is said of the right one
        whole = len(decisions) == len(some)
        found += decisions if whole else [read(payload, where) for payload in some]
    return found


def _project(rows: Rows, decision: Decision, payload: str) -> str:
    """Add ``decision`` to its projection and return the id of what it is about."""
    if isinstance(decision, EntryStored):
        rows.entries[decision.entry.id] = _entry(decision.entry, payload)
        return decision.entry.id
    if isinstance(decision, LeaseStored):
        lease = decision.lease
        rows.leases[lease.id] = _lease(lease, payload)
        rows.claims[lease.id] = _claims(lease)
        return lease.id
    if isinstance(decision, DeviceStored):
        device = decision.device
        rows.devices[device.id] = {"id": device.id, "node": device.node, "payload": payload}
        return device.id
    if isinstance(decision, NodeStored):
        node = decision.node
        rows.nodes[node.name] = {"name": node.name, "state": node.state.value, "payload": payload}
        return node.name
    if isinstance(decision, BookingStored):
        booking = decision.booking
        rows.bookings[booking.id] = {
            "id": booking.id,
            "live": not booking.over,
            "payload": payload,
        }
        return booking.id
    return decision.subject


def _entry(entry: QueueEntry, payload: str) -> Row:
    return {
        "id": entry.id,
        "state": entry.state.value,
        "hub": entry.key.hub,
        "username": entry.key.user,
        "servername": entry.key.server,
        "payload": payload,
    }


def _lease(lease: Lease, payload: str) -> Row:
    return {
        "id": lease.id,
        "state": lease.state.value,
        "live": lease.live,
        "hub": lease.key.hub,
        "username": lease.key.user,
        "servername": lease.key.server,
        "node": lease.node,
        "granted_at": lease.granted_at,
        "payload": payload,
    }


def _claims(lease: Lease) -> list[Row]:
    if any(claim.lease_id != lease.id for claim in lease.claims):
        raise LedgerError(f"lease {lease.id} carries a claim of another lease")
    if not lease.live:
        return []
    return [
        {"device": claim.device, "atom": claim.atom, "lease_id": claim.lease_id}
        for claim in lease.claims
    ]
