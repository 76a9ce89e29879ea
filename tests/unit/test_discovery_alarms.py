"""What the driver reports of a GPU by itself, and for how long it counts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from jupyterhub_gpuspawner.discovery.alarms import Alarm, Alarms, read
from jupyterhub_gpuspawner.discovery.base import Report
from jupyterhub_gpuspawner.scheduler.models import Device, DeviceStatus, Health, Mode, Node

QUIET = 60.0
OK = DeviceStatus()
BAD_ALREADY = DeviceStatus(health=Health.BAD, note="the driver asks for a GPU reset")
REPORT = Report(
    node=Node(name="n1"),
    devices=(
        (Device(id="GPU-0", node="n1"), OK),
        (Device(id="MIG-a", node="n1", mode=Mode.MIG, parent="GPU-1"), OK),
        (Device(id="MIG-b", node="n1", mode=Mode.MIG, parent="GPU-1"), OK),
        (Device(id="GPU-2", node="n1", mode=Mode.SLOTS, atoms=4), BAD_ALREADY),
        (Device(id="SIMULATED-0", node="n1", simulated=True), OK),
    ),
)


def bad(alarms, now):
    found = alarms.heed(REPORT, now).devices
    return {device.id: status.note for device, status in found if status.health is Health.BAD}


def line(**words):
    return json.dumps(words)


@pytest.mark.parametrize(
    ("text", "alarm"),
    [
        (
            line(gpu="GPU-0", kind="xid", code=79),
            Alarm(gpu="GPU-0", note="the driver reports XID 79"),
        ),
        (line(gpu=None, kind="xid", code=119), Alarm(gpu=None, note="the driver reports XID 119")),
        (
            line(gpu="GPU-0", kind="ecc", code=13),
            Alarm(gpu="GPU-0", note="its memory had a double-bit error"),
        ),
        # a program's own fault
        (line(gpu="GPU-0", kind="xid", code=13), None),
        (line(gpu="GPU-0", kind="xid", code=31), None),
        (line(listening=["GPU-0"]), None),
        (line(error=15), None),
    ],
)
def test_a_line_is_an_alarm_where_the_gpu_is_at_fault(text, alarm):
    assert read(text) == alarm


def test_an_alarm_is_of_its_gpu_alone():
    alarms = Alarms(QUIET)
    alarms.ring(Alarm(gpu="GPU-0", note="XID 79"), 100.0)
    assert bad(alarms, 100.0) == {"GPU-0": "XID 79", "GPU-2": BAD_ALREADY.note}


def test_all_parts_of_a_gpu_share_its_alarm_and_keep_what_was_measured():
    alarms = Alarms(QUIET)
    alarms.ring(Alarm(gpu="GPU-1", note="XID 95"), 100.0)
    alarms.ring(Alarm(gpu="GPU-2", note="XID 48"), 100.0)
    assert bad(alarms, 100.0) == {
        "MIG-a": "XID 95",
        "MIG-b": "XID 95",
        "GPU-2": f"XID 48; {BAD_ALREADY.note}",
    }


def test_an_alarm_of_nobody_knows_whose_is_of_all_real_gpus():
    alarms = Alarms(QUIET)
    alarms.ring(Alarm(gpu=None, note="XID 79"), 100.0)
    assert set(bad(alarms, 100.0)) == {"GPU-0", "MIG-a", "MIG-b", "GPU-2"}


def test_after_a_quiet_time_the_measurements_decide_again():
    alarms = Alarms(QUIET)
    alarms.ring(Alarm(gpu="GPU-0", note="XID 62"), 100.0)
    alarms.ring(Alarm(gpu="GPU-0", note="XID 63"), 150.0)
    assert "GPU-0" in bad(alarms, 149.0 + QUIET)
    assert "GPU-0" not in bad(alarms, 150.0 + QUIET)
    # and what was measured is untouched
    assert alarms.heed(REPORT, 151.0 + QUIET) == replace(REPORT)
