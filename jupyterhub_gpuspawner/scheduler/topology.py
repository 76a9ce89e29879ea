"""How well the GPUs of one node are connected, and which of them make the best set.

What two GPUs are worth to each other is one number, their *bond*: 1000 for each NVLink between
them (through an NVSwitch counts as well), and up to 6 for how near they are on PCIe. All
PCIe bonds of 16 GPUs together are less than one NVLink, so that NVLinks decide first.

The best set of free GPUs has the largest sum of bonds; of several, the one that leaves the
largest sum to the GPUs that stay free. Sets are found by branch and bound, which gives what
trying all of them gives: see :func:`best_set`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from .models import Device

#: bond of one NVLink
NVLINK = 1000
#: bond by how far two GPUs are apart on PCIe, in the words of ``nvidia-smi topo``
PCIE = {"INT": 6, "PIX": 5, "PXB": 4, "PHB": 3, "NODE": 2, "SYS": 1}
#: answers that a board remembers
_REMEMBERED = 4096

Bonds = Sequence[Sequence[int]]


def bond(nvlinks: int, pcie: str) -> int:
    """What two GPUs are worth to each other. ``pcie``: a word of :data:`PCIE`."""
    return NVLINK * nvlinks + PCIE[pcie]


def total(bonds: Bonds, chosen: Sequence[int]) -> int:
    """Sum of the bonds within a set."""
    return sum(bonds[a][b] for n, a in enumerate(chosen) for b in chosen[:n])


def best_set(bonds: Bonds, free: Sequence[int], count: int) -> tuple[int, ...]:
    """The best ``count`` of ``free``: the largest sum within, then the largest left behind.

    ``bonds`` is symmetric; ``free`` holds at least ``count`` numbers of its rows.
    """
    return _Search(bonds, free).run(count)


class _Search:
    """Branch and bound over "take it" and "leave it".

    What is left behind is what all bonds of the free ones come to, less the bonds of those taken
    with all of them, plus the sum within. So of sets with the same sum within, the one whose
    GPUs have the fewest bonds leaves the most behind; a value is ``2 * scale * within - 2 *
    (their bonds)``, with a scale that no sum of bonds reaches.
    """

    def __init__(self, bonds: Bonds, free: Sequence[int]) -> None:
        self._bonds = bonds
        self._degree = {a: sum(bonds[a][b] for b in free if b != a) for a in free}
        self._scale = sum(self._degree.values()) + 1
        # the others of each one, the best first
        self._others = {
            a: [b for _, b in sorted((-bonds[a][b], b) for b in free if b != a)] for a in free
        }
        self._same = self._twins(free)
        self._free = list(free)
        self._best = -1
        self._found: tuple[int, ...] = ()

    def run(self, count: int) -> tuple[int, ...]:
        """The best set, in the order of its numbers."""
        floor = -2 * sum(self._degree.values()) - 1
        self._best = floor
        gains = {a: -2 * self._degree[a] for a in self._free}
        self._look(gains, (), 0, count)
        return tuple(sorted(self._found))

    def _twins(self, free: Sequence[int]) -> dict[int, int]:
        """Number -> the first one that could stand in its place without any difference."""
        first: dict[int, int] = {}
        leaders: list[int] = []
        for a in free:
            for b in leaders:
                mine, others = self._bonds[a], self._bonds[b]
                if all(mine[c] == others[c] for c in free if c not in (a, b)):
                    first[a] = b
                    break
            else:
                leaders.append(a)
                first[a] = a
        return first

    def _look(self, gains: dict[int, int], chosen: tuple[int, ...], value: int, more: int) -> None:
        """``gains``: what each one that may still be taken adds to ``value``."""
        if not more:
            # what the last one adds was promised exactly, so that it is better
            self._best, self._found = value, chosen
            return
        while len(gains) >= more:
            # each is promised half a bond with the best of those that come with it
            promise = {a: gain + self._promise(a, gains, more - 1) for a, gain in gains.items()}
            ranked = sorted(promise.values(), reverse=True)
            if value + sum(ranked[:more]) <= self._best:
                return
            taken = max(promise, key=lambda a: (promise[a], -a))
            row, twice = self._bonds[taken], 2 * self._scale
            left = {a: gain + twice * row[a] for a, gain in gains.items() if a != taken}
            self._look(left, (*chosen, taken), value + gains[taken], more - 1)
            # a set with a twin of it and without itself is no better than one with itself
            twin = self._same[taken]
            gains = {a: gain for a, gain in gains.items() if self._same[a] != twin}

    def _promise(self, a: int, there: Collection[int], count: int) -> int:
        """Half of what the best ``count`` bonds with those that may come with it are worth."""
        row, worth = self._bonds[a], 0
        for b in self._others[a]:
            if not count:
                break
            if b in there:
                worth += row[b]
                count -= 1
        return self._scale * worth


@dataclass(eq=False, slots=True)
class Board:
    """The GPUs of one node that say how they are connected. Remembers what it was asked."""

    #: device id -> row
    rows: dict[str, int]
    bonds: list[list[int]]
    _known: dict[tuple[int, int], tuple[tuple[str, ...], int]] = field(default_factory=dict)

    @classmethod
    def of(cls, devices: Iterable[Device]) -> Board:
        """The board of these devices; who names no bond with another has one of 0."""
        listed = sorted(devices, key=lambda device: (device.index, device.id))
        rows = {device.id: row for row, device in enumerate(listed)}
        bonds = [[0] * len(listed) for _ in listed]
        for row, device in enumerate(listed):
            for other, worth in device.bonds:
                if other in rows and other != device.id:
                    bonds[row][rows[other]] = bonds[rows[other]][row] = worth
        return cls(rows=rows, bonds=bonds)

    def choose(self, free: Collection[str], count: int) -> tuple[str, ...]:
        """The best ``count`` of the devices ``free``, which are all on the board."""
        return self._answer(free, count)[0]

    def nvlinks(self, free: Collection[str], count: int) -> int:
        """How many NVLinks the best set of ``count`` of them has."""
        return self._answer(free, count)[1] // NVLINK

    def _answer(self, free: Collection[str], count: int) -> tuple[tuple[str, ...], int]:
        mask = 0
        for device_id in free:
            mask |= 1 << self.rows[device_id]
        answer = self._known.get((mask, count))
        if answer is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            ids = list(self.rows)
            chosen = best_set(self.bonds, [r for r in range(len(ids)) if mask >> r & 1], count)
            answer = (tuple(ids[row] for row in chosen), total(self.bonds, chosen))
            self._known[mask, count] = answer
        return answer
