"""What would have been: jobs through the shipped scheduler on simulated time.

Each job is a server that somebody wanted once and that then stayed for a known time. It is asked
for when it was, is granted when the policy grants it, and ends as long after that as it stayed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf

from ..errors import RefusedError
from . import events
from .decisions import Decision, LeaseStored
from .models import Device, DeviceStatus, GPURequest, LeaseState, Node, ServerKey, Settings
from .policy import Idle
from .queue import Queue, Queues
from .state import SchedulerState

#: requests of a user or of all that may wait; nobody is refused for that in a simulation
_ANY = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One server that somebody wanted."""

    #: when, POSIX seconds
    at: float
    user: str
    groups: tuple[str, ...] = ()
    request: GPURequest
    #: how long it stayed once it was granted
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """The machines and their devices."""

    nodes: tuple[Node, ...]
    devices: tuple[Device, ...]

    @property
    def atoms(self) -> int:
        """What can be claimed one by one."""
        return sum(device.atoms for device in self.devices)


@dataclass(eq=False, slots=True)
class Outcome:
    """What came of a run. Jobs are named by their place in the list."""

    #: job -> seconds from asking to the grant
    waits: dict[int, float] = field(default_factory=dict)
    #: job -> seconds by which the first estimate of its start was wrong; of those that waited
    errors: dict[int, float] = field(default_factory=dict)
    #: jobs that were refused at once
    refused: list[int] = field(default_factory=list)
    #: jobs that nothing that ended made room for
    never: list[int] = field(default_factory=list)
    #: (when, atoms held from then on)
    held: list[tuple[float, int]] = field(default_factory=list)
    #: at each grant: (job, the oldest one that waits on; None = nobody does)
    grants: list[tuple[int, int | None]] = field(default_factory=list)

    def used(self, begin: float, end: float) -> float:
        """Seconds of atoms held between two times."""
        steps = [*self.held, (inf, 0)]
        total = 0.0
        for (since, atoms), (until, _) in pairwise(steps):
            total += atoms * max(min(until, end) - max(since, begin), 0.0)
        return total


class WhatIf:
    """One run.

    Parameters
    ----------
    jobs:
        In order of time.
    site:
        What there is from beginning to end.
    settings:
        The policy. Nothing is stopped before its time, and nobody is refused for waiting often.
    queues:
        Makes the line; another one is another policy.
    estimates:
        Whether to note what those who wait are told about their start, which takes time.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        site: Site,
        settings: Settings,
        queues: Queues = Queue,
        *,
        estimates: bool = False,
    ) -> None:
        limits = replace(settings.limits, queued_per_user=_ANY, queued_total=None)
        settings = replace(
            settings,
            limits=limits,
            bind_deadline=inf,
            start_deadline=inf,
            reclaim_warning=None,
            idle=Idle(),
        )
        self._jobs = jobs
        self._state = SchedulerState(settings, epoch=1, queues=queues)
        self._estimates = estimates
        self._ends: list[tuple[float, int]] = []
        self._held = 0
        self._told: dict[int, float] = {}
        self._out = Outcome()
        begin = jobs[0].at if jobs else 0.0
        for node in site.nodes:
            # simulated ones have no memory that has to be seen empty before the next grant
            devices = tuple(
                (replace(device, simulated=True), DeviceStatus())
                for device in site.devices
                if device.node == node.name
            )
            self._handle(events.NodeReported(node=node, devices=devices), begin)
            self._handle(events.NodeReconciled(node=node.name), begin)

    def run(self) -> Outcome:
        """All jobs to their ends."""
        for number, job in enumerate(self._jobs):
            self._until(job.at)
            self._ask(number, job)
        self._until(inf)
        gone = {*self._out.waits, *self._out.refused}
        self._out.never = [number for number in range(len(self._jobs)) if number not in gone]
        return self._out

    def _ask(self, number: int, job: Job) -> None:
        entry = f"j{number}"
        asked = events.Submitted(
            entry_id=entry,
            # a server of its own: the same one may have been started again while it would wait
            key=ServerKey(hub="hub", user=job.user, server=entry),
            groups=job.groups,
            request=job.request,
            boot_id="1",
            admin=True,
        )
        try:
            self._handle(asked, job.at)
        except RefusedError:
            self._out.refused.append(number)
            return
        if self._estimates and number not in self._out.waits:
            at = self._state.starts().get(entry)
            if at is not None:
                self._told[number] = at

    def _until(self, time: float) -> None:
        while self._ends and self._ends[0][0] <= time:
            now, number = heapq.heappop(self._ends)
            self._note(now, -len(self._state.tables.leases[f"j{number}"].claims))
            self._handle(
                events.ContainerGone(lease_id=f"j{number}", container_id=f"c{number}"), now
            )

    def _handle(self, event: events.Event, now: float) -> None:
        granted = self._take(self._state.handle(event, now), now)
        for number in granted:
            # one that runs: how long it stays can be learnt from
            bound = events.BindAsked(lease_id=f"j{number}", container_id=f"c{number}")
            self._take(self._state.handle(bound, now), now)

    def _take(self, decisions: Iterable[Decision], now: float) -> list[int]:
        granted = []
        for decision in decisions:
            if isinstance(decision, LeaseStored) and decision.lease.state is LeaseState.RESERVED:
                number = int(decision.lease.id[1:])
                granted.append(number)
                self._granted(number, len(decision.lease.claims), now)
        if granted:
            waiting = self._state.tables.queued_of.values()
            oldest = min((int(entry[1:]) for entry in waiting), default=None)
            self._out.grants += [(number, oldest) for number in granted]
        return granted

    def _granted(self, number: int, atoms: int, now: float) -> None:
        job, out = self._jobs[number], self._out
        out.waits[number] = now - job.at
        if number in self._told:
            out.errors[number] = abs(self._told[number] - now)
        self._note(now, atoms)
        heapq.heappush(self._ends, (now + job.seconds, number))

    def _note(self, now: float, atoms: int) -> None:
        self._held += atoms
        self._out.held.append((now, self._held))
