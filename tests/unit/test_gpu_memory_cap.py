"""A cap on a GPU's memory, from profile to container: where MPS enforces it, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.client import _device
from jupyterhub_gpuspawner.discovery.static import StaticSource, parse_devices
from jupyterhub_gpuspawner.engine import devices
from jupyterhub_gpuspawner.errors import ConfigError, DeviceMissing, RefusedError
from jupyterhub_gpuspawner.profiles import parse_profiles
from jupyterhub_gpuspawner.profiles.resolve import to_request
from jupyterhub_gpuspawner.scheduler.models import (
    Device,
    GPURequest,
    Health,
    Injection,
    Mode,
    Node,
)
from tests.unit.scheduler_world import GIB, World, gpu

MPS = "/run/nvidia/mps"
SHARED: dict[str, Any] = {"mode": Mode.SLOTS, "atoms": 4}


def shared(name: str, cap: int = 0, **fields: Any) -> Device:
    return gpu(name, **{**SHARED, "cap": cap * GIB, "mps": MPS if cap else "", **fields})


def refusal(world: World, **asked: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        world.ask("ann", **asked)
    assert caught.value.reason == "impossible"
    return caught.value.user_message


# -- the scheduler ----------------------------------------------------------------------------


def test_a_cap_is_granted_only_where_it_is_enforced_and_is_data_of_the_lease() -> None:
    world = World(shared("g1"), shared("g2", 20), shared("g3", 10))
    lease = world.lease(world.ask("ann", sharing=Mode.SLOTS, cap=10 * GIB))
    assert lease.devices == ("g3",)
    assert lease.request.cap == 10 * GIB
    assert world.devices_of(world.ask("bob", sharing=Mode.SLOTS, cap=20 * GIB)) <= {"g2", "g3"}


def test_a_cap_that_nothing_enforces_is_refused_at_once_with_the_reason() -> None:
    world = World(shared("g1"), shared("g2", 20), gpu("g4"))
    told = refusal(world, sharing=Mode.SLOTS, cap=10 * GIB)
    assert "no node has 1 shared GPU that MPS caps at 10 GiB or less; the largest has 0" in told
    assert "only the memory of shared GPUs (slots) can be capped" in refusal(world, cap=10 * GIB)


def test_how_a_gpu_is_capped_changes_only_when_nobody_holds_a_part_of_it() -> None:
    world = World(shared("g0", 10))
    lease = world.run("ann", sharing=Mode.SLOTS, cap=10 * GIB)
    world.devices = [shared("g0", 20)]
    world.report("n1")
    assert world.state.tables.devices["g0"].cap == 10 * GIB
    world.end(lease)
    world.report("n1")
    assert world.state.tables.devices["g0"].cap == 20 * GIB
    assert "MPS caps" in refusal(world, sharing=Mode.SLOTS, cap=10 * GIB)


def test_the_number_of_slots_changes_only_when_nobody_holds_one() -> None:
    world = World(shared("g0"))
    lease = world.run("ann", sharing=Mode.SLOTS)
    for mode in ({"mode": Mode.SLOTS, "atoms": 2}, {"mode": Mode.EXCLUSIVE, "atoms": 1}):
        world.devices = [gpu("g0", **mode)]
        world.report("n1")
        assert world.state.tables.devices["g0"].atoms == 4
        assert world.state.tables.devices["g0"].mode is Mode.SLOTS
    world.end(lease)
    world.report("n1")
    assert world.state.tables.devices["g0"].mode is Mode.EXCLUSIVE


# -- where it comes from ----------------------------------------------------------------------


def test_a_profile_asks_for_it_and_a_server_without_gpu_does_not() -> None:
    override = {"gpus": 1, "gpu_sharing": "slots", "gpu_memory_limit": "10G"}
    profiles = parse_profiles(
        [
            {"display_name": "Part", "spawner_override": override},
            {"display_name": "None", "spawner_override": {**override, "gpus": 0}},
        ]
    )
    part, none = (to_request(profiles.resolve({"profile": slug})) for slug in ("part", "none"))
    assert (part.cap, part.sharing) == (10 * GIB, Mode.SLOTS)
    assert none == GPURequest()


def entry(**more: Any) -> dict[str, Any]:
    own = {"id": "GPU-a", "mode": "slots", "atoms": 4, "mps": MPS, "mps_limit": "10G"}
    return {**own, **more}


def test_a_device_by_hand_says_which_daemon_serves_it_and_what_it_lets_each_have() -> None:
    (device,) = parse_devices([entry()], "box")
    assert (device.mps, device.cap) == (MPS, 10 * GIB)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (entry(mode="exclusive", atoms=1), "needs mode 'slots'"),
        (entry(mps="run/mps"), "is not the path of a folder"),
        (entry(mps="/run:/etc"), "is not the path of a folder"),
        (entry(mps=7), "want text"),
        (entry(mps=""), "without 'mps' nothing enforces it"),
        (entry(mps_limit="much"), "mps_limit"),
    ],
)
def test_a_wrong_cap_is_one_clear_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_devices([wrong], "box")


def test_a_gpu_without_its_daemon_is_withheld(tmp_path: Path) -> None:
    source = StaticSource([entry(mps=str(tmp_path))], "box", facts=lambda name: Node(name=name))
    ((_, status),) = source.discover().devices
    assert status.health is Health.SUSPECT
    assert f"no MPS daemon has its pipe at {tmp_path}/pipe/control" in status.note
    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe" / "control").touch()
    ((_, status),) = source.discover().devices
    assert status.health is Health.OK


# -- the container ----------------------------------------------------------------------------


def test_a_container_gets_the_daemons_pipes_and_the_caps_by_the_numbers_of_cuda() -> None:
    real = [
        Device(id="GPU-b", node="n1", index=3, cap=10 * GIB, mps=MPS, **SHARED),
        Device(id="GPU-a", node="n1", index=1, cap=20 * GIB, mps=MPS, **SHARED),
    ]
    host = devices.host_config(real, Injection.NVIDIA)
    assert host["binds"] == [f"{MPS}/pipe:/run/gpus/mps:rw", f"{MPS}/shm:/dev/shm:rw"]
    env = devices.environment(real, Injection.NVIDIA)
    assert env["CUDA_MPS_PIPE_DIRECTORY"] == "/run/gpus/mps"
    assert env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=20480M,1=10240M"


def test_without_mps_nothing_of_it_is_in_a_container_and_nobody_else_sets_it() -> None:
    plain = [Device(id="GPU-a", node="n1", **SHARED)]
    assert devices.host_config(plain, Injection.NVIDIA)["binds"] == []
    assert not [n for n in devices.environment(plain, Injection.NVIDIA) if "MPS" in n]
    assert devices.strip_protected({"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=80G"})[0] == {}


def test_one_server_has_one_daemon() -> None:
    two = [
        Device(id="GPU-a", node="n1", cap=GIB, mps="/run/mps-a", **SHARED),
        Device(id="GPU-b", node="n1", cap=GIB, mps="/run/mps-b", **SHARED),
    ]
    with pytest.raises(DeviceMissing, match="another MPS daemon"):
        devices.host_config(two, Injection.NVIDIA)


def test_the_spawner_hears_of_it_with_the_grant() -> None:
    device = _device({"id": "GPU-a", "cap": 5, "mps": MPS}, "n1")
    assert (device.cap, device.mps) == (5, MPS)
    # a scheduler of an earlier release
    assert _device({"id": "GPU-a"}, "n1").cap == 0
