"""What the files of free devices are made of: kinds, nodes' rooms, and what a request wants."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from . import filters
from .models import Device, GPURequest, Node, Reason
from .topology import Board


@dataclass(eq=False, slots=True)
class Kind:
    """What devices have in common as far as a request can tell. One object for each kind."""

    #: any device of the kind
    sample: Device
    #: index = number of free devices -> (bytes of memory left, node), sorted, open nodes only
    levels: list[list[tuple[int, str]]] = field(default_factory=lambda: [[]])
    #: the highest index at which there is a node
    top: int = 0
    #: some of them tell how they are connected
    bonded: bool = False

    def file(self, count: int, place: tuple[int, str]) -> None:
        """Add a node that has ``count`` free."""
        while len(self.levels) <= count:
            self.levels.append([])
        insort(self.levels[count], place)
        self.top = max(self.top, count)

    def unfile(self, count: int, place: tuple[int, str]) -> None:
        """Take a node out."""
        level = self.levels[count]
        del level[bisect_left(level, place)]
        while self.top and not self.levels[self.top]:
            self.top -= 1


@dataclass(eq=False, slots=True)
class Shelf:
    """The devices of one kind on one node."""

    #: all that are known, in whatever state
    known: set[str] = field(default_factory=set)
    #: those that could be given out if nobody held them
    usable: set[str] = field(default_factory=set)
    #: those that can be given out now
    free: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Room:
    """What one node has left."""

    name: str
    #: as what it was looked at last; what follows from it and the settings
    node: Node | None = None
    #: the pools that it is in
    pools: frozenset[str] = frozenset()
    #: bytes that memory limits may add up to in all
    all_memory: int = 0
    #: the same in 1e-9 processors; None = no bound
    all_cpus: int | None = None
    #: why it takes no servers; None = it does
    closed: Reason | None = Reason.NODE_NOT_READY
    #: bytes that memory limits may still add up to; negative after a lowered budget
    memory: int = 0
    #: the same in 1e-9 processors; None = no bound
    cpus: int | None = None
    shelves: dict[Kind, Shelf] = field(default_factory=dict)
    #: where it is filed: (kind, free devices)
    filed: list[tuple[Kind, int]] = field(default_factory=list)
    #: number of free devices of all kinds
    all_free: int = 0
    #: how its GPUs are connected; None = they don't tell
    board: Board | None = None

    def free(self, want: Want) -> int:
        """Number of free devices that suit."""
        free = 0
        for kind in want.kinds:
            shelf = self.shelves.get(kind)
            if shelf is not None and shelf.free:
                free += len(want.among(shelf.free))
        return free

    def has(self, want: Want) -> bool:
        """Whether it could start there now."""
        if self.closed is not None or self.all_free < want.count or not self.holds(want):
            return False
        left = want.count
        for kind in want.kinds:
            shelf = self.shelves.get(kind)
            if shelf is not None and shelf.free:
                left -= len(want.among(shelf.free) if want.only or want.avoid else shelf.free)
                if left <= 0:
                    break
        return left <= 0

    def suits(self, want: Want) -> bool:
        """Whether it is a node that was asked for."""
        here = want.node in (None, self.name) and self.name != want.not_node
        return here and (want.pool is None or want.pool in self.pools)

    def holds(self, want: Want) -> bool:
        """Whether memory and CPUs are left for one more. No limit counts as nothing."""
        if want.choosy and not self.suits(want):
            return False
        if want.memory and self.memory < want.memory:
            return False
        return not want.cpus or self.cpus is None or self.cpus >= want.cpus


@dataclass(eq=False, slots=True)
class Want:
    """A request with what follows from it: the kinds that suit, the least wasteful first."""

    request: GPURequest
    count: int = 0
    memory: int = 0
    cpus: int = 0
    kinds: tuple[Kind, ...] = ()
    #: number of kinds there were when this was worked out
    known: int = -1
    #: the only node, pool and devices that will do; None = any
    node: str | None = None
    #: the only node that will not do
    not_node: str | None = None
    pool: str | None = None
    only: frozenset[str] | None = None
    #: whether any of these four is asked for
    choosy: bool = False
    #: bookings that are made for those who ask
    mine: frozenset[str] = frozenset()
    #: devices that are booked for others now, and for them
    avoid: frozenset[str] = frozenset()
    prefer: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        request = self.request
        self.count, self.memory = request.count, request.memory
        self.cpus = filters.nano_cpus(request.cpu)
        self.node, self.pool, self.not_node = request.node, request.pool, request.not_node
        self.only = frozenset(request.devices) or None
        self.choosy = bool(self.node or self.pool or self.not_node or request.devices)

    def among(self, ids: set[str]) -> set[str]:
        """Those of devices of a kind that suits which suit themselves now. For reading."""
        ids = ids if self.only is None else ids & self.only
        return ids - self.avoid if self.avoid else ids

    def named(self, ids: set[str]) -> set[str]:
        """The same, also those that are booked for others now."""
        return ids if self.only is None else ids & self.only

    def takes(self, device_id: str) -> bool:
        """Whether one of a kind that suits suits itself now."""
        return (self.only is None or device_id in self.only) and device_id not in self.avoid
