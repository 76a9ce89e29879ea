"""Which source is chosen, and facts of the node."""

import pytest

from jupyterhub_gpuspawner.discovery.auto import AutoSource
from jupyterhub_gpuspawner.discovery.base import Report
from jupyterhub_gpuspawner.discovery.facts import nvidia_hardware, read_node
from jupyterhub_gpuspawner.discovery.nvml import NvmlAbsent
from jupyterhub_gpuspawner.discovery.simulated import SimulatedSource
from jupyterhub_gpuspawner.errors import DiscoveryError
from jupyterhub_gpuspawner.scheduler.models import Device, DeviceStatus, Node


def facts(name):
    return Node(name=name, boot_id="b")


def report(*ids, node="box", **options):
    devices = tuple((Device(id=id, node=node), DeviceStatus()) for id in ids)
    return Report(node=facts(node), devices=devices, **options)


class Answers:
    """A source that gives the listed reports, or raises the listed errors, in order."""

    name = "answers"

    def __init__(self, *answers):
        self._answers = list(answers)

    def discover(self):
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def auto(nvml, simulated=None, hardware=0):
    return AutoSource("box", nvml, simulated, facts=facts, hardware=lambda: hardware)


def ids(report):
    return [device.id for device, _ in report.devices]


SIMULATED = SimulatedSource(1, "box", facts=facts)
ABSENT = NvmlAbsent("nvmlInit: Shared Library Not Found")


def test_real_gpus_win_over_simulated_ones():
    assert ids(auto(Answers(report("GPU-a")), SIMULATED).discover()) == ["GPU-a"]


def test_simulated_gpus_come_only_where_they_are_asked_for():
    simulated = auto(Answers(ABSENT), SIMULATED).discover()
    assert ids(simulated) == ["SIMULATED-box-0"]
    none = auto(Answers(ABSENT)).discover()
    assert none.devices == ()
    assert none.notes == ("No NVIDIA GPU: nvmlInit: Shared Library Not Found",)


def test_the_choice_of_real_gpus_holds_when_they_vanish():
    source = auto(Answers(report("GPU-a"), ABSENT, report("GPU-a")), SIMULATED)
    source.discover()
    with pytest.raises(NvmlAbsent):
        source.discover()
    assert ids(source.discover()) == ["GPU-a"]


def test_the_choice_of_simulated_gpus_holds_when_real_ones_come_up():
    source = auto(Answers(ABSENT, report("GPU-a")), SIMULATED)
    source.discover()
    assert ids(source.discover()) == ["SIMULATED-box-0"]


def test_a_gpu_that_comes_up_later_is_found_where_nothing_was_simulated():
    source = auto(Answers(ABSENT, report("GPU-a")))
    assert source.discover().devices == ()
    assert ids(source.discover()) == ["GPU-a"]


def test_a_failure_of_nvml_is_never_a_reason_to_simulate():
    source = auto(Answers(DiscoveryError("hangs"), report("GPU-a")), SIMULATED)
    with pytest.raises(DiscoveryError, match="hangs"):
        source.discover()
    assert ids(source.discover()) == ["GPU-a"]


def test_gpus_on_the_bus_without_a_driver_are_an_error_that_names_the_fix():
    with pytest.raises(DiscoveryError, match=r"has 2 NVIDIA GPU.*Install or load the NVIDIA driv"):
        auto(Answers(ABSENT), hardware=2).discover()


def fake_proc(root, meminfo="MemTotal:       1024 kB\nMemFree: 1 kB\n", boot_id="abc\n"):
    (root / "sys/kernel/random").mkdir(parents=True)
    (root / "sys/kernel/random/boot_id").write_text(boot_id)
    (root / "meminfo").write_text(meminfo)
    return root


def test_node_facts_come_from_proc(tmp_path):
    node = read_node("box", proc=fake_proc(tmp_path))
    assert (node.name, node.memory, node.boot_id) == ("box", 1024**2, "abc")
    assert node.cpus >= 1


def test_node_facts_of_the_engine_count_where_they_are_known(tmp_path):
    proc = fake_proc(tmp_path)
    node = read_node("box", info={"MemTotal": 5000, "NCPU": 64}, proc=proc)
    assert (node.memory, node.cpus, node.boot_id) == (5000, 64.0, "abc")
    # an engine in trouble answers 0
    assert read_node("box", info={"MemTotal": 0, "NCPU": 0}, proc=proc).memory == 1024**2


def test_a_proc_that_can_not_be_read_is_an_error(tmp_path):
    with pytest.raises(DiscoveryError, match="boot_id"):
        read_node("box", proc=tmp_path)
    with pytest.raises(DiscoveryError, match="no line 'MemTotal"):
        read_node("box", proc=fake_proc(tmp_path, meminfo="nothing"))


def test_nvidia_gpus_are_counted_on_the_pci_bus(tmp_path):
    bus = tmp_path / "bus/pci/devices"
    for name, vendor, kind in [
        ("0000:01:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),  # its audio function
        ("0000:02:00.0", "0x10de", "0x030000"),
        ("0000:03:00.0", "0x1a03", "0x030000"),
    ]:
        (bus / name).mkdir(parents=True)
        (bus / name / "vendor").write_text(f"{vendor}\n")
        (bus / name / "class").write_text(f"{kind}\n")
    (bus / "0000:04:00.0").mkdir()
    assert nvidia_hardware(tmp_path) == 2
    assert nvidia_hardware(tmp_path / "absent") == 0
