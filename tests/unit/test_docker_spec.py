"""What decides about GPUs, identity and limits is said last and can't be overridden."""

from __future__ import annotations

from typing import Any

import docker.types
import pytest

from jupyterhub_gpuspawner.client import Granted
from jupyterhub_gpuspawner.docker_spec import build_spec, network_alias
from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.engine.containers import ContainerSpec
from jupyterhub_gpuspawner.engine.limits import ResourceLimits
from jupyterhub_gpuspawner.scheduler.models import Device, Injection
from tests.unit.hub_fakes import World, in_mid_spawn, new_user, spawner_of

# takes JupyterHub to import
pytestmark = pytest.mark.slow

LIMIT = ResourceLimits(mem_limit=2**30, cpu_limit=2.0, pids_limit=100)
REAL = Device(id="GPU-1", node="n", index=0, model="T", memory=1)


async def spec_of(
    options: dict[str, Any], *, devices: tuple[Device, ...] = (), limit: Any = LIMIT
) -> tuple[ContainerSpec, Any]:
    spawner = spawner_of(World(), options)
    granted = Granted(
        lease="lease1", node="n", ledger="l1", devices=devices, injection=Injection.NVIDIA
    )
    return await build_spec(spawner, granted, limit), spawner


PROTECTED = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "all"}


@pytest.mark.parametrize(
    "options",
    [
        {"environment": {**PROTECTED, "CUDA_VISIBLE_DEVICES": "7"}},
        {"extra_create_kwargs": {"environment": {**PROTECTED, "DOCKER_RESOURCE_GPU": "GPU-9"}}},
        {"extra_create_kwargs": {"environment": ["NVIDIA_VISIBLE_DEVICES=all"]}},
        {"extra_create_kwargs": lambda spawner: {"environment": dict(PROTECTED)}},
        {"environment": {"NVIDIA_VISIBLE_DEVICES": lambda spawner: "all"}},
    ],
)
@pytest.mark.parametrize("devices", [(), (REAL,)])
async def test_nobody_sets_which_gpus_a_server_sees(
    options: dict[str, Any], devices: tuple[Device, ...]
) -> None:
    spec, _ = await spec_of(options, devices=devices)
    env = spec.options["environment"]
    found = {k: v for k, v in env.items() if k.startswith(("NVIDIA_", "DOCKER_R", "CUDA_V"))}
    assert found == {"NVIDIA_VISIBLE_DEVICES": "GPU-1" if devices else "void"}


async def test_extra_environment_is_added_to_what_the_hub_sets() -> None:
    spec, spawner = await spec_of({"extra_create_kwargs": {"environment": {"A": "b"}}})
    assert spec.options["environment"]["A"] == "b"
    assert spec.options["environment"]["JUPYTERHUB_API_TOKEN"] == spawner.api_token


ALL_GPUS = docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])


