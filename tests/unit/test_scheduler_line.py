"""The line under load: long seeded walks in which most have to wait, checked by naive rules.

``GPUS_WALK_STEPS`` makes the walks longer: ``./run-tests`` takes 10,000 steps in all, and
``./run-tests long`` a million.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import (
    Booking,
    DeviceStatus,
    GPURequest,
    Health,
    LeaseState,
    Limits,
    Mode,
    Settings,
)
from jupyterhub_gpuspawner.scheduler.policy import Budget, Fairness, Share
from jupyterhub_gpuspawner.scheduler.state import SchedulerState
from tests.unit.scheduler_reference import Checked
from tests.unit.scheduler_world import GIB, gpu, key, machine

STEPS = int(os.environ.get("GPUS_WALK_STEPS", "40"))
SHARES = (
    Share(name="physics", quota=2),
    Share(name="theory", parent="physics", weight=3.0, quota=1, borrow=3),
    Share(name="lasers", parent="physics", borrow=2),
    Share(name="teaching", quota=1, borrow=1),
)
LIMITS = Limits(per_user=3, groups={"all": 7}, queued_per_user=5)
BUDGETS = Limits(
    user_budget=Budget(hours=2.0, period=5000.0),
    user_budgets={"bob": None, "eve": Budget(hours=1.0, period=2000.0)},
    group_budgets={"all": Budget(hours=4.0, period=9000.0)},
)
CC9 = (9, 0)
POOLS = {"odd": ("n1", "n3"), "second": ("n2*",)}
POLICIES = {
    "usage": Settings(),
    "shares": Settings(fairness=Fairness(shares=SHARES), limits=LIMITS),
    "guard": Settings(
        fairness=Fairness(shares=SHARES, age_guard=3000.0, age_first=1000.0), cpu_overcommit=0.5
    ),
    "guard alone": Settings(fairness=Fairness(by_usage=False, age_guard=2000.0, age_first=None)),
    "old first": Settings(fairness=Fairness(shares=SHARES, age_guard=None, age_first=900.0)),
    "priorities": Settings(fairness=Fairness(priorities={"teaching": 1}, half_life=500.0)),
    "arrival": Settings(fairness=Fairness(by_usage=False, age_guard=None), limits=LIMITS),
    "budgets": Settings(limits=BUDGETS, fairness=Fairness(shares=SHARES, unbounded_length=500.0)),
    "no backfill": Settings(fairness=Fairness(backfill=False, age_guard=None)),
}
USERS = {
    "ann": ("theory", "all"),
    "bob": ("lasers", "all"),
    "cy": ("physics",),
    "dan": ("teaching", "all"),
    "eve": (),
    "fay": ("all", "teaching"),
}


def site() -> dict[str, list[Any]]:
    """Three nodes: four equal GPUs; two kinds and a shared one; a GPU with MIG instances."""
    parts = [
        gpu(f"m{n}", "n3", mode=Mode.MIG, parent="c1", memory=20 * GIB, index=n) for n in (1, 2)
    ]
    return {
        "n1": [gpu(f"a{n}", capability=(8, 0)) for n in range(4)],
        "n2": [
            *(gpu(f"b{n}", "n2", model="H100", memory=80 * GIB, capability=CC9) for n in range(2)),
            gpu("b2", "n2"),
            gpu("s3", "n2", mode=Mode.SLOTS, atoms=3),
        ],
        "n3": [gpu("c1", "n3", simulated=False), *parts],
    }


class Walk:
    """One installation and what happens to it."""

    def __init__(self, settings: Settings, seed: int) -> None:
        settings = replace(settings, pools=POOLS)
        self.random = random.Random(seed)
        self.now, self.ids = 1000.0, 0
        self.state = SchedulerState(settings, epoch=1, queues=Checked)
        for node in site():
            self.report(node, {})
            self.do(events.NodeReconciled(node=node))

    def do(self, event: events.Event) -> None:
        self.state.handle(event, self.now)
        self.state.validate()

    def report(self, node: str, status: dict[str, DeviceStatus]) -> None:
        listed = tuple((d, status.get(d.id, DeviceStatus())) for d in site()[node])
        self.do(events.NodeReported(node=machine(node), devices=listed))

    def step(self) -> None:
        dice = self.random.random
        self.now += self.random.choice([0.0, 1.0, 10.0, 300.0])
        waiting = list(self.state.tables.queued_of.values())
        leases = self.state.tables.leases
        if len(waiting) < 12 and dice() < 0.7:
            self.submit()
        elif dice() < 0.1:
            self.trouble()
        elif dice() < 0.12:
            self.book()
        elif waiting and dice() < 0.15:
            self.leave(self.random.choice(waiting))
        elif leases:
            self.advance(self.random.choice(list(leases)))
        else:
            self.do(events.Tick())

    def submit(self) -> None:
        self.ids += 1
        choose = self.random.choice
        user = choose(list(USERS))
        sharing = choose([Mode.EXCLUSIVE] * 5 + [Mode.SLOTS, Mode.MIG])
        request = GPURequest(
            count=choose([0, 1, 1, 1, 2, 2, 3, 4]) if sharing is Mode.EXCLUSIVE else 1,
            model=choose([None, None, "a100", "H100"]) if sharing is Mode.EXCLUSIVE else None,
            sharing=sharing,
            memory=choose([0, 0, 10, 30, 60]) * GIB,
            cpu=choose([0.0, 1.0, 4.0]),
            length=choose([None, 100.0, 1000.0, 3600.0]),
        )
        if self.random.random() < 0.2:
            request = self.particular(request)
        event = events.Submitted(
            entry_id=f"e{self.ids}",
            key=key(f"{user}/{choose('xyz')}"),
            groups=USERS[user],
            request=request,
            boot_id="1",
            admin=True,
        )
        try:
            self.do(event)
        except RefusedError:
            self.state.validate()

    def particular(self, request: GPURequest) -> GPURequest:
        """The same request, for a node, a pool, newer GPUs, or GPUs by name."""
        kind = self.random.choice(["node", "pool", "capability", "devices"])
        if kind == "node":
            return replace(request, node=self.random.choice(["n1", "n2", "n3"]))
        if kind == "pool":
            return replace(request, pool=self.random.choice(["odd", "second"]))
        if kind == "capability":
            return replace(request, min_capability=(8, 0))
        devices = site()[self.random.choice(["n1", "n2"])]
        some = self.random.sample([d.id for d in devices if d.mode is Mode.EXCLUSIVE], 2)
        count = min(request.count, 2)
        exclusive = request.sharing is Mode.EXCLUSIVE and count and request.model is None
        return replace(request, count=count, devices=tuple(some[:count])) if exclusive else request

    def book(self) -> None:
        """An admin keeps some devices for a while, or no longer."""
        booked = list(self.state.tables.bookings)
        if booked and self.random.random() < 0.2:
            self.do(events.BookingCancelled(booking_id=booked[0]))
            return
        self.ids += 1
        devices = [device.id for device in site()[self.random.choice(["n1", "n2", "n3"])]]
        starts = self.now + self.random.choice([-100.0, 0.0, 500.0, 2000.0])
        booking = Booking(
            id=f"b{self.ids}",
            devices=tuple(sorted(self.random.sample(devices, 2))),
            groups=tuple(self.random.choice([("all",), ("teaching", "physics"), ()])),
            users=("eve",),
            starts_at=starts,
            ends_at=starts + self.random.choice([50.0, 1000.0, 3000.0]),
        )
        try:
            self.do(events.Booked(booking=booking))
        except RefusedError:
            self.state.validate()

    def leave(self, entry_id: str) -> None:
        kind = events.Cancelled if self.random.random() < 0.3 else events.Detached
        self.do(kind(entry_id=entry_id))

    def trouble(self) -> None:
        node = self.random.choice(list(site()))
        sick = self.random.choice([{}, {}, {self.random.choice(site()[node]).id: BAD}])
        self.report(node, sick)

    def advance(self, lease_id: str) -> None:
        """The lease goes on by a step of its life."""
        lease = self.state.tables.leases[lease_id]
        container = f"c-{lease_id}"
        if lease.state is LeaseState.RESERVED:
            self.do(events.BindAsked(lease_id=lease_id, container_id=container))
        elif lease.state is LeaseState.STOPPING or self.random.random() < 0.5:
            self.do(events.ContainerGone(lease_id=lease_id, container_id=container))
        else:
            self.do(events.StopWanted(lease_id=lease_id))


BAD = DeviceStatus(health=Health.BAD)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(2))
def test_a_long_walk_keeps_every_rule(policy: str, seed: int) -> None:
    walk = Walk(POLICIES[policy], seed)
    for _ in range(STEPS):
        walk.step()
    assert walk.ids >= STEPS / 10
