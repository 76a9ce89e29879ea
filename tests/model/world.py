"""All that may happen next to a small site.

Everything is a value: a :class:`~.site.World` is what is, :func:`nexts` are the worlds that may
follow. The scheduler is the shipped one (:mod:`.mind`), what reconcile does is the shipped ``plan``
(:mod:`.reconciling`); the Hub (:mod:`.hub`) and the engine are written down here, with what can go
wrong: the processes die each by itself, requests and answers get lost, a container appears after
nobody waits for it any more, servers end by themselves or are removed by somebody; on a site with
*trouble* the node falls silent, stops hang, and the ledger is one of the first day.
"""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import NodeState, Target
from jupyterhub_gpuspawner.scheduler.values import replace
from jupyterhub_gpuspawner.service.reconcile import Tell
from tests.model import hub, reconciling
from tests.model.mind import Mind
from tests.model.site import (
    Container,
    Next,
    Server,
    Site,
    World,
    busy,
    fault,
    of_all,
    put,
    report,
    taken_in,
    tell,
    using,
)


def first(site: Site, users: tuple[str, ...], faults: int) -> World:
    """A Hub without servers, and a scheduler that has heard of its node."""
    scheduler = site.scheduler
    servers = tuple(Server(name=chr(97 + n), user=user) for n, user in enumerate(users))
    mind = scheduler.restart(scheduler.one(Mind()))
    return report(site, World(servers=servers, mind=mind, used=frozenset(), faults=faults))


def nexts(site: Site, world: World) -> Iterator[Next]:
    """All that may happen next, with what is then. Raises ``Broken`` where a rule is broken."""
    for server in world.servers:
        for what, after in hub.steps(site, world, server):
            yield f"{server.name}: {what}", after
        for container in server.containers:
            for what, after in _engine(site, world, server, container):
                yield f"{container.id}: {what}", after
    yield from reconciling.steps(site, world)
    if not world.faults:
        return
    worse = fault(world)
    if site.strays:
        yield from _stray(site, worse)
    if site.trouble:
        yield from _trouble(site, worse)
    yield "the Hub dies", hub.dies(site, worse)
    mind = site.scheduler.restart(world.mind)
    yield "the scheduler dies", replace(worse, mind=mind, used=site.scheduler.real)
    untold = world.mind.ready and not world.mind.silent
    if not untold or not any(isinstance(s, Tell) for s in reconciling.patient(world)):
        # the deadlines are many times longer than the pause between two comparisons
        yield "all deadlines pass", _tick(site, worse)


def _tick(site: Site, world: World) -> World:
    answer = site.scheduler.later(world.mind)
    # what was not even started in all that time may be stopped; what runs may not
    return reconciling.late(taken_in(world, answer), answer.stopped)


def _stray(site: Site, world: World) -> Iterator[Next]:
    """A message comes late, twice or for another: it may do no harm."""
    there = list(of_all(world))
    for lease in world.mind.leases:
        for other in {c.id for _, c in there} - {lease.container_id} | {"x"}:
            gone = events.ContainerGone(lease_id=lease.id, container_id=other)
            yield f"{other} is said to be the end of {lease.id}", tell(site, world, gone)[0]
            if other != f"{lease.id}c":
                bind = events.BindAsked(lease_id=lease.id, container_id=other)
                after, answer = tell(site, world, bind)
                if other == "x" and not answer.refused:
                    # it is nobody's, and will be found to be gone
                    continue
                yield f"{other} is to be bound to {lease.id}", after
        for server, container in there:
            if container.id == lease.container_id and container.state == "running":
                found = reconciling.container_found(server, container)
                yield f"{container.id} is found once more", tell(site, world, found)[0]


def _trouble(site: Site, world: World) -> Iterator[Next]:
    """What seldom goes wrong, and for long."""
    mind = world.mind
    if not mind.silent:
        silent = events.NodeChanged(node="n", state=NodeState.SILENT)
        yield "the node falls silent", tell(site, world, silent)[0]
        running = {c.id: c for _, c in of_all(world) if c.state == "running"}
        for lease in mind.leases:
            container = running.get(lease.container_id or "")
            if container is not None and lease.target is Target.GONE:
                hung = replace(world, hung=world.hung | {container.device})
                told, _ = tell(site, hung, events.StopHung(lease_id=lease.id))
                yield f"{container.id}: its stop hangs", told
    if all(c.state not in ("pending", "starting") for _, c in of_all(world)):
        # restoring takes longer than what the engine has begun
        mind = site.scheduler.restart(site.scheduler.one(Mind()))
        real = site.scheduler.real
        # what was quarantined since is forgotten, as the page about backups says
        old = replace(world, mind=mind, used=real, restored=True, hung=frozenset())
        yield "the ledger is restored from the first day, the Hub was down", hub.dies(site, old)


# -- the engine ----------------------------------------------------------------------------------


def _engine(site: Site, world: World, server: Server, container: Container) -> Iterator[Next]:
    """What the engine does by itself, as late as it likes."""
    moved = {"pending": "created", "starting": "running"}.get(container.state)
    if moved is not None:
        after = using(world, put(server, replace(container, state=moved)))
        yield f"is {moved}", replace(after, used=after.used | site.scheduler.real & busy(after))
    if not world.faults:
        return
    if container.state == "pending":
        yield "is not created", using(fault(world), put(server, container, gone=True))
    if container.state == "running":
        ended = replace(container, state="exited", wanted=False)
        yield "ends by itself", using(fault(world), put(server, ended))
        yield "is removed by somebody", using(fault(world), put(server, container, gone=True))