@pytest.mark.parametrize(
    "extra",
    [
        {"device_requests": [ALL_GPUS]},
        {"device_requests": [{"Driver": "nvidia", "Count": 1}]},
        {"device_requests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]},
        {"device_requests": [{"driver": "cdi", "device_ids": ["nvidia.com/gpu=0"]}]},
        {"devices": ["/dev/nvidia0:/dev/nvidia0:rwm"]},
        {"privileged": True},
    ],
)
async def test_extra_options_give_no_gpu_past_the_scheduler(extra: dict[str, Any]) -> None:
    spec, _ = await spec_of({"extra_host_config": extra}, devices=(REAL,))
    (request,) = spec.host["device_requests"]
    assert request["DeviceIDs"] == ["GPU-1"]
    assert not spec.host.get("devices")
    assert "privileged" not in spec.host


async def test_devices_that_are_no_gpus_stay() -> None:
    wish = {"Driver": "cdi", "DeviceIDs": ["mellanox.com/nic=0"]}
    extra = {"device_requests": [wish], "devices": ["/dev/fuse"]}
    spec, _ = await spec_of({"extra_host_config": extra})
    assert spec.host["device_requests"] == [wish]
    assert spec.host["devices"] == ["/dev/fuse"]


async def test_extra_options_do_not_loosen_limits_or_let_docker_remove_the_container() -> None:
    extra = {"mem_limit": "900g", "memswap_limit": -1, "pids_limit": -1, "auto_remove": True}
    spec, _ = await spec_of({"extra_host_config": {**extra, "nano_cpus": 10**12}})
    plain, _ = await spec_of({})
    for name in (*extra, "cpu_quota"):
        assert spec.host.get(name) == plain.host.get(name), name
    assert spec.host["auto_remove"] is False
    assert spec.host["mem_limit"] == 2**30


@pytest.mark.parametrize("form", [dict, lambda d: [f"{k}={v}" for k, v in d.items()]])
async def test_identity_labels_win_and_others_stay(form: Any) -> None:
    theirs = {labels.LEASE: "other", labels.KIND: "home", labels.USER: "eve", "team": "a"}
    spec, spawner = await spec_of({"extra_create_kwargs": {"labels": form(theirs)}})
    who = labels.parse(spec.labels)
    assert who is not None
    assert (who.lease, who.user, who.ledger) == ("lease1", spawner.user.name, "l1")
    assert spec.labels["team"] == "a"


async def test_extra_options_set_neither_name_nor_image_nor_a_second_host_config() -> None:
    extra = {"name": "x", "image": "evil", "host_config": {"Privileged": True}, "domainname": "d"}
    spec, spawner = await spec_of({"extra_create_kwargs": extra})
    assert (spec.name, spec.image) == (spawner.object_name, "stub")
    usual = {"command", "environment", "volumes", "ports", "networking_config"}
    assert set(spec.options) == {*usual, "domainname"}


async def test_the_home_is_a_volume_of_the_owner_and_none_where_it_is_not_wanted() -> None:
    spec, spawner = await spec_of({})
    (home,) = [bind for bind in spec.host["binds"] if bind.endswith(":/home/jovyan:rw")]
    assert home.startswith(f"gpus-home-{spawner.user.name}-")
    spec, _ = await spec_of({"home_path": ""})
    assert spec.host["binds"] == []


async def test_without_limits_the_extra_options_count() -> None:
    spec, _ = await spec_of({"extra_host_config": {"mem_limit": "1g"}}, limit=None)
    assert spec.host["mem_limit"] == "1g"


async def test_a_server_is_on_its_users_network_alone_and_found_there_by_name() -> None:
    spec, spawner = await spec_of({})
    (network,) = spawner.world.api.networks_by_name
    assert network.startswith("user-net-")
    assert spec.host["network_mode"] == network
    assert spec.options["networking_config"] == {
        "EndpointsConfig": {network: {"Aliases": ["server"]}}
    }


def test_a_named_servers_alias_is_never_one_that_the_hub_may_have() -> None:
    assert network_alias("hub") == "server-hub"
    assert network_alias("Größe 1") == "server-groe-1"
    assert network_alias("") == "server"


@pytest.mark.parametrize("options", [{"user_networks": False}, {"network_name": "site"}])
async def test_a_network_of_the_admins_is_used_as_it_is(options: dict[str, Any]) -> None:
    spec, spawner = await spec_of(options)
    assert spec.host["network_mode"] == options.get("network_name", "bridge")
    assert "networking_config" not in spec.options
    assert spawner.world.api.networks_by_name == {}


async def test_a_network_mode_among_the_extra_options_wins() -> None:
    spec, _ = await spec_of({"extra_host_config": {"network_mode": "site"}})
    assert spec.host["network_mode"] == "site"
    assert "networking_config" not in spec.options


async def test_all_servers_of_a_user_share_one_network_and_two_users_share_none() -> None:
    world = World()
    first = new_user(world)
    granted = Granted(lease="l", node="n", ledger="l1", devices=(), injection=Injection.BIND)
    modes = []
    for spawner in (
        in_mid_spawn(first),
        in_mid_spawn(first, "train"),
        in_mid_spawn(new_user(world)),
    ):
        modes.append((await build_spec(spawner, granted, LIMIT)).host["network_mode"])
    assert modes[0] == modes[1] != modes[2]
