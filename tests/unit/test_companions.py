"""What stands beside a server: checked, without GPUs, and gone with the server's lease."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from jupyterhub_gpuspawner.client import Granted
from jupyterhub_gpuspawner.companions import alias_of, companion_spec, start_companions, variables
from jupyterhub_gpuspawner.docker_spec import network_alias
from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.engine.companions import CompanionSeen
from jupyterhub_gpuspawner.errors import ConfigError
from jupyterhub_gpuspawner.profiles import Companion, parse_profiles, to_request
from jupyterhub_gpuspawner.scheduler.models import Device, Injection
from tests.unit import hub_fakes, service_world

# real sockets, files or processes
pytestmark = pytest.mark.slow

BOARD = {"image": "tb:1", "cmd": ["tensorboard"], "mem_limit": "1G", "home": "ro"}
REAL = Device(id="GPU-1", node="n", index=0, model="T", memory=1)
GRANTED = Granted(
    lease="lease1", node="n", ledger="l1", devices=(REAL,), injection=Injection.NVIDIA
)


def profiles(**companions: Any) -> Any:
    override = {"gpus": 1, "mem_limit": "4G", "cpu_limit": 2, "companions": companions}
    return parse_profiles([{"display_name": "a", "slug": "a", "spawner_override": override}])


def test_what_they_may_use_counts_like_the_servers_own() -> None:
    resolved = profiles(board=BOARD, db={"image": "db"}).resolve({"profile": "a"})
    request = to_request(resolved)
    assert (request.memory, request.cpu) == (4 * 2**30 + 2**30 + 2**29, 4.0)
    assert request.count == 1


@pytest.mark.parametrize(
    ("companions", "told"),
    [
        ({"board": {}}, "board: image: Field required"),
        ({"board": {"image": "a", "gpus": 1}}, 'unknown word "gpus"'),
        ({"board": {"image": "a", "mem_limit": 0}}, "must be above 0"),
        ({"board": {"image": "a", "cpu_limit": 0}}, "must be above 0"),
        ({"board": {"image": "a", "home": "rwx"}}, '"ro" or "rw"'),
        ({"board": {"image": "a", "environment": {"NVIDIA_VISIBLE_DEVICES": "all"}}}, "protected"),
        ({"Board": {"image": "a"}}, "can't be the name of a companion"),
        ({"server": {"image": "a"}}, "can't be the name of a companion"),
        ({"server-train": {"image": "a"}}, "can't be the name of a companion"),
        ({"hub": {"image": "a"}}, "can't be the name of a companion"),
        ({f"c{n}": {"image": "a"} for n in range(9)}, "at most 8"),
    ],
)
def test_a_wrong_companion_is_one_clear_line(companions: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        profiles(**companions)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_names_of_companions_and_servers_never_meet_on_a_network() -> None:
    names = [alias_of("board", ""), alias_of("board", "train"), network_alias("train")]
    assert names == ["board", "board-train", "server-train"]
    assert variables(["time-series"], "train") == {"COMPANION_TIME_SERIES": "time-series-train"}


async def a_spawner() -> Any:
    return hub_fakes.spawner_of(hub_fakes.World(), {"home_path": "/home/jovyan"})


async def test_a_companion_has_limits_the_home_and_no_gpu() -> None:
    spawner = await a_spawner()
    board = Companion(name="board", image="tb:1", home="ro", health=("ok",), mem_limit=2**30)
    spec = await companion_spec(spawner, GRANTED, board, "net")
    assert "device_requests" not in spec.host and "devices" not in spec.host
    assert spec.options["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert spec.host["mem_limit"] == spec.host["memswap_limit"] == 2**30
    assert spec.host["cap_drop"] == ["ALL"] and spec.host["network_mode"] == "net"
    (home,) = spec.host["binds"]
    assert home.endswith(":/home/jovyan:ro")
    assert spec.options["healthcheck"]["test"] == ["CMD", "ok"]


async def test_its_labels_are_no_servers_and_hold_no_lease() -> None:
    spec = await companion_spec(await a_spawner(), GRANTED, Companion(name="b", image="i"), "net")
    assert labels.parse(spec.labels) is None
    assert spec.labels[labels.LEASE] == spec.labels[labels.DEVICES] == ""
    assert spec.labels[labels.COMPANION_OF] == "lease1"
    assert spec.labels[labels.OWNER] and spec.labels[labels.LEDGER] == "l1"


async def test_a_companion_that_can_not_start_ends_nothing(monkeypatch: Any) -> None:
    spawner = await a_spawner()
    spawner._granted = GRANTED
    spawner.companions = {"b": Companion(name="b", image="missing")}

    async def fails(*_: Any, **__: Any) -> None:
        raise docker.errors.ImageNotFound("missing")

    monkeypatch.setattr(type(spawner.pool), "run", fails)
    await start_companions(spawner, GRANTED)


def seen(number: int, lease: str, user: str = "alice", server: str = "") -> CompanionSeen:
    return CompanionSeen(
        container_id=f"c{number:063x}", name="board", lease=lease, user=user, server=server
    )


def there(world: service_world.World, *companions: CompanionSeen) -> None:
    world.engine.companions_there = {one.container_id: one for one in companions}


async def running(world: service_world.World, user: str = "alice") -> tuple[str, str]:
    """A server that runs: its lease and its container."""
    async with world.ask(user, request={"count": 1}) as stream:
        lease = (await stream.until(event="granted"))["lease"]["id"]
    container = world.engine.create(lease, user, devices=["SIMULATED-n1-0"])
    await world.post(f"leases/{lease}/bind", {"container_id": container})
    world.engine.start(container)
    await world.post(f"leases/{lease}/running")
    return lease, container


async def test_it_stays_with_its_server_and_goes_when_that_is_to_go(tmp_path: Path) -> None:
    world = service_world.World(tmp_path, simulate=1, reconcile_interval=0.02)
    async with world.running():
        lease, container = await running(world)
        there(world, seen(1, lease), seen(2, "an-earlier-lease"))
        await world.until(lambda: list(world.engine.companions_there.values()) == [seen(1, lease)])
        world.engine.stuck.add(container)
        await world.post(f"leases/{lease}/stopping", {"reason": "stopped"})
        await world.until(lambda: not world.engine.companions_there)
        assert container in world.engine.containers, "it does not wait for the server"


async def test_a_companion_that_can_not_be_removed_keeps_no_gpu_back(tmp_path: Path) -> None:
    world = service_world.World(tmp_path, simulate=1, reconcile_interval=0.02)
    async with world.running():
        lease, container = await running(world)
        there(world, seen(1, lease), seen(2, lease))
        world.engine.stuck.add(seen(1, lease).container_id)
        world.engine.containers.pop(container)
        await world.post(f"leases/{lease}/ended", {})
        async with world.ask("bob", request={"count": 1}) as stream:
            await stream.until(event="granted")
        await world.until(
            lambda: list(world.engine.companions_there) == [seen(1, lease).container_id]
        )
        world.engine.stuck.clear()
        await world.until(lambda: not world.engine.companions_there)


async def test_nothing_is_removed_before_ledger_and_engine_were_compared(tmp_path: Path) -> None:
    world = service_world.World(tmp_path, simulate=1, reconcile_interval=0.02)
    # a restored backup: it runs, and the ledger does not know it
    container = world.engine.create("old", "alice", devices=["SIMULATED-n1-0"])
    world.engine.start(container)
    there(world, seen(1, "old"), seen(2, "older", user="bob"))
    async with world.running():
        await world.until(lambda: len(world.engine.companions_there) == 1)
        assert list(world.engine.companions_there.values()) == [seen(1, "old")]
        await asyncio.sleep(0)
        assert world.engine.containers[container].live
