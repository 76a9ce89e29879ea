"""Requests and the entries they become: asked for, repeated, left, cancelled."""

from __future__ import annotations

import math

from ..errors import RefusedError
from ..units import format_duration
from . import events, leases, quota
from .core import Core
from .decisions import EntryStored, LeaseStored
from .models import EntryState, GPURequest, LeaseState, QueueEntry, Reason, Target
from .policy import HOUR
from .values import replace


def submitted(core: Core, event: events.Submitted, now: float) -> None:
    """Put a request in line, or find the place it already has."""
    again = _again(core, event)
    if again is None:
        _enter(core, event, now)
    else:
        core.attach(again.id)
        renewed = replace(again, boot_id=event.boot_id, groups=event.groups, profile=event.profile)
        if renewed != again:
            core.emit(EntryStored(entry=renewed))
            _renew(core, renewed, now)
    # before the Hub was seen by other means: a Hub that asks is one that lives
    core.boot_id = core.boot_id or event.boot_id


def _again(core: Core, event: events.Submitted) -> QueueEntry | None:
    """The entry that this is a repetition of: it waits, or its grant was never used."""
    queued = core.tables.queued_of.get(event.key)
    if queued is not None and core.tables.entries[queued].request == event.request:
        return core.tables.entries[queued]
    lease = core.tables.leases.get(core.tables.lease_of.get(event.key, ""))
    if lease is not None and lease.state is LeaseState.RESERVED and lease.request == event.request:
        return core.tables.entries.get(lease.id)
    return None


def _enter(core: Core, event: events.Submitted, now: float) -> None:
    queued = core.tables.entries.get(core.tables.queued_of.get(event.key, ""))
    kept = queued is not None and asks_for_less(event.request, queued.request)
    entry = QueueEntry(
        id=event.entry_id,
        key=event.key,
        groups=event.groups,
        request=event.request,
        profile=event.profile,
        boot_id=event.boot_id,
        submitted_at=queued.submitted_at if kept and queued else now,
        seq=queued.seq if kept and queued else core.tables.next_seq,
        priority=queued.priority if kept and queued else 0,
    )
    # refusals come before the first change
    _refuse_known_id(core, entry)
    _refuse_named(entry, event.admin)
    _refuse_if_hopeless(core, entry)
    _refuse_too_many(core, entry)
    _replace_older(core, entry, now)
    core.emit(EntryStored(entry=entry))
    core.attach(entry.id)


def asks_for_less(new: GPURequest, old: GPURequest) -> bool:
    """Whether ``new`` takes nothing from anybody that ``old`` would have left: it keeps the place.

    It asks for no more of anything, and for the same kind of GPU in the same places or is content
    with more kinds of them.
    """
    amounts = (
        (new.count, old.count),
        (new.memory, old.memory),
        (new.cpu, old.cpu),
        (new.min_memory, old.min_memory),
        (new.min_capability or (0, 0), old.min_capability or (0, 0)),
        (_length(new), _length(old)),
    )
    places = ((new.model, old.model), (new.node, old.node), (new.pool, old.pool))
    return (
        all(ours <= theirs for ours, theirs in amounts)  # type: ignore[operator]
        and all(ours in (None, theirs) for ours, theirs in places)
        and new.sharing is old.sharing
        and (not new.devices or new.devices == old.devices)
        # no limit at all is more than any
        and bool(new.memory) >= bool(old.memory)
        and bool(new.cpu) >= bool(old.cpu)
    )


def _length(request: GPURequest) -> float:
    return math.inf if request.length is None else request.length


def _renew(core: Core, entry: QueueEntry, now: float) -> None:
    """Give a granted, never used lease to the Hub process that asks for it again."""
    lease = core.tables.leases.get(entry.id)
    if lease is not None and lease.state is LeaseState.RESERVED:
        mine = replace(lease, boot_id=entry.boot_id, profile=entry.profile, moved_at=now)
        core.emit(LeaseStored(lease=mine))


def _replace_older(core: Core, entry: QueueEntry, now: float) -> None:
    """End what the same server asked for, or was granted, before."""
    queued = core.tables.queued_of.get(entry.key)
    if queued is not None:
        core.end_entry(core.tables.entries[queued], EntryState.CANCELLED)
    lease = core.tables.leases.get(core.tables.lease_of.get(entry.key, ""))
    if lease is not None and lease.target is Target.RUN:
        # the Hub asks for a start only of a server that it knows to be stopped
        leases.stop(core, lease, Reason.STOPPED, "the server was started again", now)


def _refuse_known_id(core: Core, entry: QueueEntry) -> None:
    """An id is for one request, and for its lease: a second use would mix the two up."""
    if entry.id in core.tables.entries or entry.id in core.tables.leases:
        raise RefusedError(
            f"{entry.key}: entry id {entry.id} is in use; another request needs another id",
            "This request was answered already. Start the server again.",
            reason=Reason.PREVIOUS_SERVER.value,
        )


def _refuse_named(entry: QueueEntry, admin: bool) -> None:
    if entry.request.devices and not admin:
        raise RefusedError(
            f"{entry.key}: asks for {', '.join(entry.request.devices)} by name",
            "Only an administrator may ask for GPUs by name.",
            reason=Reason.ADMIN_ONLY.value,
        )


