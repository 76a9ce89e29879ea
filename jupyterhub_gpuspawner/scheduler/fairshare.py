"""Decayed usage: what users and groups have had of the GPUs, the recent counting most.

A lease is charged when it is granted, for its whole length; what it does not use is refunded
when it ends. One GPU second at time *t* counts :math:`2^{(t - t_0) / half life}`: newer usage
counts more, instead of older usage less (forward decay, Cormode et al. 2009). So what is on
record never changes as time passes, and neither does the order of those who wait.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .models import Lease, QueueEntry
from .policy import Fairness, Share

#: halvings after which the zero of time is moved, long before a float overflows
_FAR = 512.0
#: where in the order a group stands: above quota, usage for its weight, place in the settings
Rank = tuple[bool, float, int]


@dataclass(eq=False, slots=True)
class Account:
    """One user in one group: what he has used, and what he waits for."""

    key: tuple[str, str]
    group: Group
    #: weighted GPU seconds
    used: float = 0.0
    #: (cost, seq, entry id) of waiting entries, sorted; the cost in weighted seconds
    spots: list[tuple[float, int, str]] = field(default_factory=list)
    #: shapes of those that may be granted
    mask: int = 0
    #: bit -> how many of that shape
    _bits: dict[int, int] = field(default_factory=dict)
    _costs: dict[str, float] = field(default_factory=dict)
    _filed: tuple[float, int, tuple[str, str]] | None = None

    def add(self, spot: tuple[float, int, str], bit: int) -> None:
        """One more request; ``bit`` 0 = one that can't be granted now."""
        insort(self.spots, spot)
        self._costs[spot[2]] = spot[0]
        if bit:
            self._bits[bit] = self._bits.get(bit, 0) + 1
            if self._bits[bit] == 1:
                self.mask |= bit
                self.group.count(bit, +1)
        self.file()

    def remove(self, seq: int, entry_id: str, bit: int) -> None:
        """One request less."""
        spot = (self._costs.pop(entry_id), seq, entry_id)
        del self.spots[bisect_left(self.spots, spot)]
        if bit:
            self._bits[bit] -= 1
            if not self._bits[bit]:
                del self._bits[bit]
                self.mask &= ~bit
                self.group.count(bit, -1)
        self.file()

    def file(self) -> None:
        """Stand at the right place among the group's users who wait."""
        if self._filed is not None:
            self.group.unfile(self._filed)
        self._filed = None
        if self.spots:
            cost, seq, _ = self.spots[0]
            self._filed = (self.used + cost, seq, self.key)
            self.group.file(self._filed, self)

    def scale(self, factor: float) -> None:
        """All that is on record is worth less."""
        self.used *= factor
        self.spots = [(cost * factor, seq, id) for cost, seq, id in self.spots]
        self._costs = {id: cost for cost, _, id in self.spots}
        self.file()


class Group:
    """A node of the tree of shares. Users are in the leaves only."""

    def __init__(self, share: Share, parent: Group | None) -> None:
        self.name = share.name
        self.weight = share.weight
        self.quota = share.quota
        self.cap = share.cap
        self.children: list[Group] = []
        #: the group and all that it is part of, up to the whole
        self.path: tuple[Group, ...] = (self, *parent.path) if parent is not None else (self,)
        #: those of them that may hold so many GPUs, and no more
        self.capped = tuple((group, group.cap) for group in self.path if group.cap is not None)
        self.position = 0
        #: weighted GPU seconds of all in it
        self.used = 0.0
        #: GPUs in live leases of all in it
        self.held = 0
        self.mask = 0
        self._bits: dict[int, int] = {}
        self._order: list[tuple[float, int, tuple[str, str]]] = []
        self._by_key: dict[tuple[str, str], Account] = {}

    def adopt(self, child: Group) -> None:
        """Another part of it."""
        child.position = len(self.children)
        self.children.append(child)

    def count(self, bit: int, sign: int) -> None:
        """A user of the group has begun, or ceased, to wait for a shape."""
        for group in self.path:
            number = group._bits.get(bit, 0) + sign
            if number:
                group._bits[bit] = number
                group.mask |= bit
            else:
                del group._bits[bit]
                group.mask &= ~bit

    def file(self, place: tuple[float, int, tuple[str, str]], account: Account) -> None:
        """A user waits."""
        insort(self._order, place)
        self._by_key[account.key] = account

    def unfile(self, place: tuple[float, int, tuple[str, str]]) -> None:
        """A user waits no more, or somewhere else in the order."""
        del self._order[bisect_left(self._order, place)]
        del self._by_key[place[2]]

    def accounts(self) -> Iterator[Account]:
        """The users who wait, in order: by what each will have had with his next server."""
        for place in self._order:
            yield self._by_key[place[2]]

    def rank(self) -> Rank:
        """Less is served first."""
        return (self.held >= self.quota, self.used / self.weight, self.position)

    def ranked(self, mask: int) -> list[Group]:
        """The parts that wait for any of these shapes, in order."""
        parts = [child for child in self.children if child.mask & mask]
        return sorted(parts, key=Group.rank) if len(parts) > 1 else parts

    def in_order(self) -> Iterator[Account]:
        """All who wait, in order, also for what can't be granted now."""
        yield from self.accounts()
        for child in sorted(self.children, key=Group.rank):
            yield from child.in_order()

    def validate(self) -> None:
        """Raise ``AssertionError`` where sums and orders are wrong."""
        assert self._order == sorted(self._order), f"users of {self.name} are out of order"
        assert {place[2] for place in self._order} == set(self._by_key)
        masks = [child.mask for child in self.children]
        for child in self.children:
            child.validate()
        for account in self._by_key.values():
            cost, seq, _ = account.spots[0]
            assert account._filed == (account.used + cost, seq, account.key)
            masks.append(account.mask)
        together = 0
        for mask in masks:
            together |= mask
        assert self.mask == together, f"the mask of {self.name} is wrong"
        if self.children:
            assert self.held == sum(child.held for child in self.children), "GPUs got lost"


