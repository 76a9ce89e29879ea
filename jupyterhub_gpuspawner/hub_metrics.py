"""What the Hub itself can tell Prometheus of our starts, beside what it tells at ``/hub/metrics``.

No label names a person.
"""

from __future__ import annotations

import time

from prometheus_client import Counter, Histogram

START_PHASES = Histogram(
    "gpus_hub_start_phase_seconds",
    "Seconds of each part of a start in the Hub: turn (other starts go first), create, record "
    "(the container in the ledger), start, answer (until the server does)",
    ["phase"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, float("inf")),
)
STARTS = Counter(
    "gpus_hub_starts",
    "Starts of servers that had their GPUs, by how they went: ready, failed, cancelled",
    ["result"],
)
# there from the beginning, so that the first of a kind is an increase
for _result in ("ready", "failed", "cancelled"):
    STARTS.labels(_result)


class Laps:
    """Times the parts of one start, one after the other."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def lap(self, phase: str) -> None:
        """The part ``phase`` is over; the next begins."""
        now = time.monotonic()
        START_PHASES.labels(phase).observe(now - self._since)
        self._since = now
