"""Other orders of the nodes that have room than "the fewest left over": spread, and gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from .fragmentation import WHOLE, Fragments, Left, Scale, Task
from .models import GPURequest, Mode
from .rooms import Kind, Room, Want
from .tables import Tables

#: processors of a node without a bound; the same everywhere, so that they decide nothing
_NO_BOUND = 10**18
#: changes of the tables after which what is usual is looked at again
_CHANGES = 200


def spread(rooms: Iterable[Room], want: Want, kind: Kind, here: Collection[str] = ()) -> list[Room]:
    """The one with the most left first, then those ``here``, then the one with the most memory."""

    def order(room: Room) -> tuple[int, bool, int, str]:
        # a server without GPU has no kind of them
        free = len(want.among(room.shelves[kind].free)) if want.count else 0
        return (-free, room.name not in here, -room.memory, room.name)

    return sorted(rooms, key=order)


class Gradient:
    """Where free GPUs are spoilt least for those who usually ask: who holds some, and who waits.

    ``want_of`` says what a request comes to here.
    """

    def __init__(self, tables: Tables, want_of: Callable[[GPURequest], Want]) -> None:
        self._tables = tables
        self._want_of = want_of
        self._fragments: Fragments | None = None
        self._at = 0

    def order(self, rooms: Iterable[Room], want: Want, kind: Kind) -> list[Room]:
        """The node where fragmentation grows least first; they all have room."""
        left = [(self._left(room, want, kind), room) for room in rooms]
        if self._fragments is None or self._tables.version - self._at >= _CHANGES:
            self._fragments = self._usual([each for each, _ in left])
            self._at = self._tables.version
        task, here = _task(want, 1), self._tables.images.get(want.request.image, ())
        scored = []
        for each, room in left:
            best = self._fragments.best(each, task)
            # where memory is short already, and none is asked for
            far = room.name not in here
            scored.append((best is None, best[0] if best else 0.0, far, room.name, room))
        return [room for *_, room in sorted(scored, key=lambda item: item[:4])]

    def _left(self, room: Room, want: Want, kind: Kind) -> Left:
        tables = self._tables
        devices = (tables.devices[id] for id in want.among(room.shelves[kind].free))
        parts = (len(tables.free_atoms(device)) * WHOLE // device.atoms for device in devices)
        cpus = _NO_BOUND if room.cpus is None else room.cpus
        return Left(cpus=cpus, memory=room.memory, gpus=tuple(sorted(parts)), kind=kind)

    def _usual(self, left: list[Left]) -> Fragments:
        requests = Counter(lease.request for lease in self._tables.leases.values())
        requests.update(entry.request for entry in self._tables.queued())
        wants = [(self._want_of(request), number) for request, number in requests.items()]
        tasks = [_task(want, number) for want, number in wants if want.count and want.kinds]
        scale = Scale(
            gpus=max((sum(each.gpus) for each in left), default=0),
            cpus=max((each.cpus for each in left), default=0),
            memory=max((each.memory for each in left), default=0),
        )
        return Fragments(tasks, scale)


def _task(want: Want, number: int) -> Task:
    slots = want.request.sharing is Mode.SLOTS
    return Task(
        count=want.count,
        part=WHOLE // want.kinds[0].sample.atoms if slots else WHOLE,
        cpus=want.cpus,
        memory=want.memory,
        kinds=frozenset(want.kinds),
        weight=float(number),
    )
