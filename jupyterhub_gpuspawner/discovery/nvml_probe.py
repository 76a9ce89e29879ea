"""Ask NVML once, print what it says as one JSON document, and end.

Runs as a child process (``python -m jupyterhub_gpuspawner.discovery.nvml_probe``), because a
driver call may never return and a crash in the library would take the caller with it. It only
reads; :mod:`.nvml_report` draws the conclusions. Imports little, so that it starts fast.

Document: ``{"error": {"call", "code", "text"}}``, or ``{"driver": text, "host_pids": bool,
"gpus": [GPU…]}``. GPU and its ``mig`` entries::

    {"index": 0, "uuid": text|null, "name", "capability": [8, 0]|null,
     "memory": {"total", "used"}|null, "utilisation": percent|null, "temperature": degrees|null,
     "processes": [{"pid", "memory", "cgroup": text|null}]|null,
     "errors": {call: code}, "mig_enabled": bool, "mig_pending": bool, "mig": [GPU…],
     "recovery", "ecc_errors", "remap_pending", "remap_failed", "retire_pending": …|null,
     "peers": [[index of another GPU, topology level or -1, NVLinks]]}
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml

from . import nvml_links

#: "this GPU, or this driver, has no such thing": no error, the answer is None
_ABSENT = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
#: inode of the machine's own PID namespace, fixed in the kernel (PROC_PID_INIT_INO)
_HOST_PID_NAMESPACE = 0xEFFFFFFC
#: the machine's ``/proc``, where it is mounted elsewhere: a Swarm service can't share its PIDs
_PROC = os.environ.get("GPUS_HOST_PROC") or "/proc"
#: what the driver answers for a quantity that it doesn't know
_UNKNOWN = 2**64 - 1
#: how often the processes of a device are read until all of them are in ``/proc``
_LOOKS = 3


class Asker:
    """Calls NVML for one device and keeps the codes of the calls that failed."""

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}

    def ask(self, what: str, *calls: Callable[[], Any]) -> Any:
        """The first answer of ``calls``, which are newest first; None where none has one."""
        for call in calls:
            try:
                return call()
            except pynvml.NVMLError as error:
                # an old driver knows neither the new function nor the new struct
                if error.value not in (*_ABSENT, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
                    self.errors[what] = error.value
                    return None
        return None


def probe() -> dict[str, Any]:
    """The whole document."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _failure("nvmlInit", error)
    try:
        count = pynvml.nvmlDeviceGetCount()
        peers = nvml_links.peers(count)
        return {
            "driver": Asker().ask("driver", pynvml.nvmlSystemGetDriverVersion),
            "host_pids": _PROC != "/proc"
            or Path("/proc/self/ns/pid").stat().st_ino == _HOST_PID_NAMESPACE,
            "gpus": [{**_gpu(index), "peers": peers.get(index, [])} for index in range(count)],
        }
    except pynvml.NVMLError as error:
        return _failure("nvmlDeviceGetCount", error)
    finally:
        # everything is known by now
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _failure(call: str, error: pynvml.NVMLError) -> dict[str, Any]:
    return {"error": {"call": call, "code": error.value, "text": str(error)}}