def _refuse_if_hopeless(core: Core, entry: QueueEntry) -> None:
    above = quota.never_allowed(core.settings.limits, entry)
    group = core.usage.leaf(entry.groups)
    if above is None and quota.above_share(group, entry.request.count, anyway=True):
        above = Reason.ABOVE_GROUP_LIMIT
    if above is not None:
        raise RefusedError(
            f"{entry.key}: asks for {entry.request.count} GPUs, above the limit ({above})",
            f"You may hold fewer GPUs than the {entry.request.count} you asked for.",
            reason=above.value,
        )
    _refuse_above_budget(core, entry)
    words = core.impossible(entry.request)
    if words is not None:
        raise RefusedError(
            f"{entry.key}: impossible request: {words}",
            f"This can never be granted here: {words}.",
            reason=Reason.IMPOSSIBLE.value,
        )


def _refuse_above_budget(core: Core, entry: QueueEntry) -> None:
    price = core.usage.price(entry)
    above = core.spent.never(entry, price) if price and core.spent.active else None
    if above is None:
        return
    reason, budget = above
    whose = "your" if reason is Reason.ABOVE_USER_BUDGET else "your group's"
    asked, period = f"{price / HOUR:g} GPU hours", format_duration(budget.period)
    raise RefusedError(
        f"{entry.key}: asks for {asked}, above {budget.hours:g} in {period} ({reason})",
        f"You asked for {asked}; {whose} budget is {budget.hours:g} GPU hours in {period}.",
        reason=reason.value,
    )


def _refuse_too_many(core: Core, entry: QueueEntry) -> None:
    # the entry of the same server is about to be replaced
    waiting = core.tables.waiting_of_user(entry.key) - (entry.key in core.tables.queued_of)
    if waiting >= core.settings.limits.queued_per_user:
        raise RefusedError(
            f"{entry.key}: {waiting} requests wait already",
            f"You already have {waiting} servers waiting; cancel one first.",
            reason=Reason.QUEUE_FULL.value,
        )
    most = core.settings.limits.queued_total
    everybody = len(core.tables.queued_of) - (entry.key in core.tables.queued_of)
    if most is not None and everybody >= most:
        raise RefusedError(
            f"{entry.key}: {everybody} requests of all users wait already",
            f"The queue is full: {everybody} requests wait already. Please try again later.",
            reason=Reason.QUEUE_FULL.value,
        )


def detached(core: Core, event: events.Detached, now: float) -> None:
    """Remember since when nobody waits for the entry; it keeps its place for a while.

    A spawn that was granted leaves too; whether it heard of its grant, only it can say
    (:func:`taken`).
    """
    if event.entry_id in core.attached:
        core.attached.discard(event.entry_id)
        core.detached[event.entry_id] = now
        core.tables.touched_entries.add(event.entry_id)
        core.stirred = True


def taken(core: Core, event: events.Taken, now: float) -> None:
    """The spawn knows its lease: that it is not connected any more means nothing now."""
    entry = core.tables.entries.get(event.entry_id)
    if entry is not None and entry.state is EntryState.GRANTED:
        core.forget_waiter(entry.id)


def cancelled(core: Core, event: events.Cancelled, now: float) -> None:
    """End a waiting entry, or take back what it was granted."""
    entry = core.tables.entries.get(event.entry_id)
    if entry is None:
        return
    if entry.state is EntryState.QUEUED:
        core.end_entry(entry, EntryState.CANCELLED)
        return
    lease = core.tables.leases.get(entry.id)
    if lease is not None and lease.target is Target.RUN:
        leases.stop(core, lease, event.reason, "", now)


def priority_given(core: Core, event: events.PriorityGiven, now: float) -> None:
    """Move an entry that waits. May be repeated."""
    entry = core.tables.entries.get(event.entry_id)
    waits = entry is not None and entry.state is EntryState.QUEUED
    if entry is not None and waits and entry.priority != event.priority:
        core.emit(EntryStored(entry=replace(entry, priority=event.priority)))


def boot_seen(core: Core, event: events.BootSeen, now: float) -> None:
    """Learn which Hub process lives, so that entries of a dead one can be told apart."""
    if event.boot_id != core.boot_id:
        for entry_id in core.detached:
            entry = core.tables.entries.get(entry_id)
            if entry is not None and entry.state is EntryState.QUEUED:
                core.expect(entry, now)
    core.boot_id = event.boot_id


def expire(core: Core, now: float) -> None:
    """Give up entries, and grants nobody heard of, that were left longer than their grace ago."""
    for entry_id in [id for id, until in core.awaited.items() if until <= now]:
        core.expect_no_more(entry_id)
    for entry_id, since in list(core.detached.items()):
        # who is bound, or at an end, was forgotten with that
        entry = core.tables.entries[entry_id]
        # while no Hub has shown itself, its return is waited for
        ours = entry.boot_id == core.boot_id
        grace = core.settings.detach_grace if ours else core.settings.requeue_grace
        if now - since <= grace:
            continue
        if entry.state is EntryState.QUEUED:
            core.end_entry(entry, EntryState.CANCELLED)
        else:
            core.detached.pop(entry_id)
            lease = core.tables.leases[entry_id]
            leases.stop(core, lease, Reason.CANCELLED, "the grant reached nobody", now)
