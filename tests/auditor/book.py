"""The second witness: the ledger, read by plain SQL, against itself and against the facts.

The tables below are DESIGN's, written down a second time on purpose.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tests.auditor.history import LEASE, Container
from tests.auditor.verdict import Finding, Kind

#: state -> states that may follow (S8); None = how it may begin
LEASE_MOVES: Mapping[str | None, frozenset[str]] = {
    # "running": a container that was found without a lease is adopted; "stopping": what an ended
    # lease had on a node that was declared gone, until that is proven to have ended too
    None: frozenset({"reserved", "running", "stopping"}),
    "reserved": frozenset({"starting", "stopping"}),
    "starting": frozenset({"running", "stopping"}),
    "running": frozenset({"stopping"}),
    "stopping": frozenset({"released"}),
    "released": frozenset(),
}
ENTRY_MOVES: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"queued"}),
    "queued": frozenset({"granted", "cancelled", "rejected"}),
    "granted": frozenset({"bound", "cancelled", "rejected"}),
    "bound": frozenset({"done"}),
    "done": frozenset(),
    "cancelled": frozenset(),
    "rejected": frozenset(),
}
#: lease states in which the server is meant to go
GONE = frozenset({"stopping", "released"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the journal."""

    seq: int
    epoch: int
    kind: str
    subject: str
    value: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Book:
    """The ledger's content."""

    ledger: str
    epoch: int
    journal: tuple[Row, ...]
    #: lease id -> the lease, of live ones
    leases: Mapping[str, Mapping[str, Any]]
    #: (device, atom, lease id)
    claims: frozenset[tuple[str, int, str]]
    #: entry id -> the entry, of those that wait
    waiting: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read(place: str) -> Book:
    """Read an SQLite file, or any database by its SQLAlchemy URL, without changing it."""
    return _read(_sqlite(place, _QUERIES) if "://" not in place else _other(place))


def now(path: str) -> Book:
    """An SQLite file as it is now, without its journal: for those who look again and again."""
    return _read(_sqlite(path, {**_QUERIES, "journal": f"{_QUERIES['journal']} LIMIT 0"}))


