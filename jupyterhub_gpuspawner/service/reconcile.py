"""Belief against world: what to do where ledger and engine differ. Pure.

Rules (DESIGN, state machines): a lease ends only with proof; intent is stored before anything
is stopped; what runs is never stopped unless its lease says so; "unknown" changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..engine.observe import Observation
from ..scheduler.events import ContainerRunning, StopWanted
from ..scheduler.models import Lease, LeaseState, Reason, Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Graces:
    """How long others get before reconcile acts; seconds."""

    #: for a container that was never started and has no lease
    created: float = 120.0
    #: for the Hub to read the end of a container
    exited: float = 30.0
    #: from STARTING to a running container
    start: float = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What is compared, and how patiently."""

    #: name of the node
    node: str
    #: id of the ledger
    ledger: str
    #: seconds between two comparisons of everything
    interval: float = 30.0
    #: seconds a container gets to end by itself, and until a stop that fails counts as hung
    stop_grace: float = 10.0
    hung_stop: float = 180.0
    graces: Graces = field(default_factory=Graces)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What is believed and what was seen. ``leases`` were read after the engine was."""

    now: float
    ledger: str
    #: live leases of the node to compare
    leases: Mapping[str, Lease]
    #: our containers
    seen: tuple[Observation, ...]
    #: container id -> since when it was seen ended
    ended_since: Mapping[str, float] = field(default_factory=dict)
    #: leases whose server the Hub is stopping itself
    hub_stops: frozenset[str] = frozenset()
    graces: Graces = Graces()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tell:
    """Post an event."""

    event: ContainerRunning | StopWanted


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirm:
    """The recorded container was not listed: ask for it by id."""

    lease: str
    container_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Remove:
    """Stop (if it runs) and remove a container, then report its proof to the lease.

    ``lease`` None: nobody's container that never ran; it is removed without force, so that the
    engine refuses should it run after all.
    """

    container_id: str
    lease: str | None
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Adopt:
    """A running container of ours without a lease: look again, and give it one."""

    container: Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class Warn:
    """S2 is broken: a container has other devices than its lease. Said, never killed for."""

    container_id: str
    subject: str
    text: str


#: states of a live container in which nobody knows of a process yet
NOT_YET = frozenset({"starting", "unknown"})

Step = Tell | Confirm | Remove | Adopt | Warn


def plan(view: View) -> list[Step]:
    """The steps that lead from ``view`` to agreement; none where ledger and engine agree."""
    steps: list[Step] = []
    by_id = {container.container_id: container for container in view.seen}
    for lease in view.leases.values():
        if lease.container_id is None:
            continue
        container = by_id.get(lease.container_id)
        if container is None:
            steps.append(Confirm(lease=lease.id, container_id=lease.container_id))
        else:
            steps += of_lease(lease, container, view)
    recorded = {lease.container_id for lease in view.leases.values()}
    for container in view.seen:
        if container.container_id not in recorded:
            steps += of_stray(container, view)
    return steps


def of_lease(lease: Lease, container: Observation, view: View) -> Iterable[Step]:
    """What to do about a lease and its recorded container."""
    if container.state == "removing" or not container.certain:
        return
    if lease.target is Target.GONE:
        if lease.id not in view.hub_stops:
            yield _remove(lease, f"stop wanted ({lease.reason})")
        return
    if container.live:
        if lease.state is LeaseState.STARTING and container.state not in NOT_YET:
            yield Tell(event=ContainerRunning(lease_id=lease.id))
        if set(container.injected) != set(lease.devices):
            yield _differs(lease, container)
        return
    if not container.started:
        if view.now - lease.moved_at > view.graces.start:
            note = "the container was not started in time"
            yield Tell(event=StopWanted(lease_id=lease.id, reason=Reason.START_TIMEOUT, note=note))
            yield _remove(lease, note)
        return
    since = view.ended_since.get(container.container_id, view.now)
    if view.now - since >= view.graces.exited:
        reason, note = ending(container)
        yield Tell(event=StopWanted(lease_id=lease.id, reason=reason, note=note))
        yield _remove(lease, note)


def of_stray(container: Observation, view: View) -> Iterable[Step]:
    """What to do about a container that no live lease has on record."""
    identity = container.identity
    if identity is None or identity.ledger != view.ledger or container.state == "removing":
        return
    if not container.certain:
        return
    lease = view.leases.get(identity.lease)
    if container.live:
        yield Adopt(container=container)
        return
    if lease is not None and lease.state is LeaseState.RESERVED and not container.started:
        return  # it is about to be bound; the bind deadline ends the lease if not
    since = container.created_at
    if container.started:
        since = view.ended_since.get(container.container_id, view.now)
    if view.now - since > view.graces.created:
        kind = "ended" if container.started else "never started"
        yield Remove(
            container_id=container.container_id,
            lease=None,
            why=f"{kind}, and no lease knows it",
        )


def starved(seen: Iterable[Observation]) -> frozenset[str]:
    """Containers that live on after the kernel killed a process of theirs for memory."""
    return frozenset(one.container_id for one in seen if one.live and one.oom)


def ending(container: Observation) -> tuple[Reason, str]:
    """Why a container ended, for the lease, and in words."""
    if container.oom:
        return Reason.OUT_OF_MEMORY, "stopped: out of memory"
    return Reason.EXITED, f"ended with exit code {container.exit_code}"


def _remove(lease: Lease, why: str) -> Remove:
    assert lease.container_id is not None
    return Remove(container_id=lease.container_id, lease=lease.id, why=why)


def _differs(lease: Lease, container: Observation) -> Warn:
    has = ", ".join(container.injected) or "none"
    leased = ", ".join(lease.devices) or "none"
    return Warn(
        container_id=container.container_id,
        subject=str(lease.key),
        text=f"container {container.container_id[:12]} has devices {has}, its lease {leased}",
    )
