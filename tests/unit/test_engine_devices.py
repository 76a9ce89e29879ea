"""Devices get into a container by UUID only, and nobody else chooses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from jupyterhub_gpuspawner.engine import devices
from jupyterhub_gpuspawner.engine.devices import Injection
from jupyterhub_gpuspawner.errors import DeviceMissing
from jupyterhub_gpuspawner.protected import is_protected
from jupyterhub_gpuspawner.scheduler import models
from jupyterhub_gpuspawner.scheduler.models import Device, Mode


def real(name: str, **kwargs: Any) -> Device:
    return Device(id=name, node="n1", **kwargs)


def simulated(name: str) -> Device:
    return Device(id=name, node="n1", simulated=True)


A = real("GPU-6f1c2a90-aaaa-bbbb-cccc-000000000001")
B = real("GPU-6f1c2a90-aaaa-bbbb-cccc-000000000002")
S0 = simulated("SIMULATED-n1-0")
S1 = simulated("SIMULATED-n1-1")


def test_the_enum_is_the_one_that_discovery_uses() -> None:
    assert Injection is models.Injection


def test_cdi_names_each_device_by_its_uuid() -> None:
    config = devices.host_config([A, B], Injection.CDI)
    assert config["device_requests"] == [
        {
            "Driver": "cdi",
            "Count": 0,
            "DeviceIDs": [f"nvidia.com/gpu={A.id}", f"nvidia.com/gpu={B.id}"],
            "Capabilities": [],
            "Options": {},
        }
    ]
    assert config["binds"] == []


def test_the_nvidia_driver_is_asked_for_uuids_and_never_for_a_count() -> None:
    (request,) = devices.host_config([A, B], Injection.NVIDIA)["device_requests"]
    assert request["Driver"] == "nvidia"
    assert request["DeviceIDs"] == [A.id, B.id]
    assert request["Count"] == 0
    assert request["Capabilities"] == [["gpu", "utility", "compute"]]


def test_a_simulated_device_is_a_marker_file_that_can_not_be_written() -> None:
    config = devices.host_config([S0, S1], Injection.BIND)
    assert config == {
        "device_requests": [],
        "binds": [
            "/dev/null:/run/gpus/SIMULATED-n1-0:ro",
            "/dev/null:/run/gpus/SIMULATED-n1-1:ro",
        ],
    }


@pytest.mark.parametrize("injection", list(Injection))
def test_no_device_means_no_request_no_bind_and_void(injection: Injection) -> None:
    assert devices.host_config([], injection) == {"device_requests": [], "binds": []}
    assert devices.environment([], injection) == {"NVIDIA_VISIBLE_DEVICES": "void"}


@pytest.mark.parametrize(
    ("given", "injection", "visible"),
    [
        ([A, B], Injection.CDI, "void"),
        ([S0], Injection.CDI, "void"),
        ([S0], Injection.BIND, "void"),
        ([A, B], Injection.NVIDIA, f"{A.id},{B.id}"),
    ],
)
def test_the_hook_is_told_the_devices_only_where_the_hook_injects(
    given: list[Device], injection: Injection, visible: str
) -> None:
    variables = devices.environment(given, injection)
    assert variables == {
        "NVIDIA_VISIBLE_DEVICES": visible,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_device_that_is_named_twice_is_injected_once() -> None:
    (request,) = devices.host_config([A, A], Injection.CDI)["device_requests"]
    assert request["DeviceIDs"] == [f"nvidia.com/gpu={A.id}"]


@pytest.mark.parametrize(
    ("device", "injection", "why"),
    [
        (A, Injection.BIND, "simulated devices only"),
        (S0, Injection.NVIDIA, "does not know simulated"),
        (real("0"), Injection.NVIDIA, "not a UUID"),
        (real("all"), Injection.CDI, "not a UUID"),
        (real("0:1"), Injection.NVIDIA, "not a UUID"),
        (real("GPU-1,GPU-2"), Injection.NVIDIA, "not a UUID"),
        (real("GPU-1\n"), Injection.CDI, "not a UUID"),
        (real("SIMULATED-n1-0"), Injection.CDI, "not a UUID"),
        (simulated("GPU-1"), Injection.CDI, "not a UUID"),
        (simulated("SIMULATED-../../etc/passwd"), Injection.BIND, "not a UUID"),
        (simulated("SIMULATED-a:rw"), Injection.BIND, "not a UUID"),
    ],
)
def test_what_can_not_be_injected_safely_is_refused(
    device: Device, injection: Injection, why: str
) -> None:
    with pytest.raises(DeviceMissing, match=why) as caught:
        devices.host_config([device], injection)
    assert repr(device.id) in caught.value.log_message
    assert device.id not in caught.value.user_message
    with pytest.raises(DeviceMissing):
        devices.environment([device], injection)


def test_a_mig_instance_and_its_gpu_never_share_a_container() -> None:
    child = real("MIG-0001", parent=A.id, mode=Mode.MIG)
    other = real("MIG-0002", parent=A.id, mode=Mode.MIG)
    assert devices.host_config([child, other], Injection.CDI)["device_requests"]
    with pytest.raises(DeviceMissing, match="MIG instance of it"):
        devices.host_config([child, A], Injection.CDI)


@pytest.mark.parametrize(
    ("name", "protected"),
    [
        ("NVIDIA_VISIBLE_DEVICES", True),
        ("NVIDIA_DRIVER_CAPABILITIES", True),
        ("NVIDIA_VISIBLE_DEVICES=all", True),
        ("CUDA_VISIBLE_DEVICES", True),
        ("CUDA_VISIBLE_DEVICES=1", True),
        ("CUDA_MPS_PIPE_DIRECTORY", True),
        ("DOCKER_RESOURCE_GPU0", True),
        ("CUDA_VISIBLE_DEVICES_NOTE", False),
        ("CUDA_DEVICE_ORDER", False),
        ("MY_NVIDIA_VISIBLE_DEVICES", False),
        ("NVIDIA", False),
        ("PATH", False),
    ],
)
def test_variables_that_choose_devices_are_protected(name: str, protected: bool) -> None:
    assert is_protected(name) is protected


def test_stripping_tells_what_it_took_away() -> None:
    env = {"PATH": "/bin", "NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "0"}
    allowed, removed = devices.strip_protected(env)
    assert allowed == {"PATH": "/bin"}
    assert removed == ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
    assert len(env) == 3


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (None, []),
        ({"home": {"bind": "/home/jovyan", "mode": "rw"}}, ["home:/home/jovyan:rw"]),
        ({"data": {"bind": "/data"}}, ["data:/data:rw"]),
        ({"data": "/data"}, ["data:/data:rw"]),
        (["data:/data:ro"], ["data:/data:ro"]),
    ],
)
def test_binds_of_dockerspawner_and_markers_are_joined(
    existing: Mapping[str, Mapping[str, str] | str] | list[str] | None, expected: list[str]
) -> None:
    extra = devices.host_config([S0, S1], Injection.BIND)["binds"]
    assert devices.merge_binds(existing, extra) == [*expected, *extra]
