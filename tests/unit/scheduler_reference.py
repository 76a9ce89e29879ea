"""The rules of the line once more, naive: from lists, each time from scratch, in no hurry.

:class:`Checked` is the shipped queue; it compares every one of its answers with these rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

from jupyterhub_gpuspawner.scheduler import bookings, filters, queue
from jupyterhub_gpuspawner.scheduler.core import Core
from jupyterhub_gpuspawner.scheduler.models import Device, Lease, Mode, QueueEntry, Target
from jupyterhub_gpuspawner.scheduler.policy import Share


@dataclass
class Head:
    """The first one that can't start, and what it gets."""

    entry: QueueEntry
    at: float
    node: str
    spare: int
    memory: int
    cpus: float


class Reference:
    """What a state looks like at one moment, and what follows."""

    def __init__(self, core: Core, now: float) -> None:
        self.core, self.now = core, now
        self.tables, self.settings = core.tables, core.settings
        self.fairness = core.settings.fairness
        self.live = list(self.tables.leases.values())
        #: (hub, user, innermost share) -> decayed usage, in any unit
        self.used: dict[tuple[str, str, str], float] = {}
        #: entry -> what a GPU of it will be charged, in the same unit
        self.costs: dict[str, float] = {}

    # -- who ---------------------------------------------------------------------------------

    def path(self, groups: Iterable[str]) -> list[Share]:
        """The shares that a user of these groups belongs to, the innermost first."""
        shares = {share.name: share for share in self.fairness.shares}
        path = [share for share in self.fairness.shares if share.name in set(groups)][:1]
        while path and path[-1].parent:
            path.append(shares[path[-1].parent])
        return path

    def account(self, entry: QueueEntry) -> tuple[str, str, str]:
        path = self.path(entry.groups)
        return (entry.key.hub, entry.key.user, path[0].name if path else "")

    def held(self, share: Share) -> int:
        return sum(len(v.claims) for v in self.live if share in self.path(v.groups))

    def limited(self, entry: QueueEntry) -> bool:
        count, limits = entry.request.count, self.settings.limits
        who = (entry.key.hub, entry.key.user)
        held = {
            group: sum(len(v.claims) for v in self.live if group in v.groups)
            for group in entry.groups
        }
        mine = sum(len(v.claims) for v in self.live if (v.key.hub, v.key.user) == who)
        own = limits.users.get(entry.key.user, limits.per_user)
        return count > 0 and (
            self.over_budget(entry)
            or (own is not None and mine + count > own)
            or any(g in limits.groups and held[g] + count > limits.groups[g] for g in entry.groups)
            or any(
                share.borrow is not None and self.held(share) + count > share.quota + share.borrow
                for share in self.path(entry.groups)
            )
        )

    def over_budget(self, entry: QueueEntry) -> bool:
        limits, key = self.settings.limits, entry.key
        length = entry.request.length
        price = entry.request.count * (self.fairness.unbounded_length if length is None else length)
        budgets = [(limits.user_budgets.get(key.user, limits.user_budget), None)]
        budgets += [(limits.group_budgets.get(group), group) for group in entry.groups]
        for budget, group in budgets:
            if budget is None:
                continue
            begin = self.now - (self.now - 4 * 86400) % budget.period
            had = sum(
                charge.seconds
                for charge in self.core.spent._charges.values()
                if begin <= charge.at < begin + budget.period
                and charge.hub == key.hub
                and (charge.user == key.user if group is None else group in charge.groups)
            )
            if had + price > budget.hours * 3600 + 1:
                return True
        return False

    def priority(self, entry: QueueEntry) -> int:
        groups = max((self.fairness.priorities.get(g, 0) for g in entry.groups), default=0)
        return groups + entry.priority

    def older(self, entry: QueueEntry, age: float | None) -> bool:
        return age is not None and self.now - entry.submitted_at > age

    def alike(self, one: QueueEntry, other: QueueEntry) -> bool:
        """Whether they ask for the same, and may have the same."""
        own = [
            {b.id for b in self.tables.bookings.values() if bookings.allows(b, entry)}
            for entry in (one, other)
        ]
        same = one.request == other.request and own[0] == own[1]
        return same and self.priority(one) == self.priority(other)

    def late(self, entry: QueueEntry) -> bool:
        return self.older(entry, self.fairness.age_guard)

    def order(self) -> list[QueueEntry]:
        """All who wait, in order."""
        self.costs = {
            entry_id: cost
            for account in self.core.usage._accounts.values()
            for cost, _, entry_id in account.spots
        }
        self.used = {key: a.used for key, a in self.core.usage._accounts.items()}
        return sorted(self.tables.queued(), key=self.rank)

    def rank(self, entry: QueueEntry) -> tuple[Any, ...]:
        if self.late(entry) or self.older(entry, self.fairness.age_first):
            return (0, entry.seq)
        if not self.fairness.by_usage:
            return (1, -self.priority(entry), entry.seq)
        account = self.account(entry)
        mine = [e for e in self.tables.queued() if self.account(e) == account]
        cost, oldest = min((self.costs[e.id], e.seq) for e in mine)
        own = (self.used[account] + cost, oldest, self.costs[entry.id], entry.seq)
        return (1, -self.priority(entry), *self.group_ranks(entry), *own)

    def group_ranks(self, entry: QueueEntry) -> list[Any]:
        """From the outermost share inwards."""
        shares, path, ranks = self.fairness.shares, self.path(entry.groups), []
        for share in reversed(path):
            used = sum(v for k, v in self.used.items() if share in self.path([k[2]]))
            ranks.append((self.held(share) < share.quota, used / share.weight, share))
        ranks = [(not under, used, shares.index(share)) for under, used, share in ranks]
        if any(part.parent == (path[0].name if path else "") for part in shares):
            # its own members are one more part of a share that has parts
            used = sum(v for k, v in self.used.items() if self.path([k[2]]) == path)
            ranks.append((True, used, len(shares)))
        return ranks

    # -- where -------------------------------------------------------------------------------

    def family(self, device: Device) -> set[str]:
        """The other names of the same hardware."""
        parts = {d.id for d in self.tables.devices.values() if d.parent == device.id}
        return {*parts, *([device.parent] if device.parent else [])}

    def leases_on(self, names: Iterable[str]) -> list[Lease]:
        return [v for v in self.live for claim in v.claims if claim.device in set(names)]

    def usable(self, node: str, entry: QueueEntry) -> list[Device]:
        """Devices of the node of a kind asked for that could be given out if they were free."""
        return [
            device
            for device in self.tables.devices.values()
            if device.node == node
            and entry.request.count
            and filters.suits(device, entry.request) is None
            and filters.usable(self.tables.status[device.id]) is None
        ]

    def blocked(self, device: str, entry: QueueEntry, at: float) -> float:
        """When the last booking that is in the way of a start at this time is over; 0 = none."""
        length = inf if entry.request.length is None else entry.request.length
        return max(
            (
                b.ends_at
                for b in self.tables.bookings.values()
                if device in b.devices
                and entry.key.user not in b.users
                and not set(entry.groups) & set(b.groups)
                and b.starts_at - length < at < b.ends_at
            ),
            default=0.0,
        )

    def starts(self, device: Device, entry: QueueEntry) -> float:
        """When it is free for the entry."""
        at = max(self.ready_at(device), self.now)
        while self.blocked(device.id, entry, at):
            at = min(
                b.ends_at
                for b in self.tables.bookings.values()
                if device.id in b.devices and b.ends_at > at and self.blocked(device.id, entry, at)
            )
        return self.ready_at(device) if at == max(self.ready_at(device), self.now) else at

    def free(self, device: Device) -> bool:
        taken = len(self.leases_on([device.id]))
        room = taken == 0 if device.mode is Mode.EXCLUSIVE else taken < device.atoms
        settling = device.id in self.core.settling
        return room and not settling and not self.leases_on(self.family(device))

    def ready_at(self, device: Device) -> float:
        """When a part of the device is free, by the ends of the length classes."""
        ends = [end(v) for v in self.leases_on(self.family(device))]
        own = [end(v) for v in self.leases_on([device.id])]
        if device.mode is not Mode.SLOTS:
            ends += own
        elif len(own) == device.atoms:
            ends.append(min(own))
        return max(ends, default=0.0)

    def left(self, node: str, leases: Iterable[Lease]) -> tuple[int, float]:
        """Memory, and CPUs (in 1e-9), that the node may still grant beside ``leases``."""
        there = [v.request for v in leases if v.node == node]
        memory = filters.memory_budget(self.tables.nodes[node], self.settings)
        cpus = filters.cpu_budget(self.tables.nodes[node], self.settings)
        return (
            memory - sum(request.memory for request in there),
            inf if cpus is None else cpus - sum(filters.nano_cpus(r.cpu) for r in there),
        )

    def open(self, node: str) -> bool:
        return filters.node_open(self.tables.nodes[node], node in self.core.ready) is None

    def room(self, node: str, entry: QueueEntry) -> list[Device] | None:
        """The free devices of the node, if they, its memory and CPUs do for the entry now."""
        free = [
            device
            for device in self.usable(node, entry)
            if self.free(device) and not self.blocked(device.id, entry, self.now)
        ]
        memory, cpus = self.left(node, self.live)
        enough = (
            self.open(node)
            and filters.node_suits(node, entry.request, self.settings) is None
            and len(free) >= entry.request.count
            and (not entry.request.memory or memory >= entry.request.memory)
            and (not entry.request.cpu or cpus >= filters.nano_cpus(entry.request.cpu))
        )
        return free if enough else None

    def could(self, node: str, entry: QueueEntry) -> bool:
        """Whether the node would do once all who are on it have ended."""
        return (
            filters.node_suits(node, entry.request, self.settings) is None
            and len(self.usable(node, entry)) >= entry.request.count
            and filters.large_enough(self.tables.nodes[node], entry.request, self.settings)
        )

    # -- who comes first ---------------------------------------------------------------------

    def reservation(self, entry: QueueEntry) -> Head | None:
        """The soonest start of an entry that can't start now."""
        found = []
        for node in self.tables.nodes:
            if not self.open(node) or not self.could(node, entry):
                continue
            devices = self.usable(node, entry)
            starts = [self.starts(device, entry) for device in devices]
            times = {0.0, inf, *map(end, self.live), *starts}
            for at in sorted(times):
                ready = sum(start <= at for start in starts)
                memory, cpus = self.left(node, [v for v in self.live if end(v) > at])
                spare = ready - entry.request.count
                memory -= entry.request.memory
                cpus -= filters.nano_cpus(entry.request.cpu)
                if min(spare, memory, cpus) >= 0:
                    head = Head(entry, at, node, spare, memory, cpus)
                    found.append((at, node, head))
                    break
        return min(found, key=lambda item: item[:2])[2] if found else None

    def touches(self, device_id: str, entry: QueueEntry) -> bool:
        """Whether the device, or the same hardware by another name, is of a kind asked for."""
        names = {device_id, *self.family(self.tables.devices[device_id])}
        devices = [self.tables.devices[name] for name in names]
        return entry.request.count > 0 and any(
            filters.suits(device, entry.request) is None
            and not self.blocked(device.id, entry, self.now)
            for device in devices
        )

    def passes_old(self, entry: QueueEntry, node: str, taken: set[str], old: QueueEntry) -> bool:
        """L1: whether a grant takes what one beyond the age guard could use."""
        if not self.could(node, old):
            return False
        memory, cpus = self.left(node, self.live)
        memory -= entry.request.memory
        cpus -= filters.nano_cpus(entry.request.cpu)
        return (
            any(self.touches(id, old) for id in taken)
            or bool(entry.request.memory and memory < old.request.memory)
            or bool(entry.request.cpu and cpus < filters.nano_cpus(old.request.cpu))
        )

    def delays(self, entry: QueueEntry, node: str, taken: set[str], head: Head | None) -> bool:
        """L4: whether a grant may delay the first one."""
        if head is None or head.node != node:
            return False
        request, first = entry.request, head.entry.request
        if request.length is not None and self.now + request.length <= head.at:
            return False
        gone = [id for id in taken if self.touches(id, head.entry) and self.last_part(id)]
        return (
            len(gone) > head.spare
            or bool(first.memory and request.memory > head.memory)
            or bool(first.cpu and filters.nano_cpus(request.cpu) > head.cpus)
        )

    def last_part(self, device_id: str) -> bool:
        device = self.tables.devices[device_id]
        shared = device.mode is Mode.SLOTS
        return not shared or len(self.leases_on([device_id])) + 1 == device.atoms


