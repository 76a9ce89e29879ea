"""Hub, engine and scheduler of a small site, and all that may happen next.

Everything is a value: a :class:`World` is what is, :func:`nexts` are the worlds that may follow.
The scheduler is the shipped one (:mod:`.mind`), what reconcile does is the shipped ``plan``; the
Hub and the engine are written down here, with what can go wrong: the processes die each by
itself, requests and answers get lost, a container appears after nobody waits for it any more,
servers end by themselves or are removed by somebody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from jupyterhub_gpuspawner.engine.labels import Identity, server_labels
from jupyterhub_gpuspawner.engine.observe import Observation
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import EntryState, LeaseState, ServerKey, Target
from jupyterhub_gpuspawner.service.reconcile import (
    Adopt,
    Confirm,
    Graces,
    Remove,
    Step,
    Tell,
    View,
    Warn,
    plan,
)
from tests.model.mind import NODE, REQUEST, Answer, Broken, Mind, Scheduler, must

PATIENT = Graces(created=1e9, exited=1e9, start=1e9)
#: everything has lasted longer than that
IMPATIENT = Graces(created=-1.0, exited=-1.0, start=-1.0)


@dataclass(frozen=True, slots=True)
class Container:
    """What the engine has, or will have."""

    id: str
    lease: str
    device: str
    #: pending (asked for), created, starting (asked for), running, exited
    state: str = "pending"
    #: nobody has wanted it to go
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Server:
    """One user's server, as the Hub sees it, and its containers."""

    name: str
    user: str
    #: idle, waits, granted, creating, bound, runs, ending
    phase: str = "idle"
    #: id of the entry, and the lease, that the Hub knows of
    spawn: str = ""
    #: how often a start was asked for
    asked: int = 0
    containers: tuple[Container, ...] = ()

    @property
    def key(self) -> ServerKey:
        """As the scheduler knows it."""
        return ServerKey(hub="h", user=self.user, server=self.name)


@dataclass(frozen=True, slots=True)
class World:
    """All there is."""

    servers: tuple[Server, ...]
    mind: Mind
    #: real devices that were in use since their memory was seen empty; all after a restart
    used: frozenset[str]
    #: how much may still go wrong
    faults: int


@dataclass(frozen=True, slots=True)
class Site:
    """What does not change."""

    scheduler: Scheduler
    #: starts of each server
    starts: int
    #: whether messages come late, twice or for another
    strays: bool = True


Next = tuple[str, World]


def first(site: Site, users: tuple[str, ...], faults: int) -> World:
    """A Hub without servers, and a scheduler that has heard of its node."""
    report = _report(site, frozenset())
    scheduler = site.scheduler
    mind = scheduler.handle(scheduler.restart(scheduler.one(Mind())), report).mind
    servers = tuple(Server(name=chr(97 + n), user=user) for n, user in enumerate(users))
    return World(servers=servers, mind=mind, used=frozenset(), faults=faults)


def name(world: World) -> tuple[object, ...]:
    """The same for worlds that differ only in who is who among users that are alike."""
    mind = world.mind
    parts = sorted(
        (
            server.user if _shares(world, server) else "",
            (server.phase, server.spawn[1:], server.asked),
            tuple((c.id[1:], c.lease[1:], c.device, c.state, c.wanted) for c in server.containers),
            _known(mind, server.name),
        )
        for server in world.servers
    )
    return (tuple(parts), mind.settling, mind.ready, mind.boot, world.used, world.faults)


@lru_cache(maxsize=200_000)
def _known(mind: Mind, server: str) -> tuple[object, ...]:
    return mind.of(server)


def _shares(world: World, server: Server) -> bool:
    return sum(other.user == server.user for other in world.servers) > 1


# -- steps of the whole --------------------------------------------------------------------------


