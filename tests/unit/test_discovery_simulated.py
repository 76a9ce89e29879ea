"""Simulated devices and their CDI spec."""

import json
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.discovery import cdi
from jupyterhub_gpuspawner.discovery.simulated import SimulatedSource, cdi_spec, simulated_devices
from jupyterhub_gpuspawner.errors import ConfigError, DiscoveryError
from jupyterhub_gpuspawner.scheduler.models import Device, Node
from jupyterhub_gpuspawner.scheduler.topology import NVLINK


def source(count=2, node="box"):
    return SimulatedSource(count, node, facts=lambda name: Node(name=name))


def test_simulated_devices_say_so_in_id_model_and_flag():
    report = source().discover()
    devices = [device for device, _ in report.devices]
    assert [device.id for device in devices] == ["SIMULATED-box-0", "SIMULATED-box-1"]
    assert all(device.simulated and "SIMULATED" in device.model for device in devices)
    assert all(report.usage[device.id].empty() for device in devices)


@pytest.mark.parametrize("count", [0, -1, 257, True, 2.0, "4", None])
def test_a_count_that_is_not_1_to_256_is_refused(count):
    with pytest.raises(ConfigError, match="simulated GPUs: want a whole number 1 to 256"):
        source(count)


@pytest.mark.parametrize("node", ["", "a/b", "a b", "-a", "a.", "ä", "a\n", "x" * 65])
def test_a_node_name_that_no_cdi_name_may_hold_is_refused(node):
    with pytest.raises(ConfigError, match="node name"):
        simulated_devices(1, node)


def test_the_cdi_spec_injects_a_marker_file_and_a_device_node():
    spec = cdi_spec(simulated_devices(2, "box"))
    assert spec["kind"] == "nvidia.com/gpu"
    assert spec["devices"][1] == {
        "name": "SIMULATED-box-1",
        "containerEdits": {
            "deviceNodes": [{"path": "/dev/nvidia1", "hostPath": "/dev/null"}],
            "mounts": [
                {
                    "hostPath": "/dev/null",
                    "containerPath": "/run/gpus/SIMULATED-box-1",
                    "options": ["bind", "ro", "nosuid", "noexec"],
                }
            ],
        },
    }


def test_the_cdi_spec_of_a_real_gpu_is_never_made_up():
    with pytest.raises(ValueError, match="not simulated: GPU-a"):
        cdi_spec([Device(id="GPU-a", node="box")])


def test_the_spec_file_is_written_once_and_names_the_devices(tmp_path):
    directory = tmp_path / "cdi"
    assert source().write_cdi_spec(directory) is True
    (path,) = directory.iterdir()
    before = path.stat()
    assert source().write_cdi_spec(directory) is False
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_mode & 0o777 == 0o644
    assert cdi.names_in([directory]) == {
        "nvidia.com/gpu=SIMULATED-box-0",
        "nvidia.com/gpu=SIMULATED-box-1",
    }


def test_another_count_replaces_only_the_own_file(tmp_path):
    other = tmp_path / "nvidia.yaml"
    other.write_text("kind: nvidia.com/gpu\ndevices:\n- name: GPU-a\n  containerEdits: {}\n")
    before = other.read_text()
    source(1).write_cdi_spec(tmp_path)
    source(1, "far").write_cdi_spec(tmp_path)
    assert source(3).write_cdi_spec(tmp_path) is True
    assert other.read_text() == before
    assert cdi.names_in([tmp_path]) == {
        "nvidia.com/gpu=GPU-a",
        "nvidia.com/gpu=SIMULATED-far-0",
        *(f"nvidia.com/gpu=SIMULATED-box-{k}" for k in range(3)),
    }
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "content", ["not json", "[]", '{"devices": [{"name": "GPU-a"}]}', '{"devices": 3}']
)
def test_a_foreign_file_of_that_name_is_left_alone(tmp_path, content):
    path = source().cdi_path(tmp_path)
    path.write_text(content)
    with pytest.raises(DiscoveryError, match="is not a CDI spec of simulated GPUs"):
        source().write_cdi_spec(tmp_path)
    assert path.read_text() == content


def test_devices_that_another_spec_defines_are_not_defined_twice(tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps(cdi_spec(simulated_devices(2, "box"))))
    assert source(2).write_cdi_spec(tmp_path) is False
    assert list(tmp_path.iterdir()) == [other]
    with pytest.raises(DiscoveryError, match=r"defines '.*=SIMULATED-box-0', but not all"):
        source(3).write_cdi_spec(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_a_directory_that_can_not_be_made_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiscoveryError, match="cdi-spec-dirs") as caught:
        cdi.write_spec(tmp_path / "file" / "spec.json", {})
    assert "spec.json" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_at_the_end_leaves_the_old_spec_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "spec.json"
    cdi.write_spec(path, {"devices": []})
    before = path.read_text()

    def no_space(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(DiscoveryError, match="No space left"):
        cdi.write_spec(path, {"devices": [1]})
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_in_reads_json_and_yaml_and_skips_what_engines_skip(tmp_path):
    spec = {"kind": "nvidia.com/gpu", "devices": [{"name": "GPU-a"}, {"no": "name"}, 3]}
    (tmp_path / "a.json").write_text(json.dumps(spec))
    (tmp_path / "b.yaml").write_text("kind: vendor.com/net\ndevices:\n- {name: '0'}\n")
    (tmp_path / "c.txt").write_text(json.dumps(spec))
    (tmp_path / "d.json").write_text("{")
    (tmp_path / "e.yaml").write_text("a: [")
    (tmp_path / "f.json").write_bytes(b"\xff")
    (tmp_path / "g.json").write_text('{"devices": "many"}')
    assert cdi.names_in([tmp_path, tmp_path / "absent"]) == {
        "nvidia.com/gpu=GPU-a",
        "vendor.com/net=0",
    }


def test_simulated_gpus_may_be_connected_like_those_of_a_known_machine():
    devices = SimulatedSource(10, "box", board="dgx-1v").devices
    links = dict(devices[0].bonds)
    assert links["SIMULATED-box-3"] // NVLINK == 2
    assert links["SIMULATED-box-5"] // NVLINK == 0
    # the ninth begins another machine
    assert [id for id, _ in devices[8].bonds] == ["SIMULATED-box-9"]
    assert all(device.bonds == () for device in SimulatedSource(2, "box").devices)


def test_a_machine_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match="no machine 'cray'; known are dgx-1v"):
        SimulatedSource(2, "box", board="cray")
