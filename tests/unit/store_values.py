"""Values and a quick empty ledger for the tests of the store."""

from __future__ import annotations

import dataclasses
import functools
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from jupyterhub_gpuspawner.scheduler.decisions import (
    BookingStored,
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
    Noted,
)
from jupyterhub_gpuspawner.scheduler.models import (
    Booking,
    Claim,
    Device,
    DeviceStatus,
    EntryState,
    GPURequest,
    Lease,
    LeaseState,
    Node,
    QueueEntry,
    ServerKey,
)
from jupyterhub_gpuspawner.store import JournalRow, Ledger


def key(user: str = "alice", server: str = "") -> ServerKey:
    return ServerKey(hub="hub", user=user, server=server)


def lease(id: str = "lease-1", *devices: str, user: str = "alice", **changes: Any) -> Lease:
    return Lease(
        id=id,
        key=key(user),
        request=GPURequest(count=len(devices), length=3600.0),
        node="node-1",
        claims=tuple(Claim(device=device, atom=0, lease_id=id) for device in devices),
        **changes,
    )


def entry(id: str = "entry-1", user: str = "alice", **changes: Any) -> QueueEntry:
    return QueueEntry(id=id, key=key(user), request=GPURequest(count=1), **changes)


def grant(number: int) -> list[Decision]:
    """One user's grant: a lease on a device of its own, and the entry that it answers."""
    name = f"user-{number}"
    granted = lease(f"lease-{number}", f"GPU-{number}", user=name, granted_at=float(number))
    answered = entry(
        f"entry-{number}", name, seq=number, state=EntryState.GRANTED, lease_id=granted.id
    )
    return [LeaseStored(lease=granted), EntryStored(entry=answered)]


def one_of_each() -> list[Decision]:
    return [
        NodeStored(node=Node(name="node-1", memory=1 << 36, cpus=16.0, boot_id="b1")),
        DeviceStored(
            device=Device(id="GPU-1", node="node-1", capability=(8, 0)),
            status=DeviceStatus(note="seen"),
        ),
        *grant(1),
        BookingStored(
            booking=Booking(
                id="exam", devices=("GPU-1",), users=("ann",), starts_at=5.0, ends_at=9.0
            )
        ),
        Noted(kind="started", text="a scheduler began", subject="node-1"),
    ]


def ended(value: Lease) -> Lease:
    return dataclasses.replace(value, state=LeaseState.RELEASED)


@functools.cache
def _empty_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        Ledger.open(f"sqlite:///{path}").close()
        return path.read_bytes()


def new_ledger(path: Path) -> Ledger:
    """A migrated, empty ledger at ``path``, in its first epoch. Close it."""
    path.write_bytes(_empty_file())
    ledger = Ledger.open(f"sqlite:///{path}")
    ledger.raise_epoch()
    return ledger


class Place(Protocol):
    """Where a test's ledger is: a file, or a database on a PostgreSQL server."""

    url: str
    #: a child that the scheduler forked may outlive it without keeping the ledger
    forks: bool

    def new(self) -> Ledger:
        """A migrated, empty ledger here, in its first epoch. Close it."""

    def make_empty(self) -> None:
        """What an admin has to make before the first start."""

    def outside(self, statement: str) -> None:
        """Another program changes what is here."""

    def holder(self, pid: int) -> str:
        """What the refusal of a second scheduler says about the first, process ``pid``."""

    def open_freed(self) -> Ledger:
        """Open it after its holder was killed."""


Places = Callable[[], AbstractContextManager[Place]]


class SQLitePlace:
    """A :class:`Place` that is a file."""

    forks = True

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path

    def new(self) -> Ledger:
        return new_ledger(self._path)

    def make_empty(self) -> None:
        pass  # the file is made by itself

    def outside(self, statement: str) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute(statement)
        finally:
            connection.close()

    def holder(self, pid: int) -> str:
        return f"in use by process {pid} "

    def open_freed(self) -> Ledger:
        return Ledger.open(self.url)


def whole_journal(ledger: Ledger) -> list[JournalRow]:
    rows: list[JournalRow] = []
    while page := ledger.journal(after=rows[-1].seq if rows else 0, limit=700):
        rows += page
    return rows
