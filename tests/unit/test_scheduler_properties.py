"""What must be so whatever happens: names mean nothing, and another GPU harms nobody."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import Decision, to_json
from jupyterhub_gpuspawner.scheduler.models import Device, DeviceStatus, Settings
from jupyterhub_gpuspawner.scheduler.policy import Fairness, Share
from tests.unit.scheduler_world import GIB, World, gpu, machine

# hundreds of events each
pytestmark = pytest.mark.slow

SHARES = (Share(name="lab", quota=1, borrow=2), Share(name="team", weight=2.0))
USERS = ("ann", "bob", "cy", "dan", "eve")


def play(seed: int, names: dict[str, str]) -> list[Decision]:
    """A random life of a site in which everything is called as ``names`` says."""
    chance = random.Random(seed)
    devices = [gpu(f"{node}{n}", node, memory=40 * GIB) for node in ("n1", "n2") for n in (1, 2, 3)]
    settings = Settings(fairness=Fairness(shares=SHARES))
    world = World(*devices, ready=False, settings=settings)
    world.journal.clear()
    for node in ("n1", "n2"):
        mine = tuple((_named(d, names), DeviceStatus()) for d in devices if d.node == node)
        world.do(events.NodeReported(node=machine(node), devices=mine))
        world.do(events.NodeReconciled(node=node))
    world.journal.clear()
    for number in range(120):
        world.now += chance.choice([1.0, 60.0, 3000.0])
        leases = sorted(world.state.tables.leases.values(), key=lambda lease: lease.granted_at)
        if leases and chance.random() < 0.4:
            lease = chance.choice([one for one in leases if one.granted_at == leases[0].granted_at])
            world.do(events.StopWanted(lease_id=lease.id))
            continue
        user = chance.choice(USERS)
        group = "lab" if user in ("ann", "bob") else "team"
        count, length = chance.choice([1, 1, 2, 3]), chance.choice([None, 600.0, 7200.0])
        try:
            world.ask(
                f"{names.get(user, user)}/{number}",
                count,
                groups=(group,),
                id=names.get("entry", "e") + str(number),
                length=length,
            )
        except RefusedError:
            continue
    return world.journal


def _named(device: Device, names: dict[str, str]) -> Device:
    return replace(device, id=names["device"] + device.id[::-1]) if names else device


@pytest.mark.parametrize("seed", range(8))
def test_other_names_lead_to_the_same_decisions_under_other_names(seed: int) -> None:
    others = {"ann": "zoe", "bob": "adam", "cy": "xu", "dan": "bea", "eve": "will"}
    plain = [to_json(decision) for decision in play(seed, {})]
    renamed = [
        to_json(decision) for decision in play(seed, {**others, "device": "GPU-", "entry": "q-"})
    ]
    assert len(plain) > 100
    text = json.dumps(renamed)
    for old, new in others.items():
        text = text.replace(f'"{new}"', f'"{old}"')
    text = text.replace('"q-', '"e')
    for node in ("n1", "n2"):
        for number in "123":
            text = text.replace(f'"GPU-{(node + number)[::-1]}"', f'"{node}{number}"')
    assert json.loads(text) == plain


def wait_of_first(world: World) -> float:
    """Seconds until the first in line starts, if everybody stays for his whole length."""
    first = world.state.waiting()[0].entry.id
    begun = world.now
    while not world.granted(first):
        leases = world.state.tables.leases.values()
        ends = min((one.ends_at or 0.0, one.id) for one in leases)
        world.now = max(world.now, ends[0])
        world.end(ends[1])
    return world.now - begun


def full_site(seed: int) -> World:
    chance = random.Random(seed)
    devices = [gpu(f"{node}{n}", node) for node in ("n1", "n2") for n in (1, 2, 3, 4)]
    # in order of arrival: whoever gets another server of his would be later in line by usage
    world = World(*devices, settings=Settings(fairness=Fairness(by_usage=False)))
    number = 0
    while len(world.state.waiting()) < 6:
        number += 1
        world.now += chance.choice([1.0, 500.0])
        length = chance.choice([600.0, 3600.0, 20_000.0])
        lease = world.ask(
            f"{chance.choice(USERS)}/{number}", chance.choice([1, 2, 4]), length=length
        )
        if world.granted(lease):
            world.bind(lease)
            world.running(lease)
    return world


@pytest.mark.parametrize("seed", range(12))
def test_another_idle_gpu_never_lengthens_the_wait_of_the_first(seed: int) -> None:
    before = wait_of_first(full_site(seed))
    for node in ("n1", "n2", "n3"):
        more = full_site(seed)
        first = more.state.waiting()[0].entry.id
        more.devices.append(gpu("x9", node))
        more.nodes.setdefault(node, machine(node))
        begun = more.now
        more.report(node)
        more.do(events.NodeReconciled(node=node))
        if more.granted(first):
            continue
        assert more.state.waiting()[0].entry.id == first
        assert more.now == begun and wait_of_first(more) <= before
