"""The NVML source without a library: attribution, abandoned probes, broken output."""

import json
import subprocess

import pytest

from jupyterhub_gpuspawner.discovery.base import Usage
from jupyterhub_gpuspawner.discovery.nvml import NvmlAbsent, NvmlSource
from jupyterhub_gpuspawner.discovery.nvml_report import make_report
from jupyterhub_gpuspawner.errors import DiscoveryError, EngineUnknown
from jupyterhub_gpuspawner.scheduler.models import Device, Health, Node

OURS = "a1" * 32
FOREIGN = "b2" * 32
NODE = Node(name="box")


def gpu(uuid="GPU-0", index=0, **changes):
    entry = {
        "index": index,
        "uuid": uuid,
        "name": "NVIDIA A100",
        "capability": [8, 0],
        "memory": {"total": 80, "used": 0},
        "utilisation": 0,
        "processes": [],
        "errors": {},
        "mig_enabled": False,
        "mig_pending": False,
        "mig": [],
        "recovery": 0,
        "remap_pending": False,
        "remap_failed": False,
        "retire_pending": None,
    }
    return {**entry, **changes}


def document(*gpus, host_pids=True):
    return {"driver": "570", "host_pids": host_pids, "gpus": list(gpus)}


def process(cgroup, pid=7):
    return {"pid": pid, "memory": 5, "cgroup": cgroup}


class ProbeThatPrints:
    """A child that ends with ``status`` after printing ``out``."""

    pid = 4711
    stdout = stderr = None

    def __init__(self, out, err="", status=0):
        self._out, self._err, self.returncode = out, err, status

    def communicate(self, input=None, timeout=None):
        return self._out, self._err

    def poll(self):
        return self.returncode


class ProbeInTheDriver:
    """A child in uninterruptible sleep: a kill has no effect until ``awake()``."""

    pid = 4712
    stdout = stderr = None

    def __init__(self):
        self.returncode = None
        self.killed = False

    def communicate(self, input=None, timeout=None):
        assert timeout is not None, "a probe without a time limit hangs the service"
        raise subprocess.TimeoutExpired("probe", timeout)

    def kill(self):
        self.killed = True

    def wait(self, timeout=None):
        raise subprocess.TimeoutExpired("probe", timeout)

    def poll(self):
        return self.returncode

    def awake(self):
        self.returncode = -9


class Probes:
    """Starts the given children in order and counts them."""

    def __init__(self, *children):
        self._children = list(children)
        self.started = 0

    def __call__(self):
        self.started += 1
        return self._children.pop(0)


def nvml(start, containers=lambda: ()):
    return NvmlSource("box", containers, facts=lambda name: Node(name=name), start=start)


def printed(*gpus, **options):
    return ProbeThatPrints(json.dumps(document(*gpus, **options)))


@pytest.mark.parametrize(
    ("cgroup", "host_pids", "foreign", "container"),
    [
        (f"0::/system.slice/docker-{OURS}.scope\n", True, False, OURS),
        (f"4:memory:/docker/{OURS}\n", True, False, OURS),
        (f"0::/docker/{OURS}/docker/{FOREIGN}\n", True, False, FOREIGN),
        (f"0::/docker/{FOREIGN}\n", True, True, FOREIGN),
        ("0::/user.slice\n", True, True, None),
        (None, True, True, None),
        (f"0::/docker/{OURS}\n", False, True, None),
    ],
)
def test_a_process_is_foreign_unless_it_surely_runs_in_a_container_of_ours(
    cgroup, host_pids, foreign, container
):
    report = make_report(
        document(gpu(processes=[process(cgroup)]), host_pids=host_pids), NODE, {OURS}
    )
    ((_, status),) = report.devices
    (found,) = report.usage["GPU-0"].processes
    assert (status.foreign, found.foreign, found.container) == (foreign, foreign, container)
    assert ("foreign process" in status.note) is foreign


def test_a_probe_in_another_pid_namespace_says_what_to_do():
    report = make_report(document(gpu(), host_pids=False), NODE, ())
    assert "--pid=host" in report.notes[0]


