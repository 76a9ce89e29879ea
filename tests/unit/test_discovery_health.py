"""What measurements of a GPU say about its health."""

import pynvml
import pytest

from jupyterhub_gpuspawner.discovery import health
from jupyterhub_gpuspawner.discovery.health import Vitals, judge
from jupyterhub_gpuspawner.scheduler.models import Health


@pytest.mark.parametrize(
    ("vitals", "state", "words"),
    [
        (Vitals(), Health.OK, ""),
        (Vitals(recovery=0, remap_pending=False, remap_failed=False), Health.OK, ""),
        (Vitals(errors={"handle": 15}), Health.BAD, "fallen off the bus"),
        (Vitals(errors={"memory": 16}), Health.BAD, "needs a reset"),
        (Vitals(errors={"memory": 28}), Health.BAD, "no longer finds the GPU"),
        (Vitals(errors={"uuid": 6}), Health.BAD, "no longer finds the GPU"),
        (Vitals(errors={"memory": 999}), Health.SUSPECT, "its memory can't be read"),
        (Vitals(errors={"processes": 4}), Health.SUSPECT, "NVML error 4"),
        (Vitals(errors={"utilisation": 999}), Health.OK, ""),
        (Vitals(errors={"utilisation": 6}), Health.OK, ""),
        (Vitals(errors={"recovery action": 2}), Health.OK, ""),
        (Vitals(errors={"recovery action": 16}), Health.BAD, "needs a reset"),
        (Vitals(errors={"utilisation": 15}), Health.BAD, "fallen off the bus"),
        (Vitals(recovery=1), Health.BAD, "GPU reset"),
        (Vitals(recovery=2), Health.BAD, "reboot of the machine"),
        (Vitals(recovery=3), Health.SUSPECT, "peer-to-peer"),
        (Vitals(recovery=4), Health.SUSPECT, "drain the GPU and reset"),
        (Vitals(recovery=5), Health.SUSPECT, "IMEX"),
        (Vitals(recovery=6), Health.BAD, "PCIe bus"),
        (Vitals(recovery=7), Health.BAD, "reboot of the system"),
        (Vitals(recovery=99), Health.SUSPECT, "recovery action 99"),
        (Vitals(remap_failed=True), Health.BAD, "replace the GPU"),
        (Vitals(remap_pending=True), Health.SUSPECT, "row is remapped at the next GPU reset"),
        (Vitals(ecc_errors=0), Health.OK, ""),
        (Vitals(ecc_errors=2), Health.BAD, "2 uncorrectable memory error"),
        (Vitals(retire_pending=True), Health.SUSPECT, "pages are retired at the next GPU reset"),
        (Vitals(recovery=1, remap_pending=True), Health.BAD, "remapped"),
    ],
)
def test_the_worst_finding_decides_and_every_finding_is_named(vitals, state, words):
    found, note = judge(vitals)
    assert found is state
    assert words in note
    assert bool(note) is bool(words)


def test_a_cause_that_many_calls_report_is_said_once():
    _, note = judge(Vitals(errors={"handle": 15, "memory": 15, "uuid": 15}))
    assert note.count("fallen off the bus") == 1


def test_the_codes_are_those_of_the_binding():
    for name in (
        "NOT_FOUND",
        "DRIVER_NOT_LOADED",
        "LIBRARY_NOT_FOUND",
        "GPU_IS_LOST",
        "RESET_REQUIRED",
        "LIB_RM_VERSION_MISMATCH",
        "GPU_NOT_FOUND",
    ):
        assert getattr(health, name) == getattr(pynvml, f"NVML_ERROR_{name}")
