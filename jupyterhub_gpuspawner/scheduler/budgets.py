"""GPU hours that users and groups may use in each period.

A lease is charged when it is granted, for its whole length; what it does not use is refunded when
it ends, and what it stays longer is charged then. All of it counts in the period of the grant.
Periods follow one another from Monday 1970-01-05, 00:00 UTC: days begin at midnight UTC, periods
of 7 days on Mondays. Like limits, budgets delay or refuse a grant; they never stop a server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .models import Lease, Limits, QueueEntry, Reason, ServerKey
from .policy import DAY, HOUR, Budget

#: a Monday, in POSIX seconds
MONDAY = 4 * DAY
#: GPU seconds that make no difference: sums of fractions are not exact
_NOTHING = 1.0
#: (hub, "user" or "group", name)
Holder = tuple[str, str, str]


def period_of(budget: Budget, at: float) -> int:
    """Number of the period that the time is in."""
    return int((at - MONDAY) // budget.period)


@dataclass(frozen=True, slots=True)
class _Charge:
    """What a lease costs, and whom."""

    at: float
    hub: str
    user: str
    groups: tuple[str, ...]
    seconds: float


class Spent:
    """What was charged to whom. Follows the leases; keeps nothing where there is no budget."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        budgets = [
            limits.user_budget,
            *limits.user_budgets.values(),
            *limits.group_budgets.values(),
        ]
        #: whether anybody has a budget
        self.active = any(budget is not None for budget in budgets)
        self._longest = max((b.period for b in budgets if b is not None), default=0.0)
        self._charges: dict[str, _Charge] = {}
        self._sums: dict[tuple[Holder, int], float] = {}
        self._prune_at = 1000

    def changed(self, limits: Limits) -> Spent:
        """The same charges under other budgets, as far as the old ones made them remembered."""
        other = Spent(limits)
        if other.active:
            for lease_id, charge in self._charges.items():
                other._put(lease_id, charge)
        return other

    def follow(self, lease: Lease, seconds: float) -> None:
        """A lease is new or has changed: it is charged this many GPU seconds in all.

        Only where :attr:`active`: else nothing would be forgotten.
        """
        old = self._charges.get(lease.id)
        if old is not None:
            if old.seconds == seconds:
                return
            self._add(old, -old.seconds)
        key = lease.key
        self._put(
            lease.id,
            _Charge(lease.granted_at, key.hub, key.user, lease.groups, seconds),
        )

    def _put(self, lease_id: str, charge: _Charge) -> None:
        self._charges[lease_id] = charge
        self._add(charge, charge.seconds)
        if len(self._charges) > self._prune_at:
            self._prune(charge.at)

    def _add(self, charge: _Charge, seconds: float) -> None:
        for holder, budget in self._holders(charge.hub, charge.user, charge.groups):
            key = (holder, period_of(budget, charge.at))
            self._sums[key] = self._sums.get(key, 0.0) + seconds

    def _prune(self, now: float) -> None:
        """Forget what is of periods that are over."""
        old = {id: c for id, c in self._charges.items() if now - c.at > 2 * self._longest}
        for lease_id, charge in old.items():
            del self._charges[lease_id]
            for holder, budget in self._holders(charge.hub, charge.user, charge.groups):
                self._sums.pop((holder, period_of(budget, charge.at)), None)
        self._prune_at = 2 * len(self._charges) + 1000

    def _holders(
        self, hub: str, user: str, groups: tuple[str, ...]
    ) -> Iterator[tuple[Holder, Budget]]:
        """Whose budgets a server of the user counts in."""
        limits = self._limits
        own = limits.user_budgets.get(user, limits.user_budget)
        if own is not None:
            yield (hub, "user", user), own
        for group in groups:
            budget = limits.group_budgets.get(group)
            if budget is not None:
                yield (hub, "group", group), budget

    # -- asking ------------------------------------------------------------------------------

    def spent(self, holder: Holder, budget: Budget, now: float) -> float:
        """GPU seconds charged to the holder in the period of ``now``."""
        return max(self._sums.get((holder, period_of(budget, now)), 0.0), 0.0)

    def standing(
        self, hub: str, user: str, groups: tuple[str, ...], now: float
    ) -> Iterator[tuple[Holder, Budget, float, float]]:
        """Each budget that the user has part in: whose, GPU seconds charged, end of the period."""
        for holder, budget in self._holders(hub, user, groups):
            ends_at = MONDAY + (period_of(budget, now) + 1) * budget.period
            yield holder, budget, self.spent(holder, budget, now), ends_at

    def not_now(
        self, key: ServerKey, groups: tuple[str, ...], seconds: float, now: float
    ) -> Reason | None:
        """Why what costs so many GPU seconds has to wait; None = it has not."""
        for holder, budget in self._holders(key.hub, key.user, groups):
            if self.spent(holder, budget, now) + seconds > budget.hours * HOUR + _NOTHING:
                return Reason.USER_BUDGET if holder[1] == "user" else Reason.GROUP_BUDGET
        return None

    def never(self, entry: QueueEntry, seconds: float) -> tuple[Reason, Budget] | None:
        """The budget that the request is above even where nothing of it is used."""
        for holder, budget in self._holders(entry.key.hub, entry.key.user, entry.groups):
            if seconds > budget.hours * HOUR + _NOTHING:
                own = holder[1] == "user"
                return Reason.ABOVE_USER_BUDGET if own else Reason.ABOVE_GROUP_BUDGET, budget
        return None
