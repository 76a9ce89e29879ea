"""S4 to S7 and S9 on what the engine and the kernel show, given what an admin decided. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from tests.auditor.history import ANY, LEASE, OPEN, USER, Container, History
from tests.auditor.judge import is_ours, overlap
from tests.auditor.verdict import Finding, Kind

#: part of a machine's memory that is never given out, where nobody said otherwise
RESERVE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    """These users together are given no more than so many devices, from then on."""

    users: frozenset[str]
    most: int
    #: POSIX seconds
    since: float = 0.0


@dataclass(kw_only=True, slots=True)
class Rules:
    """What was decided outside the product, so that it can be judged by it."""

    #: part of a machine's memory that is never given out
    reserve: float = RESERVE
    quotas: list[Quota] = field(default_factory=list)
    #: device -> (from, to) in which it must not be given out: broken, drained, somebody else's
    barred: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    #: all devices that may ever be given out; None = not told
    inventory: frozenset[str] | None = None
    #: MIG instance -> the GPU that it is a part of
    parents: dict[str, str] = field(default_factory=dict)


def judge(
    history: History, ledger: str, rules: Rules, memory: Mapping[str, int]
) -> Iterator[Finding]:
    """Everything below. ``memory``: engine -> bytes of its machine."""
    ours = [one for one in history.containers.values() if is_ours(one.labels, ledger)]
    yield from related(ours, rules.parents)
    yield from crowded(ours, rules.reserve, memory)
    for quota in rules.quotas:
        yield from above(ours, quota)
    yield from barred(ours, rules)
    yield from twice(ours)


def related(ours: Iterable[Container], parents: Mapping[str, str]) -> Iterator[Finding]:
    """S4: no MIG instance in one container while another has the GPU that it is a part of."""
    for pair in combinations([one for one in ours if one.devices], 2):
        for child, whole in (pair, pair[::-1]):
            shared = {parents[d] for d in child.devices if d in parents} & whole.devices
            if shared and overlap(child, whole) is not None:
                names = ", ".join(sorted(shared))
                yield _over(f"{whole.who} has all of {names}, {child.who} a part of it (S4)")


def crowded(
    ours: Iterable[Container], reserve: float, memory: Mapping[str, int]
) -> Iterator[Finding]:
    """S5: no start takes the memory limits on a machine above its memory less the reserve."""
    ours = list(ours)
    for engine, total in memory.items():
        here = [one for one in ours if one.engine == engine and one.memory]
        budget = int(total * (1 - reserve))
        for one in here:
            for begin, _ in one.intervals():
                used = sum(other.memory for other in here if _runs(other, begin))
                if used > budget:
                    yield _over(
                        f"at the start of {one.who} the memory limits come to {used} bytes, "
                        f"above {budget} (S5)"
                    )


def above(ours: Iterable[Container], quota: Quota) -> Iterator[Finding]:
    """S6: no start takes users above their quota. One lowered later stops nothing."""
    theirs = [one for one in ours if one.labels.get(USER) in quota.users and one.devices]
    for one in theirs:
        for begin, _ in one.intervals():
            held = sum(len(other.devices) for other in theirs if _runs(other, begin))
            if begin >= quota.since and held > quota.most:
                names = ", ".join(sorted(quota.users))
                text = f"{one.who} starts as number {held} of {quota.most} for {names} (S6)"
                yield Finding(Kind.QUOTA, text)


def barred(ours: Iterable[Container], rules: Rules) -> Iterator[Finding]:
    """S7: no start with a device that nobody knows, or that must not be given out then."""
    for one in ours:
        begins = [begin for begin, _ in one.intervals()]
        if begins and rules.inventory is not None:
            for device in sorted(one.devices - rules.inventory - {ANY}):
                yield Finding(Kind.BARRED, f"{one.who} has {device}, which nobody knows (S7)")
        for device in sorted(one.devices):
            for since, until in rules.barred.get(device, ()):
                if any(since <= begin < until for begin in begins):
                    text = f"{one.who} starts with {device}, which is not to be given out (S7)"
                    yield Finding(Kind.BARRED, text)


def twice(ours: Iterable[Container]) -> Iterator[Finding]:
    """S9: however often a start is repeated, one container of a lease runs."""
    started: dict[str, Container] = {}
    for one in ours:
        lease = one.labels.get(LEASE)
        if lease and one.intervals():
            other = started.setdefault(lease, one)
            if other is not one:
                text = f"{one.who}: {other.id[:12]} and {one.id[:12]} ran for one lease (S9)"
                yield Finding(Kind.REPEATED, text)


def _runs(one: Container, when: float) -> bool:
    return any(begin <= when < end for begin, end in one.intervals())


def _over(text: str) -> Finding:
    return Finding(Kind.OVER, text)


def close(spans: list[tuple[float, float]], when: float) -> None:
    """End the last of some spans that has no end yet."""
    begin, end = spans[-1]
    if end == OPEN:
        spans[-1] = (begin, when)
