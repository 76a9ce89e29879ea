"""What was asked for and granted here, for simulations. The ledger is only read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ..errors import LedgerError
from ..scheduler.decisions import (
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
)
from ..scheduler.models import Device, Lease, Node, QueueEntry
from ..scheduler.whatif import Job, Site
from . import tables
from .failures import words
from .place import Place, find
from .rows import read as read_row

#: seconds to connect
_LIMIT = 10
#: why a request is not among the jobs
NEVER = "were cancelled or refused before a container of theirs was made"
ADOPTED = "were found running, without a request"


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """The requests of a ledger that were granted, in order, and what they were granted on."""

    #: of the ledger, for messages
    name: str
    jobs: tuple[Job, ...]
    #: seconds each of them really waited
    waits: tuple[float, ...]
    site: Site
    #: why -> how many are not among the jobs
    left_out: dict[str, int]


def read(url: str) -> Past:
    """The past of the ledger at ``url``. Raises :class:`LedgerError` where it can't be read."""
    place = find(url)
    try:
        engine = _engine(place)
        try:
            with engine.connect() as connection:
                found = list(_decisions(connection, place.name))
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise LedgerError(f"ledger {place.name} can't be read: {words(error)}") from error
    return remember(found, place.name)


def _engine(place: Place) -> Engine:
    if place.path is None:
        return create_engine(place.url, connect_args={"connect_timeout": _LIMIT})
    path = Path(place.path)
    if not path.is_file():
        raise LedgerError(f"ledger {place.name}: there is no such file")
    url = place.url.set(database=path.as_uri(), query={"mode": "ro", "uri": "true"})
    return create_engine(url, connect_args={"timeout": _LIMIT})


def _decisions(connection: Connection, name: str) -> Iterable[Decision]:
    """The journal, oldest first; what holds now is its last word about each thing."""
    journal = tables.journal.c
    query = select(journal.seq, journal.payload).order_by(journal.seq)
    for seq, payload in connection.execute(query):
        yield read_row(payload, f"ledger {name}: journal {seq}")


def remember(decisions: Iterable[Decision], name: str = "") -> Past:
    """The past that a journal tells of. What still runs has stayed until its last word."""
    entries: dict[str, QueueEntry] = {}
    leases: dict[str, Lease] = {}
    nodes: dict[str, Node] = {}
    devices: dict[str, Device] = {}
    latest = 0.0
    for decision in decisions:
        if isinstance(decision, EntryStored):
            entries[decision.entry.id] = decision.entry
        elif isinstance(decision, LeaseStored):
            leases[decision.lease.id] = decision.lease
            latest = max(latest, decision.lease.moved_at)
        elif isinstance(decision, NodeStored):
            nodes[decision.node.name] = decision.node
        elif isinstance(decision, DeviceStored) and decision.status.present:
            devices[decision.device.id] = decision.device
        elif isinstance(decision, DeviceStored):
            devices.pop(decision.device.id, None)
    left = {NEVER: 0, ADOPTED: 0}
    found: list[tuple[Job, float]] = []
    for lease in leases.values():
        entry = entries.get(lease.id)
        if entry is None:
            left[ADOPTED] += 1
        elif lease.container_id is None:
            left[NEVER] += 1
        else:
            found.append(_job(lease, entry, latest))
    left[NEVER] += sum(entry_id not in leases for entry_id in entries)
    found.sort(key=lambda pair: (pair[0].at, pair[0].user))
    return Past(
        name=name,
        jobs=tuple(job for job, _ in found),
        waits=tuple(wait for _, wait in found),
        site=Site(
            nodes=tuple(nodes.values()),
            devices=tuple(device for device in devices.values() if device.node in nodes),
        ),
        left_out=left,
    )


def _job(lease: Lease, entry: QueueEntry, latest: float) -> tuple[Job, float]:
    end = latest if lease.released_at is None else lease.released_at
    job = Job(
        at=entry.submitted_at,
        user=lease.key.user,
        groups=lease.groups,
        request=lease.request,
        seconds=max(end - lease.granted_at, 0.0),
    )
    return job, max(lease.granted_at - entry.submitted_at, 0.0)
