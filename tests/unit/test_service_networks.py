"""Users' networks go when nobody uses them, and only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.engine.networks import UserNetwork
from jupyterhub_gpuspawner.errors import EngineUnknown
from jupyterhub_gpuspawner.service.networks import still_unused
from tests.unit.service_world import World

# takes JupyterHub to import
pytestmark = pytest.mark.slow

NET = UserNetwork(network_id="n1", name="user-net-alice", user="alice", used=False)
OTHER = UserNetwork(network_id="n2", name="user-net-bob", user="bob", used=False)


@pytest.mark.parametrize(
    ("network", "users", "expected"),
    [
        (NET, frozenset(), {"n1": 7.0}),
        (NET, frozenset({"bob"}), {"n1": 7.0}),
        (NET, frozenset({"alice"}), {}),
        (replace(NET, used=True), frozenset(), {}),
    ],
)
def test_a_network_is_unused_without_container_lease_and_request(
    network: UserNetwork, users: frozenset[str], expected: dict[str, float]
) -> None:
    assert still_unused([network], users, {}, 7.0) == expected


def test_the_grace_counts_from_the_first_look_and_begins_again_after_a_use() -> None:
    since = still_unused([NET], frozenset(), {}, 1.0)
    assert still_unused([NET], frozenset(), since, 50.0) == {"n1": 1.0}
    since = still_unused([replace(NET, used=True)], frozenset(), since, 51.0)
    assert still_unused([NET], frozenset(), since, 60.0) == {"n1": 60.0}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, reconcile_interval=0.005, network_grace=60)


async def test_a_network_that_a_crash_left_goes_after_the_grace(world: World) -> None:
    world.engine.networks_there = (NET, OTHER)
    async with world.running():
        await world.until(lambda: world.engine.network_looks > 2)
        assert world.engine.networks_gone == []
        world.clock.now += 61
        await world.until(lambda: sorted(world.engine.networks_gone) == ["n1", "n2"])


async def test_the_network_of_a_user_with_a_lease_or_a_request_stays(world: World) -> None:
    world.engine.networks_there = (NET, OTHER, replace(NET, network_id="n3", user="carol"))
    async with world.running():
        await world.run("alice", 2)
        async with world.ask("bob", 1) as waiting:
            await waiting.until(event="queued")
            world.clock.now += 10
            seen = world.engine.network_looks
            await world.until(lambda: world.engine.network_looks > seen + 2)
            world.clock.now += 61
            await world.until(lambda: world.engine.networks_gone == ["n3"])
            seen = world.engine.network_looks
            await world.until(lambda: world.engine.network_looks > seen + 2)
        assert world.engine.networks_gone == ["n3"]


async def test_an_engine_that_does_not_answer_ends_nothing(world: World) -> None:
    world.engine.networks_there = (NET,)
    async with world.running():
        await world.until(lambda: world.engine.network_looks > 1)
        world.engine.down = EngineUnknown("no answer")
        seen = world.engine.network_looks
        await world.until(lambda: world.engine.network_looks > seen + 2)
        world.clock.now += 61
        world.engine.down = None
        await world.until(lambda: world.engine.networks_gone == ["n1"])
