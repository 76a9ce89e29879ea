"""A small site on simulated time: jobs through the shipped scheduler, under several policies."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.lib.jobs import Job
from jupyterhub_gpuspawner.scheduler import whatif
from jupyterhub_gpuspawner.scheduler.core import Core
from jupyterhub_gpuspawner.scheduler.fairshare import Account
from jupyterhub_gpuspawner.scheduler.line import Line, Place, Sought
from jupyterhub_gpuspawner.scheduler.models import Device, GPURequest, Node, Settings
from jupyterhub_gpuspawner.scheduler.policy import DAY, Fairness
from jupyterhub_gpuspawner.scheduler.queue import Queue

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
    "multifactor_guard": Policy(
        "multifactor_guard", replace(Fairness(), age_guard=GUARD), Multifactor
    ),
    "ours": Policy("ours", OFF),
    "ours_guard": Policy("ours_guard", replace(Fairness(), age_guard=GUARD)),
}


@dataclass
class Outcome:
    """What came of a replay."""

    #: seconds, by job
    waits: list[float]
    #: user -> GPU seconds had, GPU seconds waited for
    had: dict[str, float]
    waited: dict[str, float]
    #: GPU seconds had until the last arrival, of those there were
    utilisation: float
    #: grants to somebody younger than one who waited longer than the guard
    violations: int
    #: (when, GPUs held)
    held: list[tuple[float, int]]
    #: seconds by which the first estimate of those who waited was wrong
    errors: list[float]

    @property
    def wait(self) -> float:
        """Mean wait, seconds."""
        return statistics.fmean(self.waits)

    @property
    def jain(self) -> float:
        """Jain's index over users of GPU time had / (had + waited for)."""
        parts = [had / (had + self.waited[user]) for user, had in self.had.items()]
        return sum(parts) ** 2 / (len(parts) * sum(part * part for part in parts))


def site() -> whatif.Site:
    """Two nodes of 8 GPUs."""
    return whatif.Site(
        nodes=(Node(name="a"), Node(name="b")),
        devices=tuple(
            Device(id=f"{node}{k}", node=node, index=k) for node in "ab" for k in range(GPUS // 2)
        ),
    )


def replay(jobs: list[Job], policy: Policy, *, estimates: bool = False) -> Outcome:
    """One run. ``estimates``: also measure what those who wait are told."""
    wanted = [
        whatif.Job(
            at=job.at,
            user=job.user,
            request=GPURequest(count=job.gpus, length=job.length),
            seconds=job.seconds,
        )
        for job in jobs
    ]
    settings = Settings(fairness=policy.fairness)
    found = whatif.WhatIf(wanted, site(), settings, policy.queues, estimates=estimates).run()
    assert len(found.waits) == len(jobs), "somebody waits for ever"
    had: dict[str, float] = {}
    waited: dict[str, float] = {}
    for number, job in enumerate(jobs):
        had[job.user] = had.get(job.user, 0.0) + job.gpus * job.seconds
        waited[job.user] = waited.get(job.user, 0.0) + job.gpus * found.waits[number]
    last = jobs[-1].at
    return Outcome(
        waits=[found.waits[number] for number in range(len(jobs))],
        had=had,
        waited=waited,
        utilisation=found.used(0.0, last) / (GPUS * last),
        violations=_violations(jobs, found),
        held=found.held,
        errors=list(found.errors.values()),
    )


def _violations(jobs: list[Job], found: whatif.Outcome) -> int:
    """Grants past an older one that had waited longer than the guard.

    The nodes are alike: whoever waits could use the GPUs.
    """
    broken = 0
    for number, oldest in found.grants:
        if oldest is not None and oldest < number:
            broken += jobs[number].at + found.waits[number] - jobs[oldest].at > GUARD
    return broken
