"""What reconcile may do next: the steps of the shipped ``plan``, each with a crash after it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from jupyterhub_gpuspawner.engine.labels import Identity, server_labels
from jupyterhub_gpuspawner.engine.observe import Observation
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import LeaseState
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
from tests.model.mind import REQUEST, Mind
from tests.model.site import (
    Container,
    Next,
    Server,
    Site,
    World,
    fault,
    of_all,
    put,
    report,
    tell,
    unwanted,
    using,
)
from tests.model.tries import Broken, must

PATIENT = Graces(created=1e9, exited=1e9, start=1e9)
#: everything has lasted longer than that
IMPATIENT = Graces(created=-1.0, exited=-1.0, start=-1.0)


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


def patient(world: World) -> list[Step]:
    """What it does while all graces go on: what the Hub stops is the Hub's."""
    stops = [s.spawn for s in world.servers if s.phase == "ending"]
    steps = _plan(world, PATIENT, frozenset(stops))
    for step in steps:
        cut = isinstance(step, Remove) and step.lease is not None and step.lease in stops
        must(not cut, "S11: a server that the Hub ends is stopped under it")
    return steps


def _plan(world: World, graces: Graces, stops: frozenset[str]) -> list[Step]:
    servers = tuple([(s.user, s.name, s.containers) for s in world.servers])
    return _planned(world.mind, servers, graces, stops)


@lru_cache(maxsize=200_000)
def _planned(
    mind: Mind,
    servers: tuple[tuple[str, str, tuple[Container, ...]], ...],
    graces: Graces,
    stops: frozenset[str],
) -> list[Step]:
    leases = {lease.id: lease for lease in mind.leases}
    seen = tuple(_seen(*each) for each in servers)
    return plan(
        View(
            now=0.0,
            ledger="l",
            leases=leases,
            seen=sum(seen, ()),
            hub_stops=stops,
            graces=graces,
        )
    )


def steps(site: Site, world: World) -> Iterator[Next]:
    """What reconcile may do now."""
    now = patient(world)
    # what runs without a lease is adopted before a comparison is over
    may_end = not world.mind.ready and not any(isinstance(step, Adopt) for step in now)
    if world.mind.silent:
        yield "the node answers again", report(site, world)
        if may_end:
            # it was under way when the node fell silent
            yield "the node is compared, late", _compared(site, world)
        return
    yield from _acts(site, world, now)
    if world.faults:
        later = [step for step in _plan(world, IMPATIENT, frozenset()) if step not in now]
        for what, after in _acts(site, fault(world), later):
            yield f"{what}, after its grace", after
    if may_end:
        yield "the node is compared", _compared(site, world)
    if world.mind.settling:
        yield "memory is looked at", report(site, world)


def _compared(site: Site, world: World) -> World:
    return tell(site, world, events.NodeReconciled(node="n"))[0]


def _acts(site: Site, world: World, steps: list[Step]) -> Iterator[Next]:
    """Each step alone, with those before it for the same container: a crash may be anywhere."""
    for number, step in enumerate(steps):
        about = _about(step)
        before = [s for s in steps[:number] if _about(s) == about]
        after = world
        for each in (*before, step):
            after = _act(site, after, each)
        yield f"reconcile: {type(step).__name__} {about}", after


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
            world = late(world, (step.event.lease_id,))
        return tell(site, world, step.event)[0]
    if isinstance(step, Warn):
        raise Broken(f"S2: {step.text}")
    id = step.container.container_id if isinstance(step, Adopt) else step.container_id
    found = next(((s, c) for s, c in of_all(world) if c.id == id), None)
    if isinstance(step, Adopt):
        must(world.restored, f"S3: {id} runs, and no lease knows it")
        assert found is not None
        return tell(site, world, container_found(*found))[0]
    if isinstance(step, Confirm):
        if found is not None and found[1].state != "pending":
            return world
        gone = events.ContainerGone(lease_id=step.lease, container_id=id)
        return tell(site, world, gone)[0]
    return world if found is None else _removed(world, step, *found)


def _removed(world: World, step: Remove, server: Server, container: Container) -> World:
    if container.state in ("starting", "running") and step.lease is None:
        # without force: the engine refuses
        return world
    live = container.state == "running"
    must(not live or not container.wanted, f"S11: {container.id} is stopped, and nobody wanted it")
    if step.lease is None and server.phase in ("creating", "bound"):
        leases = {lease.id: lease for lease in world.mind.leases}
        lease = leases.get(server.spawn) if container.lease == server.spawn else None
        begins = lease is not None and lease.state is LeaseState.RESERVED and container.wanted
        must(not begins, f"S3: {container.id} is about to start, and is removed")
    return using(world, put(server, container, gone=True))


def container_found(server: Server, container: Container) -> events.ContainerFound:
    """What the scheduler is told of a container that no lease knows."""
    return events.ContainerFound(
        lease_id=container.lease,
        container_id=container.id,
        key=server.key,
        node="n",
        devices=(container.device,),
        request=REQUEST,
    )


def late(world: World, leases: tuple[str, ...]) -> World:
    """What did not even start in all that time may be stopped; what runs may not."""
    for server in world.servers:
        world = using(world, unwanted(server, leases, runs=False))
    return world
