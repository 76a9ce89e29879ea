"""A cluster that fills up: tasks arrive, none ends, and a policy says where each goes."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from pathlib import Path

from jupyterhub_gpuspawner.scheduler.fragmentation import WHOLE, Fragments, Left, Scale, Task

#: what a policy thinks of a task on a node: (the less the better, where the GPUs begin)
Score = Callable[[Left, Task], "tuple[float, int] | None"]

NODES = "openb_node_list_gpu_node.csv"


@dataclass(frozen=True)
class Trace:
    """What there is, and what is asked for."""

    nodes: list[Left]
    #: one for each arrival; those without GPUs as well
    tasks: list[Task]

    @property
    def capacity(self) -> int:
        """Thousandths of GPUs."""
        return sum(sum(node.gpus) for node in self.nodes)


def read_trace(path: Path) -> Trace:
    """The list of pods, and the list of nodes beside it."""
    nodes, tasks = [], []
    with (path.parent / NODES).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            gpus = (WHOLE,) * int(row["gpu"])
            cpus, memory = int(row["cpu_milli"]), int(row["memory_mib"])
            nodes.append(Left(cpus=cpus, memory=memory, gpus=gpus, kind=row["model"]))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            kinds = frozenset(row["gpu_spec"].split("|")) if row["gpu_spec"] else None
            tasks.append(
                Task(
                    count=int(row["num_gpu"]),
                    part=int(row["gpu_milli"] or 0) or WHOLE,
                    cpus=int(row["cpu_milli"]),
                    memory=int(row["memory_mib"]),
                    kinds=kinds,
                )
            )
    return Trace(nodes=nodes, tasks=tasks)


def synthetic(rng: random.Random) -> Trace:
    """200 nodes, and tasks of which many take a part of a GPU."""
    nodes = [
        Left(cpus=12_000 * gpus, memory=49_152 * gpus, gpus=(WHOLE,) * gpus, kind="G2")
        for gpus in rng.choices((2, 4, 8), (2, 1, 3), k=200)
    ]
    tasks = []
    for _ in range(3000):
        count = rng.choices((0, 1, 2, 4, 8), (13, 80, 3, 2, 2))[0]
        part = rng.choice((250, 460, 500, 810, WHOLE, WHOLE)) if count == 1 else WHOLE
        cpus = rng.choice((2000, 4000, 8000, 12_000)) * max(1, count)
        tasks.append(Task(count=count, part=part, cpus=cpus, memory=4 * cpus))
    return Trace(nodes=nodes, tasks=tasks)


def arrivals(trace: Trace, seed: int) -> list[Task]:
    """The tasks in a random order, again and again, until they ask for all GPUs there are."""
    rng = random.Random(seed)
    found: list[Task] = []
    asked, more, capacity = 0, 0, trace.capacity
    row: list[Task] = []
    while asked < capacity:
        if more == len(row):
            row, more = rng.sample(trace.tasks, len(trace.tasks)), 0
        task = row[more]
        more += 1
        found.append(task)
        asked += task.count * task.part
    return found


class Cluster:
    """Nodes, and for each shape of task a heap of what it scores on them."""

    def __init__(self, trace: Trace, score: Score) -> None:
        self.nodes = list(trace.nodes)
        self._score = score
        #: how often each node has changed, and which one changed when
        self._version = [0] * len(self.nodes)
        self._changes: list[int] = []
        self._heaps: dict[Task, list[tuple[float, int, int, int, int]]] = {}
        self._seen: dict[Task, int] = {}
        self.allocated = 0

    def place(self, task: Task) -> bool:
        """Give the task the best node; False where none has room."""
        heap = self._heaps.get(task)
        if heap is None:
            heap = [e for n in range(len(self.nodes)) for e in self._entry(task, n)]
            heapify(heap)
            self._heaps[task] = heap
        else:
            for n in set(self._changes[self._seen[task] :]):
                for entry in self._entry(task, n):
                    heappush(heap, entry)
        self._seen[task] = len(self._changes)
        while heap and heap[0][4] != self._version[heap[0][2]]:
            heappop(heap)
        if not heap:
            return False
        _, _, node, begin, _ = heap[0]
        self.take(task, node, begin)
        return True

    def take(self, task: Task, node: int, begin: int) -> None:
        """The task is on the node now."""
        self.nodes[node] = self.nodes[node].take(task, begin)
        self._version[node] += 1
        self._changes.append(node)
        self.allocated += task.count * task.part

    def _entry(self, task: Task, node: int) -> list[tuple[float, int, int, int, int]]:
        left = self.nodes[node]
        found = self._score(left, task)
        if found is None:
            return []
        # among equals the node with the least left
        return [(found[0], sum(left.gpus), node, found[1], self._version[node])]


def scale(trace: Trace) -> Scale:
    """The most that a node has."""
    return Scale(
        gpus=max(sum(node.gpus) for node in trace.nodes),
        cpus=max(node.cpus for node in trace.nodes),
        memory=max(node.memory for node in trace.nodes),
    )


def fgd(trace: Trace) -> Score:
    """Where the fragmentation grows least."""
    usual = Counter(trace.tasks)
    tasks = (replace(task, weight=float(number)) for task, number in usual.items())
    return Fragments(tasks, scale(trace)).best


def best_fit(trace: Trace) -> Score:
    """Where the least is left of GPUs, processors and memory together, each as a part of the most
    that a node has."""
    most = scale(trace)

    def score(left: Left, task: Task) -> tuple[float, int] | None:
        choices = left.choices(task)
        # the same is taken everywhere: the least before is the least after
        return (most.emptiness(left), choices[0]) if choices else None

    return score


def fill(trace: Trace, policy: str, seed: int) -> float:
    """Percent of all GPUs that are allocated when as many as there are were asked for."""
    tasks = arrivals(trace, seed)
    if policy == "random":
        return _at_random(trace, tasks, random.Random(seed + 1_000_000))
    cluster = Cluster(trace, {"fgd": fgd, "best_fit": best_fit}[policy](trace))
    for task in tasks:
        cluster.place(task)
    return 100 * cluster.allocated / trace.capacity


def _at_random(trace: Trace, tasks: list[Task], rng: random.Random) -> float:
    cluster = Cluster(trace, lambda left, task: None)
    every = list(range(len(cluster.nodes)))
    full: set[Task] = set()
    for task in tasks:
        # nothing ends: what found no room finds none later
        if task not in full and not _anywhere(cluster, task, every, rng):
            full.add(task)
    return 100 * cluster.allocated / trace.capacity


def _anywhere(cluster: Cluster, task: Task, every: list[int], rng: random.Random) -> bool:
    # a few guesses find one of many, a look at all the last of few
    for guesses in (rng.choices(every, k=20), rng.sample(every, len(every))):
        for node in guesses:
            choices = cluster.nodes[node].choices(task)
            if choices:
                cluster.take(task, node, rng.choice(choices))
                return True
    return False
