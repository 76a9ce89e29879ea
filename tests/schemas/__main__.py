"""Writes the fixture of the current schema: see ``tests/schemas/__init__.py``."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from jupyterhub_gpuspawner.scheduler.decisions import (
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
    Noted,
)
from jupyterhub_gpuspawner.scheduler.models import (
    Claim,
    Device,
    DeviceStatus,
    EntryState,
    GPURequest,
    Lease,
    LeaseState,
    Node,
    QueueEntry,
    Reason,
    ServerKey,
    Target,
)
from jupyterhub_gpuspawner.store import Ledger
from jupyterhub_gpuspawner.store.tables import REVISION
from tests import schemas

_ASKED = 1_700_000_000.0


def fill(ledger: Ledger) -> None:
    """What every fixture holds, through the steps that made it."""
    request = GPURequest(count=1, length=14400.0, cpu=1.0, memory=64 << 20)
    running = Lease(
        id=schemas.LEASE,
        key=ServerKey(hub="hub", user="alice", server=""),
        groups=("lab",),
        request=request,
        profile="gpu",
        node=schemas.NODE,
        claims=(Claim(device=schemas.DEVICE, atom=0, lease_id=schemas.LEASE),),
        boot_id="an-older-hub",
        granted_at=_ASKED + 1,
        moved_at=_ASKED + 1,
        ends_at=_ASKED + 14401,
        epoch=schemas.EPOCH,
    )
    asked = QueueEntry(
        id=schemas.LEASE,
        key=running.key,
        groups=("lab",),
        request=request,
        profile="gpu",
        boot_id="an-older-hub",
        submitted_at=_ASKED,
        seq=1,
    )
    waiting = replace(asked, id=schemas.ENTRY, key=replace(running.key, user="bob"), seq=2)
    over = replace(
        running,
        id="0fe50000" * 4,
        key=replace(running.key, user="carol"),
        claims=(),
        state=LeaseState.RELEASED,
        target=Target.GONE,
        reason=Reason.STOPPED,
        released_at=_ASKED,
    )
    starting = replace(running, state=LeaseState.STARTING, container_id=schemas.CONTAINER)
    device = Device(id=schemas.DEVICE, node=schemas.NODE, memory=16 << 30, simulated=True)
    bound = replace(asked, state=EntryState.BOUND, lease_id=schemas.LEASE)
    for decisions in (
        [NodeStored(node=Node(name=schemas.NODE, memory=8 << 30, cpus=2.0, boot_id="boot"))],
        [DeviceStored(device=device, status=DeviceStatus(present=True))],
        [EntryStored(entry=asked), LeaseStored(lease=over)],
        [LeaseStored(lease=running), EntryStored(entry=replace(bound, state=EntryState.GRANTED))],
        [LeaseStored(lease=starting), EntryStored(entry=bound)],
        [LeaseStored(lease=replace(starting, state=LeaseState.RUNNING))],
        [EntryStored(entry=waiting), Noted(kind="adopted", text="a note", subject="alice")],
    ):
        ledger.commit(list(decisions), _ASKED + 2)


def dump(path: Path) -> str:
    """The database as text, with the ids that the tests know."""
    connection = sqlite3.connect(path)
    try:
        (own,) = connection.execute("SELECT ledger FROM meta").fetchone()
        text = "\n".join(connection.iterdump()) + "\n"
    finally:
        connection.close()
    return text.replace(str(own), schemas.LEDGER)


def main() -> int:
    """Write it; never over an old one."""
    target = schemas.FOLDER / f"{REVISION}.sql"
    if target.exists():
        print(f"{target.name} is there already, and stays as it is")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        with Ledger.open(f"sqlite:///{path}") as ledger:
            for _ in range(schemas.EPOCH):
                ledger.raise_epoch()
            fill(ledger)
        target.write_text(dump(path))
    print(f"written: {target.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
