"""How many decisions the scheduler makes in a second, with every policy on and a long queue.

A decision is the answer to one event: a request is put in line or granted, a lease is bound,
runs, is to stop, or is released and its GPUs go to the next ones. All go through ``handle()``,
as the service calls it, in the mix of whole lives of servers. Seconds are of CPU time, because the
scheduler is one thread and other work on the machine is not its own; by the wall clock is said
beside. ``benchmarks/README.md`` says what each number means.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.lib.expected import missed
from jupyterhub_gpuspawner.scheduler import events, placement
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
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
from jupyterhub_gpuspawner.scheduler.policy import HOUR, Fairness, Share
from jupyterhub_gpuspawner.scheduler.state import SchedulerState

GIB = 2**30
#: what we want
EXPECTED = {
    "decisions_per_s": (">=", 10_000),
    "decisions_per_s_10k": (">=", 5_000),
    "p99_ms": ("<=", 1.0),
    "pass_p99_ms": ("<=", 10.0),
    "memory_mb": ("<=", 300),
}
MODELS = ("NVIDIA A100-SXM4-80GB", "NVIDIA L4", "NVIDIA A100-SXM4-40GB", "NVIDIA V100")
#: a dozen kinds of request: (GPUs, hours, memory)
SHAPES = [
    GPURequest(count=count, length=hours * HOUR, memory=memory * GIB, cpu=2.0, model=model)
    for count, hours, memory, model in (
        *((1, hours, 16, None) for hours in (1, 4, 8, 24)),
        *((2, hours, 32, None) for hours in (1, 4, 24)),
        *((4, hours, 64, "*A100*") for hours in (4, 8, 24)),
        (8, 24, 128, "*A100*"),
        (1, 4, 16, "*L4*"),
    )
]


def fairness(departments: int, labs: int) -> Fairness:
    """A tree of two levels."""
    shares = []
    for d in range(departments):
        shares.append(Share(name=f"dep{d}", weight=1.0 + d % 3, quota=20))
        shares += [
            Share(name=f"lab{d}-{n}", parent=f"dep{d}", quota=4, borrow=200) for n in range(labs)
        ]
    return Fairness(shares=tuple(shares), priorities={"dep0": 1})


@dataclass
class Site:
    """An installation that is full, and whose users come and go."""

    nodes: int
    seed: int
    users: int = 500
    queued: int = 5000
    now: float = 1_000_000.0
    #: seconds of each event by the wall clock, and of CPU
    took: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    #: of those, the ones that released GPUs
    passes: list[float] = field(default_factory=list)
    ids: int = 0
    #: leases that nothing was started for yet, in the order of their grants
    fresh: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        limits = Limits(per_user=max(40, 20 * self.nodes * 10 // 500), queued_per_user=1000)
        settings = Settings(limits=limits, cpu_overcommit=4.0, fairness=fairness(10, 5))
        self.state = SchedulerState(settings, epoch=1)

    def build(self) -> None:
        """Report nodes of ten GPUs, fill them, and let the line grow."""
        for number in range(self.nodes):
            name = f"node-{number:04d}"
            model = MODELS[number * len(MODELS) // self.nodes]
            devices = tuple(
                (
                    Device(
                        id=f"GPU-{number:04d}-{index}",
                        node=name,
                        index=index,
                        model=model,
                        memory=(24 if "L4" in model else 40) * GIB,
                        simulated=True,
                    ),
                    DeviceStatus(),
                )
                for index in range(10)
            )
            node = Node(name=name, memory=1024 * GIB, cpus=128.0, boot_id="1")
            self.state.handle(events.NodeReported(node=node, devices=devices), self.now)
            self.state.handle(events.NodeReconciled(node=name), self.now)
        while len(self.state.tables.queued_of) < self.queued:
            self.submit()
        self.begin_fresh()

    def do(self, event: events.Event) -> None:
        """One event, timed."""
        self.now += 0.5
        busy, begun = time.thread_time(), time.perf_counter()
        decided = self.state.handle(event, self.now)
        self.took.append(time.perf_counter() - begun)
        self.busy.append(time.thread_time() - busy)
        for decision in decided:
            if isinstance(decision, LeaseStored) and decision.lease.state is LeaseState.RESERVED:
                self.fresh.append(decision.lease.id)

    def submit(self) -> None:
        """A user asks."""
        self.ids += 1
        user = self.random.randrange(self.users)
        department, lab = user % 10, user // 10 % 5
        key = ServerKey(hub="hub", user=f"user-{user:03d}", server=f"s{self.ids}")
        self.do(
            events.Submitted(
                entry_id=f"entry-{self.ids:08d}",
                key=key,
                groups=(f"lab{department}-{lab}", f"dep{department}", "everybody"),
                request=self.random.choice(SHAPES),
                boot_id="1",
            )
        )

    def begin_fresh(self) -> None:
        """The servers that were granted something start."""
        fresh, self.fresh = self.fresh, []
        for lease_id in fresh:
            self.do(events.BindAsked(lease_id=lease_id, container_id=f"c-{lease_id}"))
            self.do(events.ContainerRunning(lease_id=lease_id))

    def end(self, lease_id: str) -> None:
        """A server stops, and its GPUs go to whoever is next."""
        self.do(events.StopWanted(lease_id=lease_id))
        self.do(events.ContainerGone(lease_id=lease_id, container_id=f"c-{lease_id}"))
        self.passes.append(self.busy[-1])

    def live(self, lives: int) -> None:
        """``lives`` servers end, those who get their GPUs start, and others ask."""
        for _ in range(lives):
            self.end(self.random.choice(list(self.state.tables.leases)))
            self.begin_fresh()
            while len(self.state.tables.queued_of) < self.queued:
                self.submit()


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them don't exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def placements_per_s(site: Site) -> float:
    """Finding a node and its devices alone, on a site that is half empty."""
    for entry in site.state.tables.queued():
        site.do(events.Cancelled(entry_id=entry.id))
    for lease_id in list(site.state.tables.leases)[::2]:
        site.end(lease_id)
    capacity = site.state._queue.capacity
    capacity.update()
    wants = [capacity.want(request) for request in SHAPES]
    begun, made = time.thread_time(), 0
    while time.thread_time() - begun < 0.5:
        for want in wants:
            room = capacity.find(want)
            if room is not None:
                placement.pick(site.state.tables, room, want)
            made += 1
    return made / (time.thread_time() - begun)


def measure(nodes: int, lives: int, seed: int, answer: Any) -> None:
    """One size, in a process of its own, so that its memory can be told."""
    site = Site(nodes=nodes, seed=seed)
    begun = time.thread_time()
    site.build()
    built = time.thread_time() - begun
    fill = len(site.took)
    site.took.clear()
    site.busy.clear()
    site.passes.clear()
    gc.collect()
    gc.freeze()
    site.live(lives)
    took, busy, passes = list(site.took), list(site.busy), list(site.passes)
    tables = site.state.tables
    answer.send(
        {
            "decisions": len(took),
            "per_s": len(busy) / sum(busy),
            "wall_per_s": len(took) / sum(took),
            "p50_ms": quantile(busy, 0.5) * 1e3,
            "p99_ms": quantile(busy, 0.99) * 1e3,
            "wall_p99_ms": quantile(took, 0.99) * 1e3,
            "pass_p50_ms": quantile(passes, 0.5) * 1e3,
            "pass_p99_ms": quantile(passes, 0.99) * 1e3,
            "fill_per_s": fill / built,
            "leases": len(tables.leases),
            "gpus_held": len(tables.claims),
            "gpus": len(tables.devices),
            "queued": len(tables.queued_of),
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "placement_per_s": placements_per_s(site),
        }
    )


def run(nodes: int, lives: int, seed: int) -> dict[str, float]:
    """Measure one size and tell."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.Process(target=measure, args=(nodes, lives, seed, there))
    child.start()
    there.close()
    found: dict[str, float] = here.recv()
    child.join()
    print(f"{nodes} nodes: " + ", ".join(f"{k} {v:,.2f}" for k, v in found.items()), flush=True)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Measure both sizes."""
    parser = argparse.ArgumentParser(prog="benchmarks/run decisions", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lives", type=int, default=4000, help="servers that end")
    arguments = parser.parse_args(words)
    print(
        f"machine: {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}; seed {arguments.seed}",
        flush=True,
    )
    small = run(100, arguments.lives, arguments.seed)
    large = run(1000, arguments.lives, arguments.seed)
    result: dict[str, Any] = {
        "ok": True,
        "decisions_per_s": round(small["per_s"]),
        "decisions_per_s_10k": round(large["per_s"]),
        "p99_ms": round(small["p99_ms"], 3),
        "wall_per_s": round(small["wall_per_s"]),
        "wall_per_s_10k": round(large["wall_per_s"]),
        "wall_p99_ms": round(small["wall_p99_ms"], 3),
        "p99_ms_10k": round(large["p99_ms"], 3),
        "pass_p99_ms": round(small["pass_p99_ms"], 3),
        "pass_p99_ms_10k": round(large["pass_p99_ms"], 3),
        "placement_per_s": round(small["placement_per_s"]),
        "placement_per_s_10k": round(large["placement_per_s"]),
        "memory_mb": round(large["memory_mb"], 1),
    }
    result["missed"] = missed(result, EXPECTED)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
