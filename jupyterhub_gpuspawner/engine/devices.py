"""How leased devices get into a container: by id only, never by number or count.

``count: n`` in a device request means "devices 0 to n-1" whoever holds them, and an index
moves when a GPU falls off the bus. So each way of injection names the NVIDIA UUID. Pure
functions: lease -> keywords of docker's ``create_host_config``, environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from docker.types import DeviceRequest

from ..device_names import marker_path, qualified
from ..errors import DeviceMissing
from ..protected import is_protected
from ..scheduler.models import Device, Injection, Mode

__all__ = [
    "Injection",
    "environment",
    "host_config",
    "merge_binds",
    "strip_protected",
]

#: the driver parts a notebook needs: CUDA and nvidia-smi. Display and graphics stay out.
CAPABILITIES = (("gpu", "utility", "compute"),)

#: where a container finds the MPS daemon's pipes
MPS_PIPE = "/run/gpus/mps"

# A real id must say that it is a UUID: "0", "all" or "1:0" are words the hook understands too.
_REAL_ID = re.compile(r"(GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*\Z")
_SIMULATED_ID = re.compile(r"SIMULATED-[0-9A-Za-z][0-9A-Za-z._-]*\Z")

_Value = TypeVar("_Value")


def host_config(devices: Sequence[Device], injection: Injection) -> dict[str, Any]:
    """Return the keywords of ``create_host_config`` that inject ``devices``.

    Returns
    -------
    dict
        ``device_requests``: list of :class:`docker.types.DeviceRequest`;
        ``binds``: list of ``source:target:mode``. Both are empty without devices.

    Raises
    ------
    DeviceMissing
        The devices can't be injected this way, or an id is not a UUID.
    """
    ids = _checked(devices, injection)
    requests: list[DeviceRequest] = []
    binds: list[str] = []
    if ids and injection is Injection.CDI:
        names = [qualified(device) for device in ids]
        requests.append(DeviceRequest(driver="cdi", device_ids=names))
    elif ids and injection is Injection.NVIDIA:
        capabilities = [list(group) for group in CAPABILITIES]
        requests.append(
            DeviceRequest(driver="nvidia", device_ids=list(ids), capabilities=capabilities)
        )
    elif ids:
        binds.extend(f"/dev/null:{marker_path(device)}:ro" for device in ids)
    return {"device_requests": requests, "binds": [*binds, *_mps_binds(devices)]}


def environment(devices: Sequence[Device], injection: Injection) -> dict[str, str]:
    """Return the variables that must win over the image's, the profile's and the user's.

    ``NVIDIA_VISIBLE_DEVICES`` is ``void`` unless the nvidia hook itself injects: CUDA images
    bake in ``all``, and where nvidia is the default runtime that alone would inject every GPU.
    (``none`` was buggy before toolkit 1.18.2.)

    With a GPU also ``CUDA_DEVICE_ORDER=PCI_BUS_ID``: CUDA otherwise counts the fastest GPU
    first, and ``cuda:0`` would be another one than line 0 of ``nvidia-smi``.
    ``CUDA_VISIBLE_DEVICES`` stays unset: several libraries read only numbers from it.
    """
    ids = _checked(devices, injection)
    variables = {"NVIDIA_VISIBLE_DEVICES": "void"}
    if ids and injection is Injection.NVIDIA:
        variables["NVIDIA_VISIBLE_DEVICES"] = ",".join(ids)
    if ids:
        variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if any(device.mps for device in devices):
        variables["CUDA_MPS_PIPE_DIRECTORY"] = MPS_PIPE
    # numbers are those of CUDA in the container, in the order of PCI_BUS_ID as the indexes are
    ordered = sorted(devices, key=lambda device: device.index)
    caps = [f"{number}={device.cap >> 20}M" for number, device in enumerate(ordered) if device.cap]
    if caps:
        variables["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = ",".join(caps)
    return variables


def _mps_binds(devices: Sequence[Device]) -> list[str]:
    """What a client of MPS shares with its daemon: the pipes, and shared memory."""
    folders = sorted({device.mps for device in devices if device.mps})
    if len(folders) > 1:
        first = next(device for device in devices if device.mps == folders[1])
        raise _missing(first, f"another MPS daemon ({folders[0]}) serves the other GPU")
    return [
        bind
        for folder in folders
        for bind in (f"{folder}/pipe:{MPS_PIPE}:rw", f"{folder}/shm:/dev/shm:rw")
    ]


def strip_protected(env: Mapping[str, _Value]) -> tuple[dict[str, _Value], tuple[str, ...]]:
    """Split off protected variables: (what may stay, sorted names that may not)."""
    allowed = {name: value for name, value in env.items() if not is_protected(name)}
    return allowed, tuple(sorted(name for name in env if name not in allowed))


def merge_binds(
    existing: Mapping[str, Mapping[str, str] | str] | Iterable[str] | None, extra: Iterable[str]
) -> list[str]:
    """Join DockerSpawner's volume binds with ours, as the list form of ``binds``.

    Parameters
    ----------
    existing:
        ``{source: {"bind": target, "mode": "rw"}}``, ``{source: target}``, or a list. The
        mapping can't hold ``/dev/null`` twice, so two simulated devices need the list.
    extra:
        entries ``source:target:mode``.
    """
    binds: list[str] = []
    if isinstance(existing, Mapping):
        for source, value in existing.items():
            if isinstance(value, str):
                binds.append(f"{source}:{value}:rw")
            else:
                binds.append(f"{source}:{value['bind']}:{value.get('mode', 'rw')}")
    elif existing is not None:
        binds.extend(existing)
    return [*binds, *extra]


def _checked(devices: Sequence[Device], injection: Injection) -> tuple[str, ...]:
    """Return the ids, each once; DeviceMissing for one that can't be injected like that."""
    ids: dict[str, None] = {}
    for device in devices:
        pattern = _SIMULATED_ID if device.simulated else _REAL_ID
        if not pattern.match(device.id):
            raise _missing(device, "its id is not a UUID (GPU-…, MIG-…) or SIMULATED-…")
        if injection is Injection.BIND and not device.simulated:
            raise _missing(device, "a bind mount shows simulated devices only; use cdi or nvidia")
        if injection is Injection.NVIDIA and device.simulated:
            raise _missing(device, "the nvidia driver does not know simulated devices; use bind")
        ids[device.id] = None
    _refuse_parents(devices)
    return tuple(ids)


def _refuse_parents(devices: Sequence[Device]) -> None:
    """A container that holds a MIG instance and its GPU would see all of the GPU."""
    parents = {device.parent for device in devices if device.mode is Mode.MIG}
    for device in devices:
        if device.id in parents:
            raise _missing(device, "the same container gets a MIG instance of it")


def _missing(device: Device, why: str) -> DeviceMissing:
    return DeviceMissing(
        f"device {device.id!r} on node {device.node!r} can't be injected: {why}",
        "A GPU of your server can't be connected. Please tell your administrator.",
    )