def nexts(site: Site, world: World) -> Iterator[Next]:
    """All that may happen next, with what is then. Raises ``Broken`` where a rule is broken."""
    for server in world.servers:
        for what, after in _hub(site, world, server):
            yield f"{server.name}: {what}", after
        for container in server.containers:
            for what, after in _engine(site, world, server, container):
                yield f"{container.id}: {what}", after
    yield from _reconcile(site, world)
    if not world.faults:
        return
    if site.strays:
        yield from _stray(site, _fault(world))
    yield "the Hub dies", _hub_dies(site, _fault(world))
    mind = site.scheduler.restart(world.mind)
    real = site.scheduler.real
    yield "the scheduler dies", replace(_fault(world), mind=mind, used=real)
    if not world.mind.ready or not any(isinstance(s, Tell) for s in _plan(world, PATIENT)):
        # the deadlines are many times longer than the pause between two comparisons
        yield "all deadlines pass", _tick(site, _fault(world))


def _stray(site: Site, world: World) -> Iterator[Next]:
    """A message comes late, twice or for another: it may do no harm."""
    for lease in world.mind.leases:
        there = [(s, c) for s in world.servers for c in s.containers]
        for other in {c.id for _, c in there} - {lease.container_id} | {"x"}:
            gone = events.ContainerGone(lease_id=lease.id, container_id=other)
            yield f"{other} is said to be the end of {lease.id}", _tell(site, world, gone)[0]
            if other != f"{lease.id}c":
                bind = events.BindAsked(lease_id=lease.id, container_id=other)
                after, answer = _tell(site, world, bind)
                if other == "x" and not answer.refused:
                    # it is nobody's, and will be found to be gone
                    continue
                yield f"{other} is to be bound to {lease.id}", after
        for server, container in there:
            if container.id == lease.container_id and container.state == "running":
                found = events.ContainerFound(
                    lease_id=lease.id,
                    container_id=container.id,
                    key=server.key,
                    node="n",
                    devices=(container.device,),
                    request=REQUEST,
                )
                yield f"{container.id} is found once more", _tell(site, world, found)[0]


def _fault(world: World) -> World:
    return replace(world, faults=world.faults - 1)


def _with(world: World, server: Server) -> World:
    servers = tuple(server if s.name == server.name else s for s in world.servers)
    return replace(world, servers=servers)


def _tell(site: Site, world: World, event: events.Event) -> tuple[World, Answer]:
    """The scheduler hears something; checks what it grants for it."""
    answer = site.scheduler.handle(world.mind, event)
    return _taken_in(world, answer), answer


def _taken_in(world: World, answer: Answer) -> World:
    for lease in answer.granted:
        must(answer.mind.ready, "S7: granted on a node that was not compared")
        must(lease.id in answer.mind.attached, "granted to nobody")
        for claim in lease.claims:
            must(claim.device not in world.used, f"S7: {claim.device} was not seen empty")
    return replace(world, mind=answer.mind)


def _tick(site: Site, world: World) -> World:
    answer = site.scheduler.later(world.mind)
    world = _taken_in(world, answer)
    for server in world.servers:
        # what was not even started in all that time may be stopped; what runs may not
        late = tuple(
            replace(c, wanted=c.wanted and (c.state == "running" or c.lease not in answer.stopped))
            for c in server.containers
        )
        world = _with(world, replace(server, containers=late))
    return world


# -- the Hub -------------------------------------------------------------------------------------


def _hub(site: Site, world: World, server: Server) -> Iterator[Next]:
    steps = {
        "idle": _idle,
        "waits": _waits,
        "granted": _granted,
        "creating": _creating,
        "bound": _bound,
        "runs": _runs,
        "ending": _ending,
    }
    yield from steps[server.phase](site, world, server)


