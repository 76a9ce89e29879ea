"""What a server's service is created with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyterhub_gpuspawner import swarmspawner
from jupyterhub_gpuspawner.client import Granted
from jupyterhub_gpuspawner.engine import labels, service_spec, services
from jupyterhub_gpuspawner.engine.limits import ResourceLimits
from jupyterhub_gpuspawner.errors import (
    ConfigError,
    DeviceMissing,
    EngineError,
    ImageMissing,
    MountMissing,
    RefusedError,
    ServerDied,
)
from jupyterhub_gpuspawner.scheduler.models import Device, Injection
from jupyterhub_gpuspawner.swarmspawner import GPUSwarmSpawner
from tests.unit.hub_fakes import LEDGER, Wired, World, spawner_of
from tests.unit.swarm_fakes import Manager, node

# takes JupyterHub to import
pytestmark = pytest.mark.slow


class Swarmer(Wired, GPUSwarmSpawner):
    """The spawner for a Swarm."""


DEVICE = Device(id="SIMULATED-node2-1", node="node2", simulated=True)
REAL = Device(id="GPU-1", node="node2")


def granted(*devices: Device, injection: Injection = Injection.BIND) -> Granted:
    return Granted(lease="l1", node="node2", ledger=LEDGER, devices=devices, injection=injection)


@pytest.fixture
def spawner():
    return make(local_volumes="each")


def make(**options):
    world = World()
    world.api = Manager(node(1), node(2, gpus=(("GPU0", "GPU-1"), ("GPU1", "SIMULATED-node2-1"))))
    return spawner_of(world, options, cls=Swarmer)


async def built(spawner, lease, limits=None):
    spawner._granted = lease
    spawner.kernel_limits = limits or ResourceLimits(mem_limit=2**30, cpu_limit=1.5, pids_limit=100)
    spec = await spawner.build_spec(lease)
    return spec, spec.task["ContainerSpec"]


async def test_the_service_is_bound_to_the_node_and_reserves_exactly_the_leased_device(spawner):
    spec, _ = await built(spawner, granted(DEVICE))
    assert spec.task["Placement"] == {"Constraints": ["node.id==n2"]}
    assert spec.task["RestartPolicy"] == {"Condition": "none"}
    reserved = spec.task["Resources"]["Reservations"]
    assert reserved["GenericResources"] == [{"DiscreteResourceSpec": {"Kind": "GPU1", "Value": 1}}]


async def test_as_much_is_reserved_as_is_allowed(spawner):
    spec, _ = await built(spawner, granted())
    bounds = {"MemoryBytes": 2**30, "NanoCPUs": 1_500_000_000}
    assert spec.task["Resources"] == {"Limits": {**bounds, "Pids": 100}, "Reservations": bounds}


async def test_service_and_container_say_whose_they_are(spawner):
    spec, container = await built(spawner, granted(DEVICE))
    identity = labels.parse(spec.labels)
    assert container["Labels"] == spec.labels
    assert (identity.lease, identity.devices) == ("l1", (DEVICE.id,))
    assert identity.user == spawner.user.name


async def test_a_simulated_gpu_shows_as_its_marker_and_nvidia_is_told_nothing(spawner):
    _, container = await built(spawner, granted(DEVICE))
    targets = {mount["Target"]: mount for mount in container["Mounts"]}
    assert targets[f"/run/gpus/{DEVICE.id}"]["Source"] == "/dev/null"
    assert "NVIDIA_VISIBLE_DEVICES=void" in container["Env"]


async def test_a_real_gpu_is_named_to_the_toolkit_in_both_ways_that_it_reads(spawner):
    _, container = await built(spawner, granted(REAL, injection=Injection.NVIDIA))
    targets = [mount["Target"] for mount in container["Mounts"]]
    assert "/var/run/nvidia-container-devices/GPU-1" in targets
    assert "NVIDIA_VISIBLE_DEVICES=GPU-1" in container["Env"]


async def test_no_variable_of_the_configuration_decides_about_gpus(spawner):
    spawner.environment = {"NVIDIA_VISIBLE_DEVICES": "all", "DOCKER_RESOURCE_GPU0": "GPU-1"}
    _, container = await built(spawner, granted())
    assert "NVIDIA_VISIBLE_DEVICES=void" in container["Env"]
    assert resources(container) == ["DOCKER_RESOURCE_GPU0=", "DOCKER_RESOURCE_GPU1="]


async def test_no_variable_of_the_image_names_a_gpu_that_is_not_leased(spawner):
    # the toolkit takes GPUs from them; Swarm itself writes that of the leased one
    _, container = await built(spawner, granted(DEVICE))
    assert resources(container) == ["DOCKER_RESOURCE_GPU0="]


def test_a_kind_of_two_gpus_and_one_in_other_letters_are_emptied_too():
    place = service_spec.Place(node_id="n2", kinds={"GPU-1": "gpu0"}, others=("GPU0", "two", "Up"))
    assert service_spec.variables(place) == {"DOCKER_RESOURCE_TWO": "", "DOCKER_RESOURCE_UP": ""}


def resources(container):
    return [one for one in container["Env"] if one.startswith("DOCKER_RESOURCE_")]


async def test_shared_memory_is_sized_and_the_images_health_check_kills_nobody(spawner):
    _, container = await built(spawner, granted())
    (shm,) = [mount for mount in container["Mounts"] if mount["Target"] == "/dev/shm"]
    assert shm["TmpfsOptions"]["SizeBytes"] == 2**29
    assert container["Healthcheck"] == {"Test": ["NONE"]}
    assert container["Init"] is True
    assert container["CapabilityDrop"] == ["ALL"]
    assert container["StopGracePeriod"] == spawner.stop_grace * 10**9


async def test_the_home_is_a_volume_of_the_owner_whatever_the_user_is_called(spawner):
    _, container = await built(spawner, granted())
    (home,) = [mount for mount in container["Mounts"] if mount["Target"] == "/home/jovyan"]
    assert home["Type"] == "volume"
    assert home["VolumeOptions"]["Labels"][labels.KIND] == "home"
    assert spawner.user.name not in home["Source"]


async def test_a_home_on_nfs_has_its_own_folder():
    spawner = make(home_options={"type": "nfs", "device": ":/homes/{volume}"})
    await spawner.prepare(resolved(spawner))
    _, container = await built(spawner, granted())
    (home,) = [mount for mount in container["Mounts"] if mount["Target"] == "/home/jovyan"]
    options = home["VolumeOptions"]["DriverConfig"]["Options"]
    assert options == {"type": "nfs", "device": f":/homes/{home['Source']}"}


def resolved(spawner):
    return spawner._resolve()


@pytest.mark.parametrize(
    "options,what",
    [
        ({}, "would exist on one node only"),
        ({"home_path": "", "extra_host_config": {"privileged": True}}, "extra_host_config"),
        ({"home_path": "", "links": {"a": "b"}}, "links"),
    ],
)
async def test_what_a_service_can_not_have_is_refused(options, what):
    spawner = make(**options)
    with pytest.raises(ConfigError, match=what):
        await spawner.prepare(resolved(spawner))


@pytest.mark.parametrize("options", [{"home_path": ""}, {"home_driver": "ceph"}])
async def test_homes_that_are_shared_or_not_wanted_are_fine(options):
    spawner = make(**options)
    await spawner.prepare(resolved(spawner))
    assert spawner.kernel_limits is not None


async def test_the_first_start_decides_on_which_node_a_volume_of_one_node_is():
    spawner = make(local_volumes="tie")
    await spawner.prepare(resolved(spawner))
    assert spawner.ask_for(spawner._resolve()).request.node is None
    spec, _ = await built(spawner, granted())
    assert (await built(spawner, granted()))[0] == spec
    await spawner.prepare(resolved(spawner))
    assert spawner.ask_for(spawner._resolve()).request.node == "node2"
    assert "Your files are on node2" in spawner._progress._lines[-1]["message"]
    late = Granted(lease="l2", node="node1", ledger=LEDGER, devices=(), injection=Injection.BIND)
    with pytest.raises(EngineError, match="is on node2, the lease on node1"):
        await spawner.build_spec(late)


async def test_the_admins_word_about_a_volume_counts_and_a_choice_against_it_is_refused():
    spawner = make(home_path="", volumes={"data": "/data"}, volume_nodes={"data": "node2"})
    await spawner.prepare(resolved(spawner))
    assert spawner.only_node == "node2"
    with pytest.raises(RefusedError) as refusal:
        await spawner.prepare(replace(resolved(spawner), node="node1"))
    assert "Your files are on node2" in refusal.value.user_message
    apart = {"volumes": {"a": "/a", "b": "/b"}, "volume_nodes": {"a": "node1", "b": "node2"}}
    spawner = make(home_path="", **apart)
    with pytest.raises(ConfigError, match="a on node1, b on node2"):
        await spawner.prepare(resolved(spawner))


async def test_a_config_that_the_swarm_does_not_have_is_named(spawner):
    spawner.configs = {"there": "/etc/there"}
    spawner.world.api.create_config("there", b"x")
    _, container = await built(spawner, granted())
    (config,) = container["Configs"]
    assert (config["ConfigID"], config["File"]["Name"]) == ("c-there", "/etc/there")
    spawner.configs = {"gone": "/etc/gone"}
    with pytest.raises(ConfigError, match="none called gone"):
        await built(spawner, granted())


def test_a_mount_of_the_configuration_is_a_bind_or_a_volume():
    bind = service_spec.bind_or_volume("/data", "/mnt", "ro")
    assert (bind["Type"], bind["ReadOnly"]) == ("bind", True)
    assert service_spec.bind_or_volume("scratch", "/mnt", "rw")["Type"] == "volume"
    with pytest.raises(ConfigError, match="allowed on a Swarm"):
        service_spec.bind_or_volume("/data", "/mnt", "z")


async def started(spawner, lease, state, **more):
    manager = spawner.world.api
    spec, _ = await built(spawner, lease)
    service = services.create(manager, spec)
    services.start_new(manager, service)
    manager.run(service, state, **more)
    return manager, service


async def test_a_task_with_other_devices_than_the_lease_is_refused(spawner):
    other = [{"NamedResourceSpec": {"Kind": "GPU0", "Value": "GPU-1"}}]
    _, service = await started(spawner, granted(DEVICE), "running", GenericResources=other)
    with pytest.raises(DeviceMissing, match="Swarm assigned GPU-1, the lease has SIMULATED"):
        await spawner.await_started(service)


@pytest.mark.parametrize(
    "words,kind",
    [
        ("invalid mount config: no such volume", MountMissing),
        ("No such image: a:b", ImageMissing),
        ("no space left on device", ServerDied),
    ],
)
async def test_a_rejected_task_is_told_in_swarms_words(spawner, words, kind):
    manager, service = await started(spawner, granted(), "rejected")
    (task,) = manager.tasks_by_id.values()
    task["Status"]["Err"] = words
    with pytest.raises(kind) as failure:
        await spawner.await_started(service)
    assert words in failure.value.user_message


async def test_no_suitable_node_is_told_in_swarms_words(spawner, monkeypatch):
    monkeypatch.setattr(swarmspawner, "NO_NODE_PATIENCE", 0.0)
    manager, service = await started(spawner, granted(), "pending")
    (task,) = manager.tasks_by_id.values()
    task["Status"]["Err"] = "no suitable node (insufficient resources on 1 node)"
    with pytest.raises(EngineError) as failure:
        await spawner.await_started(service)
    assert "insufficient resources on 1 node" in failure.value.user_message
