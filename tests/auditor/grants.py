"""S4 to S7 and S9 in the ledger's journal: what was known at the moment of each grant. Pure.

The ledger is the second witness: a device's health, who drained it and what a node has is told
by it alone. A lease that begins as ``running`` was adopted, not granted: it is not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.auditor.book import Book, Row
from tests.auditor.rules import Rules
from tests.auditor.verdict import Finding, Kind

Value = Mapping[str, Any]


@dataclass(kw_only=True, slots=True)
class _Told:
    """What the journal has said so far."""

    #: device -> its row
    devices: dict[str, Value] = field(default_factory=dict)
    nodes: dict[str, Value] = field(default_factory=dict)
    #: live leases
    leases: dict[str, Value] = field(default_factory=dict)
    #: server -> the entry that waits
    waiting: dict[str, str] = field(default_factory=dict)
    #: entry -> its lease
    granted: dict[str, str] = field(default_factory=dict)


def grant_errors(book: Book, rules: Rules) -> Iterator[Finding]:
    """Everything below, row by row."""
    told = _Told()
    for row in book.journal:
        if row.kind == "DeviceStored":
            told.devices[str(row.value["device"]["id"])] = row.value
        elif row.kind == "NodeStored":
            node = row.value.get("node", row.value)
            told.nodes[str(node["name"])] = node
        elif row.kind == "EntryStored":
            yield from _entry(row, told)
        elif row.kind == "LeaseStored":
            new = row.subject not in told.leases
            if row.value["state"] == "released":
                told.leases.pop(row.subject, None)
                continue
            told.leases[row.subject] = row.value
            if new and row.value["state"] == "reserved":
                yield from _usable(row, told)
                yield from _fits(row, told)
                yield from _room(row, told, rules)


def _usable(row: Row, told: _Told) -> Iterator[Finding]:
    """S7: each device of a grant is there, well, open and nobody else's, and so is its node."""
    for id in sorted({str(claim["device"]) for claim in row.value["claims"]}):
        if id not in told.devices:
            yield _barred(row, f"{id}, which nobody has reported")
            continue
        status = told.devices[id]["status"]
        wrong = [word for word in ("foreign", "quarantined") if status.get(word)]
        wrong += [] if status.get("present", True) else ["gone"]
        wrong += [] if status.get("health", "ok") == "ok" else [str(status["health"])]
        wrong += [] if status.get("admin", "open") == "open" else [str(status["admin"])]
        if wrong:
            yield _barred(row, f"{id}, which is {' and '.join(wrong)}")
    node = told.nodes.get(str(row.value["node"]), {})
    if node.get("state", "up") != "up" or node.get("admin", "open") != "open":
        yield _barred(row, f"{row.value['node']}, which is {node.get('state')} {node.get('admin')}")


def _fits(row: Row, told: _Told) -> Iterator[Finding]:
    """S4: a claimed atom is one that the device has; no part of a GPU beside the whole of it."""
    mine = {str(claim["device"]) for claim in row.value["claims"]}
    for claim in row.value["claims"]:
        device = _device(told, str(claim["device"]))
        if device and not 0 <= int(claim["atom"]) < int(device.get("atoms", 1)):
            yield _over(row, f"claims atom {claim['atom']} of {device['id']}, which has fewer")
    for id, other in told.leases.items():
        if id == row.subject:
            continue
        theirs = {str(claim["device"]) for claim in other["claims"]}
        for left, right in ((mine, theirs), (theirs, mine)):
            wholes = {_device(told, device).get("parent") for device in left} & right
            if wholes:
                yield _over(row, f"parts of {', '.join(map(str, wholes))} beside {id[:12]}")


def _room(row: Row, told: _Told, rules: Rules) -> Iterator[Finding]:
    """S5 and S6: the memory of the node, and the quotas of the user."""
    node = told.nodes.get(str(row.value["node"]))
    if node is not None and node.get("memory"):
        here = [one for one in told.leases.values() if one["node"] == node["name"]]
        used = sum(int(one.get("request", {}).get("memory", 0)) for one in here)
        budget = int(int(node["memory"]) * (1 - rules.reserve))
        if used > budget and row.value.get("request", {}).get("memory"):
            yield _over(row, f"takes {node['name']} to {used} bytes, above {budget}")
    for quota in rules.quotas:
        if float(row.value.get("granted_at", 0.0)) < quota.since or not row.value["claims"]:
            continue
        theirs = [one for one in told.leases.values() if one["key"]["user"] in quota.users]
        held = sum(len(one["claims"]) for one in theirs)
        if row.value["key"]["user"] in quota.users and held > quota.most:
            text = f"takes {', '.join(sorted(quota.users))} to {held} of {quota.most} GPUs"
            yield Finding(Kind.QUOTA, f"row {row.seq}: lease {row.subject[:12]} {text}")


def _entry(row: Row, told: _Told) -> Iterator[Finding]:
    """S9: however often a server is asked for, it waits once, and an entry gets one lease."""
    key, lease = str(row.value["key"]), row.value.get("lease_id")
    if row.value["state"] == "queued":
        other = told.waiting.setdefault(key, row.subject)
        if other != row.subject:
            text = f"row {row.seq}: {row.value['key']} waits twice"
            yield Finding(Kind.REPEATED, text)
    elif told.waiting.get(key) == row.subject:
        del told.waiting[key]
    if lease and told.granted.setdefault(row.subject, str(lease)) != lease:
        yield Finding(Kind.REPEATED, f"row {row.seq}: entry {row.subject[:12]} has a second lease")


def _device(told: _Told, id: str) -> Value:
    row = told.devices.get(id)
    found: Value = row["device"] if row is not None else {}
    return found


def _barred(row: Row, what: str) -> Finding:
    return Finding(Kind.BARRED, f"row {row.seq}: lease {row.subject[:12]} is given {what} (S7)")


def _over(row: Row, what: str) -> Finding:
    return Finding(Kind.OVER, f"row {row.seq}: lease {row.subject[:12]} {what} (S4, S5)")
