"""What measurements of a GPU say about its health. Pure.

Codes are those of ``nvml.h``: ``nvmlReturn_t`` and ``nvmlDeviceGpuRecoveryAction_t``. What
they ask for is in NVIDIA's "GPU memory error management" (error recovery and response flags).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..scheduler.models import Health

NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIB_RM_VERSION_MISMATCH = 18
GPU_NOT_FOUND = 28

#: answers that say that the GPU itself doesn't work
_BROKEN = {
    GPU_IS_LOST: "the GPU has fallen off the bus; reboot the machine",
    RESET_REQUIRED: "the GPU needs a reset (nvidia-smi --gpu-reset)",
    GPU_NOT_FOUND: "the driver no longer finds the GPU; reboot the machine",
    NOT_FOUND: "the driver no longer finds the GPU; reboot the machine",
}

#: calls whose failure alone doesn't make a GPU doubtful. An older driver answers "invalid
#: argument" for the recovery action
_MINOR = frozenset(
    {"capability", "ecc errors", "name", "recovery action", "temperature", "utilisation"}
)

#: 0 is "none". Draining ones still compute, but take no new work
_RECOVERY = {
    1: (Health.BAD, "the driver asks for a GPU reset (nvidia-smi --gpu-reset)"),
    2: (Health.BAD, "the driver asks for a reboot of the machine"),
    3: (Health.SUSPECT, "the driver asks to drain peer-to-peer work"),
    4: (Health.SUSPECT, "the driver asks to drain the GPU and reset it"),
    5: (Health.SUSPECT, "the driver asks to recover the IMEX domain"),
    6: (Health.BAD, "the driver asks for a reset of the GPU's PCIe bus"),
    7: (Health.BAD, "the driver asks for a reboot of the system"),
}

_ORDER = (Health.OK, Health.SUSPECT, Health.BAD)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vitals:
    """What was measured of one GPU. None = the GPU or its driver doesn't offer it."""

    #: call -> NVML's return code, for calls that failed
    errors: Mapping[str, int] = field(default_factory=dict)
    #: GPU_RECOVERY_ACTION, from driver 555 on
    recovery: int | None = None
    #: a row waits to be remapped, at the next reset (Ampere and later)
    remap_pending: bool | None = None
    #: a row could not be remapped
    remap_failed: bool | None = None
    #: uncorrectable memory errors since the driver was loaded or the GPU was reset
    ecc_errors: int | None = None
    #: pages wait to be retired after an uncorrectable error, at the next reset (before Ampere)
    retire_pending: bool | None = None


def judge(vitals: Vitals) -> tuple[Health, str]:
    """The worst of what was measured, and all of it in words (``"; "`` between)."""
    findings = [
        _error(call, code)
        for call, code in sorted(vitals.errors.items())
        if call not in _MINOR or code in (GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND)
    ]
    if vitals.recovery:
        unknown = (Health.SUSPECT, f"the driver asks for recovery action {vitals.recovery}")
        findings.append(_RECOVERY.get(vitals.recovery, unknown))
    if vitals.ecc_errors:
        count = f"{vitals.ecc_errors} uncorrectable memory error(s)"
        findings.append((Health.BAD, f"{count} since its last reset (nvidia-smi --gpu-reset)"))
    if vitals.remap_failed:
        findings.append((Health.BAD, "a broken memory row can't be remapped; replace the GPU"))
    if vitals.remap_pending:
        findings.append((Health.SUSPECT, "a memory row is remapped at the next GPU reset"))
    if vitals.retire_pending:
        findings.append((Health.SUSPECT, "memory pages are retired at the next GPU reset"))
    worst = max((health for health, _ in findings), key=_ORDER.index, default=Health.OK)
    # several calls fail with the same code when a GPU is lost: say it once
    return worst, "; ".join(dict.fromkeys(note for _, note in findings))


def _error(call: str, code: int) -> tuple[Health, str]:
    if code in _BROKEN:
        return Health.BAD, _BROKEN[code]
    return Health.SUSPECT, f"its {call} can't be read (NVML error {code})"
