"""NvmlSource through nvidia-ml-py, in the real child process, against the fake library."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.discovery.auto import AutoSource
from jupyterhub_gpuspawner.discovery.nvml import NvmlAbsent, NvmlSource
from jupyterhub_gpuspawner.discovery.simulated import SimulatedSource
from jupyterhub_gpuspawner.errors import DiscoveryError
from jupyterhub_gpuspawner.scheduler.models import Health, Mode
from jupyterhub_gpuspawner.scheduler.topology import bond

GIB = 1024**3
A100 = f"name=NVIDIA A100-SXM4-80GB|total={80 * GIB}|reserved={600 * 1024**2}"
T4 = f"name=Tesla T4|total={16 * GIB}"

on_host = pytest.mark.skipif(
    Path("/proc/self/ns/pid").stat().st_ino != 0xEFFFFFFC,
    reason="runs in its own PID namespace, where no process can be attributed",
)


def source(ours=(), **options):
    return NvmlSource("box", lambda: ours, **options)


def eight(**extra):
    return [f"gpu|uuid=GPU-{k}|{A100}{extra.get(f'gpu{k}', '')}" for k in range(8)]


def test_eight_gpus_are_reported_healthy_empty_and_in_order(scenario):
    scenario(*eight(gpu3="|used=1048576|util=42"))
    report = source().discover()
    devices = [device for device, _ in report.devices]
    assert [device.id for device in devices] == [f"GPU-{k}" for k in range(8)]
    assert [device.index for device in devices] == list(range(8))
    assert devices[0].model == "NVIDIA A100-SXM4-80GB"
    assert devices[0].memory == 80 * GIB
    assert devices[0].capability == (8, 0)
    assert devices[0].mode is Mode.EXCLUSIVE
    assert not devices[0].simulated
    assert all(status.health is Health.OK and not status.foreign for _, status in report.devices)
    assert report.usage["GPU-3"].utilisation == 0.42
    # what the driver reserves is not use
    assert report.usage["GPU-3"].memory_used == 1048576
    assert all(usage.empty() for usage in report.usage.values())
    assert report.node.name == "box"
    assert report.node.boot_id


def test_memory_in_use_makes_a_gpu_not_empty(scenario):
    scenario(f"gpu|uuid=GPU-0|{A100}|used={2 * GIB}")
    assert source().discover().usage["GPU-0"].empty() is False


def test_a_gpu_in_mig_mode_is_reported_as_its_instances(scenario):
    scenario(
        f"gpu|uuid=GPU-0|{A100}|mig=1",
        f"gpu|uuid=GPU-1|{A100}",
        f"mig|gpu=0|uuid=MIG-a|name=NVIDIA A100-SXM4-80GB MIG 3g.40gb|total={40 * GIB}|used=99",
        f"mig|gpu=0|uuid=MIG-b|name=NVIDIA A100-SXM4-80GB MIG 3g.40gb|total={40 * GIB}",
    )
    report = source().discover()
    devices = {device.id: device for device, _ in report.devices}
    assert list(devices) == ["MIG-a", "MIG-b", "GPU-1"]
    assert devices["MIG-a"].parent == "GPU-0"
    assert devices["MIG-a"].mode is Mode.MIG
    assert devices["MIG-a"].atoms == 1
    assert devices["MIG-a"].memory == 40 * GIB
    assert devices["MIG-a"].model.endswith("MIG 3g.40gb")
    assert devices["MIG-a"].capability == (8, 0)
    assert report.usage["MIG-a"].memory_used == 99
    assert report.usage["MIG-a"].utilisation is None


def test_a_fault_of_a_gpu_is_a_fault_of_all_its_mig_instances(scenario):
    scenario(
        f"gpu|uuid=GPU-0|{A100}|mig=1|recovery=1",
        f"mig|gpu=0|uuid=MIG-a|name=m|total={GIB}",
        f"mig|gpu=0|uuid=MIG-b|name=m|total={GIB}",
    )
    statuses = [status for _, status in source().discover().devices]
    assert [status.health for status in statuses] == [Health.BAD, Health.BAD]
    assert "GPU reset" in statuses[0].note


def test_mig_mode_without_instances_gives_no_device_and_says_so(scenario):
    scenario(f"gpu|uuid=GPU-0|{A100}|mig=1")
    report = source().discover()
    assert report.devices == ()
    assert report.notes == ("GPU 0 is in MIG mode and has no instance to give out",)


def test_a_gpu_lost_while_it_is_measured_is_bad(scenario):
    scenario(*eight(), "fail|call=nvmlDeviceGetMemoryInfo_v2|gpu=5|code=15")
    statuses = {device.id: status for device, status in source().discover().devices}
    assert statuses["GPU-5"].health is Health.BAD
    assert statuses["GPU-5"].note == "the GPU has fallen off the bus; reboot the machine"
    assert [id for id, status in statuses.items() if status.health is Health.OK] == [
        f"GPU-{k}" for k in range(8) if k != 5
    ]


def test_a_lost_gpu_that_was_seen_before_is_reported_bad_by_its_uuid(scenario):
    scenario(*eight())
    nvml = source()
    nvml.discover()
    scenario(*eight(), "fail|call=nvmlDeviceGetHandleByIndex_v2|gpu=5|code=15")
    for _ in range(2):  # the next report remembers it too
        report = nvml.discover()
        statuses = {device.id: status for device, status in report.devices}
        assert list(statuses) == [f"GPU-{k}" for k in range(8)]
        assert statuses["GPU-5"].health is Health.BAD
        assert report.usage["GPU-5"].empty() is None
    scenario(*eight())
    assert {status.health for _, status in nvml.discover().devices} == {Health.OK}


def test_a_lost_gpu_that_was_never_seen_is_left_out_with_a_note(scenario):
    scenario(*eight(), "fail|call=nvmlDeviceGetHandleByIndex_v2|gpu=5|code=15")
    report = source().discover()
    assert len(report.devices) == 7
    assert report.notes == (
        "GPU 5 doesn't tell its UUID: the GPU has fallen off the bus; reboot the machine",
    )


@pytest.mark.parametrize(
    ("model", "field", "health"),
    [
        (A100, "recovery=2", Health.BAD),
        (A100, "recovery=4", Health.SUSPECT),
        (A100, "remap_failed=1", Health.BAD),
        (A100, "remap_pending=1", Health.SUSPECT),
        (T4, "retire_pending=1", Health.SUSPECT),
        (T4, "recovery=0", Health.OK),
        (T4, "recovery=-1", Health.OK),
    ],
)
def test_what_the_driver_says_of_recovery_and_memory_rows_is_health(scenario, model, field, health):
    scenario(f"gpu|uuid=GPU-0|{model}|{field}")
    ((_, status),) = source().discover().devices
    assert status.health is health
    assert bool(status.note) is (health is not Health.OK)


@on_host
def test_a_process_outside_our_containers_makes_its_gpu_foreign(scenario):
    scenario(*eight(), f"process|gpu=2|pid={os.getpid()}|memory=1000")
    report = source().discover()
    statuses = {device.id: status for device, status in report.devices}
    assert [id for id, status in statuses.items() if status.foreign] == ["GPU-2"]
    assert f"PID {os.getpid()}" in statuses["GPU-2"].note
    (process,) = report.usage["GPU-2"].processes
    assert (process.pid, process.memory, process.foreign) == (os.getpid(), 1000, True)
    assert report.usage["GPU-2"].empty() is False


def test_a_process_that_is_not_in_proc_counts_as_foreign(scenario):
    # larger than any pid_max, as one of another PID namespace may be
    scenario(f"gpu|uuid=GPU-0|{A100}", "process|gpu=0|pid=4194999")
    report = source().discover()
    assert report.devices[0][1].foreign
    assert report.usage["GPU-0"].processes[0].memory is None


def test_a_process_on_a_mig_instance_makes_only_that_instance_foreign(scenario):
    scenario(
        f"gpu|uuid=GPU-0|{A100}|mig=1",
        f"mig|gpu=0|uuid=MIG-a|name=m|total={GIB}",
        f"mig|gpu=0|uuid=MIG-b|name=m|total={GIB}",
        "process|mig=1|pid=4194999|memory=5",
    )
    report = source().discover()
    assert [(device.id, status.foreign) for device, status in report.devices] == [
        ("MIG-a", False),
        ("MIG-b", True),
    ]


def test_more_processes_than_the_first_buffer_holds_are_all_seen(scenario):
    scenario(
        f"gpu|uuid=GPU-0|{A100}",
        *(f"process|gpu=0|pid={4194400 + k}|memory={k}" for k in range(40)),
    )
    assert len(source().discover().usage["GPU-0"].processes) == 40


def test_a_gpu_whose_processes_cannot_be_read_is_suspect_and_not_empty(scenario):
    scenario(
        f"gpu|uuid=GPU-0|{A100}",
        "fail|call=nvmlDeviceGetComputeRunningProcesses_v3|code=4",
    )
    report = source().discover()
    assert report.devices[0][1].health is Health.SUSPECT
    assert report.devices[0][1].note == "its processes can't be read (NVML error 4)"
    assert report.usage["GPU-0"].empty() is None


def test_a_driver_before_510_is_read_through_the_older_functions(old_library, load):
    load(
        old_library,
        f"gpu|uuid=GPU-0|{A100}|used=5",
        "process|gpu=0|pid=4194999|memory=7",
    )
    report = source().discover()
    assert report.devices[0][1].health is Health.OK
    assert report.devices[0][0].memory == 80 * GIB
    assert report.usage["GPU-0"].processes[0].memory == 7


def test_a_call_that_hangs_is_cut_off_and_the_next_report_works(scenario):
    scenario(*eight(), "hang|call=nvmlDeviceGetName|gpu=7")
    nvml = source(time_limit=1.0)
    began = time.monotonic()
    with pytest.raises(DiscoveryError, match="no answer within 1 s, the probe was killed"):
        nvml.discover()
    assert time.monotonic() - began < 10
    scenario(*eight())
    assert len(nvml.discover().devices) == 8


def test_a_library_that_crashes_takes_only_the_probe_with_it(scenario):
    scenario(*eight(), "crash|call=nvmlDeviceGetCount_v2")
    with pytest.raises(DiscoveryError, match="ended with status -11"):
        source().discover()


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["init|code=9"], NvmlAbsent, "Driver Not Loaded"),
        (["init|code=18"], DiscoveryError, "reboot the machine"),
        (["fail|call=nvmlDeviceGetCount_v2|code=999"], DiscoveryError, "nvmlDeviceGetCount"),
        (["# no gpu line"], NvmlAbsent, "NVML lists no GPU"),
    ],
)
def test_a_library_that_can_not_answer_is_an_error(scenario, lines, error, message):
    scenario(*lines)
    with pytest.raises(DiscoveryError, match=message) as caught:
        source().discover()
    assert type(caught.value) is error


def test_auto_prefers_real_gpus_and_never_falls_back_from_them(scenario):
    auto = AutoSource("box", source(), SimulatedSource(2, "box"), hardware=lambda: 0)
    scenario(*eight())
    assert len(auto.discover().devices) == 8
    scenario("init|code=9")
    with pytest.raises(DiscoveryError):
        auto.discover()


def test_auto_simulates_where_the_driver_is_not_loaded_and_simulation_is_asked_for(scenario):
    scenario("init|code=9")
    auto = AutoSource("box", source(), SimulatedSource(2, "box"), hardware=lambda: 0)
    assert [device.id for device, _ in auto.discover().devices] == [
        "SIMULATED-box-0",
        "SIMULATED-box-1",
    ]


def test_how_gpus_are_connected_is_part_of_what_is_reported(scenario):
    scenario(
        *(f"gpu|uuid=GPU-{k}|{A100}" for k in range(3)),
        "link|gpu=0|to=1|count=2|near=10",
        "link|gpu=1|to=2|count=0|near=20",
    )
    bonds = {device.id: dict(device.bonds) for device, _ in source().discover().devices}
    assert bonds == {
        "GPU-0": {"GPU-1": bond(2, "PIX"), "GPU-2": bond(0, "SYS")},
        "GPU-1": {"GPU-0": bond(2, "PIX"), "GPU-2": bond(0, "PXB")},
        "GPU-2": {"GPU-0": bond(0, "SYS"), "GPU-1": bond(0, "PXB")},
    }


def test_links_to_switches_connect_all_that_have_them(scenario):
    scenario(*eight(), *(f"link|gpu={k}|to=-1|count=12|near=40" for k in range(8)))
    devices = [device for device, _ in source().discover().devices]
    assert all(len(device.bonds) == 7 for device in devices)
    assert {worth for device in devices for _, worth in device.bonds} == {bond(12, "SYS")}


def test_a_driver_that_does_not_tell_how_gpus_are_connected_is_no_fault(scenario):
    scenario(
        *eight(),
        "link|gpu=0|to=1|count=2|near=10",
        "fail|call=nvmlDeviceGetTopologyCommonAncestor|gpu=-1|code=3",
        "fail|call=nvmlDeviceGetPciInfo_v3|gpu=-1|code=3",
    )
    report = source().discover()
    assert all(device.bonds == () for device, _ in report.devices)
    assert all(status.health is Health.OK for _, status in report.devices)


@pytest.mark.parametrize(
    ("field", "health", "words"),
    [
        ("ecc=3", Health.BAD, "3 uncorrectable memory error(s) since its last reset"),
        ("ecc=0", Health.OK, ""),
        ("ecc=-1", Health.OK, ""),
    ],
)
def test_uncorrectable_memory_errors_since_the_last_reset_are_a_fault(
    scenario, field, health, words
):
    scenario(f"gpu|uuid=GPU-0|{A100}|{field}")
    ((_, status),) = source().discover().devices
    assert status.health is health
    assert words in status.note and bool(status.note) is bool(words)