def test_a_gpu_that_does_not_tell_its_memory_is_suspect():
    report = make_report(document(gpu(memory=None)), NODE, ())
    assert report.devices[0][1].health is Health.SUSPECT
    assert report.usage["GPU-0"].empty() is None


def test_a_mig_instance_removed_on_purpose_is_not_reported_while_another_gpu_is_lost():
    part = {"uuid": "MIG-a", "name": "m", "memory": {"total": 4, "used": 0}}
    part |= {"processes": [], "errors": {}, "index": 0}
    lost = {"index": 1, "uuid": None, "errors": {"handle": 15}, "mig": []}
    remembered = (
        Device(id="MIG-a", node="box", parent="GPU-0"),
        Device(id="MIG-b", node="box", parent="GPU-0"),
        Device(id="MIG-c", node="box", index=1, parent="GPU-1"),
        Device(id="GPU-2", node="box", index=2),
    )
    report = make_report(document(gpu(mig_enabled=True, mig=[part]), lost), NODE, (), remembered)
    assert [(device.id, status.health) for device, status in report.devices] == [
        ("MIG-a", Health.OK),
        ("MIG-c", Health.BAD),
        ("GPU-2", Health.BAD),
    ]


def test_a_pending_change_of_the_mig_mode_is_noted():
    report = make_report(document(gpu(mig_pending=True)), NODE, ())
    assert report.notes == ("GPU 0 changes its MIG mode at the next GPU reset",)


def test_a_container_that_starts_or_ends_during_the_probe_is_ours():
    for before, after in ([(), (OURS,)], [(OURS,), ()]):
        answers = [before, after]
        child = printed(gpu(processes=[process(f"0::/docker/{OURS}")]))
        report = nvml(Probes(child), lambda answers=answers: answers.pop(0)).discover()
        assert not report.devices[0][1].foreign


def test_containers_that_can_not_be_listed_are_an_error():
    def unknown():
        raise EngineUnknown("no answer from Docker")

    with pytest.raises(DiscoveryError, match="our containers can't be listed: no answer"):
        nvml(Probes(printed(gpu())), unknown).discover()


def test_a_probe_that_can_not_be_killed_is_left_behind_and_no_other_is_started():
    hung = ProbeInTheDriver()
    probes = Probes(hung, printed(gpu()))
    source = nvml(probes)
    for _ in range(3):
        with pytest.raises(DiscoveryError, match=r"PID 4712\) hangs in the driver"):
            source.discover()
    assert hung.killed
    assert probes.started == 1
    hung.awake()
    assert len(source.discover().devices) == 1
    assert probes.started == 2


@pytest.mark.parametrize(
    ("child", "message"),
    [
        (ProbeThatPrints("", "Traceback\nOops", 1), "ended with status 1: Traceback\nOops"),
        (ProbeThatPrints("", "", -9), "ended with status -9: nothing on standard error"),
        (ProbeThatPrints("{"), "printed no JSON"),
    ],
)
def test_a_probe_that_fails_is_an_error(child, message):
    with pytest.raises(DiscoveryError, match=message):
        nvml(Probes(child)).discover()


def test_a_probe_that_can_not_be_started_is_an_error():
    def no_memory():
        raise OSError(12, "Cannot allocate memory")

    with pytest.raises(DiscoveryError, match="can't be started"):
        nvml(no_memory).discover()


def test_a_machine_without_gpu_is_absent_not_broken():
    with pytest.raises(NvmlAbsent, match="lists no GPU"):
        nvml(Probes(printed())).discover()


@pytest.mark.parametrize(
    ("usage", "empty"),
    [
        (Usage(memory_used=0), True),
        (Usage(memory_used=128 * 1024**2), True),
        (Usage(memory_used=128 * 1024**2 + 1), False),
        (Usage(memory_used=None), None),
        (Usage(memory_used=0, processes=None), None),
    ],
)
def test_what_is_not_known_is_not_called_empty(usage, empty):
    assert usage.empty() is empty
