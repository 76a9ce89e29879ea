"""Numbers for Prometheus. Names begin with ``gpus_``; labels use the scheduler's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as CounterMetric

from ..scheduler.decisions import Decision, EntryStored, LeaseStored
from ..scheduler.models import LeaseState
from ..scheduler.state import SchedulerState
from .summary import device_row, devices_of


class Metrics:
    """All metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.devices = Gauge(
            "gpus_devices",
            "GPUs by state (free, busy, unavailable) and model",
            ["state", "model", "simulated"],
            registry=registry,
        )
        self.queue = Gauge("gpus_queue_length", "Requests that wait", registry=registry)
        self.waiters = Gauge("gpus_waiters", "Spawns connected and waiting", registry=registry)
        self.grants = CounterMetric("gpus_grants", "Leases granted", registry=registry)
        self.released = CounterMetric(
            "gpus_leases_ended", "Leases ended, by reason", ["reason"], registry=registry
        )
        self.refusals = CounterMetric(
            "gpus_refusals", "Requests refused, by reason", ["reason"], registry=registry
        )
        self.wait = Histogram(
            "gpus_wait_seconds",
            "Seconds from asking to grant",
            buckets=(0.1, 1, 10, 60, 300, 1800, 7200, 28800, 86400, float("inf")),
            registry=registry,
        )
        self.reconcile = Histogram(
            "gpus_reconcile_seconds", "Seconds of a full comparison", registry=registry
        )
        self.leases = Gauge(
            "gpus_lease_info",
            "1 for each device in a live lease; join with dcgm-exporter on UUID",
            ["UUID", "user", "server", "node", "state"],
            registry=registry,
        )
        self.mismatches = CounterMetric(
            "gpus_device_mismatches",
            "Containers seen with other devices than their lease's",
            registry=registry,
        )
        self.engine_errors = CounterMetric(
            "gpus_engine_errors", "Calls to Docker that failed or proved nothing", registry=registry
        )
        self.ledger_errors = CounterMetric(
            "gpus_ledger_errors", "Changes that the ledger did not take", registry=registry
        )
        self.up = Gauge("gpus_serving", "1 while grants are possible", registry=registry)

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self.refusals.labels(reason).inc()

    def count(self, decisions: Iterable[Decision], known: Container[str]) -> None:
        """Count stored decisions. ``known``: leases that were there before."""
        granted: dict[str, float] = {}
        for decision in decisions:
            if isinstance(decision, LeaseStored):
                lease = decision.lease
                if lease.state is LeaseState.RESERVED and lease.id not in known:
                    granted.setdefault(lease.id, lease.granted_at)
                elif lease.state is LeaseState.RELEASED:
                    self.released.labels(lease.reason.value if lease.reason else "").inc()
            elif isinstance(decision, EntryStored) and decision.entry.id in granted:
                self.grants.inc()
                waited = granted.pop(decision.entry.id) - decision.entry.submitted_at
                self.wait.observe(max(waited, 0.0))

    def measure(self, state: SchedulerState, waiters: int) -> None:
        """Set the gauges from the state, before they are read."""
        self.devices.clear()
        rows = Counter(
            (row["state"], row["model"], str(row["simulated"]).lower())
            for row in (device_row(state, device) for device in devices_of(state))
        )
        for labels, count in rows.items():
            self.devices.labels(*labels).set(count)
        self.queue.set(len(state.tables.queued_of))
        self.waiters.set(waiters)
        self.leases.clear()
        for lease in state.tables.leases.values():
            for device in lease.devices:
                self.leases.labels(
                    device, lease.key.user, lease.key.server, lease.node, lease.state.value
                ).set(1)