class Usage:
    """All accounts. Follows the leases; makes the tree from the shares."""

    def __init__(self, fairness: Fairness) -> None:
        self.fairness = fairness
        self._origin: float | None = None
        self._leaves: dict[str, Group] = {}
        #: the same by all Hub groups of a user, as far as anybody has asked
        self._leaf_of: dict[tuple[str, ...], Group] = {}
        self._accounts: dict[tuple[str, str, str], Account] = {}
        #: weighted GPU seconds by (hub, user, groups), from which another tree can be made
        self._raw: dict[tuple[str, str, tuple[str, ...]], float] = {}
        self.root = self._grow(fairness.shares)

    def _grow(self, shares: Iterable[Share]) -> Group:
        """The tree; a share with parts has its own members in a part of its own."""
        root = Group(Share(name=""), None)
        groups = {"": root}
        left = list(shares)
        while left:
            ready = [share for share in left if share.parent in groups]
            if not ready:
                names = ", ".join(share.name for share in left)
                raise ValueError(f"shares {names}: the parent is no share, or a part of itself")
            for share in ready:
                left.remove(share)
                parent = groups[share.parent]
                groups[share.name] = Group(share, parent)
                parent.adopt(groups[share.name])
        for name, group in groups.items():
            leaf = group
            if group.children:
                leaf = Group(Share(name=name), group)
                group.adopt(leaf)
            self._leaves[name] = leaf
        return root

    def leaf(self, groups: tuple[str, ...]) -> Group:
        """Where a user of these Hub groups belongs: the first share that is his."""
        leaf = self._leaf_of.get(groups)
        if leaf is None:
            mine = set(groups)
            names = (share.name for share in self.fairness.shares if share.name in mine)
            leaf = self._leaf_of[groups] = self._leaves[next(names, "")]
        return leaf

    def account(self, hub: str, user: str, groups: tuple[str, ...]) -> Account:
        """The user's account; made when there is none."""
        leaf = self.leaf(groups)
        key = (hub, user, leaf.name)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(key=(hub, user), group=leaf)
        return account

    # -- charging ----------------------------------------------------------------------------

    def follow(self, old: Lease | None, new: Lease) -> None:
        """A lease is new or has changed: charge, or refund, the difference."""
        if old is not None and new.live and old.claims is new.claims and old.ends_at == new.ends_at:
            return
        held = (len(new.claims) if new.live else 0) - (len(old.claims) if old else 0)
        seconds = self.charge(new) - (self.charge(old) if old is not None else 0.0)
        if not held and not seconds:
            return
        self._add(
            (new.key.hub, new.key.user, new.groups), seconds * self._weight(new.granted_at), held
        )

    def _add(self, who: tuple[str, str, tuple[str, ...]], amount: float, held: int) -> None:
        account = self.account(*who)
        self._raw[who] = self._raw.get(who, 0.0) + amount
        account.used += amount
        account.file()
        for group in account.group.path:
            group.used += amount
            group.held += held

    def changed(self, fairness: Fairness, leases: Iterable[Lease], now: float) -> Usage:
        """The same usage under other rules. ``leases``: the live ones."""
        other = Usage(fairness)
        factor = other._weight(now) / self._weight(now)
        for who, amount in self._raw.items():
            other._add(who, amount * factor, 0)
        for lease in leases:
            other._add((lease.key.hub, lease.key.user, lease.groups), 0.0, len(lease.claims))
        return other

    def charge(self, lease: Lease) -> float:
        """GPU seconds of a lease: what it had, or while it lives, its whole length."""
        if lease.released_at is not None:
            seconds = lease.released_at - lease.granted_at
        elif lease.ends_at is not None:
            seconds = lease.ends_at - lease.granted_at
        else:
            seconds = self.fairness.unbounded_length
        return len(lease.claims) * max(seconds, 0.0)

    def price(self, entry: QueueEntry) -> float:
        """GPU seconds that the entry will be charged when it is granted."""
        length = entry.request.length
        return entry.request.count * (self.fairness.unbounded_length if length is None else length)

    def cost(self, entry: QueueEntry) -> float:
        """What each GPU of the entry will be charged, weighted as of when it was asked for.

        It counts ``length_weight`` times: a short request that comes first gains more than it
        takes from the others, and usage evens it out. So among equals the shorter request is
        first, then the older one; the number of GPUs makes no difference, or large requests
        would come last for ever. Adding it to the usage is the finish tag of weighted fair
        queueing (Demers, Keshav and Shenker, 1989).
        """
        length = entry.request.length
        seconds = self.fairness.unbounded_length if length is None else length
        return self.fairness.length_weight * seconds * self._weight(entry.submitted_at)

    def _weight(self, at: float) -> float:
        if self._origin is None:
            self._origin = at
        halvings = (at - self._origin) / self.fairness.half_life
        if halvings > _FAR:
            self._shift(halvings)
            halvings = 0.0
        return float(2.0**halvings)

    def _shift(self, halvings: float) -> None:
        """Begin to count time anew: all usage on record is worth less by this much."""
        assert self._origin is not None
        self._origin += halvings * self.fairness.half_life
        groups, factor = [self.root], 2.0 ** -min(halvings, 1000.0)
        while groups:
            group = groups.pop()
            group.used *= factor
            groups += group.children
        for who in self._raw:
            self._raw[who] *= factor
        for account in self._accounts.values():
            account.scale(factor)
