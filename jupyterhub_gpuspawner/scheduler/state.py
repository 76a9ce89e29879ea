"""The scheduler: events in, decisions out.

:class:`SchedulerState` holds what is believed (:class:`~.tables.Tables`) and decides. It never
acts: the service stores the decisions of one ``handle`` call in one transaction, and only then
tells anybody. When that fails, the service throws the state away and builds it from the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from . import (
    bookings,
    entries,
    events,
    explain,
    filters,
    idle,
    inventory,
    leases,
    lost,
    queue,
    reclaim,
)
from .budgets import Holder
from .core import Core
from .decisions import Decision
from .models import Reason, Settings
from .policy import Budget
from .tables import Tables


def _ticked(core: Core, event: events.Tick, now: float) -> None:
    """Time has passed."""
    leases.expire(core, now)
    entries.expire(core, now)
    bookings.expire(core, now)


#: what each kind of event leads to
HANDLERS: dict[type[Any], Callable[[Core, Any, float], None]] = {
    events.Submitted: entries.submitted,
    events.Detached: entries.detached,
    events.Taken: entries.taken,
    events.Cancelled: entries.cancelled,
    events.PriorityGiven: entries.priority_given,
    events.BootSeen: entries.boot_seen,
    events.BindAsked: leases.bind_asked,
    events.ContainerRunning: leases.container_running,
    events.StopWanted: leases.stop_wanted,
    events.StopHung: leases.stop_hung,
    events.ContainerGone: leases.container_gone,
    events.ContainerFound: leases.container_found,
    events.NodeReported: inventory.node_reported,
    events.NodeReconciled: inventory.node_reconciled,
    events.NodeChanged: inventory.node_changed,
    events.ImagesSeen: inventory.images_seen,
    events.NodeLost: lost.node_lost,
    events.AdminAsked: inventory.admin_asked,
    events.ActivitySeen: idle.activity_seen,
    events.KeepAsked: idle.keep_asked,
    events.Booked: bookings.booked,
    events.BookingCancelled: bookings.cancelled,
    events.Tick: _ticked,
}


class SchedulerState:
    """Who holds what, who waits, and what follows from an event.

    Parameters
    ----------
    settings:
        The policy's numbers.
    epoch:
        Number of this scheduler's life; leases carry the epoch that granted them.
    queues:
        Makes the line; another one is another policy (for comparisons).
    """

    def __init__(
        self, settings: Settings, epoch: int = 0, queues: queue.Queues = queue.Queue
    ) -> None:
        self._core = Core(settings=settings, epoch=epoch)
        self._queue = queues(self._core)
        #: time of the last event
        self._now = 0.0
        #: version of the tables after the last grant pass
        self._seen = 0

    @property
    def tables(self) -> Tables:
        """What is believed now. For reading."""
        return self._core.tables

    @property
    def settings(self) -> Settings:
        """The policy's numbers in force."""
        return self._core.settings

    def restore(self, values: Iterable[Decision], now: float) -> None:
        """Take in what the ledger holds. Nobody is attached, no node is reconciled yet.

        Leases that were released count as what their users have had.
        """
        core = self._core
        for value in values:
            core.take(value)
        for entry in core.tables.queued():
            core.detached[entry.id] = now
            core.expect(entry, now)
        # memory of devices that were freed just before the end was perhaps never seen empty
        for device in core.tables.devices.values():
            if not device.simulated:
                core.settling[device.id] = now
                core.tables.touched.add(device.id)
        self._now = now

    def handle(self, event: events.Event, now: float) -> list[Decision]:
        """Decide what follows from ``event`` at time ``now`` (POSIX seconds).

        Returns the decisions, already part of this state. Raises ``RefusedError`` where the
        asker has to be told no; then nothing has changed.
        """
        core = self._core
        core.decided = []
        self._now = now
        ticks = isinstance(event, events.Tick)
        handler = HANDLERS.get(type(event))
        if handler is not None:
            handler(core, event, now)
        elif isinstance(event, events.ExtensionAsked):
            reclaim.extension_asked(core, self._queue, event, now)
        else:
            assert isinstance(event, events.SettingsChanged), f"nobody handles {event!r}"
            self._change_settings(event.settings, now)
        # A pass leaves nothing that a second one would grant, so that one is due only when
        # something has changed; or with time, which an order may look at.
        if core.stirred or core.tables.version != self._seen or ticks:
            self._grant_pass(now)
            core.stirred, self._seen = False, core.tables.version
        if ticks:
            idle.look(core, now)
            # whom nothing that is free could help
            reclaim.look(core, self._queue, now)
        return core.decided

    def validate(self) -> None:
        """Raise ``AssertionError`` where an invariant is broken. For tests, and cheap enough."""
        core = self._core
        core.tables.validate()
        waiting = {entry.id for entry in core.tables.queued()}
        assert waiting <= core.attached | set(core.detached), "an entry is neither here nor there"
        assert not core.attached & set(core.detached), "attached and detached at once"
        assert set(core.awaited) <= set(core.detached), "waited for although it is there"
        self._queue.validate()

    def waiting(self) -> list[queue.Waiting]:
        """The line as the people in it may see it, first one first."""
        return self._queue.waiting(self._now)

    def starts(self) -> dict[str, float | None]:
        """Entry -> when it will probably start; of those who are not in line, nothing."""
        return self._queue.starts(self._now)

    def beginning(
        self, most: int, expected: int
    ) -> tuple[list[queue.Waiting], dict[str, float | None]]:
        """The first ``most`` of :meth:`waiting`, and the first ``expected`` of :meth:`starts`."""
        return self._queue.beginning(self._now, most, expected)

    def last_work(self, device_id: str) -> tuple[float, float] | None:
        """(when a device was last seen computing, 0.0 = never; when it was looked at)."""
        seen = self._core.idle.devices.get(device_id)
        return None if seen is None else (seen.used_at, seen.at)

    def frees(self) -> dict[str, float]:
        """Device -> when it will probably be free for somebody who asks now."""
        return self._queue.frees(self._now)

    def standing(
        self, hub: str, user: str, groups: tuple[str, ...]
    ) -> list[tuple[Holder, Budget, float, float]]:
        """Budgets that a user has part in: (whose, budget, GPU seconds charged, period's end)."""
        return list(self._core.spent.standing(hub, user, groups, self._now))

    def nodes_for(self, entry_id: str) -> tuple[explain.NodeAnswer, ...]:
        """What each node has for an entry that waits."""
        return self._queue.nodes_for(self.tables.entries[entry_id], self._now)

    @property
    def now(self) -> float:
        """Time of the last event, POSIX seconds."""
        return self._now

    def spent(self, hub: str, group: str, budget: Budget) -> float:
        """GPU seconds that count in a group's budget now."""
        return self._core.spent.spent((hub, "group", group), budget, self._now)

    def is_ready(self, node: str) -> bool:
        """Whether ledger and engine of the node were compared in this epoch."""
        return node in self._core.ready

    def device_state(self, device_id: str) -> Reason | None:
        """Why a device can't be given out now; None = it is free."""
        reason = filters.usable(self.tables.status[device_id])
        if reason is not None:
            return reason
        free = self.tables.free_atoms(self.tables.devices[device_id])
        return None if free and device_id not in self._core.settling else Reason.DEVICE_BUSY

    def _change_settings(self, settings: Settings, now: float) -> None:
        core = self._core
        if settings == core.settings:
            return
        if settings.fairness != core.settings.fairness:
            core.usage = core.usage.changed(settings.fairness, core.tables.leases.values(), now)
            self._queue.reorder(core.usage)
        if settings.limits != core.settings.limits:
            core.spent = core.spent.changed(settings.limits)
        core.settings = settings
        core.tables.inventory += 1
        core.stirred = True
        self._queue.capacity.resettle(settings)

    def _grant_pass(self, now: float) -> None:
        while (grant := self._queue.next(now)) is not None:
            leases.grant(self._core, *grant, now)
