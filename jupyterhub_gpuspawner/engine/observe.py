"""What the engine says about our containers, and nothing that it does not say.

An :class:`Observation` is what was seen. *Absence* is proven only by the engine's own "no such
container" for an id (:func:`observe` returns None); a container that a list does not have may
still be there, and an error proves nothing at all. Functions with a client block: run them in
the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast

import docker
import docker.errors

from ..device_names import CDI_KIND, MARKER_DIR
from ..errors import EngineUnknown
from . import labels
from .faults import explain, says_gone
from .labels import Identity, Kind

#: stands for devices that a container got without our naming them (``count``, ``all``)
UNNAMED = "*"

_LIVE = frozenset({"running", "paused", "restarting"})
#: of Swarm's tasks: about to run, and nobody knows
_PERHAPS = frozenset({"starting", "unknown"})
_NOTHING = frozenset({"", "void", "none"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One container, as the engine described it."""

    container_id: str
    #: without the leading slash
    name: str
    labels: Mapping[str, str]
    #: created, running, paused, restarting, removing, exited or dead; on Swarm also starting
    #: and unknown
    state: str
    #: what the main process returned; None while it runs or when it never ran
    exit_code: int | None
    #: the kernel killed a process of it for memory
    oom: bool
    #: its process was started once, so it may have used its devices
    started: bool
    #: POSIX seconds; 0.0 = not told
    created_at: float
    #: from the label: what the lease gave it
    device_ids: tuple[str, ...]
    #: from the engine's configuration of it: what it really gets, sorted
    injected: tuple[str, ...]
    #: on Swarm: name of its node; empty = the engine's own, or not known
    node: str = ""
    #: False: its node does not answer, and this is what was heard of it last
    certain: bool = True

    @property
    def live(self) -> bool:
        """Whether a process of it may use its devices now."""
        return self.state in _LIVE or self.state in _PERHAPS

    @property
    def identity(self) -> Identity | None:
        """Who it was made for; None = not a server of any ledger."""
        return labels.parse(self.labels)


def observe(client: docker.DockerClient, container_id: str) -> Observation | None:
    """Look at one container. None only if the engine says that no such container exists.

    Raises
    ------
    docker.errors.DockerException, requests.RequestException, EngineUnknown
        Everything else; it proves nothing.
    """
    try:
        info = client.api.inspect_container(container_id)
    except docker.errors.NotFound as error:
        if says_gone(error):
            return None
        raise EngineUnknown(f"container {container_id}: 404 with {explain(error)!r}") from error
    return from_inspect(info)


def observe_all(client: docker.DockerClient, ledger_id: str) -> list[Observation]:
    """Look at every server container of a ledger, stopped ones too.

    One list, and one look at each container. One that goes away in between is left out; being
    left out proves nothing.
    """
    selectors = labels.selectors(ledger_id, Kind.SERVER)
    rows = cast(
        "list[dict[str, Any]]", client.api.containers(all=True, filters={"label": selectors})
    )
    seen = (observe(client, str(row["Id"])) for row in rows)
    return [observation for observation in seen if observation is not None]


def from_inspect(info: Mapping[str, Any]) -> Observation:
    """Read the engine's answer to ``GET /containers/{id}/json``. EngineUnknown if it is broken."""
    try:
        state: Mapping[str, Any] = info["State"]
        config: Mapping[str, Any] = info["Config"]
        found: dict[str, str] = dict(config.get("Labels") or {})
        status = str(state["Status"])
        started = not str(state.get("StartedAt") or "0001").startswith("0001-")
        over = started and status not in _LIVE
        return Observation(
            container_id=str(info["Id"]),
            name=str(info.get("Name") or "").lstrip("/"),
            labels=found,
            state=status,
            exit_code=int(state.get("ExitCode") or 0) if over else None,
            oom=bool(state.get("OOMKilled")),
            started=started,
            created_at=seconds(info.get("Created")),
            device_ids=labels.split_devices(found.get(labels.DEVICES, "")),
            injected=injected_devices(info.get("HostConfig") or {}, config),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EngineUnknown(f"Docker's description of a container is broken: {error!r}") from error


def injected_devices(host: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the devices that the engine gives a container, sorted.

    Read from its device requests, marker files and, where NVIDIA's runtime reads it,
    ``NVIDIA_VISIBLE_DEVICES``. A device node of NVIDIA's that was mapped by hand shows with its
    path; what has no name (``count``, ``all``) shows as :data:`UNNAMED`.
    """
    found: set[str] = set()
    for request in host.get("DeviceRequests") or ():
        found.update(_of_request(request))
    for bind in host.get("Binds") or ():
        found.update(_of_target(str(bind).split(":")[1:2]))
    for mount in host.get("Mounts") or ():
        found.update(_of_target([str(mount.get("Target", ""))]))
    for device in host.get("Devices") or ():
        path = str(device.get("PathOnHost", ""))
        if path.startswith("/dev/nvidia") and path[-1:].isdigit():
            found.add(path)
    if str(host.get("Runtime") or "").startswith("nvidia"):
        found.update(_of_environment(config.get("Env") or ()))
    return tuple(sorted(found))


def _of_request(request: Mapping[str, Any]) -> set[str]:
    ids = {str(name) for name in request.get("DeviceIDs") or ()}
    if request.get("Driver") == "cdi":
        prefix = f"{CDI_KIND}="
        ids = {name.removeprefix(prefix) for name in ids}
    if request.get("Count"):
        ids.add(UNNAMED)
    return {UNNAMED if name == "all" else name for name in ids}


def _of_target(targets: list[str]) -> set[str]:
    prefix = f"{MARKER_DIR}/"
    return {path.removeprefix(prefix) for path in targets if path.startswith(prefix)}


def _of_environment(variables: list[str] | tuple[str, ...]) -> set[str]:
    """Read the last ``NVIDIA_VISIBLE_DEVICES``, as the runtime does."""
    value = ""
    for variable in variables:
        name, _, text = variable.partition("=")
        if name == "NVIDIA_VISIBLE_DEVICES":
            value = text
    if value in _NOTHING:
        return set()
    return {UNNAMED if name == "all" else name for name in value.split(",") if name}


def seconds(text: object) -> float:
    """Read Docker's ``2026-01-02T03:04:05.123456789Z`` as POSIX seconds; 0.0 = not told."""
    if not isinstance(text, str) or len(text) < 19:
        return 0.0
    whole = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    fraction = text[19:].rstrip("Z")
    return whole.timestamp() + (float(fraction) if fraction.startswith(".") else 0.0)
