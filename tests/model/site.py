"""A small site as a value: its Hub's servers, the engine's containers, what the scheduler knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import ServerKey
from jupyterhub_gpuspawner.scheduler.values import replace
from tests.model.mind import NODE, Answer, Mind, Scheduler
from tests.model.tries import must


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

    @property
    def own(self) -> Container | None:
        """The container of the spawn, or server, that the Hub knows of."""
        for container in self.containers:
            if container.lease == self.spawn:
                return container
        return None


@dataclass(frozen=True, slots=True)
class World:
    """All there is."""

    servers: tuple[Server, ...]
    mind: Mind
    #: real devices that were in use since their memory was seen empty; all after a restart
    used: frozenset[str]
    #: how much may still go wrong
    faults: int
    #: devices on which a stop has hung; nothing but a reboot would clear them, and there is none
    hung: frozenset[str] = frozenset()
    #: the ledger is one of the first day
    restored: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """What does not change."""

    scheduler: Scheduler
    #: starts of each server
    starts: int
    #: whether messages come late, twice or for another
    strays: bool = True
    #: whether the node falls silent, stops hang, and the ledger is restored from a backup
    trouble: bool = False


Next = tuple[str, World]


def name(world: World) -> tuple[object, ...]:
    """The same for worlds that differ only in who is who among users that are alike."""
    mind = world.mind
    users = [server.user for server in world.servers]
    parts = []
    for server in world.servers:
        containers = server.containers
        parts.append(
            (
                server.user if users.count(server.user) > 1 else "",
                (server.phase, server.spawn[1:], server.asked),
                tuple([(c.id[1:], c.lease[1:], c.device, c.state, c.wanted) for c in containers])
                if containers
                else (),
                _known(mind, server.name),
            )
        )
    parts.sort()
    known = (mind.settling, mind.ready, mind.boot, mind.silent, mind.quarantined)
    return (tuple(parts), known, world.used, world.faults, world.hung, world.restored)


@lru_cache(maxsize=200_000)
def _known(mind: Mind, server: str) -> tuple[object, ...]:
    return mind.of(server)


def fault(world: World) -> World:
    """One of the things that may go wrong."""
    return replace(world, faults=world.faults - 1)


def using(world: World, server: Server) -> World:
    """With the server as it is now. One that has ended and has no container any more is idle."""
    if server.phase == "ending" and server.own is None:
        server = replace(server, phase="idle", spawn="")
    servers = tuple([server if s.name == server.name else s for s in world.servers])
    return replace(world, servers=servers)


def put(server: Server, container: Container, gone: bool = False) -> Server:
    """The server with the container as it is now."""
    others = tuple([c for c in server.containers if c.id != container.id])
    if not gone:
        others = tuple(sorted((*others, container), key=lambda c: c.id))
    return replace(server, containers=others)


def busy(world: World) -> frozenset[str]:
    """Devices that a container has, or will have in a moment."""
    containers = (c for server in world.servers for c in server.containers)
    return frozenset([c.device for c in containers if c.state in ("starting", "running")])


def tell(site: Site, world: World, event: events.Event) -> tuple[World, Answer]:
    """The scheduler hears something; checks what it grants for it."""
    answer = site.scheduler.handle(world.mind, event)
    return taken_in(world, answer), answer


def taken_in(world: World, answer: Answer) -> World:
    """The scheduler knows something else now."""
    for lease in answer.granted:
        must(answer.mind.ready, "S7: granted on a node that was not compared")
        must(not answer.mind.silent, "S7: granted on a node that is silent")
        must(lease.id in answer.mind.attached, "granted to nobody")
        for claim in lease.claims:
            must(claim.device not in world.used, f"S7: {claim.device} was not seen empty")
            must(claim.device not in world.hung, f"S7: a stop hangs on {claim.device}")
    return replace(world, mind=answer.mind)


def report(site: Site, world: World) -> World:
    """The node is looked at: it answers, and whose memory is empty shows."""
    occupied = busy(world)
    seen = replace(world, used=site.scheduler.real & occupied)
    event = events.NodeReported(node=NODE, devices=site.scheduler.device_reports, occupied=occupied)
    return tell(site, seen, event)[0]


def unwanted(server: Server, leases: tuple[str, ...], runs: bool = True) -> Server:
    """Somebody wants what these leases have to go; ``runs``: even what runs."""
    if not any(c.wanted and c.lease in leases for c in server.containers):
        return server
    late = tuple(
        replace(
            c, wanted=c.wanted and (c.lease not in leases or (c.state == "running" and not runs))
        )
        for c in server.containers
    )
    return replace(server, containers=late)


def of_all(world: World) -> Iterator[tuple[Server, Container]]:
    """All containers, with their servers."""
    for server in world.servers:
        for container in server.containers:
            yield server, container