def _sqlite(path: str, queries: Mapping[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        # one transaction: one state of the ledger
        connection.execute("BEGIN")
        return {name: connection.execute(query).fetchall() for name, query in queries.items()}


def _other(url: str) -> dict[str, list[tuple[Any, ...]]]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool, isolation_level="SERIALIZABLE")
    with engine.connect() as connection:
        found = {name: connection.execute(text(query)) for name, query in _QUERIES.items()}
        return {name: [tuple(row) for row in rows] for name, rows in found.items()}


_QUERIES = {
    "meta": "SELECT ledger, epoch FROM meta",
    "journal": "SELECT seq, epoch, kind, subject, payload FROM journal ORDER BY seq",
    "leases": "SELECT id, live, payload FROM leases",
    "claims": "SELECT device, atom, lease_id FROM claims",
    "entries": "SELECT id, payload FROM entries WHERE state = 'queued'",
}


def _read(rows: Mapping[str, list[tuple[Any, ...]]]) -> Book:
    ((ledger, epoch),) = rows["meta"]
    return Book(
        ledger=str(ledger),
        epoch=int(epoch),
        journal=tuple(
            Row(seq=seq, epoch=at, kind=kind, subject=subject, value=_value(kind, payload))
            for seq, at, kind, subject, payload in rows["journal"]
        ),
        leases={
            str(id): _value("LeaseStored", payload) for id, live, payload in rows["leases"] if live
        },
        claims=frozenset((str(d), int(a), str(lease)) for d, a, lease in rows["claims"]),
        waiting={str(id): _value("EntryStored", payload) for id, payload in rows["entries"]},
    )


def _value(kind: str, payload: str) -> Mapping[str, Any]:
    data: dict[str, Any] = json.loads(payload)
    inner = data.get({"LeaseStored": "lease", "EntryStored": "entry"}.get(kind, ""))
    return inner if isinstance(inner, dict) else data


def history_errors(book: Book) -> Iterator[Finding]:
    """S1, S8, S10 and S12 in the journal, and that it replays to the tables."""
    epoch = 0
    states: dict[tuple[str, str], str] = {}
    live: dict[str, Mapping[str, Any]] = {}
    for row in book.journal:
        if row.epoch < epoch or row.epoch > book.epoch:
            yield _wrong(f"row {row.seq} was written in epoch {row.epoch}, after {epoch} (S12)")
        epoch = max(epoch, row.epoch)
        if row.kind not in ("LeaseStored", "EntryStored"):
            continue
        yield from _move(row, states)
        if row.kind == "LeaseStored":
            yield from _lease(row, live)
    replayed = {(c["device"], c["atom"], id) for id, value in live.items() for c in value["claims"]}
    stored = {
        (c["device"], c["atom"], id) for id, value in book.leases.items() for c in value["claims"]
    }
    if not replayed == stored == book.claims:
        yield _wrong(
            f"claims differ: replayed {_sorted(replayed)}, of the leases {_sorted(stored)}, "
            f"stored {_sorted(book.claims)} (S8, S10)"
        )


def _move(row: Row, states: dict[tuple[str, str], str]) -> Iterator[Finding]:
    moves = LEASE_MOVES if row.kind == "LeaseStored" else ENTRY_MOVES
    old, new = states.get((row.kind, row.subject)), str(row.value["state"])
    if old != new and new not in moves[old]:
        yield _wrong(
            f"row {row.seq}: {row.kind[:5].lower()} {row.subject[:12]} {old} -> {new} (S8)"
        )
    states[row.kind, row.subject] = new


def _lease(row: Row, live: dict[str, Mapping[str, Any]]) -> Iterator[Finding]:
    lease = row.value
    state, target = str(lease["state"]), str(lease["target"])
    if (state in GONE) != (target == "gone"):
        yield _wrong(f"row {row.seq}: lease {row.subject[:12]} is {state} with target {target}")
    if state in ("starting", "running") and not lease.get("container_id"):
        yield _wrong(f"row {row.seq}: lease {row.subject[:12]} is {state} without a container")
    before = live.pop(row.subject, None)
    if before is not None and before.get("container_id") not in (None, lease.get("container_id")):
        yield _wrong(f"row {row.seq}: lease {row.subject[:12]} changed its container")
    if state == "released":
        return
    wanted = {(claim["device"], claim["atom"]) for claim in lease["claims"]}
    for id, other in live.items():
        shared = wanted & {(claim["device"], claim["atom"]) for claim in other["claims"]}
        if shared:
            text = f"row {row.seq}: {_sorted(shared)} in leases {row.subject[:12]} and {id[:12]}"
            yield Finding(Kind.DOUBLE, text)
        if lease["key"] == other["key"]:
            yield _wrong(f"row {row.seq}: {lease['key']} has two live leases")
    live[row.subject] = lease


def facts_errors(book: Book, containers: Collection[Container]) -> Iterator[Finding]:
    """S3 and S10, when all is quiet: each claim has its container, each container its claims.

    ``containers``: those of the ledger that the engines have now.
    """
    there = {one.id: one for one in containers}
    for id, lease in book.leases.items():
        held = ", ".join(sorted({claim["device"] for claim in lease["claims"]})) or "no device"
        container = there.pop(str(lease.get("container_id")), None)
        if container is None:
            text = f"lease {id[:12]} ({lease['state']}) holds {held} and has no container"
            yield Finding(Kind.LOST, text)
            continue
        if {claim["device"] for claim in lease["claims"]} != set(container.devices):
            devices = ", ".join(sorted(container.devices)) or "none"
            text = f"{container.who} has {devices}, its lease {id[:12]} holds {held}"
            yield Finding(Kind.DEVICES, text)
    for one in there.values():
        if one.state in ("running", "paused", "restarting"):
            lease = one.labels.get(LEASE, "")[:12]
            yield _wrong(f"{one.who} ({one.id[:12]}) runs, and no live lease has it ({lease}, S3)")


def _wrong(text: str) -> Finding:
    return Finding(Kind.BOOK, text)


def _sorted(values: Iterable[Any]) -> str:
    return str(sorted(values)) if values else "none"
