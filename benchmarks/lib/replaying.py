"""A small site on simulated time: jobs through the shipped scheduler, under several policies."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.lib.jobs import Job
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.core import Core
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.scheduler.fairshare import Account
from jupyterhub_gpuspawner.scheduler.line import Line, Place, Sought
from jupyterhub_gpuspawner.scheduler.models import (
    Device,
    DeviceStatus,
    GPURequest,
    LeaseState,
    Limits,
    Node,
    ServerKey,
    Settings,
)
from jupyterhub_gpuspawner.scheduler.policy import DAY, Fairness
from jupyterhub_gpuspawner.scheduler.queue import Queue
from jupyterhub_gpuspawner.scheduler.state import SchedulerState

GUARD = 2 * DAY
GPUS = 16


class MultifactorLine(Line):
    """Slurm's order: a weighted sum of age, fair share and size, each 0 to 1."""

    AGE, FAIR, SIZE = 1000.0, 10_000.0, 100.0
    HALF_LIFE, MOST_AGE = 7 * DAY, 7 * DAY
    now = 0.0

    def walk(self, sought: Sought, now: float, full: Callable[[Account], bool]) -> Iterator[Place]:
        """The highest score first; equal ones by arrival."""
        places = [p for p in self.places.values() if p.shape and p.shape.bit & sought.mask]
        used: dict[str, float] = {}
        for user in {place.entry.key.user for place in places}:
            used[user] = self._used(user)
        total = sum(account.used for account in self._usage._accounts.values()) or 1.0

        def score(place: Place) -> tuple[float, int]:
            entry = place.entry
            age = min((self.now - entry.submitted_at) / self.MOST_AGE, 1.0)
            share = 2.0 ** -(used[entry.key.user] / total * len(self._usage._accounts))
            size = entry.request.count / GPUS
            points = self.AGE * age + self.FAIR * share + self.SIZE * size
            return (-points, entry.seq)

        for place in sorted(places, key=score):
            if place.shape is not None and place.shape.bit & sought.mask:
                yield place

    def _used(self, user: str) -> float:
        return self._usage.account("hub", user, ()).used


class Multifactor(Queue):
    """The shipped queue with Slurm's order."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.line = MultifactorLine(core.tables, self.capacity, core.usage, core.in_line)

    def next(self, now: float) -> Any:
        assert isinstance(self.line, MultifactorLine)
        self.line.now = now
        return super().next(now)


@dataclass(frozen=True)
class Policy:
    """A name and how to get it."""

    name: str
    fairness: Fairness
    queues: Callable[[Core], Queue] = Queue


OFF = Fairness(age_guard=None, age_first=None)
POLICIES = {
    "fifo": Policy("fifo", replace(OFF, by_usage=False, backfill=False)),
    "backfill": Policy("backfill", replace(OFF, by_usage=False)),
    "multifactor": Policy("multifactor", OFF, Multifactor),
    "ours": Policy("ours", OFF),
    "ours_guard": Policy("ours_guard", replace(Fairness(), age_guard=GUARD)),
}


@dataclass
class Outcome:
    """What came of a replay."""

    #: seconds, by job
    waits: list[float] = field(default_factory=list)
    #: user -> GPU seconds had, GPU seconds waited for
    had: dict[str, float] = field(default_factory=dict)
    waited: dict[str, float] = field(default_factory=dict)
    #: GPU seconds had until the last arrival, of those there were
    utilisation: float = 0.0
    #: grants to somebody younger than one who waited longer than the guard
    violations: int = 0
    #: (when, GPUs held)
    held: list[tuple[float, int]] = field(default_factory=list)

    @property
    def wait(self) -> float:
        """Mean wait, seconds."""
        return statistics.fmean(self.waits)

    @property
    def jain(self) -> float:
        """Jain's index over users of GPU time had / (had + waited for)."""
        parts = [had / (had + self.waited[user]) for user, had in self.had.items()]
        return sum(parts) ** 2 / (len(parts) * sum(part * part for part in parts))


class Replay:
    """One run."""

    def __init__(self, jobs: list[Job], policy: Policy) -> None:
        self.jobs = jobs
        settings = Settings(
            limits=Limits(queued_per_user=10**6, queued_total=10**6),
            fairness=policy.fairness,
            bind_deadline=1e18,
        )
        self.state = SchedulerState(settings, epoch=1, queues=policy.queues)
        self.ends: list[tuple[float, int]] = []
        self.outcome = Outcome()
        self.gpus = 0
        for node in ("a", "b"):
            devices = tuple(
                (Device(id=f"{node}{k}", node=node, index=k, simulated=True), DeviceStatus())
                for k in range(GPUS // 2)
            )
            self.state.handle(events.NodeReported(node=Node(name=node), devices=devices), 0.0)
            self.state.handle(events.NodeReconciled(node=node), 0.0)

    def run(self) -> Outcome:
        """All jobs to their ends."""
        last = self.jobs[-1].at
        for number, job in enumerate(self.jobs):
            while self.ends and self.ends[0][0] <= job.at:
                self._end(*heapq.heappop(self.ends), last)
            self._do(self._submitted(number, job), job.at, last)
        while self.ends:
            self._end(*heapq.heappop(self.ends), last)
        assert len(self.outcome.waits) == len(self.jobs), "somebody waits for ever"
        self.outcome.utilisation /= GPUS * last
        return self.outcome

    def _submitted(self, number: int, job: Job) -> events.Event:
        return events.Submitted(
            entry_id=f"j{number}",
            key=ServerKey(hub="hub", user=job.user, server=str(number)),
            request=GPURequest(count=job.gpus, length=job.length),
            boot_id="1",
        )

    def _end(self, now: float, number: int, last: float) -> None:
        self.gpus -= self.jobs[number].gpus
        self._do(events.StopWanted(lease_id=f"j{number}"), now, last)

    def _do(self, event: events.Event, now: float, last: float) -> None:
        for decision in self.state.handle(event, now):
            if isinstance(decision, LeaseStored) and decision.lease.state is LeaseState.RESERVED:
                self._granted(int(decision.lease.id[1:]), now, last)
        self.outcome.held.append((now, self.gpus))

    def _granted(self, number: int, now: float, last: float) -> None:
        job, out = self.jobs[number], self.outcome
        wait = now - job.at
        out.waits.append(wait)
        out.had[job.user] = out.had.get(job.user, 0.0) + job.gpus * job.seconds
        out.waited[job.user] = out.waited.get(job.user, 0.0) + job.gpus * wait
        out.utilisation += job.gpus * max(min(now + job.seconds, last) - min(now, last), 0.0)
        self.gpus += job.gpus
        heapq.heappush(self.ends, (now + job.seconds, number))
        # the nodes are alike: whoever waits could use these GPUs
        waiting = self.state.tables.queued_of.values()
        oldest = min((int(entry[1:]) for entry in waiting), default=number)
        if oldest < number and now - self.jobs[oldest].at > GUARD:
            out.violations += 1