def _ask(site: Site, world: World, server: Server, entry: str) -> World:
    """A spawn asks; what it gets is the id of the entry that is open for its server then."""
    event = events.Submitted(
        entry_id=entry,
        key=server.key,
        request=REQUEST,
        boot_id="new",
    )
    world, answer = _tell(site, world, event)
    if answer.refused:
        return _with(world, replace(server, phase="idle", spawn=""))
    mine = [e.id for e in world.mind.entries if e.key == server.key and e.id in world.mind.attached]
    must(len(mine) == 1, f"{server.name} waits {len(mine)} times")
    # what it had before is not wanted any more
    left = tuple(c if c.lease == mine[0] else replace(c, wanted=False) for c in server.containers)
    asked = server.asked + (mine[0] == entry)
    return _with(world, replace(server, phase="waits", spawn=mine[0], asked=asked, containers=left))


def _idle(site: Site, world: World, server: Server) -> Iterator[Next]:
    waiting = any(
        entry.key == server.key and entry.state is EntryState.QUEUED for entry in world.mind.entries
    )
    busy = any(container.state == "pending" for container in server.containers)
    if not busy and (server.asked < site.starts or waiting):
        yield "asks", _ask(site, world, server, f"{server.name}{server.asked}")


def _waits(site: Site, world: World, server: Server) -> Iterator[Next]:
    mind, id = world.mind, server.spawn
    lease = next((one for one in mind.leases if one.id == id), None)
    entry = next((one for one in mind.entries if one.id == id), None)
    if entry is None or (lease is not None and lease.target is Target.GONE):
        yield "is told that it is over", _with(world, replace(server, phase="idle", spawn=""))
        return
    attached = id in mind.attached
    if lease is not None and lease.state is LeaseState.RESERVED and attached:
        granted = replace(server, phase="granted")
        told, _ = _tell(site, world, events.Taken(entry_id=id))
        yield "hears of its grant", _with(told, granted)
        if world.faults:
            gone, _ = _tell(site, _fault(world), events.Detached(entry_id=id))
            yield "hears of its grant, its word gets lost", _with(gone, granted)
    if not attached:
        yield "asks again", _ask(site, world, server, f"{server.name}{server.asked}")
    elif world.faults:
        gone, _ = _tell(site, _fault(world), events.Detached(entry_id=id))
        yield "is cut off", gone
    idle = replace(server, phase="idle", spawn="")
    told, _ = _tell(site, world, events.Cancelled(entry_id=id))
    yield "is cancelled", _with(told, idle)


def _stop(site: Site, world: World, server: Server, phase: str) -> Iterator[Next]:
    """The server shall go: told, or not heard."""
    unwanted = tuple(
        replace(c, wanted=c.wanted and c.lease != server.spawn) for c in server.containers
    )
    ending = replace(server, phase=phase, containers=unwanted)
    if phase == "idle":
        ending = replace(ending, spawn="")
    told, _ = _tell(site, world, events.StopWanted(lease_id=server.spawn))
    yield "is stopped", _with(told, ending)
    if world.faults:
        yield "is stopped, nobody hears it", _with(_fault(world), ending)


def _granted(site: Site, world: World, server: Server) -> Iterator[Next]:
    yield from _stop(site, world, server, "idle")
    lease = next((one for one in world.mind.leases if one.id == server.spawn), None)
    # what it was granted is in the answer that it heard
    device = lease.claims[0].device if lease is not None else ""
    own = _own(server)
    if own is not None and own.state == "created":
        # of an earlier Hub: it has the name, never ran, and was made for this lease
        kept = _put(server, replace(own, wanted=True))
        yield "takes its container over", _with(world, replace(kept, phase="creating"))
    elif device and own is None:
        fresh = Container(id=f"{server.spawn}c", lease=server.spawn, device=device)
        created = _put(server, fresh)
        yield "has its container created", _with(world, replace(created, phase="creating"))


def _own(server: Server) -> Container | None:
    return next((c for c in server.containers if c.lease == server.spawn), None)


