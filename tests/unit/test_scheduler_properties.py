"""What must be so whatever happens: names mean nothing, another GPU harms nobody, a crash changes
nothing, equal users get equal time, and nobody is stopped in turn."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import Decision, to_json
from jupyterhub_gpuspawner.scheduler.models import Device, DeviceStatus, Settings
from jupyterhub_gpuspawner.scheduler.policy import HOUR, Fairness, Share
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


# -- a crash, and what comes after ---------------------------------------------------------------


def after_a_crash(old: World, chance: random.Random, back: bool) -> World:
    """Another scheduler from the ledger; who waited asks again, in any order, or nobody does."""
    world = old.restart()
    for node in sorted(world.nodes):
        world.report(node)
        world.do(events.NodeReconciled(node=node))
    waiting = world.state.tables.queued() if back else []
    chance.shuffle(waiting)
    for number, entry in enumerate(waiting):
        again = events.Submitted(
            entry_id=f"again{number}", key=entry.key, request=entry.request, boot_id=entry.boot_id
        )
        world.do(again)
    return world


def lived(seed: int, crashes: bool) -> World:
    """A random life, in which the scheduler dies now and then if it ``crashes``."""
    chance, accident = random.Random(seed), random.Random(seed)
    devices = [gpu(f"{node}{n}", node) for node in ("n1", "n2") for n in (1, 2, 3)]
    # in order of arrival: sums of usage are added up in another order after a restart
    world = World(*devices, settings=Settings(fairness=Fairness(by_usage=False)))
    for number in range(80):
        if crashes and accident.random() < 0.1:
            world = after_a_crash(world, accident, back=True)
        world.now += chance.choice([1.0, 60.0, 3000.0])
        leases = sorted(world.state.tables.leases)
        if leases and chance.random() < 0.4:
            lease = chance.choice(leases)
            world.bind(lease)
            world.end(lease)
            continue
        length = chance.choice([None, 600.0, 7200.0])
        world.ask(
            f"{chance.choice(USERS)}/{number}",
            chance.choice([1, 2, 3]),
            id=f"e{number}",
            length=length,
        )
    return world


def believed(world: World) -> tuple[object, ...]:
    """Who holds what since when, and who waits."""
    tables = world.state.tables
    leases = {(one.id, one.claims, one.granted_at, one.state) for one in tables.leases.values()}
    return leases, [(entry.id, entry.submitted_at) for entry in tables.queued()]


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_changes_nothing_where_all_who_waited_come_back(seed: int) -> None:
    plain = lived(seed, crashes=False)
    assert len(plain.state.tables.queued()) >= 3
    assert believed(lived(seed, crashes=True)) == believed(plain)


@pytest.mark.parametrize("seed", range(6))
def test_after_a_crash_those_who_do_not_come_back_leave_and_all_else_stays(seed: int) -> None:
    plain = lived(seed, crashes=False)
    world = after_a_crash(plain, random.Random(seed), back=False)
    assert believed(world) == believed(plain)
    leases, _ = believed(plain)
    for lease in plain.state.tables.leases:
        world.bind(lease)
        world.running(lease)
    world.tick(world.state.settings.requeue_grace + 1)
    assert not world.state.tables.queued()
    assert set(world.state.tables.leases) == {lease[0] for lease in leases}  # type: ignore[attr-defined]


# -- promises about time -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_equal_users_get_equal_gpu_time_over_a_half_life(seed: int) -> None:
    """L5, with as many requests of each as he may have, of all lengths and sizes."""
    chance, half_life = random.Random(seed), 48 * HOUR
    fairness = Fairness(half_life=half_life, age_guard=None, age_first=None)
    world = World(*(f"g{n}" for n in range(4)), settings=Settings(fairness=fairness))
    begin, number = world.now + half_life, 0
    had = dict.fromkeys(USERS[:3], 0.0)
    while world.now < begin + half_life:
        for user in had:
            while sum(w.entry.key.user == user for w in world.state.waiting()) < 3:
                number += 1
                asked = (chance.choice([1, 1, 2]), chance.choice([1.0, 4.0, 8.0]))
                world.ask(f"{user}/{number}", asked[0], length=asked[1] * HOUR)
        leases = list(world.state.tables.leases.values())
        first = min(leases, key=lambda lease: (lease.ends_at, lease.id))
        assert first.ends_at is not None
        for lease in leases:
            seconds = min(first.ends_at, begin + half_life) - max(world.now, begin)
            had[lease.key.user] += max(seconds, 0.0) * len(lease.claims)
        world.now = first.ends_at
        world.bind(first.id)
        world.end(first.id)
    assert min(had.values()) >= 0.8 * max(had.values()), had


@pytest.mark.parametrize("seed", range(4))
def test_who_was_stopped_for_others_does_not_stop_them_before_they_had_their_length(
    seed: int,
) -> None:
    """L7, L6: everybody stays, everybody asks again at once when he was stopped."""
    chance, warning = random.Random(seed), 600.0
    world = World("g1", "g2", settings=Settings(reclaim_warning=warning))
    lengths = dict.fromkeys(USERS, 0.0)
    stopped = dict.fromkeys(USERS, 0)
    for _ in range(200):
        tables = world.state.tables
        for user in USERS:
            if not any(e.key.user == user for e in tables.entries.values()):
                lengths[user] = chance.choice([HOUR, 2 * HOUR])
                world.ask(user, chance.choice([1, 1, 2]), length=lengths[user])
        for lease in list(tables.leases.values()):
            if lease.state.value == "reserved":
                world.bind(lease.id)
                world.running(lease.id)
        before = dict(tables.leases)
        world.tick(chance.choice([60.0, 600.0, 1800.0]))
        for lease in list(tables.leases.values()):
            if lease.state.value == "stopping":
                old = before[lease.id]
                assert old.warned and old.ends_at is not None and old.stop_at is not None
                assert world.now >= old.stop_at >= old.ends_at + warning, "L6"
                assert world.now - lease.granted_at >= lengths[lease.key.user] + warning, "L7"
                stopped[lease.key.user] += 1
                world.gone(lease.id)
    assert min(stopped.values()) > 3, "everybody had his turn"
