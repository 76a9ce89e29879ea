"""Devices named in the configuration."""

import pytest

from jupyterhub_gpuspawner.discovery.static import StaticSource, parse_devices
from jupyterhub_gpuspawner.errors import ConfigError
from jupyterhub_gpuspawner.scheduler.models import Device, DeviceStatus, Mode, Node


def test_every_key_reaches_the_device():
    assert parse_devices(
        [
            {"id": "GPU-a", "model": "NVIDIA A100", "memory": "80G", "index": 3},
            {"id": "GPU-b", "mode": "slots", "atoms": 4, "memory": 1024},
            {"id": "MIG-c", "mode": "mig", "parent": "GPU-z"},
        ],
        "box",
    ) == (
        Device(id="GPU-a", node="box", index=3, model="NVIDIA A100", memory=80 * 1024**3),
        Device(id="GPU-b", node="box", index=1, mode=Mode.SLOTS, atoms=4, memory=1024),
        Device(id="MIG-c", node="box", index=2, mode=Mode.MIG, parent="GPU-z"),
    )


def test_a_simulated_id_makes_a_simulated_device():
    (device,) = parse_devices([{"id": "SIMULATED-box-9"}], "box")
    assert device.simulated


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"id": "GPU-a"}, "devices: want a list of dicts, not dict"),
        ("GPU-a", "devices: want a list of dicts, not str"),
        (None, "devices: want a list of dicts, not NoneType"),
        (["GPU-a"], r"devices\[0\]: want a dict, not str"),
        ([{"id": "GPU-a", "memroy": 1}], r"devices\[0\]: unknown key 'memroy'; known are id, mod"),
        ([{}], r"devices\[0\].id: None is not a device id"),
        ([{"id": 0}], r"devices\[0\].id: 0 is an index; .* 'nvidia-smi -L'"),
        ([{"id": "1"}], "'1' is an index"),
        ([{"id": "GPU-a,GPU-b"}], "is not a device id"),
        ([{"id": "GPU-a\n"}], "is not a device id"),
        ([{"id": "../x"}], "is not a device id"),
        ([{"id": "GPU-a"}, {"id": "GPU-a"}], r"devices\[1\]: id 'GPU-a' is given twice"),
        ([{"id": "GPU-a", "memory": "lots"}], r"devices\[0\].memory: 'lots' is not an amount"),
        ([{"id": "GPU-a", "index": -1}], r"\.index: want a whole number of at least 0, not -1"),
        ([{"id": "GPU-a", "index": True}], r"\.index: want a whole number of at least 0, not True"),
        ([{"id": "GPU-a", "model": 7}], r"\.model: want text, not 7"),
        ([{"id": "GPU-a", "mode": "shared"}], "'shared' is not a mode; known are exclusive, slots"),
        ([{"id": "GPU-a", "mode": ["mig"]}], "is not a mode"),
        ([{"id": "GPU-a", "atoms": 2}], r"\.atoms: 2 needs mode 'slots'; exclusive always has 1"),
        ([{"id": "GPU-a", "mode": "slots", "atoms": 0}], "at least 1, not 0"),
        ([{"id": "GPU-a", "mode": "slots", "atoms": 9999}], "9999 is more than 1024"),
        ([{"id": "MIG-a", "mode": "mig"}], r"\.parent: missing; a MIG instance names the UUID"),
        ([{"id": "GPU-a", "parent": "GPU-b"}], "only a device of mode 'mig' has a parent"),
        (
            [{"id": "GPU-a"}, {"id": "MIG-a", "mode": "mig", "parent": "GPU-a"}],
            "'MIG-a' is part of 'GPU-a'; name one of the two",
        ),
    ],
)
def test_a_wrong_entry_is_one_clear_line(entries, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_devices(entries, "box")
    assert "\n" not in caught.value.log_message


def test_the_source_reports_its_devices_healthy_and_unmeasured():
    source = StaticSource([{"id": "GPU-a"}], "box", facts=lambda name: Node(name=name, memory=7))
    report = source.discover()
    assert report.node == Node(name="box", memory=7)
    assert report.devices == ((Device(id="GPU-a", node="box"), DeviceStatus()),)
    assert report.usage == {}
