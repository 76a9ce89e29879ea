"""One user who asks and cancels a thousand times: what it costs the others, in simulated time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import GPURequest, LeaseState, ServerKey
from jupyterhub_gpuspawner.service.options import GPUScheduler
from jupyterhub_gpuspawner.service.pace import Pace
from tests.unit.scheduler_world import World, key

# real sockets, files or processes
pytestmark = pytest.mark.slow

#: seconds between two looks of everybody
STEP = 0.5
#: how long an honest user works, and pauses
WORK, PAUSE = 60.0, 20.0
#: how long a server of the flood is there once it was granted: created, stopped, removed
TOUCH = 1.5
CYCLES = 1000


@dataclass
class Honest:
    """Asks, waits, works, pauses; remembers how long it waited."""

    key: ServerKey
    next_at: float
    asked_at: float = 0.0
    lease: str = ""
    waits: list[float] = field(default_factory=list)


@dataclass
class Flood:
    """Ten servers of one user: ask, cancel, ask again, as fast as it is let."""

    pace: Pace
    cycles: int = 0
    refused: int = 0
    lasts: dict[str, tuple[str, float]] = field(default_factory=dict)


class Site:
    """Four GPUs, eight users, and perhaps a flood."""

    def __init__(self, flood: Flood | None) -> None:
        self.world = World("g1", "g2", "g3", "g4")
        self.honest = [
            Honest(key=key(f"user-{n}"), next_at=self.world.now + 7 * n) for n in range(8)
        ]
        self.flood = flood
        self._ids = itertools.count()

    def run(self, seconds: float) -> None:
        until = self.world.now + seconds
        while self.world.now < until:
            self.world.now += STEP
            for user in self.honest:
                self._live(user)
            if self.flood is not None and self.flood.cycles < CYCLES:
                for number in range(10):
                    self._touch(self.flood, f"eve/{number}")

    def _ask(self, who: ServerKey) -> str:
        id = f"x{next(self._ids)}"
        request = GPURequest(count=1)
        self.world.state.handle(
            events.Submitted(entry_id=id, key=who, request=request, boot_id="boot-1"),
            self.world.now,
        )
        return id

    def _lease(self, id: str) -> bool:
        lease = self.world.state.tables.leases.get(id)
        return lease is not None and lease.state is LeaseState.RESERVED

    def _end(self, id: str) -> None:
        self.world.state.handle(events.StopWanted(lease_id=id), self.world.now)

    def _live(self, user: Honest) -> None:
        now = self.world.now
        if user.lease and user.asked_at:
            if self._lease(user.lease):
                user.waits.append(now - user.asked_at)
                user.asked_at, user.next_at = 0.0, now + WORK
        elif user.lease and now >= user.next_at:
            self._end(user.lease)
            user.lease, user.next_at = "", now + PAUSE
        elif not user.lease and now >= user.next_at:
            user.lease, user.asked_at = self._ask(user.key), now

    def _touch(self, flood: Flood, name: str) -> None:
        now = self.world.now
        id, since = flood.lasts.get(name, ("", 0.0))
        if id and self._lease(id):
            if now - since >= TOUCH:
                self._end(id)
                del flood.lasts[name]
            return
        if id:
            self.world.state.handle(events.Cancelled(entry_id=id), now)
            del flood.lasts[name]
        if flood.pace.take("eve", now):
            flood.refused += 1
            return
        flood.cycles += 1
        try:
            flood.lasts[name] = (self._ask(key(name)), now)
        except RefusedError:
            flood.refused += 1

    def mean_wait(self) -> float:
        """Seconds that the honest waited, those who wait still included."""
        waits = [wait for user in self.honest for wait in user.waits]
        waits += [self.world.now - user.asked_at for user in self.honest if user.asked_at]
        return sum(waits) / len(waits)


def test_a_thousand_cycles_of_one_user_do_not_double_the_others_wait() -> None:
    options = GPUScheduler()
    pace = Pace(options.request_rate, options.request_burst)
    quiet, flooded = Site(None), Site(Flood(pace))
    quiet.run(1200)
    flooded.run(1200)
    assert flooded.flood is not None
    before, after = quiet.mean_wait(), flooded.mean_wait()
    print(
        f"mean wait {before:.1f} s without, {after:.1f} s with {flooded.flood.cycles} cycles "
        f"({flooded.flood.refused} refused): ratio {after / before:.2f}"
    )
    assert flooded.flood.cycles == CYCLES
    assert flooded.flood.refused > CYCLES
    assert before > 10
    assert after / before < 2


def test_without_a_bound_on_the_pace_the_same_flood_costs_more() -> None:
    bounded, unbounded = Site(Flood(Pace(60, 30))), Site(Flood(Pace()))
    bounded.run(100)
    unbounded.run(100)
    assert bounded.flood is not None
    assert unbounded.flood is not None
    assert bounded.flood.cycles <= 30 + 100
    assert unbounded.flood.cycles > 5 * bounded.flood.cycles
