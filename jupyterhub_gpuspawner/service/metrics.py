"""Numbers for Prometheus. Names begin with ``gpus_``; labels use the scheduler's words.

No label names a person, but for the two of ``gpus_lease_info`` where the site asks for it: what
Prometheus has once stored it keeps, and shows to whoever may read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as CounterMetric

from ..scheduler.decisions import Decision, EntryStored, LeaseStored
from ..scheduler.models import Lease, LeaseState
from ..scheduler.state import SchedulerState
from .summary import device_row, devices_of, node_row

#: upper bounds in seconds, of what lasts from moments to days, and of what lasts moments
_WAITS = (0.1, 1, 10, 60, 300, 1800, 7200, 28800, 86400, float("inf"))
_STARTS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, float("inf"))
#: what a lease was in before -> what that part of a start is called
_PHASES = {LeaseState.RESERVED: "create", LeaseState.STARTING: "start"}


class Metrics:
    """All metrics of one service, in a registry of their own.

    Parameters
    ----------
    show_users:
        Whether ``gpus_lease_info`` says whose server it is.
    """

    def __init__(self, *, show_users: bool = False) -> None:
        self._show_users = show_users
        #: id of a live lease -> (state, since when), as last stored
        self._moved: dict[str, tuple[LeaseState, float]] = {}
        self.registry = registry = CollectorRegistry()
        self.devices = Gauge(
            "gpus_devices",
            "GPUs by node, model, how they are divided, state (free, busy, unavailable) and the "
            "reason where one is not free",
            ["node", "model", "mode", "state", "reason", "simulated"],
            registry=registry,
        )
        self.nodes = Gauge(
            "gpus_nodes", "Machines by state", ["node", "state", "reason"], registry=registry
        )
        self.memory = Gauge(
            "gpus_node_memory_granted_bytes",
            "Memory limits of the servers on a machine, added up",
            ["node"],
            registry=registry,
        )
        self.budget = Gauge(
            "gpus_node_memory_budget_bytes",
            "Memory that servers on a machine may have together",
            ["node"],
            registry=registry,
        )
        self.queue = Gauge("gpus_queue_length", "Requests that wait", registry=registry)
        self.oldest = Gauge(
            "gpus_queue_oldest_seconds",
            "Seconds that the longest waiting request waits; 0 = nobody does",
            registry=registry,
        )
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
            buckets=_WAITS,
            registry=registry,
        )
        self.starts = Histogram(
            "gpus_start_phase_seconds",
            "Seconds from the grant to a container (create) and from there to a running server "
            "(start)",
            ["phase"],
            buckets=_STARTS,
            registry=registry,
        )
        self.reconcile = Histogram(
            "gpus_reconcile_seconds", "Seconds of a full comparison", registry=registry
        )
        self.leases = Gauge(
            "gpus_lease_info",
            "1 for each device in a live lease; join with dcgm-exporter on UUID. user and server "
            "are empty unless metrics_show_users is set",
            ["UUID", "lease", "user", "server", "node", "state"],
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
                self._follow(lease)
                if lease.state is LeaseState.RESERVED and lease.id not in known:
                    granted.setdefault(lease.id, lease.granted_at)
                elif lease.state is LeaseState.RELEASED:
                    self.released.labels(lease.reason.value if lease.reason else "").inc()
            elif isinstance(decision, EntryStored) and decision.entry.id in granted:
                self.grants.inc()
                waited = granted.pop(decision.entry.id) - decision.entry.submitted_at
                self.wait.observe(max(waited, 0.0))

    def _follow(self, lease: Lease) -> None:
        """Time the parts of a start by when the lease moved."""
        before = self._moved.get(lease.id)
        if lease.state is LeaseState.RELEASED:
            self._moved.pop(lease.id, None)
            return
        if before is not None and before[0] is lease.state:
            return
        self._moved[lease.id] = (lease.state, lease.moved_at)
        forward = lease.state in (LeaseState.STARTING, LeaseState.RUNNING)
        if before is not None and forward and before[0] in _PHASES:
            seconds = max(lease.moved_at - before[1], 0.0)
            self.starts.labels(_PHASES[before[0]]).observe(seconds)

    def measure(self, state: SchedulerState, waiters: int, now: float) -> None:
        """Set the gauges from the state, before they are read. ``now``: POSIX seconds."""
        self._measure_machines(state)
        queued = state.tables.queued_of
        self.queue.set(len(queued))
        asked = [state.tables.entries[id].submitted_at for id in queued.values()]
        self.oldest.set(max(now - min(asked), 0.0) if asked else 0.0)
        self.waiters.set(waiters)
        self.leases.clear()
        for lease in state.tables.leases.values():
            who = (lease.key.user, lease.key.server) if self._show_users else ("", "")
            for device in lease.devices:
                self.leases.labels(device, lease.id, *who, lease.node, lease.state.value).set(1)

    def _measure_machines(self, state: SchedulerState) -> None:
        self.devices.clear()
        rows = Counter(
            (
                device.node,
                device.model,
                device.mode.value,
                row["state"],
                row["reason"] or "",
                str(device.simulated).lower(),
            )
            for device in devices_of(state)
            for row in (device_row(state, device),)
        )
        for labels, count in rows.items():
            self.devices.labels(*labels).set(count)
        for gauge in (self.nodes, self.memory, self.budget):
            gauge.clear()
        for name in state.tables.nodes:
            node = node_row(state, name)
            self.nodes.labels(name, node["state"], node["reason"] or "").set(1)
            self.memory.labels(name).set(node["memory_granted"])
            self.budget.labels(name).set(node["memory_budget"])
