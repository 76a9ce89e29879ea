"""What a server's Swarm service is created with. Pure: lease and limits -> the Engine API's JSON.

The service is a *job* of Swarm's with no task at first (two-phase start). A job, because Swarm
tells the tasks of any other service to end when their node was out of reach for some seconds: the
server would die when the node is back. Each leased GPU is a reservation of its own kind of
generic resource, so that Swarm's store itself refuses a second task for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..device_names import TOOLKIT_MOUNTS, marker_path
from ..errors import ConfigError
from ..scheduler.filters import nano_cpus
from ..scheduler.models import Device
from ..swarm_nodes import variable_of
from .limits import ResourceLimits
from .tasks import constraint

#: tasks that a service has before its lease is bound, and after its start
NO_TASK = {"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 0}}
ONE_TASK = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}
_NANOSECONDS = 1_000_000_000
#: mode of ``/dev/shm``: everybody writes, and removes only their own files
_SHM_MODE = 0o1777


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a lease is, as Swarm calls it."""

    #: the node's id in the Swarm
    node_id: str
    #: device id -> the kind of generic resource that stands for it alone
    kinds: Mapping[str, str] = field(default_factory=dict)
    #: the kinds of the node's other GPUs
    others: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceSpec:
    """What to create."""

    name: str
    #: :func:`~.labels.server_labels`
    labels: Mapping[str, str]
    #: ``TaskTemplate`` of the Engine API
    task: Mapping[str, Any]


def task_template(
    container: Mapping[str, Any],
    *,
    place: Place,
    devices: Sequence[Device],
    limits: ResourceLimits,
    networks: Sequence[str],
) -> dict[str, Any]:
    """The ``TaskTemplate`` of a server.

    Parameters
    ----------
    container:
        ``ContainerSpec`` of the Engine API: what is not said here.
    place, devices:
        The lease.
    limits:
        What the kernel enforces. As much is reserved, so that Swarm never promises it twice.
    networks:
        Names of overlay networks.
    """
    return {
        "ContainerSpec": dict(container),
        "Resources": _resources(limits, [place.kinds[device.id] for device in devices]),
        # A server that ended is over: started again it might have somebody else's GPU.
        "RestartPolicy": {"Condition": "none"},
        "Placement": {"Constraints": [constraint(place.node_id)]},
        "Networks": [{"Target": network} for network in networks],
    }


def isolation() -> dict[str, Any]:
    """Fields of ``ContainerSpec`` that every server gets by default; see :mod:`.limits`."""
    return {"CapabilityDrop": ["ALL"], "Privileges": {"NoNewPrivileges": True}}


def container_spec(
    image: str,
    *,
    command: Sequence[str],
    env: Mapping[str, str],
    mounts: Sequence[Any],
    grace: float,
) -> dict[str, Any]:
    """``ContainerSpec`` of a server. An empty command is the image's own."""
    spec: dict[str, Any] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in sorted(env.items())],
        "Mounts": list(mounts),
        "Init": True,
        "StopGracePeriod": round(grace * _NANOSECONDS),
        # Swarm kills a task whose image finds itself unhealthy: a busy server would be one.
        "Healthcheck": {"Test": ["NONE"]},
    }
    if command:
        spec["Command"] = list(command)
    return spec


def variables(place: Place) -> dict[str, str]:
    """An empty variable for each GPU of the node that is not leased: the image's own counts else.

    NVIDIA's toolkit, set up for ``swarm-resource``, takes GPUs from them. Swarm writes those of
    leased GPUs.
    """
    leased = {variable_of(kind) for kind in place.kinds.values()}
    return dict.fromkeys(sorted({variable_of(kind) for kind in place.others} - leased), "")


def ulimits(limits: ResourceLimits) -> dict[str, Any]:
    """Fields of ``ContainerSpec`` for the limits that are not resources of Swarm's."""
    if not limits.ulimits:
        return {}
    return {"Ulimits": [{"Name": n, "Soft": s, "Hard": h} for n, s, h in limits.ulimits]}


def shm(limits: ResourceLimits) -> dict[str, Any]:
    """The mount that is ``/dev/shm``: a service has no other way to size it."""
    options = {"SizeBytes": limits.shm_bytes, "Mode": _SHM_MODE}
    return {"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": options}


def device_mounts(devices: Sequence[Device]) -> list[dict[str, Any]]:
    """Mounts that name the leased devices inside the container.

    The marker of a simulated one; for a real one the file that NVIDIA's toolkit reads where it
    takes devices from mounts.
    """
    return [
        {
            "Type": "bind",
            "Source": "/dev/null",
            "Target": marker_path(d.id) if d.simulated else f"{TOOLKIT_MOUNTS}/{d.id}",
            "ReadOnly": True,
        }
        for d in devices
    ]


def volume(
    name: str,
    target: str,
    *,
    labels: Mapping[str, str] | None = None,
    driver: str = "",
    options: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A named volume; the node that runs the server makes it where it is not there."""
    how: dict[str, Any] = {"Labels": dict(labels or {})}
    if driver or options:
        how["DriverConfig"] = {"Name": driver or "local", "Options": dict(options or {})}
    return {"Type": "volume", "Source": name, "Target": target, "VolumeOptions": how}


def node_bound(mounts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the volumes among ``mounts`` that exist on one node only, sorted."""
    found = set()
    for mount in mounts:
        how = (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}
        local = how.get("Name") in (None, "", "local") and not how.get("Options")
        if mount.get("Type") == "volume" and mount.get("Source") and local:
            found.add(str(mount["Source"]))
    return tuple(sorted(found))


def bind_or_volume(source: str, target: str, mode: str) -> dict[str, Any]:
    """A mount from DockerSpawner's ``volumes``: a path is bound, a name is a volume."""
    if not source.startswith("/"):
        mount = volume(source, target)
    else:
        mount = {"Type": "bind", "Source": source, "Target": target}
    if not {"rw", "ro"} & set(mode.split(",")):
        raise ConfigError(f"volume {source}: mode {mode!r}; allowed on a Swarm: rw, ro")
    return {**mount, "ReadOnly": "ro" in mode.split(",")}


def _resources(limits: ResourceLimits, kinds: Sequence[str]) -> dict[str, Any]:
    bounds: dict[str, int] = {}
    if limits.mem_limit is not None:
        bounds["MemoryBytes"] = limits.mem_limit
    if limits.cpu_limit is not None:
        bounds["NanoCPUs"] = nano_cpus(limits.cpu_limit)
    most: dict[str, Any] = dict(bounds)
    if limits.pids_limit is not None:
        most["Pids"] = limits.pids_limit
    reserved: dict[str, Any] = dict(bounds)
    if kinds:
        # A whole number: a named value is accepted by the API and never placed.
        reserved["GenericResources"] = [
            {"DiscreteResourceSpec": {"Kind": kind, "Value": 1}} for kind in kinds
        ]
    return {"Limits": most, "Reservations": reserved}


__all__ = [
    "NO_TASK",
    "ONE_TASK",
    "Place",
    "ServiceSpec",
    "bind_or_volume",
    "container_spec",
    "device_mounts",
    "isolation",
    "node_bound",
    "shm",
    "task_template",
    "ulimits",
    "variables",
    "volume",
]
