"""What the scheduler believes now: live values by id, with the sums that decisions need.

:meth:`Tables.apply` is the only way in which anything changes. It takes whole values and keeps
the indices right, so that replaying a journal and living through it end in the same tables.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from . import transitions
from .decisions import Decision, DeviceStored, EntryStored, LeaseStored, NodeStored
from .models import (
    Device,
    DeviceStatus,
    EntryState,
    Lease,
    Node,
    QueueEntry,
    ServerKey,
)

#: entry states that are still of interest; the others are history
OPEN_ENTRY = frozenset({EntryState.QUEUED, EntryState.GRANTED, EntryState.BOUND})


class Tables:
    """Devices, nodes, open entries and live leases."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.status: dict[str, DeviceStatus] = {}
        self.nodes: dict[str, Node] = {}
        self.entries: dict[str, QueueEntry] = {}
        self.leases: dict[str, Lease] = {}
        self.lease_of: dict[ServerKey, str] = {}
        self.queued_of: dict[ServerKey, str] = {}
        #: device -> atom -> lease id
        self.claims: dict[str, dict[int, str]] = defaultdict(dict)
        self.devices_of_node: dict[str, set[str]] = defaultdict(set)
        self.children: dict[str, set[str]] = defaultdict(set)
        self.next_seq = 1
        self._by_user: Counter[tuple[str, str]] = Counter()
        self._by_group: Counter[tuple[str, str]] = Counter()
        self._memory: Counter[str] = Counter()
        self._cpu: dict[str, float] = defaultdict(float)

    # -- reading -------------------------------------------------------------------------

    def queued(self) -> list[QueueEntry]:
        """Waiting entries in order of arrival."""
        waiting = (self.entries[id] for id in self.queued_of.values())
        return sorted(waiting, key=lambda entry: entry.seq)

    def held_by_user(self, key: ServerKey) -> int:
        """GPUs (atoms) in the live leases of the user of ``key``."""
        return self._by_user[key.hub, key.user]

    def held_by_group(self, hub: str, group: str) -> int:
        """GPUs (atoms) in the live leases of members of ``group``."""
        return self._by_group[hub, group]

    def memory_granted(self, node: str) -> int:
        """Sum of the memory limits of the node's live leases, bytes."""
        return self._memory[node]

    def cpu_granted(self, node: str) -> float:
        """Sum of the CPU limits of the node's live leases, processors."""
        return self._cpu[node]

    def free_atoms(self, device: Device) -> list[int]:
        """Atoms without a claim, none where a MIG parent or child is claimed (S4)."""
        relatives = self.children.get(device.id, set()) | ({device.parent} - {None})
        if any(self.claims.get(str(relative)) for relative in relatives):
            return []
        taken = self.claims.get(device.id, {})
        return [atom for atom in range(device.atoms) if atom not in taken]

    # -- changing ------------------------------------------------------------------------

    def apply(self, decision: Decision) -> None:
        """Take a decision in. Raises ``IllegalTransition`` and changes nothing on a bug."""
        if isinstance(decision, EntryStored):
            self._store_entry(decision.entry)
        elif isinstance(decision, LeaseStored):
            self._store_lease(decision.lease)
        elif isinstance(decision, DeviceStored):
            self._store_device(decision.device, decision.status)
        elif isinstance(decision, NodeStored):
            self._store_node(decision.node)

    def _store_entry(self, entry: QueueEntry) -> None:
        old = self.entries.get(entry.id)
        transitions.check(
            transitions.ENTRY, old.state if old else None, entry.state, f"entry {entry.id}"
        )
        self.next_seq = max(self.next_seq, entry.seq + 1)
        if self.queued_of.get(entry.key) == entry.id:
            del self.queued_of[entry.key]
        self.entries.pop(entry.id, None)
        if entry.state in OPEN_ENTRY:
            self.entries[entry.id] = entry
        if entry.state is EntryState.QUEUED:
            self.queued_of[entry.key] = entry.id

    def _store_lease(self, lease: Lease) -> None:
        old = self.leases.get(lease.id)
        subject = f"lease {lease.id}"
        transitions.check(transitions.LEASE, old.state if old else None, lease.state, subject)
        transitions.check(transitions.TARGET, old.target if old else None, lease.target, subject)
        for claim in lease.claims if lease.live else ():
            holder = self.claims.get(claim.device, {}).get(claim.atom, lease.id)
            if holder != lease.id:
                raise transitions.IllegalTransition(f"{subject}: {claim} is held by {holder}")
        if old is not None:
            self._count(old, -1)
            del self.leases[lease.id], self.lease_of[old.key]
        if lease.live:
            self.leases[lease.id] = lease
            self.lease_of[lease.key] = lease.id
            self._count(lease, +1)

    def _count(self, lease: Lease, sign: int) -> None:
        for claim in lease.claims:
            if sign > 0:
                self.claims[claim.device][claim.atom] = lease.id
            else:
                del self.claims[claim.device][claim.atom]
        held = sign * len(lease.claims)
        self._by_user[lease.key.hub, lease.key.user] += held
        for group in lease.groups:
            self._by_group[lease.key.hub, group] += held
        self._memory[lease.node] += sign * lease.request.memory
        self._cpu[lease.node] += sign * lease.request.cpu

    def _store_device(self, device: Device, status: DeviceStatus) -> None:
        old = self.devices.get(device.id)
        if old is not None:
            self.devices_of_node[old.node].discard(old.id)
            self.children[old.parent or ""].discard(old.id)
        self.devices[device.id] = device
        self.status[device.id] = status
        self.devices_of_node[device.node].add(device.id)
        if device.parent:
            self.children[device.parent].add(device.id)

    def _store_node(self, node: Node) -> None:
        old = self.nodes.get(node.name)
        transitions.check(
            transitions.NODE, old.state if old else None, node.state, f"node {node.name}"
        )
        self.nodes[node.name] = node

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
            self._check_relatives(device)
        keys = Counter(lease.key for lease in self.leases.values())
        assert all(count == 1 for count in keys.values()), "two live leases of one server"

    def _check_relatives(self, device: Device) -> None:
        taken = self.claims.get(device.id)
        if device.parent and taken:
            assert not self.claims.get(device.parent), f"S4: {device.id} and its parent claimed"
        # a mode never changes under a claim, so a claimed atom always exists (S4, S10)
        assert all(0 <= atom < device.atoms for atom in taken or {}), f"S10: {device.id} {taken}"


def _check_lease(lease: Lease) -> None:
    target = transitions.TARGET_OF[lease.state]
    assert lease.target is target, f"S8: {lease.id} is {lease.state} with target {lease.target}"
    if lease.state.value == "reserved":
        assert lease.container_id is None, f"S8: {lease.id} reserved with a container"
    if lease.state.value in ("starting", "running"):
        assert lease.container_id, f"S8: {lease.id} {lease.state} without a container"
    assert all(claim.lease_id == lease.id for claim in lease.claims), "a claim of another lease"