def end(lease: Lease) -> float:
    if lease.target is Target.GONE:
        return lease.moved_at
    return inf if lease.ends_at is None else lease.ends_at


class Checked(queue.Queue):
    """The shipped queue, every answer looked at with naive eyes."""

    def next(self, now: float) -> queue.Grant | None:
        look = Reference(self._core, now)
        self.follow()
        shipped = [entry.id for entry in self.line.everybody(now)]
        order = look.order()
        assert shipped == [entry.id for entry in order], "the order is another one"
        grant = super().next(now)
        self.judge(look, order, grant)
        return grant

    def judge(self, look: Reference, order: list[QueueEntry], grant: queue.Grant | None) -> None:
        """Walk along the line until the one who got something; nobody before could have."""
        head: Head | None = None
        late: list[QueueEntry] = []
        for entry in order:
            attached = entry.id in self._core.attached
            granted = grant is not None and grant[0].id == entry.id
            assert attached or not granted, "granted to nobody"
            served = attached or entry.id in self._core.awaited
            if not served or entry.key in look.tables.lease_of or look.limited(entry):
                assert not granted, "S6"
                continue
            rooms = {node: look.room(node, entry) for node in look.tables.nodes}
            if granted:
                assert grant is not None
                free = {device.id for device in rooms[grant[1]] or ()}
                taken = {claim.device for claim in grant[2]}
                assert rooms[grant[1]] is not None and taken <= free, "S1, S5, S7"
                assert len(taken) == entry.request.count
                assert not any(look.passes_old(entry, grant[1], taken, old) for old in late), "L1"
                assert not look.delays(entry, grant[1], taken, head), "L4"
                return
            turn = False
            for node, devices in rooms.items():
                # all of the free ones, because one choice of them is as good as another
                ids = {device.id for device in devices or ()}
                held = any(look.passes_old(entry, node, ids, old) for old in late)
                behind = held or look.delays(entry, node, ids, head)
                turn = turn or not (devices is None or behind)
            assert not (turn and attached), f"{entry.key} was passed over"
            if turn or look.late(entry):
                # beyond the age guard, or its turn and not back yet
                late.append(entry)
            elif any(look.alike(entry, old) for old in late):
                # for its kind of request everything is kept already
                continue
            elif head is None and not any(devices is not None for devices in rooms.values()):
                head = look.reservation(entry)
                if head is not None and not look.fairness.backfill:
                    break
        assert grant is None, "granted to somebody who is not in line, or behind the first one"
