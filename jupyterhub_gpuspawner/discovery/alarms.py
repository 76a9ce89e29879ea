"""What the driver reports of a GPU by itself, between two looks. Pure.

A measurement finds what still holds when it is made; an XID is said once. So an alarm counts for
a while, and then the measurements decide again, which know what a GPU needs (a reset, a reboot).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from ..scheduler.models import Device, DeviceStatus, Health
from .base import Report

#: XIDs that say that a program went wrong, not the GPU: what it computed in is cleaned up by the
#: driver (NVIDIA, "XID errors"; NVIDIA's Kubernetes plugin passes over the same ones)
OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """One GPU, or one that nobody could name, has reported something."""

    #: UUID of the GPU, of which MIG instances are parts; None = not known which
    gpu: str | None
    #: what, in words
    note: str


def read(line: str) -> Alarm | None:
    """The alarm in a line of :mod:`.nvml_events`; None = nothing that is the GPU's fault.

    Raises ``ValueError`` for a line that is none of its.
    """
    found = json.loads(line)
    if not isinstance(found, dict) or "kind" not in found:
        return None
    code = int(found["code"])
    if found["kind"] == "ecc":
        return Alarm(gpu=found["gpu"], note="its memory had a double-bit error")
    if code in OF_PROGRAMS:
        return None
    return Alarm(gpu=found["gpu"], note=f"the driver reports XID {code}")


class Alarms:
    """The alarms that count: for ``quiet`` seconds after the last one of a GPU.

    Not safe to use from several threads at once.
    """

    def __init__(self, quiet: float) -> None:
        self._quiet = quiet
        #: GPU -> (what, when last)
        self._rung: dict[str | None, tuple[str, float]] = {}

    def ring(self, alarm: Alarm, now: float) -> None:
        """Something has happened."""
        self._rung[alarm.gpu] = (alarm.note, now)

    def heed(self, report: Report, now: float) -> Report:
        """The report, with what alarms say added: all parts of a GPU share its fate."""
        fresh = {gpu: rung for gpu, rung in self._rung.items() if now - rung[1] < self._quiet}
        self._rung = fresh
        if not fresh:
            return report
        devices = tuple((device, self._judged(device, status)) for device, status in report.devices)
        return replace(report, devices=devices)

    def _judged(self, device: Device, status: DeviceStatus) -> DeviceStatus:
        if device.simulated:
            return status
        own = device.parent or device.id
        # whose an alarm without a name is, nobody knows: nothing is given out meanwhile
        rung = self._rung.get(own) or self._rung.get(None)
        if rung is None:
            return status
        note = "; ".join(dict.fromkeys(filter(None, (rung[0], status.note))))
        return replace(status, health=Health.BAD, note=note)
