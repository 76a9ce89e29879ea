"""Discovery against a real engine: what it can inject, and whose process is whose."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from docker.types import DeviceRequest

from jupyterhub_gpuspawner.device_names import qualified
from jupyterhub_gpuspawner.discovery import cdi
from jupyterhub_gpuspawner.discovery.cgroups import container_ids
from jupyterhub_gpuspawner.discovery.engine import capabilities, plan
from jupyterhub_gpuspawner.discovery.simulated import SimulatedSource
from jupyterhub_gpuspawner.scheduler.models import Device, Injection


@pytest.fixture
def engine_capabilities(docker_client):
    return capabilities(docker_client.info(), docker_client.api._version)


@pytest.fixture
def spec_dir(engine):
    """The engine's CDI directory as seen from here; files added to it are removed."""
    directory = Path(engine.folder) / "cdi"
    before = set(directory.iterdir())
    yield directory
    for path in set(directory.iterdir()) - before:
        path.unlink()


def test_an_engine_of_version_26_uses_cdi_and_does_not_list_devices(engine_capabilities):
    assert engine_capabilities.cdi
    assert engine_capabilities.cdi_devices is None
    assert engine_capabilities.spec_dirs == ("/etc/cdi",)
    assert not engine_capabilities.nvidia_runtime


def test_the_testbeds_own_spec_is_enough_for_its_devices(engine, engine_capabilities, spec_dir):
    source = SimulatedSource(engine.devices, engine.node)
    assert tuple(device.id for device in source.devices) == engine.device_ids
    assert source.write_cdi_spec(spec_dir) is False
    ways = plan(source.devices, engine_capabilities, cdi.names_in([spec_dir]))
    assert set(ways.injections.values()) == {Injection.CDI}


def test_the_engine_injects_simulated_devices_from_the_spec_we_write(
    spec_dir, stub_image, run_container
):
    source = SimulatedSource(3, "discovery-test")
    assert source.write_cdi_spec(spec_dir) is True
    wanted = [device.id for device in source.devices[1:]]
    request = DeviceRequest(driver="cdi", device_ids=[qualified(id) for id in wanted])
    container = run_container(
        stub_image,
        ["ls", "-1", "/run/gpus", "/dev/nvidia1", "/dev/nvidia2"],
        entrypoint="",
        network_mode="none",
        device_requests=[request],
        start=False,
    )
    _start_when_the_spec_is_read(container)
    assert container.wait(timeout=30)["StatusCode"] == 0
    assert container.logs().decode().split() == [
        "/dev/nvidia1",
        "/dev/nvidia2",
        "/run/gpus:",
        *wanted,
    ]


def _start_when_the_spec_is_read(container, seconds=10.0):
    """The daemon watches the directory; a start in the same instant may come before it."""
    from docker.errors import APIError

    end = time.monotonic() + seconds
    while True:
        try:
            return container.start()
        except APIError as error:
            if "unresolvable CDI devices" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.05)


def test_a_real_gpu_that_the_engine_does_not_know_comes_with_the_fix(engine_capabilities, spec_dir):
    gpu = Device(id="GPU-a", node="testbed")
    problem = plan([gpu], engine_capabilities, cdi.names_in([spec_dir])).problems["GPU-a"]
    assert problem.startswith("GPU-a: Docker 26")
    assert "nvidia-ctk cdi generate" in problem


def test_a_process_is_attributed_to_its_container(stub_image, run_container):
    container = run_container(stub_image, ["sleep", "60"], entrypoint="", network_mode="none")
    container.reload()
    cgroup = Path(f"/proc/{container.attrs['State']['Pid']}/cgroup").read_text()
    assert container_ids(cgroup) == (container.id,)
    assert container.id not in container_ids(Path("/proc/self/cgroup").read_text())
