"""How much of what a node has left is of no use to those who usually ask.

Free GPUs that a usual request can't take, because processors, memory, other GPUs or a part of the
same GPU are missing, are *fragments* for it. A node's fragmentation is their expected amount, over
all usual requests. A grant goes to the node where it grows least: fragmentation gradient descent
(Weng et al., Beware of Fragmentation, USENIX ATC 2023). Of nodes where it grows by about the same,
it goes to the one that has less left.

GPUs are counted in thousandths here, so that parts of them are whole numbers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

#: a whole GPU
WHOLE = 1000
#: what a node that is empty is worse than one that is full, in the same unit for each of GPUs,
#: processors and memory: nearly nothing, but on a replayed trace it gave half a percent more
_EMPTY = 20.0
#: answers that are remembered
_REMEMBERED = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A usual request."""

    #: GPUs, and what it takes of each, in thousandths
    count: int
    part: int = WHOLE
    #: processors and memory, in any units that are those of :class:`Left`
    cpus: int = 0
    memory: int = 0
    #: kinds of GPU that will do; None = any
    kinds: frozenset[Hashable] | None = None
    #: how often it is asked for
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What a node has left."""

    cpus: int
    memory: int
    #: of each GPU, in thousandths; sorted, the most used first
    gpus: tuple[int, ...]
    #: all of this kind
    kind: Hashable = None

    def take(self, task: Task, begin: int) -> Left:
        """The same after a grant of the GPUs at ``begin`` and the following ones."""
        end = begin + task.count
        used = (free - task.part for free in self.gpus[begin:end])
        return Left(
            cpus=self.cpus - task.cpus,
            memory=self.memory - task.memory,
            gpus=tuple(sorted((*self.gpus[:begin], *used, *self.gpus[end:]))),
            kind=self.kind,
        )

    def choices(self, task: Task) -> list[int]:
        """Where the task's GPUs may begin: each way that differs; empty where it doesn't fit."""
        first = bisect_left(self.gpus, task.part)
        if (
            len(self.gpus) - first < task.count
            or self.cpus < task.cpus
            or self.memory < task.memory
            or not (task.kinds is None or self.kind in task.kinds)
        ):
            return []
        if task.count != 1:
            # the ones that are used most
            return [first]
        gpus = self.gpus
        return [n for n in range(first, len(gpus)) if n == first or gpus[n] != gpus[n - 1]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """The most that a node has."""

    cpus: int
    memory: int
    #: thousandths of GPUs
    gpus: int

    def emptiness(self, left: Left) -> float:
        """What is left, each as a part of the most: 0 to 3."""
        gpus = sum(left.gpus) / max(self.gpus, 1)
        return gpus + left.cpus / max(self.cpus, 1) + left.memory / max(self.memory, 1)


class Fragments:
    """Measures nodes against the usual requests. Sets of these are masks of bits."""

    def __init__(self, tasks: Iterable[Task], scale: Scale) -> None:
        self._scale = scale
        # who asks for no GPU can use none, wherever: that is the same for every choice
        self._tasks = [task for task in tasks if task.count]
        whole = sum(task.weight for task in self._tasks)
        self._weights = [task.weight / whole for task in self._tasks]
        self._by_cpus = _Prefixes(task.cpus for task in self._tasks)
        self._by_memory = _Prefixes(task.memory for task in self._tasks)
        self._by_part = _Prefixes(task.part for task in self._tasks)
        self._needs: dict[tuple[int, int], int] = {}
        for bit, task in enumerate(self._tasks):
            need = (task.count, task.part)
            self._needs[need] = self._needs.get(need, 0) | 1 << bit
        self._chances: dict[int, float] = {0: 0.0}
        self._kinds: dict[Hashable, int] = {}
        self._known: dict[tuple[int, tuple[int, ...]], float] = {}
        self._fitting: dict[tuple[int, ...], int] = {}

    def of(self, left: Left) -> float:
        """Expected thousandths of free GPUs that are of no use."""
        fit = self._by_cpus.below(left.cpus) & self._by_memory.below(left.memory)
        fit &= self._kind(left.kind)
        known = self._known.get((fit, left.gpus))
        if known is None:
            known = self._of(fit, left.gpus)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
                self._fitting.clear()
            self._known[fit, left.gpus] = known
        return known

    def best(self, left: Left, task: Task) -> tuple[float, int] | None:
        """(how bad the node is for it, where the GPUs begin); None where it doesn't fit."""
        choices = left.choices(task)
        if not choices:
            return None
        after, begin = min((self.of(left.take(task, begin)), begin) for begin in choices)
        return after - self.of(left) + _EMPTY * self._scale.emptiness(left), begin

    def _of(self, fit: int, gpus: tuple[int, ...]) -> float:
        served = self._fitting.get(gpus)
        if served is None:
            served = self._fitting[gpus] = self._serving(gpus)
        fit &= served
        lost = sum(gpus) * (1.0 - self._chance(fit))
        for free in gpus:
            if 0 < free < WHOLE:
                # somebody who fits, and not on this one
                lost += free * self._chance(fit & ~self._by_part.below(free))
        return lost

    def _serving(self, gpus: tuple[int, ...]) -> int:
        """Mask of the tasks that find their GPUs."""
        mask = 0
        for (count, part), tasks in self._needs.items():
            if len(gpus) - bisect_left(gpus, part) >= count:
                mask |= tasks
        return mask

    def _kind(self, kind: Hashable) -> int:
        mask = self._kinds.get(kind)
        if mask is None:
            mask = 0
            for bit, task in enumerate(self._tasks):
                if task.kinds is None or kind in task.kinds:
                    mask |= 1 << bit
            self._kinds[kind] = mask
        return mask

    def _chance(self, mask: int) -> float:
        """That the next request is one of the mask's."""
        chance = self._chances.get(mask)
        if chance is None:
            chance = sum(weight for bit, weight in enumerate(self._weights) if mask >> bit & 1)
            self._chances[mask] = chance
        return chance


class _Prefixes:
    """Masks of the tasks that need no more than an amount."""

    def __init__(self, needs: Iterable[int]) -> None:
        pairs = sorted((need, bit) for bit, need in enumerate(needs))
        self._needs = [need for need, _ in pairs]
        self._masks: Sequence[int] = _unions([1 << bit for _, bit in pairs])

    def below(self, amount: int) -> int:
        """Mask of those that need ``amount`` or less."""
        return self._masks[bisect_right(self._needs, amount)]


def _unions(bits: Iterable[int]) -> list[int]:
    masks = [0]
    for bit in bits:
        masks.append(masks[-1] | bit)
    return masks
