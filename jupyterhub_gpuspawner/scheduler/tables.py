"""What the scheduler believes now: live values by id, with the sums that decisions need.

:meth:`Tables.apply` is the only way in which anything changes. It takes whole values and keeps
the indices right, so that replaying a journal and living through it end in the same tables.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable

from . import filters, transitions
from .decisions import BookingStored, Decision, DeviceStored, EntryStored, LeaseStored, NodeStored
from .models import (
    Booking,
    Device,
    DeviceStatus,
    EntryState,
    Lease,
    LeaseState,
    Node,
    QueueEntry,
    ServerKey,
)

#: entry states that are still of interest; the others are history
OPEN_ENTRY = frozenset({EntryState.QUEUED, EntryState.GRANTED, EntryState.BOUND})

#: images of which it is remembered where they ran
_IMAGES = 1000


class Tables:
    """Devices, nodes, open entries and live leases."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.status: dict[str, DeviceStatus] = {}
        self.nodes: dict[str, Node] = {}
        self.entries: dict[str, QueueEntry] = {}
        self.leases: dict[str, Lease] = {}
        self.lease_of: dict[ServerKey, str] = {}
        #: container id -> lease id
        self.lease_of_container: dict[str, str] = {}
        self.queued_of: dict[ServerKey, str] = {}
        #: device -> atom -> lease id; no entry for a device without claims
        self.claims: dict[str, dict[int, str]] = {}
        self.devices_of_node: dict[str, set[str]] = defaultdict(set)
        self.children: dict[str, set[str]] = defaultdict(set)
        self.leases_of_node: dict[str, set[str]] = defaultdict(set)
        #: devices, nodes and entries that have changed since :mod:`.capacity` and :mod:`.line`
        #: looked last; who looks puts an empty set in place
        self.touched: set[str] = set()
        self.touched_nodes: set[str] = set()
        self.touched_entries: set[str] = set()
        #: bookings that are not over, and those of each device, the earliest first
        self.bookings: dict[str, Booking] = {}
        self.bookings_of: dict[str, list[Booking]] = {}
        #: image -> nodes where it was seen, or a server of it ran: most often it still is there
        self.images: dict[str, set[str]] = {}
        self.next_seq = 1
        #: grows with each change that a grant may depend on
        self.version = 0
        #: grows with each change of a device or node
        self.inventory = 0
        #: (seq, entry id) of the waiting entries, sorted
        self._line: list[tuple[int, str]] = []
        #: only of devices that have any
        self._relatives: dict[str, tuple[str, ...]] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()
        self._by_user: Counter[tuple[str, str]] = Counter()
        self._by_group: Counter[tuple[str, str]] = Counter()
        self._memory: Counter[str] = Counter()
        self._nano_cpus: Counter[str] = Counter()

    # -- reading -------------------------------------------------------------------------

    def queued(self) -> list[QueueEntry]:
        """Waiting entries in order of arrival."""
        return [self.entries[id] for _, id in self._line]

    def waiting_of_user(self, key: ServerKey) -> int:
        """Number of waiting entries of the user of ``key``."""
        return self._waiting[key.hub, key.user]

    def held_by_user(self, key: ServerKey) -> int:
        """GPUs (atoms) in the live leases of the user of ``key``."""
        return self._by_user[key.hub, key.user]

    def held_by(self, user: tuple[str, str]) -> int:
        """The same of a user of a Hub, by their names."""
        return self._by_user[user]

    def held_by_group(self, hub: str, group: str) -> int:
        """GPUs (atoms) in the live leases of members of ``group``."""
        return self._by_group[hub, group]

    def memory_granted(self, node: str) -> int:
        """Sum of the memory limits of the node's live leases, bytes."""
        return self._memory[node]

    def nano_cpus_granted(self, node: str) -> int:
        """Sum of the CPU limits of the node's live leases, in 1e-9 processors."""
        return self._nano_cpus[node]

    def relatives(self, device_id: str) -> tuple[str, ...]:
        """The parent and the MIG children of a device: other names of the same hardware."""
        return self._relatives.get(device_id, ())

    def free_atoms(self, device: Device) -> list[int]:
        """Atoms without a claim, none where a MIG parent or child is claimed (S4)."""
        relatives = self._relatives.get(device.id)
        if relatives and any(relative in self.claims for relative in relatives):
            return []
        taken = self.claims.get(device.id)
        if taken is None:
            return list(range(device.atoms))
        return [atom for atom in range(device.atoms) if atom not in taken]

    # -- changing ------------------------------------------------------------------------

    def apply(self, decision: Decision) -> None:
        """Take a decision in. Raises ``IllegalTransition`` and changes nothing on a bug."""
        if isinstance(decision, EntryStored):
            self._store_entry(decision.entry)
        elif isinstance(decision, LeaseStored):
            self._store_lease(decision.lease)
            if decision.lease.state is LeaseState.RUNNING:
                self.note_image(decision.lease.request.image, (decision.lease.node,))
        elif isinstance(decision, DeviceStored):
            self._store_device(decision.device, decision.status)
        elif isinstance(decision, NodeStored):
            self._store_node(decision.node)
        elif isinstance(decision, BookingStored):
            self._store_booking(decision.booking)

    def note_image(self, image: str, nodes: Iterable[str]) -> None:
        """Nodes have an image; empty = it is not known which."""
        if image:
            if len(self.images) > _IMAGES:
                # people's own images add up; what is used again is learnt again
                self.images.clear()
            self.images.setdefault(image, set()).update(nodes)

    def _store_entry(self, entry: QueueEntry) -> None:
        old = self.entries.get(entry.id)
        subject = f"entry {entry.id}"
        transitions.check(transitions.ENTRY, old.state if old else None, entry.state, subject)
        queued = entry.state is EntryState.QUEUED
        other = self.queued_of.get(entry.key, entry.id)
        if queued and other != entry.id:
            raise transitions.IllegalTransition(f"{subject}: {entry.key} waits already as {other}")
        self.next_seq = max(self.next_seq, entry.seq + 1)
        self.touched_entries.add(entry.id)
        if old is not None:
            self._forget_entry(old)
        if entry.state in OPEN_ENTRY:
            self.entries[entry.id] = entry
        if queued:
            self.version += 1
            self.queued_of[entry.key] = entry.id
            insort(self._line, (entry.seq, entry.id))
            self._waiting[entry.key.hub, entry.key.user] += 1

    def _forget_entry(self, old: QueueEntry) -> None:
        del self.entries[old.id]
        if old.state is EntryState.QUEUED:
            self.version += 1
            del self.queued_of[old.key]
            del self._line[bisect_left(self._line, (old.seq, old.id))]
            self._waiting[old.key.hub, old.key.user] -= 1

    def _store_lease(self, lease: Lease) -> None:
        old = self.leases.get(lease.id)
        self._check_moves(old, lease)
        if old is not None and lease.live and _holds_the_same(old, lease):
            self._move(old, lease)
            return
        self._check_claims(old, lease)
        self.version += 1
        if old is not None:
            self._count(old, -1)
            del self.leases[lease.id], self.lease_of[old.key]
            self.leases_of_node[old.node].discard(old.id)
            self.lease_of_container.pop(old.container_id or "", None)
        if lease.live:
            self.leases[lease.id] = lease
            self.lease_of[lease.key] = lease.id
            self.leases_of_node[lease.node].add(lease.id)
            if lease.container_id is not None:
                self.lease_of_container[lease.container_id] = lease.id
            self._count(lease, +1)
        if lease.key in self.queued_of:
            self.touched_entries.add(self.queued_of[lease.key])

    def _move(self, old: Lease, lease: Lease) -> None:
        """A lease holds what it held, and something else about it has changed."""
        self.leases[lease.id] = lease
        if old.container_id != lease.container_id:
            self.lease_of_container.pop(old.container_id or "", None)
            if lease.container_id is not None:
                self.lease_of_container[lease.container_id] = lease.id
        if (old.target, old.ends_at) != (lease.target, lease.ends_at):
            # when it will be gone is another time
            self.touched_nodes.add(lease.node)

    def _check_moves(self, old: Lease | None, lease: Lease) -> None:
        if old is not None:
            subject = f"lease {lease.id}"
            transitions.check(transitions.LEASE, old.state, lease.state, subject)
            transitions.check(transitions.TARGET, old.target, lease.target, subject)

    def _check_claims(self, old: Lease | None, lease: Lease) -> None:
        """The guards against two leases of one thing, whatever the code that decides thinks."""
        subject = f"lease {lease.id}"
        if not lease.live:
            return
        if self.lease_of.get(lease.key, lease.id) != lease.id:
            raise transitions.IllegalTransition(f"{subject}: {lease.key} has another live lease")
        if len({(claim.device, claim.atom) for claim in lease.claims}) != len(lease.claims):
            raise transitions.IllegalTransition(f"{subject}: claims an atom twice")
        known = frozenset(old.claims if old else ())
        for claim in lease.claims:
            if claim in known:
                continue
            holders = {self.claims.get(claim.device, {}).get(claim.atom, lease.id)}
            for relative in self.relatives(claim.device):
                holders.update(self.claims.get(relative, {}).values())
            if holders != {lease.id}:
                raise transitions.IllegalTransition(f"{subject}: {claim} is held by {holders}")

    def _count(self, lease: Lease, sign: int) -> None:
        self.touched_nodes.add(lease.node)
        for device_id in lease.devices:
            self.touched.add(device_id)
            self.touched.update(self.relatives(device_id))
        for claim in lease.claims:
            if sign > 0:
                self.claims.setdefault(claim.device, {})[claim.atom] = lease.id
            else:
                atoms = self.claims[claim.device]
                del atoms[claim.atom]
                if not atoms:
                    del self.claims[claim.device]
        held = sign * len(lease.claims)
        self._by_user[lease.key.hub, lease.key.user] += held
        for group in lease.groups:
            self._by_group[lease.key.hub, group] += held
        self._memory[lease.node] += sign * lease.request.memory
        self._nano_cpus[lease.node] += sign * filters.nano_cpus(lease.request.cpu)

    def _store_device(self, device: Device, status: DeviceStatus) -> None:
        old = self.devices.get(device.id)
        if old is not None:
            health = (self.status[old.id].health, status.health)
            transitions.check(transitions.HEALTH, *health, f"device {device.id}")
            self.devices_of_node[old.node].discard(old.id)
            if old.parent:
                self.children[old.parent].discard(old.id)
        self.version += 1
        self.inventory += 1
        self.touched.update(self.relatives(device.id))
        self.devices[device.id] = device
        self.status[device.id] = status
        self.devices_of_node[device.node].add(device.id)
        if device.parent:
            self.children[device.parent].add(device.id)
        for name in (device.id, device.parent, old.parent if old is not None else None):
            if name is not None:
                self._relate(name)
        self.touched.update((device.id, *self.relatives(device.id)))

    def _relate(self, device_id: str) -> None:
        """Work out again whose hardware the device shares."""
        device = self.devices.get(device_id)
        parent = (device.parent,) if device is not None and device.parent else ()
        relatives = (*parent, *sorted(self.children.get(device_id, ())))
        if relatives:
            self._relatives[device_id] = relatives
        else:
            self._relatives.pop(device_id, None)

    def _store_node(self, node: Node) -> None:
        old = self.nodes.get(node.name)
        transitions.check(
            transitions.NODE, old.state if old else None, node.state, f"node {node.name}"
        )
        self.nodes[node.name] = node
        self.touched_nodes.add(node.name)
        self.version += 1
        self.inventory += 1

    def _store_booking(self, booking: Booking) -> None:
        self.version += 1
        self.bookings.pop(booking.id, None)
        if not booking.over:
            self.bookings[booking.id] = booking
        self.bookings_of = {}
        for each in sorted(self.bookings.values(), key=lambda b: (b.starts_at, b.id)):
            for device in each.devices:
                self.bookings_of.setdefault(device, []).append(each)
        # whose bookings are whose is a part of what stands in line
        self.touched_entries.update(self.queued_of.values())

    # -- checking ------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise ``AssertionError`` where an invariant of DESIGN (S1, S3, S4, S10) is broken."""
        held: dict[tuple[str, int], str] = {}
        for lease in self.leases.values():
            _check_lease(lease)
            for claim in lease.claims:
                atom = (claim.device, claim.atom)
                assert atom not in held, f"S1: {claim} also held by {held.get(atom)}"
                held[atom] = lease.id
        indexed = {
            (device, atom): lease_id
            for device, atoms in self.claims.items()
            for atom, lease_id in atoms.items()
        }
        assert indexed == held, "S3: the claim index and the live leases differ"
        for device in self.devices.values():
            self._check_device(device)
        keys = Counter(lease.key for lease in self.leases.values())
        assert all(count == 1 for count in keys.values()), "two live leases of one server"
        containers = {
            lease.container_id: lease.id for lease in self.leases.values() if lease.container_id
        }
        assert containers == self.lease_of_container, "the container index is wrong"
        places = {(lease.node, lease.id) for lease in self.leases.values()}
        filed = {(node, id) for node, ids in self.leases_of_node.items() for id in ids}
        assert places == filed, "the leases of a node are wrong"
        waiting = [e for e in self.entries.values() if e.state is EntryState.QUEUED]
        line = sorted((entry.seq, entry.id) for entry in waiting)
        assert line == self._line, "the line and the waiting entries differ"
        assert self.queued_of == {entry.key: entry.id for entry in waiting}, "wrong key index"

    def _check_device(self, device: Device) -> None:
        taken = self.claims.get(device.id, {})
        if device.parent and taken:
            holders = {*taken.values(), *self.claims.get(device.parent, {}).values()}
            assert len(holders) == 1 or device.parent not in self.claims, f"S4: {device.id}"
        # a mode never changes under a claim, so a claimed atom always exists (S4, S10)
        assert all(0 <= atom < device.atoms for atom in taken), f"S10: {device.id} {taken}"


def _holds_the_same(old: Lease, lease: Lease) -> bool:
    """Whether all sums and indices but the container's stay as they are."""
    return (
        old.claims == lease.claims
        and old.node == lease.node
        and old.key == lease.key
        and old.groups == lease.groups
        and (old.request is lease.request or old.request == lease.request)
    )


def _check_lease(lease: Lease) -> None:
    target = transitions.TARGET_OF[lease.state]
    assert lease.target is target, f"S8: {lease.id} is {lease.state} with target {lease.target}"
    if lease.state.value == "reserved":
        assert lease.container_id is None, f"S8: {lease.id} reserved with a container"
    if lease.state.value in ("starting", "running"):
        assert lease.container_id, f"S8: {lease.id} {lease.state} without a container"
    assert all(claim.lease_id == lease.id for claim in lease.claims), "a claim of another lease"
