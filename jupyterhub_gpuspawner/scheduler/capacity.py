"""What is free, by node and kind of device, kept up to date device by device.

Devices that differ in nothing a request can ask for are of one *kind*; there are few kinds, and
a request fits some of them. For each kind, nodes are filed by how many of it they have free.
So a look for a place costs a few steps for each kind, however many devices there are, and a
grant or a release moves one node in the files.

Nothing here is a belief of its own: :class:`Capacity` follows the tables, which note what was
touched, and :meth:`Capacity.validate` compares it with a count from scratch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator

from . import filters
from .models import Device, GPURequest, Mode, Node, Settings
from .rooms import Kind, Room, Shelf, Want
from .strategies import Gradient, spread
from .tables import Tables
from .topology import Board

#: whether a node may be used, beyond having room; see :meth:`Capacity.find`
Allowed = Callable[["Room"], bool]


class Capacity:
    """The files. ``update()`` first, then ask.

    Parameters
    ----------
    ready:
        Names of the nodes that were reconciled in this epoch. A live view.
    settling:
        Ids of free devices whose memory was not seen empty yet. A live view.
    """

    def __init__(
        self,
        tables: Tables,
        settings: Settings,
        ready: Collection[str],
        settling: Collection[str],
    ) -> None:
        self._tables = tables
        self._settings = settings
        self._ready = ready
        self._settling = settling
        self.rooms: dict[str, Room] = {}
        self._kinds: dict[tuple[object, ...], Kind] = {}
        #: stands for "no device at all": every open node is filed here
        self._nothing = Kind(sample=Device(id="", node=""))
        self._shelf_of: dict[str, tuple[Device, Kind]] = {}
        #: nodes with several kinds, which together may do where no single one does
        self._mixed: set[str] = set()
        #: nodes whose GPUs are connected in another way than before
        self._rewired: set[str] = set()
        self._wants: dict[object, Want] = {}
        self._homes: dict[Want, dict[Room, None]] = {}
        self._homes_at = -1
        self._gradient = Gradient(tables, self.want)
        tables.touched.update(tables.devices)
        tables.touched_nodes.update(tables.nodes)

    # -- following the tables ----------------------------------------------------------------

    def update(self) -> set[str]:
        """Take in what was touched since the last time; returns the names of those nodes."""
        tables = self._tables
        nodes, devices = tables.touched_nodes, tables.touched
        tables.touched_nodes, tables.touched = set(), set()
        for device_id in devices:
            device = tables.devices.get(device_id)
            # claimed by an adopted container, and reported by nobody yet
            if device is not None:
                nodes.update(self._look_at(device))
        for name in nodes:
            self._file(name)
        for name in self._rewired:
            here = (tables.devices[id] for id in tables.devices_of_node[name])
            bonded = [device for device in here if device.bonds]
            self.rooms[name].board = Board.of(bonded) if bonded else None
        self._rewired.clear()
        return nodes

    def _look_at(self, device: Device) -> set[str]:
        """Put the device where it belongs; returns the nodes that this concerns."""
        before = self._shelf_of.get(device.id)
        nodes = {device.node}
        if before is None or before[0] is not device:
            if before is not None:
                nodes.add(before[0].node)
                self._take_off(*before)
            if device.bonds or (before is not None and before[0].bonds):
                self._rewired.update(nodes)
            self._shelf_of[device.id] = (device, self._put_up(device))
        shelf = self.rooms[device.node].shelves[self._shelf_of[device.id][1]]
        usable = filters.usable(self._tables.status[device.id]) is None
        _put(shelf.usable, device.id, usable)
        _put(shelf.free, device.id, usable and self._is_free(device))
        return nodes

    def _put_up(self, device: Device) -> Kind:
        """Give the device a place on a shelf."""
        kind = self._kind(device)
        kind.bonded = kind.bonded or bool(device.bonds)
        room = self._room(device.node)
        room.shelves.setdefault(kind, Shelf()).known.add(device.id)
        if len(room.shelves) > 1:
            self._mixed.add(room.name)
        return kind

    def _take_off(self, device: Device, kind: Kind) -> None:
        shelf = self.rooms[device.node].shelves[kind]
        for ids in (shelf.known, shelf.usable, shelf.free):
            ids.discard(device.id)

    def _is_free(self, device: Device) -> bool:
        if device.id in self._settling:
            return False
        if device.id not in self._tables.claims and not self._tables.relatives(device.id):
            return True
        free = len(self._tables.free_atoms(device))
        # a whole GPU is all of its atoms; of a shared one a slot is enough
        return free == device.atoms if device.mode is Mode.EXCLUSIVE else free > 0

    def _kind(self, device: Device) -> Kind:
        key = (device.mode, device.model, device.memory, device.capability, device.cap)
        kind = self._kinds.get(key)
        if kind is None:
            # what suits a request has to be worked out again: `want()` sees the number
            kind = self._kinds[key] = Kind(sample=device)
        return kind

    def _room(self, name: str) -> Room:
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = Room(name=name)
        return room

    def _file(self, name: str) -> None:
        room = self._room(name)
        for kind, count in room.filed:
            kind.unfile(count, (room.memory, name))
        room.filed = []
        node = self._tables.nodes.get(name)
        if node is None:
            return
        if room.node is not node:
            self._size(room, node)
        room.all_free = sum([len(shelf.free) for shelf in room.shelves.values()])
        room.closed = filters.node_open(node, name in self._ready)
        room.memory = room.all_memory - self._tables.memory_granted(name)
        cpus = room.all_cpus
        room.cpus = None if cpus is None else cpus - self._tables.nano_cpus_granted(name)
        if room.closed is None:
            room.filed = [(kind, len(s.free)) for kind, s in room.shelves.items() if s.free]
            room.filed.append((self._nothing, 0))
            for kind, count in room.filed:
                kind.file(count, (room.memory, name))

    def _size(self, room: Room, node: Node) -> None:
        """What follows from the node and the settings alone."""
        settings = self._settings
        pools = (p for p in settings.pools if filters.in_pool(node.name, p, settings))
        room.node, room.pools = node, frozenset(pools)
        room.all_memory = filters.memory_budget(node, settings)
        room.all_cpus = filters.cpu_budget(node, settings)

    def resettle(self, settings: Settings) -> None:
        """The budgets are other ones now: file all nodes again."""
        self._settings = settings
        for room in self.rooms.values():
            room.node = None
        self._tables.touched_nodes.update(self._tables.nodes)

    # -- asking ------------------------------------------------------------------------------

    def want(self, request: GPURequest, mine: frozenset[str] = frozenset()) -> Want:
        """What the request comes to here. The same object for equal requests.

        ``mine``: bookings that are made for those who ask.
        """
        key = (request, request.image, mine) if mine or request.image else request
        want = self._wants.get(key)
        if want is None:
            if len(self._wants) > 1000:
                # people's own sizes add up; what is asked again is worked out again
                self._wants.clear()
            want = self._wants[key] = Want(request=request, mine=mine)
        return self.renewed(want)

    @property
    def known(self) -> int:
        """Number of kinds that there are."""
        return len(self._kinds)

    def renewed(self, want: Want) -> Want:
        """``want``, looked at again where there are kinds that it does not know of."""
        if want.known != len(self._kinds):
            want.kinds, want.known = self._suiting(want.request), len(self._kinds)
        return want

    def _suiting(self, request: GPURequest) -> tuple[Kind, ...]:
        if request.count == 0:
            return ()

        def waste(kind: Kind) -> tuple[int, tuple[int, int], str]:
            device = kind.sample
            return (device.memory, device.capability or (0, 0), device.model)

        kinds = self._kinds.values()
        suiting = (kind for kind in kinds if filters.kind_suits(kind.sample, request) is None)
        return tuple(sorted(suiting, key=waste))

    def find(self, want: Want, allowed: Allowed | None = None) -> Room | None:
        """The best node that has room now, or None.

        Waste the least: the kind with the least memory that will do, then the node with the
        most NVLinks among as many as are asked for, then the one with the fewest of the kind left
        over, then one that has the image, then the one with the least memory left, then by name;
        or in the order that the settings' placement says. ``allowed`` may refuse a node.
        """
        if want.prefer:
            booked = self._find_booked(want, allowed)
            if booked is not None:
                return booked
        placement = self._settings.placement
        for kind in want.kinds or (self._nothing,):
            if kind.top < want.count:
                # no node has as many free
                continue
            if placement.spread and (want.pool in placement.spread or "*" in placement.spread):
                rooms = spread(self._having(want, kind), want, kind, self.with_image(want))
                found = _first(rooms, allowed)
            elif kind.bonded and want.count > 1:
                found = self._find_linked(want, kind, allowed)
            elif placement.gradient and want.count:
                rooms = self._gradient.order(self._having(want, kind), want, kind)
                found = _first(rooms, allowed)
            else:
                found = self._find_packed(want, kind, allowed)
            if found is not None:
                return found
        return self._find_mixed(want, allowed) if self._mixed and len(want.kinds) > 1 else None

    def _find_packed(self, want: Want, kind: Kind, allowed: Allowed | None) -> Room | None:
        """The first node with enough free of the kind: the one with the fewest left over."""
        here = self.with_image(want)
        for count in range(want.count, kind.top + 1):
            level = kind.levels[count]
            if not level:
                continue
            start = bisect_left(level, (want.memory, "")) if want.memory else 0
            otherwise: Room | None = None
            for index in range(start, len(level)):
                room = self.rooms[level[index][1]]
                if not room.holds(want):
                    continue
                if (want.only or want.avoid) and not self._offers(want, room, kind):
                    continue
                if allowed is None or allowed(room):
                    if not here or room.name in here:
                        return room
                    otherwise = otherwise or room
            if otherwise is not None:
                return otherwise
        return None

    def with_image(self, want: Want) -> Collection[str]:
        """Names of nodes that have the image, as far as is known. Empty: it decides nothing."""
        return self._tables.images.get(want.request.image, ())

    def _find_linked(self, want: Want, kind: Kind, allowed: Allowed | None) -> Room | None:
        """The node whose best set has the most NVLinks; of several the first one."""
        best, most, here = None, -1, self.with_image(want)
        for room in self._having(want, kind):
            free, board = want.among(room.shelves[kind].free), room.board
            told = board is not None and free <= board.rows.keys()
            links = board.nvlinks(free, want.count) if board is not None and told else 0
            better = links > most or (
                best is not None and links == most and room.name in here and best.name not in here
            )
            if better and (allowed is None or allowed(room)):
                best, most = room, links
                if here and room.name not in here:
                    continue
                if board is not None and told and links == board.nvlinks(board.rows, want.count):
                    # no node of this kind has more to give
                    break
        return best

    def _having(self, want: Want, kind: Kind) -> Iterator[Room]:
        """Nodes with enough free of the kind, those with the fewest first."""
        for count in range(want.count, kind.top + 1):
            for _, name in kind.levels[count]:
                room = self.rooms[name]
                choosy = bool(want.only or want.avoid)
                if room.holds(want) and (not choosy or self._offers(want, room, kind)):
                    yield room

    def _find_booked(self, want: Want, allowed: Allowed | None) -> Room | None:
        """A node where what is booked for it is enough."""
        for name in sorted({self._tables.devices[id].node for id in want.prefer}):
            room = self.rooms[name]
            shelves = [room.shelves[kind] for kind in want.kinds if kind in room.shelves]
            free = sum(len(want.among(shelf.free) & want.prefer) for shelf in shelves)
            if room.closed is not None or free < want.count or not room.holds(want):
                continue
            if allowed is None or allowed(room):
                return room
        return None

    def _offers(self, want: Want, room: Room, kind: Kind) -> bool:
        """Whether what is free of the kind on the node is enough of what suits."""
        return len(want.among(room.shelves[kind].free)) >= want.count

    def _find_mixed(self, want: Want, allowed: Allowed | None) -> Room | None:
        """A node where several kinds together are enough."""
        found = [
            (room.free(want), room.memory, room.name, room)
            for room in (self.rooms[name] for name in self._mixed)
            if room.closed is None and room.free(want) >= want.count and room.holds(want)
        ]
        for _, _, _, room in sorted(found, key=lambda item: item[:3]):
            if allowed is None or allowed(room):
                return room
        return None

    def could(self, want: Want, room: Room) -> bool:
        """Whether the node could serve the request once those who hold it now have ended."""
        node = self._tables.nodes.get(room.name)
        usable = 0
        for kind in want.kinds:
            shelf = room.shelves.get(kind)
            if shelf is not None:
                usable += len(want.named(shelf.usable))
        return (
            node is not None
            and usable >= want.count
            and room.suits(want)
            and filters.large_enough(node, want.request, self._settings)
        )

    def homes(self, want: Want) -> Collection[Room]:
        """All nodes that :meth:`could` serve the request; worked out once per inventory."""
        if self._homes_at != self._tables.inventory:
            self._homes.clear()
            self._homes_at = self._tables.inventory
        homes = self._homes.get(want)
        if homes is None:
            # a set that keeps its order
            homes = {room: None for room in self.rooms.values() if self.could(want, room)}
            self._homes[want] = homes
        return homes

    def kind_of(self, device_id: str) -> Kind | None:
        """The kind of a device; None for one that nobody has reported."""
        where = self._shelf_of.get(device_id)
        return None if where is None else where[1]

    # -- checking ----------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise ``AssertionError`` where the files differ from a count from scratch."""
        fresh = Capacity(self._tables, self._settings, self._ready, self._settling)
        fresh.update()
        assert self._summary() == fresh._summary(), "the files of free devices are wrong"

    def _summary(self) -> dict[str, object]:
        rooms: dict[str, object] = {}
        for room in self.rooms.values():
            if room.name not in self._tables.nodes:
                # a lease tells of a node that has not reported yet
                continue
            shelves = {
                repr(key): (shelf.known, shelf.usable, shelf.free)
                for key, kind in self._kinds.items()
                if (shelf := room.shelves.get(kind)) is not None and shelf.known
            }
            rooms[room.name] = (room.closed, room.memory, room.cpus, shelves)
        levels = {
            repr(key): [level for level in kind.levels if level]
            for key, kind in [*self._kinds.items(), ((), self._nothing)]
            if any(kind.levels)
        }
        return {"rooms": rooms, "levels": levels}


def _first(rooms: Iterable[Room], allowed: Allowed | None) -> Room | None:
    """The first one that may be used."""
    return next((room for room in rooms if allowed is None or allowed(room)), None)


def _put(ids: set[str], device_id: str, there: bool) -> None:
    if there:
        ids.add(device_id)
    else:
        ids.discard(device_id)
