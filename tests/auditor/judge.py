"""Judgements on a history. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from tests.auditor.history import ANY, KIND, LEDGER, NAME, OPEN, Container, History, labelled
from tests.auditor.verdict import Finding, Kind

#: seconds that two engine clocks, or an event and an inspect, may differ
SLACK = 0.0


def is_ours(labels: Mapping[str, str], ledger: str) -> bool:
    """Whether a server's container of this ledger carries these labels."""
    return labels.get(LEDGER) == ledger and labels.get(KIND, "server") == "server"


def doubled(history: History) -> Iterable[Finding]:
    """S1: no device in two containers, whosever they are, that run at the same time."""
    users = [one for one in history.containers.values() if one.devices and one.intervals()]
    for left, right in combinations(users, 2):
        shared = left.devices & right.devices
        if left.engine == right.engine and ANY in left.devices | right.devices:
            shared = left.devices | right.devices
        both = overlap(left, right) if shared else None
        if both is not None:
            names = ", ".join(sorted(shared))
            yield Finding(
                Kind.DOUBLE,
                f"{names} in {_name(left)} and {_name(right)} from {both[0]:.3f} to {both[1]:.3f}",
            )


def overlap(left: Container, right: Container) -> tuple[float, float] | None:
    """When both run; the first time, None = never."""
    for begin, end in left.intervals():
        for other_begin, other_end in right.intervals():
            first, last = max(begin, other_begin), min(end, other_end)
            if last - first > SLACK:
                return first, last
    return None


def differing(history: History, ledger: str) -> Iterable[Finding]:
    """S2: what a server of ours gets = what its label says = what the kernel shows."""
    for one in history.containers.values():
        if not is_ours(one.labels, ledger) or not one.intervals():
            continue
        said = labelled(one.labels)
        for source, seen in (("the engine injects", one.injected), ("the kernel has", one.kernel)):
            if seen is not None and seen != said:
                yield Finding(
                    Kind.DEVICES,
                    f"{_name(one)}: labelled {_words(said)}, {source} {_words(seen)}",
                )


def stopped(
    history: History, ledger: str, protected: Mapping[str, list[tuple[float, float]]]
) -> Iterable[Finding]:
    """S11: a server that ran when its protection began may not end before that is over."""
    for one in history.containers.values():
        if not is_ours(one.labels, ledger):
            continue
        for begin, end in protected.get(one.labels.get(NAME, ""), ()):
            for started, ended in one.intervals():
                if started <= begin < ended and ended < min(end, OPEN):
                    yield Finding(
                        Kind.STOPPED, f"{_name(one)} ended at {ended:.3f}, it had to go on"
                    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Now:
    """One look at everything, when all is quiet."""

    #: containers of ours that the engines have now
    containers: tuple[Container, ...]
    #: (name, labels, number of containers attached) of the networks
    networks: tuple[tuple[str, Mapping[str, str], int], ...] = ()
    #: (name, labels) of the volumes
    volumes: tuple[tuple[str, Mapping[str, str]], ...] = ()
    #: names of volumes that some container uses
    used_volumes: frozenset[str] = field(default_factory=frozenset)


def leaked(now: Now, running: Collection[str]) -> Iterable[Finding]:
    """S3 and S11, when all is quiet: exactly ``running`` (display names) runs, and no more.

    Homes and the engine's owner volume stay, and a network of ours may stay: they have owners.
    """
    alive: dict[str, int] = {}
    for one in now.containers:
        name = one.labels.get(NAME, "")
        if one.state in ("running", "paused") and name in running:
            alive[name] = alive.get(name, 0) + 1
        else:
            yield Finding(Kind.LEAK, f"{_name(one)} is {one.state}, and nobody owns it")
    for name in sorted(running):
        if alive.get(name, 0) == 0:
            yield Finding(Kind.STOPPED, f"{name} should run, and has no running container")
        elif alive[name] > 1:
            yield Finding(Kind.LEAK, f"{name} has {alive[name]} running containers")
    for volume, labels in now.volumes:
        anonymous = "com.docker.volume.anonymous" in labels
        if anonymous and volume not in now.used_volumes:
            yield Finding(Kind.LEAK, f"anonymous volume {volume[:12]} is left")
        elif LEDGER in labels and labels.get(KIND) not in ("home", "owner"):
            yield Finding(Kind.LEAK, f"volume {volume} is ours and has no owner")


def _name(one: Container) -> str:
    return f"{one.who} ({one.id[:12]})"


def _words(devices: Collection[str]) -> str:
    return ", ".join(sorted(devices)) or "none"
