"""What an engine can inject, and which way each device goes."""

import re

import pytest

from jupyterhub_gpuspawner.discovery.engine import Capabilities, capabilities, plan
from jupyterhub_gpuspawner.scheduler.models import Device, Injection

REAL = tuple(Device(id=f"GPU-{k}", node="box", index=k) for k in range(2))
SIMULATED = tuple(
    Device(id=f"SIMULATED-box-{k}", node="box", index=k, simulated=True) for k in range(2)
)
RUNC = {"runc": {"path": "runc"}}
NVIDIA = {**RUNC, "nvidia": {"path": "nvidia-container-runtime"}}
FOUND = [
    {"Source": "cdi", "ID": "nvidia.com/gpu=GPU-0"},
    {"Source": "other", "ID": "x"},
]


@pytest.mark.parametrize(
    ("info", "api", "expected"),
    [
        # 20.10 has neither field
        ({"ServerVersion": "20.10.24", "Runtimes": RUNC}, "1.41", (False, False, ())),
        # 26.1 without and with features.cdi
        ({"CDISpecDirs": [], "Runtimes": NVIDIA}, "1.45", (False, True, ())),
        ({"CDISpecDirs": None, "Runtimes": None}, "1.45", (False, False, ())),
        ({"CDISpecDirs": ["/etc/cdi"], "Runtimes": RUNC}, "1.45", (True, False, None)),
        # 28.2 and later list what they found, and leave an empty list out
        (
            {"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": FOUND},
            "1.50",
            (True, False, ("nvidia.com/gpu=GPU-0",)),
        ),
        ({"CDISpecDirs": ["/etc/cdi"]}, "1.51", (True, False, ())),
        ({"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": None}, "1.51", (True, False, ())),
        # the version isn't known: a list counts, its absence says nothing
        ({"CDISpecDirs": ["/etc/cdi"]}, "", (True, False, None)),
        (
            {"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": FOUND},
            "",
            (True, False, ("nvidia.com/gpu=GPU-0",)),
        ),
    ],
)
def test_capabilities_are_read_from_info_of_old_and_new_engines(info, api, expected):
    engine = capabilities(info, api)
    assert (engine.cdi, engine.nvidia_runtime, engine.cdi_devices) == expected


def names(*devices):
    return tuple(f"nvidia.com/gpu={device.id}" for device in devices)


OFF = Capabilities()
RUNTIME = Capabilities(nvidia_runtime=True)
UNLISTED = Capabilities(cdi=True)
ALL = Capabilities(cdi=True, cdi_devices=names(*REAL, *SIMULATED))
ONE = Capabilities(cdi=True, cdi_devices=names(REAL[0], SIMULATED[0]))
ONE_OR_RUNTIME = Capabilities(cdi=True, cdi_devices=names(REAL[0]), nvidia_runtime=True)


@pytest.mark.parametrize(
    ("devices", "engine", "local", "ways"),
    [
        (REAL, ALL, (), ["cdi", "cdi"]),
        (REAL, RUNTIME, (), ["nvidia", "nvidia"]),
        (REAL, ONE_OR_RUNTIME, (), ["nvidia", "nvidia"]),
        (REAL, ONE, (), ["cdi", None]),
        (REAL, ONE, names(*REAL), ["cdi", None]),  # the engine's own list counts
        (REAL, UNLISTED, names(*REAL), ["cdi", "cdi"]),
        (REAL, UNLISTED, (), [None, None]),
        (REAL, OFF, names(*REAL), [None, None]),
        (SIMULATED, ALL, (), ["cdi", "cdi"]),
        (SIMULATED, ONE, (), ["bind", "bind"]),
        (SIMULATED, OFF, names(*SIMULATED), ["bind", "bind"]),
        (SIMULATED, RUNTIME, (), ["bind", "bind"]),
        (SIMULATED, UNLISTED, names(*SIMULATED), ["cdi", "cdi"]),
        ((REAL[0], SIMULATED[0]), RUNTIME, (), ["nvidia", "bind"]),
        ((), OFF, (), []),
    ],
)
def test_the_way_of_each_device_follows_from_what_the_engine_has(devices, engine, local, ways):
    result = plan(devices, engine, local)
    assert [result.injections.get(device.id) for device in devices] == [
        None if way is None else Injection(way) for way in ways
    ]
    assert set(result.problems) == {
        device.id for device, way in zip(devices, ways, strict=True) if way is None
    }


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (Capabilities(version="20.10.24"), "Docker 20.10.24 .*nvidia-ctk runtime configure"),
        (UNLISTED, "no spec names an NVIDIA GPU. Install nvidia-container-toolkit and run"),
        (
            Capabilities(cdi=True, cdi_devices=("nvidia.com/gpu=0",)),
            "CDI knows other GPUs, but not this UUID. Run .*device-name-strategy=uuid",
        ),
    ],
)
def test_a_gpu_that_can_not_be_injected_comes_with_the_fix(engine, words):
    problem = plan(REAL[:1], engine).problems["GPU-0"]
    assert problem.startswith("GPU-0: Docker")
    assert re.search(words, problem)
