"""The Hub: what it may do next with one of its servers, and how it dies."""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import EntryState, LeaseState, Target
from jupyterhub_gpuspawner.scheduler.values import replace
from tests.model.mind import REQUEST
from tests.model.site import Container, Next, Server, Site, World, fault, put, tell, unwanted, using
from tests.model.tries import must


def steps(site: Site, world: World, server: Server) -> Iterator[Next]:
    """What the Hub may do with the server now."""
    yield from _STEPS[server.phase](site, world, server)


def _ask(site: Site, world: World, server: Server) -> World:
    """A spawn asks; what it gets is the id of the entry that is open for its server then."""
    entry = f"{server.name}{server.asked}"
    event = events.Submitted(entry_id=entry, key=server.key, request=REQUEST, boot_id="new")
    world, answer = tell(site, world, event)
    if answer.refused:
        return using(world, replace(server, phase="idle", spawn=""))
    mine = [e.id for e in world.mind.entries if e.key == server.key and e.id in world.mind.attached]
    must(len(mine) == 1, f"{server.name} waits {len(mine)} times")
    # what it had before is not wanted any more
    others = tuple(c.lease for c in server.containers if c.lease != mine[0])
    asked = server.asked + (mine[0] == entry)
    waits = replace(unwanted(server, others), phase="waits", spawn=mine[0], asked=asked)
    return using(world, waits)


def _idle(site: Site, world: World, server: Server) -> Iterator[Next]:
    waiting = any(
        entry.key == server.key and entry.state is EntryState.QUEUED for entry in world.mind.entries
    )
    busy = any(container.state == "pending" for container in server.containers)
    if not busy and (server.asked < site.starts or waiting):
        yield "asks", _ask(site, world, server)


def _waits(site: Site, world: World, server: Server) -> Iterator[Next]:
    mind, id = world.mind, server.spawn
    lease = next((one for one in mind.leases if one.id == id), None)
    entry = next((one for one in mind.entries if one.id == id), None)
    idle = replace(server, phase="idle", spawn="")
    if entry is None or (lease is not None and lease.target is Target.GONE):
        yield "is told that it is over", using(world, idle)
        return
    attached = id in mind.attached
    if lease is not None and lease.state is LeaseState.RESERVED and attached:
        granted = replace(server, phase="granted")
        told, _ = tell(site, world, events.Taken(entry_id=id))
        yield "hears of its grant", using(told, granted)
        if world.faults:
            gone, _ = tell(site, fault(world), events.Detached(entry_id=id))
            yield "hears of its grant, its word gets lost", using(gone, granted)
    if not attached:
        yield "asks again", _ask(site, world, server)
    elif world.faults:
        gone, _ = tell(site, fault(world), events.Detached(entry_id=id))
        yield "is cut off", gone
    told, _ = tell(site, world, events.Cancelled(entry_id=id))
    yield "is cancelled", using(told, idle)


def _stop(site: Site, world: World, server: Server, phase: str = "ending") -> Iterator[Next]:
    """The server shall go: told, or not heard."""
    ending = replace(unwanted(server, (server.spawn,)), phase=phase)
    if phase == "idle":
        ending = replace(ending, spawn="")
    told, _ = tell(site, world, events.StopWanted(lease_id=server.spawn))
    yield "is stopped", using(told, ending)
    if world.faults:
        yield "is stopped, nobody hears it", using(fault(world), ending)


def _granted(site: Site, world: World, server: Server) -> Iterator[Next]:
    yield from _stop(site, world, server, "idle")
    lease = next((one for one in world.mind.leases if one.id == server.spawn), None)
    # what it was granted is in the answer that it heard
    device = lease.claims[0].device if lease is not None else ""
    own = server.own
    if own is not None and own.state == "created":
        # of an earlier Hub: it has the name, never ran, and was made for this lease
        kept = put(server, replace(own, wanted=True))
        yield "takes its container over", using(world, replace(kept, phase="creating"))
    elif device and own is None:
        fresh = Container(id=f"{server.spawn}c", lease=server.spawn, device=device)
        created = put(server, fresh)
        yield "has its container created", using(world, replace(created, phase="creating"))


def _creating(site: Site, world: World, server: Server) -> Iterator[Next]:
    own = server.own
    yield from _stop(site, world, server)
    if own is None or own.state == "pending":
        return
    event = events.BindAsked(lease_id=server.spawn, container_id=own.id)
    after, answer = tell(site, world, event)
    lease = next((one for one in world.mind.leases if one.id == server.spawn), None)
    may = lease is not None and lease.target is Target.RUN
    must(answer.refused or may, "S3: a container may start, and its lease is over")
    phase = "ending" if answer.refused else "bound"
    yield "asks to start", using(after, replace(server, phase=phase))
    if world.faults and after != world:
        yield "asks to start, the answer gets lost", fault(after)


def _bound(site: Site, world: World, server: Server) -> Iterator[Next]:
    yield from _stop(site, world, server)
    own = server.own
    if own is not None and own.state == "created":
        started = put(server, replace(own, state="starting"))
        yield "starts its container", using(world, replace(started, phase="runs"))


def _runs(site: Site, world: World, server: Server) -> Iterator[Next]:
    own = server.own
    if own is None or own.state != "starting":
        yield from _stop(site, world, server)


def _ending(site: Site, world: World, server: Server) -> Iterator[Next]:
    """Removes its container; a create that goes on is waited for."""
    own = server.own
    if own is not None and own.state not in ("pending", "starting"):
        yield "removes its container", using(world, put(server, own, gone=True))


_STEPS = {
    "idle": _idle,
    "waits": _waits,
    "granted": _granted,
    "creating": _creating,
    "bound": _bound,
    "runs": _runs,
    "ending": _ending,
}


def dies(site: Site, world: World) -> World:
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
        world, _ = tell(site, world, events.Detached(entry_id=entry))
    world, _ = tell(site, world, events.BootSeen(boot_id="new"))
    for server in world.servers:
        found = [c for c in server.containers if c.state == "running"]
        phase, spawn = ("runs", found[0].lease) if found else ("idle", "")
        world = using(world, replace(server, phase=phase, spawn=spawn))
    return world
