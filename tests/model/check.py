"""Every world that can come about, each looked at once, and the rules that hold in all of them."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_gpuspawner.scheduler.models import Target
from jupyterhub_gpuspawner.store import Ledger
from tests.model.mind import NODE, Broken, Scheduler, must
from tests.model.world import Site, World, first, name, nexts


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
    containers = [(s, c) for s in world.servers for c in s.containers]
    using = [c for _, c in containers if c.state in ("starting", "running")]
    must(len({c.device for c in using}) == len(using), "S1: two containers with one GPU")
    by_container = {lease.container_id: lease for lease in leases if lease.container_id}
    for container in using:
        lease = by_container.get(container.id)
        must(lease is not None, f"S3: {container.id} runs, and its GPU is free")
        if lease is not None:
            must(lease.devices == (container.device,), f"S2: {container.id} has another GPU")
    for server, container in containers:
        about_to = server.phase == "bound" and container.lease == server.spawn
        if about_to and container.state == "created":
            must(container.id in by_container, f"S3: {container.id} may start, its GPU is free")
    must({lease.node for lease in leases} <= {NODE.name}, "S4: a lease of no node")
    keys = [lease.key for lease in leases]
    must(len(keys) == len(set(keys)), "S1: two live leases of one server")
    must(5 * sum(lease.request.memory for lease in leases) <= 4 * NODE.memory, "S5: memory")
    users = Counter(lease.key.user for lease in leases)
    must(max(users.values(), default=0) <= 1, "S6: a user holds more than his limit")


def look(
    devices: int, users: tuple[str, ...], faults: int, starts: int = 1, strays: bool = True
) -> tuple[Found, Scheduler]:
    """Search a site with a ledger of its own, on a memory disk where there is one."""
    shm = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.sqlite") as ledger,
    ):
        # the last epoch is one that wrote
        ledger.raise_epoch()
        ledger.raise_epoch()
        site = Site(scheduler=Scheduler(devices, ledger), starts=starts, strays=strays)
        return search(site, users, faults), site.scheduler


def search(site: Site, users: tuple[str, ...], faults: int) -> Found:
    """Breadth first, so that the way to what is broken is a shortest one."""
    begun, found = time.monotonic(), Found()
    start = first(site, users, faults)
    #: a world, by the hash of its name -> (the one before it, the step). Of a million worlds two
    #: have the same 64 bits once in 40 million runs, and names would take gigabytes
    before: dict[int, tuple[int | None, str]] = {hash(name(start)): (None, "")}
    line: deque[tuple[World, int, int]] = deque([(start, hash(name(start)), 0)])
    while line and not found.broken:
        world, own, depth = line.popleft()
        found.worlds += 1
        found.depths[depth] += 1
        found.met.update(special(world))
        what = ""
        try:
            rules(world)
            for what, after in nexts(site, world):
                found.steps += 1
                key = hash(name(after))
                if key not in before:
                    before[key] = (own, what)
                    line.append((after, key, depth + 1))
        except (Broken, AssertionError) as error:
            found.broken = str(error) or repr(error)
            found.way = (*way(before, own), f"then, after: {what}")
    found.seconds = time.monotonic() - begun
    return found


def way(before: dict[int, tuple[int | None, str]], own: int) -> Iterator[str]:
    """The steps that lead to a world."""
    steps = []
    at: int | None = own
    while at is not None:
        at, step = before[at]
        steps.append(step)
    yield from filter(None, reversed(steps))


def special(world: World) -> Iterator[str]:
    """What one would want to see somewhere in a search."""
    states = [c.state for s in world.servers for c in s.containers]
    if states.count("running") > 1:
        yield "two run"
    if "pending" in states and any(s.phase == "idle" for s in world.servers if s.containers):
        yield "a create that nobody waits for"
    for lease in world.mind.leases:
        if lease.target is Target.GONE:
            yield "a lease waits for proof"
    if len(world.mind.entries) > len(world.mind.leases) and world.mind.leases:
        yield "somebody waits while another holds"
