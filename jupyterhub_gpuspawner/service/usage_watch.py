"""What servers use of their limits, sampled only while their users look at them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..engine.usage import Sample
from ..errors import EngineError, LedgerError
from ..scheduler.models import Lease, LeaseState
from ..scheduler.state import SchedulerState
from .identity import HUB

if TYPE_CHECKING:
    from .desk import Desk

log = logging.getLogger("gpus.usage")

#: seconds between two samples, and how many are kept
EVERY, KEPT = 5.0, 60
#: seconds after which GPUs are measured anew while somebody looks
MEASURE = 15.0

#: asks the engine about a container; None = it does not run
Asker = Callable[[str], Awaitable["Sample | None"]]


@dataclass(slots=True)
class _Series:
    """What one server used, oldest first."""

    last: Sample | None = None
    #: processors
    cpu: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    #: bytes
    memory: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, sample: Sample) -> None:
        if self.last is not None and sample.at > self.last.at:
            used = (sample.cpu_seconds - self.last.cpu_seconds) / (sample.at - self.last.at)
            self.cpu.append(round(max(used, 0.0), 2))
        self.memory.append(sample.memory)
        self.last = sample


class UsageWatch:
    """Samples the servers of those who look. ``ask`` is None where the engine can't tell."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._series: dict[str, _Series] = {}
        self._measured = 0.0
        self.ask: Asker | None = None

    async def look(self, users: Collection[str]) -> bool:
        """One sample of each of their running servers; whether there was any."""
        ask = self.ask
        if ask is None or not users:
            return False

        def running(state: SchedulerState) -> list[Lease]:
            return [
                lease
                for lease in state.tables.leases.values()
                if lease.state is LeaseState.RUNNING
                and lease.key.hub == HUB
                and lease.key.user in users
            ]

        try:
            leases = await self._desk.read(running)
        except LedgerError:
            return False
        self._series = {one.id: self._series.get(one.id) or _Series() for one in leases}
        await asyncio.gather(*(self._sample(ask, one) for one in leases))
        self._measure_gpus(leases)
        return bool(leases)

    async def _sample(self, ask: Asker, lease: Lease) -> None:
        series = self._series[lease.id]
        # an engine that does not answer leaves a gap, nothing else
        with contextlib.suppress(EngineError):
            sample = await ask(lease.container_id or "")
            if sample is not None:
                series.add(sample)

    def _measure_gpus(self, leases: list[Lease]) -> None:
        now, reconciler = self._desk.now(), self._desk.reconciler
        devices = [id for lease in leases for id in lease.devices]
        if (
            reconciler is not None
            and self._desk.usage_of(devices)
            and now - self._measured > MEASURE
        ):
            self._measured = now
            reconciler.nudge()

    def of(self, lease: str) -> dict[str, Any]:
        """The charts of a server, as JSON data."""
        series = self._series.get(lease) or _Series()
        return {"cpu": list(series.cpu), "memory": list(series.memory)}
