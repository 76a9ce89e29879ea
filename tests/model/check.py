"""Every world that can come about, each looked at once, and the rules that hold in all of them."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_gpuspawner.scheduler.models import EntryState, Target
from jupyterhub_gpuspawner.store import Ledger
from tests.model.mind import NODE, Scheduler
from tests.model.site import Site, World, name, of_all
from tests.model.tries import Broken, must
from tests.model.world import first, nexts

#: told after each distance: how far, worlds so far, worlds ahead, seconds
Tell = Callable[[int, int, int, float], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How large a site is, and what may happen to it."""

    devices: int = 2
    #: one for each server
    users: tuple[str, ...]
    #: how much may go wrong in one life of the site
    faults: int
    #: starts of each server
    starts: int = 1
    #: whether messages come late, twice or for another
    strays: bool = True
    #: whether the node falls silent, stops hang, and the ledger is restored from a backup
    trouble: bool = False


@dataclass
class Found:
    """What a search came to."""

    worlds: int = 0
    steps: int = 0
    seconds: float = 0.0
    #: number of worlds at each distance from the first
    depths: Counter[int] = field(default_factory=Counter)
    #: what is broken, and the way there; "" = nothing
    broken: str = ""
    way: tuple[str, ...] = ()
    #: in how many worlds something special is so; a search that never meets it says little
    met: Counter[str] = field(default_factory=Counter)


def rules(world: World) -> None:
    """S1 to S7 and S10, from who holds and who runs alone. ``Broken`` where one is broken."""
    leases = world.mind.leases
    held = [(claim.device, claim.atom) for lease in leases for claim in lease.claims]
    must(len(held) == len(set(held)), "S1: an atom in two live leases")
    containers = list(of_all(world))
    using = [c for _, c in containers if c.state in ("starting", "running")]
    must(len({c.device for c in using}) == len(using), "S1: two containers with one GPU")
    by_container = {lease.container_id: lease for lease in leases if lease.container_id}
    for container in using:
        lease = by_container.get(container.id)
        # with a ledger from a backup nothing is free until all that runs was looked at
        known = lease is not None or (world.restored and not world.mind.ready)
        must(known, f"S3: {container.id} runs, and its GPU is free")
        if lease is not None:
            must(lease.devices == (container.device,), f"S2: {container.id} has another GPU")
    for server, container in containers:
        about_to = server.phase == "bound" and container.lease == server.spawn
        if about_to and container.state == "created":
            must(container.id in by_container, f"S3: {container.id} may start, its GPU is free")
    must({lease.node for lease in leases} <= {NODE.name}, "S4: a lease of no node")
    keys = [lease.key for lease in leases]
    must(len(keys) == len(set(keys)), "S1: two live leases of one server")
    waiting = {e.key for e in world.mind.entries if e.state is EntryState.QUEUED}
    for lease in leases:
        again = lease.target is Target.RUN and lease.key in waiting
        must(not again, f"S1: {lease.id} shall run on, and its server waits for another lease")
    must(5 * sum(lease.request.memory for lease in leases) <= 4 * NODE.memory, "S5: memory")
    users = Counter(lease.key.user for lease in leases)
    must(max(users.values(), default=0) <= 1, "S6: a user holds more than his limit")


def _quiet(depth: int, worlds: int, ahead: int, seconds: float) -> None:
    """Nobody wants to know how far it is."""


def look(extent: Extent, tell: Tell = _quiet) -> tuple[Found, Scheduler]:
    """Search a site with a ledger of its own, on a memory disk where there is one."""
    shm = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.sqlite") as ledger,
    ):
        # the last epoch is one that wrote
        ledger.raise_epoch()
        ledger.raise_epoch()
        scheduler = Scheduler(extent.devices, ledger)
        site = Site(
            scheduler=scheduler,
            starts=extent.starts,
            strays=extent.strays,
            trouble=extent.trouble,
        )
        return search(site, extent.users, extent.faults, tell), scheduler


def search(site: Site, users: tuple[str, ...], faults: int, tell: Tell) -> Found:
    """Breadth first, so that the way to what is broken is a shortest one.

    Of a world that was met its name's hash is kept, and that of the one before it: of a million
    worlds two have the same 64 bits once in 40 million runs, and names would take gigabytes.
    """
    begun, found = time.monotonic(), Found()
    start = first(site, users, faults)
    own = hash(name(start))
    before = {own: own}
    line, depth = [(own, start)], 0
    while line:
        after: list[tuple[int, World]] = []
        for own, world in line:
            found.worlds += 1
            found.depths[depth] += 1
            found.met.update(special(world))
            what = ""
            try:
                rules(world)
                for step, then in nexts(site, world):
                    what = step
                    found.steps += 1
                    key = hash(name(then))
                    if key not in before:
                        before[key] = own
                        after.append((key, then))
            except (Broken, AssertionError) as error:
                found.broken = str(error) or repr(error)
                found.way = (*way(site, start, before, own), f"then, after: {what}")
                found.seconds = time.monotonic() - begun
                return found
        line, depth = after, depth + 1
        tell(depth, found.worlds, len(line), time.monotonic() - begun)
    found.seconds = time.monotonic() - begun
    return found


def way(site: Site, world: World, before: dict[int, int], to: int) -> Iterator[str]:
    """The steps that lead from the first world to another, taken once more."""
    keys = [to]
    while before[keys[-1]] != keys[-1]:
        keys.append(before[keys[-1]])
    for key in reversed(keys[:-1]):
        for what, after in nexts(site, world):
            if hash(name(after)) == key:
                yield what
                world = after
                break


def special(world: World) -> Iterator[str]:
    """What one would want to see somewhere in a search."""
    states = [c.state for _, c in of_all(world)]
    if states.count("running") > 1:
        yield "two run"
    if "pending" in states and any(s.phase == "idle" for s in world.servers if s.containers):
        yield "a create that nobody waits for"
    for lease in world.mind.leases:
        if lease.target is Target.GONE:
            yield "a lease waits for proof"
    if len(world.mind.entries) > len(world.mind.leases) and world.mind.leases:
        yield "somebody waits while another holds"
    if world.mind.silent and "running" in states:
        yield "a server runs on a silent node"
    if world.hung:
        yield "a stop hangs"
    if world.restored and world.mind.leases and "running" in states:
        yield "a server is adopted"