def _creating(site: Site, world: World, server: Server) -> Iterator[Next]:
    own = _own(server)
    yield from _stop(site, world, server, "ending")
    if own is None or own.state == "pending":
        return
    event = events.BindAsked(lease_id=server.spawn, container_id=own.id)
    after, answer = _tell(site, world, event)
    lease = next((one for one in world.mind.leases if one.id == server.spawn), None)
    may = lease is not None and lease.target is Target.RUN
    must(answer.refused or may, "S3: a container may start, and its lease is over")
    phase = "ending" if answer.refused else "bound"
    yield "asks to start", _with(after, replace(server, phase=phase))
    if world.faults and after != world:
        yield "asks to start, the answer gets lost", _fault(after)


def _bound(site: Site, world: World, server: Server) -> Iterator[Next]:
    yield from _stop(site, world, server, "ending")
    own = _own(server)
    if own is not None and own.state == "created":
        started = _put(server, replace(own, state="starting"))
        yield "starts its container", _with(world, replace(started, phase="runs"))


def _runs(site: Site, world: World, server: Server) -> Iterator[Next]:
    own = _own(server)
    if own is None or own.state != "starting":
        yield from _stop(site, world, server, "ending")


def _ending(site: Site, world: World, server: Server) -> Iterator[Next]:
    """Removes its container; a create that goes on is waited for."""
    own = _own(server)
    idle = replace(server, phase="idle", spawn="")
    if own is None:
        yield "has ended", _with(world, idle)
    elif own.state not in ("pending", "starting"):
        yield "removes its container", _with(world, _put(idle, own, gone=True))


def _hub_dies(site: Site, world: World) -> World:
    """It comes back with a new boot id, and finds what runs."""
    old = site.scheduler.one(
        replace(
            world.mind,
            boot="old" if world.mind.boot else "",
            entries=tuple(replace(e, boot_id="old") for e in world.mind.entries),
            leases=tuple(replace(one, boot_id="old") for one in world.mind.leases),
        )
    )
    world = replace(world, mind=old)
    for entry in sorted(old.attached):
        world, _ = _tell(site, world, events.Detached(entry_id=entry))
    world, _ = _tell(site, world, events.BootSeen(boot_id="new"))
    for server in world.servers:
        found = [c for c in server.containers if c.state == "running"]
        phase, spawn = ("runs", found[0].lease) if found else ("idle", "")
        world = _with(world, replace(server, phase=phase, spawn=spawn))
    return world


# -- the engine ----------------------------------------------------------------------------------


def _put(server: Server, container: Container, gone: bool = False) -> Server:
    others = tuple(c for c in server.containers if c.id != container.id)
    return replace(
        server,
        containers=others if gone else tuple(sorted((*others, container), key=lambda c: c.id)),
    )


def _engine(site: Site, world: World, server: Server, container: Container) -> Iterator[Next]:
    """What the engine does by itself, as late as it likes."""
    moved = {"pending": "created", "starting": "running"}.get(container.state)
    if moved is not None:
        after = _with(world, _put(server, replace(container, state=moved)))
        yield f"is {moved}", replace(after, used=after.used | site.scheduler.real & _busy(after))
    if not world.faults:
        return
    if container.state == "pending":
        yield "is not created", _with(_fault(world), _put(server, container, gone=True))
    if container.state == "running":
        ended = replace(container, state="exited", wanted=False)
        yield "ends by itself", _with(_fault(world), _put(server, ended))
        yield "is removed by somebody", _with(_fault(world), _put(server, container, gone=True))


def _busy(world: World) -> frozenset[str]:
    """Devices that a container has, or will have in a moment."""
    containers = (c for server in world.servers for c in server.containers)
    return frozenset(c.device for c in containers if c.state in ("starting", "running"))


# -- the scheduler's own steps -------------------------------------------------------------------


@lru_cache(maxsize=10_000)
def _seen(user: str, server: str, containers: tuple[Container, ...]) -> tuple[Observation, ...]:
    """What the engine would show of a server's containers."""
    seen = []
    for one in containers:
        if one.state == "pending":
            continue
        state = "created" if one.state == "starting" else one.state
        who = Identity(ledger="l", user=user, server=server, lease=one.lease, devices=(one.device,))
        seen.append(
            Observation(
                container_id=one.id,
                name=one.id,
                labels=server_labels(who),
                state=state,
                exit_code=0 if state == "exited" else None,
                oom=False,
                started=state in ("running", "exited"),
                created_at=0.0,
                device_ids=(one.device,),
                injected=(one.device,),
            )
        )
    return tuple(seen)


