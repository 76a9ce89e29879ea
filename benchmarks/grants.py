"""How many grants the ledger takes in a second, each durable on the disk before it is answered.

A grant is what the scheduler stores for one: the lease with its claim, the entry, two rows of the
journal. Beside it, in turn, plain ``sqlite3`` writes rows of the same size in the same number of
statements, with the same settings, on the same disk. ``benchmarks/README.md`` says what each number
means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib.expected import missed
from jupyterhub_gpuspawner.scheduler.decisions import (
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
)
from jupyterhub_gpuspawner.scheduler.models import (
    Claim,
    Device,
    DeviceStatus,
    EntryState,
    GPURequest,
    Lease,
    Node,
    QueueEntry,
    ServerKey,
    Settings,
)
from jupyterhub_gpuspawner.scheduler.state import SchedulerState
from jupyterhub_gpuspawner.service.actor import values_of
from jupyterhub_gpuspawner.store import Ledger
from jupyterhub_gpuspawner.store.rows import Row, to_rows

#: what we want
EXPECTED = {
    "single_per_s": (">=", 500),
    "p99_ms": ("<=", 20.0),
    "single_vs_raw": (">=", 0.3),
    "batched_per_s": (">=", 4000),
    "rebuild_s": ("<=", 1.0),
}
REQUEST = GPURequest(count=1, length=3600.0, memory=16 << 30, cpu=2.0)


def inventory(devices: int) -> Iterator[Decision]:
    """Nodes of ten GPUs."""
    for number in range(0, devices, 10):
        name = f"node-{number // 10:04d}"
        yield NodeStored(node=Node(name=name, memory=1 << 40, cpus=128.0, boot_id="1"))
        for index in range(10):
            device = Device(id=f"GPU-{number + index:06d}", node=name, index=index, simulated=True)
            yield DeviceStored(device=device, status=DeviceStatus())


def grant(number: int) -> list[Decision]:
    """What is stored for one."""
    key = ServerKey(hub="hub", user=f"user-{number % 500:03d}", server=f"s{number}")
    device, node = f"GPU-{number:06d}", f"node-{number // 10:04d}"
    lease = Lease(
        id=f"entry-{number:08d}",
        key=key,
        groups=("lab", "everybody"),
        request=REQUEST,
        node=node,
        claims=(Claim(device=device, atom=0, lease_id=f"entry-{number:08d}"),),
        granted_at=1e6,
        moved_at=1e6,
        ends_at=1e6 + 3600.0,
        epoch=1,
    )
    entry = waiting(number)
    granted = QueueEntry(
        id=entry.id,
        key=key,
        groups=entry.groups,
        request=REQUEST,
        seq=number,
        state=EntryState.GRANTED,
        lease_id=lease.id,
    )
    return [LeaseStored(lease=lease), EntryStored(entry=granted)]


def waiting(number: int) -> QueueEntry:
    """A request in line."""
    return QueueEntry(
        id=f"entry-{number:08d}",
        key=ServerKey(hub="hub", user=f"user-{number % 500:03d}", server=f"s{number}"),
        groups=("lab", "everybody"),
        request=REQUEST,
        seq=number,
        submitted_at=1e6,
    )


class Raw:
    """The same rows by hand: prepared before, and nothing is checked."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, isolation_level=None)
        run = self._file.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("CREATE TABLE meta (one INTEGER PRIMARY KEY, epoch INTEGER, commits INTEGER)")
        run("CREATE TABLE leases (id TEXT PRIMARY KEY, payload TEXT)")
        run("CREATE TABLE entries (id TEXT PRIMARY KEY, payload TEXT)")
        key = "PRIMARY KEY (device, atom)"
        run(f"CREATE TABLE claims (device TEXT, atom INTEGER, lease TEXT, {key})")
        run("CREATE TABLE journal (seq INTEGER PRIMARY KEY, at REAL, subject TEXT, payload TEXT)")
        run("INSERT INTO meta VALUES (1, 1, 0)")

    def commit(self, leases: list[Row], entries: list[Row], claims: list[Row]) -> None:
        """One transaction."""
        run, many = self._file.execute, self._file.executemany
        run("BEGIN IMMEDIATE")
        run("UPDATE meta SET commits = commits + 1 WHERE epoch = 1")
        pairs = [(row["id"], row["payload"]) for row in leases]
        many("INSERT OR REPLACE INTO leases VALUES (?, ?)", pairs)
        places = [(row["device"], row["atom"], row["lease_id"]) for row in claims]
        many("INSERT INTO claims VALUES (?, ?, ?)", places)
        others = [(row["id"], row["payload"]) for row in entries]
        many("INSERT OR REPLACE INTO entries VALUES (?, ?)", others)
        journal = [(1e6, id, payload) for id, payload in (*pairs, *others)]
        many("INSERT INTO journal (at, subject, payload) VALUES (?, ?, ?)", journal)
        run("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def singles(ledger: Ledger, raw: Raw, count: int) -> tuple[list[float], list[float]]:
    """Seconds of each commit of one grant: ours, and by hand, in turn."""
    ours, plain = [], []
    for number in range(count):
        decisions = grant(number)
        begun = time.perf_counter()
        ledger.commit(decisions, 1e6)
        ours.append(time.perf_counter() - begun)
        rows = to_rows(decisions, now=1e6, epoch=1)
        (claims,) = rows.claims.values()
        begun = time.perf_counter()
        raw.commit([*rows.leases.values()], [*rows.entries.values()], claims)
        plain.append(time.perf_counter() - begun)
    return ours, plain


def batches(ledger: Ledger, first: int, count: int, size: int) -> tuple[float, float]:
    """Grants in a second, ``size`` in each commit: by the clock, and of CPU."""
    lots = [
        [decision for number in range(start, start + size) for decision in grant(number)]
        for start in range(first, first + count, size)
    ]
    begun, busy = time.perf_counter(), time.thread_time()
    for lot in lots:
        ledger.commit(lot, 1e6)
    grants = len(lots) * size
    return grants / (time.perf_counter() - begun), grants / (time.thread_time() - busy)


def rebuild(ledger: Ledger) -> tuple[float, float]:
    """Seconds from the ledger to a scheduler that knows it all: by the clock, and of CPU."""
    begun, busy = time.perf_counter(), time.thread_time()
    state = SchedulerState(Settings(), ledger.epoch)
    state.restore(values_of(ledger.load()), 2e6)
    taken = time.perf_counter() - begun, time.thread_time() - busy
    tables = state.tables
    print(f"rebuilt {len(tables.leases)} leases and {len(tables.queued_of)} in line", flush=True)
    return taken


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them don't exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main(words: Sequence[str] | None = None) -> int:
    """Measure all of it."""
    parser = argparse.ArgumentParser(prog="benchmarks/run grants", description=__doc__)
    parser.add_argument("--singles", type=int, default=1000)
    parser.add_argument("--folder", default="/var/tmp", help="on the disk to measure")
    arguments = parser.parse_args(words)
    print(
        f"machine: {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; no seed: "
        "nothing is random",
        flush=True,
    )
    count = arguments.singles
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        raw = Raw(folder / "raw.sqlite")
        with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
            ledger.raise_epoch()
            ledger.commit([*inventory(5000)], 1e6)
            ours, plain = singles(ledger, raw, count)
            batched, per_cpu = batches(ledger, count, 5000 - count % 5000, 50)
            line = [EntryStored(entry=waiting(number)) for number in range(20_000, 25_000)]
            ledger.commit(line, 1e6)
            seconds, busy = rebuild(ledger)
        raw.close()
    single, by_hand = count / sum(ours), count / sum(plain)
    result: dict[str, Any] = {
        "ok": True,
        "single_per_s": round(single),
        "single_vs_raw": round(single / by_hand, 3),
        "batched_per_s": round(batched),
        "p99_ms": round(quantile(ours, 0.99) * 1e3, 2),
        "rebuild_s": round(seconds, 3),
        "rebuild_cpu_s": round(busy, 3),
        "batched_per_cpu_s": round(per_cpu),
        "raw_per_s": round(by_hand),
        "raw_p99_ms": round(quantile(plain, 0.99) * 1e3, 2),
        "p50_ms": round(quantile(ours, 0.5) * 1e3, 2),
    }
    result["missed"] = missed(result, EXPECTED)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