def _gpu(index: int) -> dict[str, Any]:
    asker = Asker()
    handle = asker.ask("handle", lambda: pynvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return {"index": index, "uuid": None, "errors": asker.errors, "mig": []}
    # null where the GPU can't do MIG at all
    mode = asker.ask("mig mode", lambda: pynvml.nvmlDeviceGetMigMode(handle)) or (0, 0)
    remapped = asker.ask("remapped rows", lambda: pynvml.nvmlDeviceGetRemappedRows(handle))
    # a GPU in MIG mode is never given out, and asking it for sums needs privileges
    whole = _identity(asker, handle) if mode[0] else _device(asker, handle)
    return {
        "index": index,
        **whole,
        "utilisation": None if mode[0] else _utilisation(asker, handle),
        # of the chip, in degrees Celsius
        "temperature": asker.ask("temperature", lambda: pynvml.nvmlDeviceGetTemperature(handle, 0)),
        "capability": asker.ask(
            "capability", lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        ),
        "recovery": asker.ask("recovery action", lambda: _recovery(handle)),
        # null where the GPU has no ECC, or it is switched off
        "ecc_errors": asker.ask("ecc errors", lambda: _ecc_errors(handle)),
        "remap_pending": bool(remapped[2]) if remapped else None,
        "remap_failed": bool(remapped[3]) if remapped else None,
        "retire_pending": asker.ask(
            "retired pages", lambda: bool(pynvml.nvmlDeviceGetRetiredPagesPendingStatus(handle))
        ),
        "mig_enabled": bool(mode[0]),
        "mig_pending": mode[0] != mode[1],
        "mig": _mig(asker, handle, index) if mode[0] else [],
    }


def _mig(asker: Asker, gpu: Any, index: int) -> list[dict[str, Any]]:
    """The MIG instances of ``gpu``. Places without an instance answer "not found"."""
    found = []
    places = asker.ask("mig count", lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)) or 0
    for place in range(places):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NOT_FOUND:
                asker.errors["mig handle"] = error.value
            continue
        own = Asker()
        found.append({"index": index, **_device(own, handle)})
    return found


def _device(asker: Asker, handle: Any) -> dict[str, Any]:
    """What is asked of everything that can be given out."""
    memory = asker.ask(
        "memory",
        # the second version tells what the driver reserves from what programs use
        lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2),
        lambda: pynvml.nvmlDeviceGetMemoryInfo(handle),
    )
    return {
        **_identity(asker, handle),
        "memory": {"total": memory.total, "used": memory.used} if memory else None,
        "processes": _processes(asker, handle),
    }


def _identity(asker: Asker, handle: Any) -> dict[str, Any]:
    return {
        "uuid": asker.ask("uuid", lambda: pynvml.nvmlDeviceGetUUID(handle)),
        "name": asker.ask("name", lambda: pynvml.nvmlDeviceGetName(handle)) or "",
        "errors": asker.errors,
    }


def _processes(asker: Asker, handle: Any) -> list[dict[str, Any]] | None:
    """Its compute processes. Looks again where one ends between NVML's answer and ``/proc``."""
    found: list[dict[str, Any]] = []
    for _ in range(_LOOKS):
        entries = asker.ask(
            "processes",
            lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle),
            lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle),
        )
        if entries is None:
            return None
        found = [_process(entry) for entry in entries]
        if all(process["cgroup"] is not None for process in found):
            break
    return found


def _utilisation(asker: Asker, handle: Any) -> int | None:
    rates = asker.ask("utilisation", lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    return None if rates is None else int(rates.gpu)


def _ecc_errors(handle: Any) -> int:
    kind = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    return int(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, pynvml.NVML_VOLATILE_ECC))


def _recovery(handle: Any) -> int:
    # older releases of the binding don't know the field
    number = getattr(pynvml, "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", None)
    if number is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    field = pynvml.nvmlDeviceGetFieldValues(handle, [number])[0]
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    return int(field.value.uiVal)


def _process(entry: Any) -> dict[str, Any]:
    memory = entry.usedGpuMemory
    return {
        "pid": entry.pid,
        "memory": None if memory in (None, _UNKNOWN) else memory,
        # read at once: the process may be gone when the parent reads this document
        "cgroup": _cgroup(entry.pid),
    }


def _cgroup(pid: int) -> str | None:
    try:
        return Path(f"{_PROC}/{pid}/cgroup").read_text()
    except (OSError, UnicodeDecodeError):
        return None


def main() -> int:
    """Print the document. Standard output carries nothing else."""
    # NVML and its plugins may print; what they say goes to standard error
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        json.dump(probe(), out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