def _plan(world: World, graces: Graces) -> list[Step]:
    return _planned(
        world.mind, tuple((s.user, s.name, s.containers) for s in world.servers), graces
    )


@lru_cache(maxsize=200_000)
def _planned(
    mind: Mind, servers: tuple[tuple[str, str, tuple[Container, ...]], ...], graces: Graces
) -> list[Step]:
    leases = {lease.id: lease for lease in mind.leases}
    seen = tuple(_seen(*each) for each in servers)
    return plan(View(now=0.0, ledger="l", leases=leases, seen=sum(seen, ()), graces=graces))


def _reconcile(site: Site, world: World) -> Iterator[Next]:
    patient = _plan(world, PATIENT)
    yield from _acts(site, world, patient)
    if world.faults:
        impatient = [step for step in _plan(world, IMPATIENT) if step not in patient]
        for what, after in _acts(site, _fault(world), impatient):
            yield f"{what}, after its grace", after
    if not world.mind.ready:
        after, _ = _tell(site, world, events.NodeReconciled(node="n"))
        yield "the node is compared", after
    if world.mind.settling:
        empty = replace(world, used=site.scheduler.real & _busy(world))
        after, _ = _tell(site, empty, _report(site, _busy(world)))
        yield "memory is looked at", after


def _report(site: Site, occupied: frozenset[str]) -> events.NodeReported:
    reports = site.scheduler.device_reports
    return events.NodeReported(node=NODE, devices=reports, occupied=occupied)


def _acts(site: Site, world: World, steps: list[Step]) -> Iterator[Next]:
    """Each step alone, with those before it for the same container: a crash may be anywhere."""
    for number, step in enumerate(steps):
        before = [s for s in steps[:number] if _about(s) == _about(step)]
        after = world
        for each in (*before, step):
            after = _act(site, after, each)
        yield f"reconcile: {type(step).__name__} {_about(step)}", after


def _about(step: Step) -> str:
    if isinstance(step, Tell):
        return step.event.lease_id
    if isinstance(step, Confirm):
        return step.lease
    if isinstance(step, Remove):
        return step.lease or step.container_id
    return step.container.container_id if isinstance(step, Adopt) else step.container_id


def _act(site: Site, world: World, step: Step) -> World:
    if isinstance(step, Tell):
        if isinstance(step.event, events.StopWanted):
            world = _late(world, step.event.lease_id)
        return _tell(site, world, step.event)[0]
    if isinstance(step, Warn):
        raise Broken(f"S2: {step.text}")
    if isinstance(step, Adopt):
        raise Broken(f"S3: {step.container.container_id} runs, and no lease knows it")
    there = {c.id: (server, c) for server in world.servers for c in server.containers}
    found = there.get(step.container_id)
    if isinstance(step, Confirm):
        if found is not None and found[1].state != "pending":
            return world
        gone = events.ContainerGone(lease_id=step.lease, container_id=step.container_id)
        return _tell(site, world, gone)[0]
    if found is None:
        return world
    server, container = found
    if container.state in ("starting", "running") and step.lease is None:
        # without force: the engine refuses
        return world
    live = container.state == "running"
    must(not live or not container.wanted, f"S11: {container.id} is stopped, and nobody wanted it")
    return _with(world, _put(server, container, gone=True))


def _late(world: World, lease: str) -> World:
    """What did not start in all that time may be stopped, and what has ended."""
    for server in world.servers:
        late = tuple(
            replace(c, wanted=c.wanted and (c.state == "running" or c.lease != lease))
            for c in server.containers
        )
        world = _with(world, replace(server, containers=late))
    return world
