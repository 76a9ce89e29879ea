"""Containers over time, from events and looks. Pure: what was seen goes in, intervals come out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

PREFIX = "jupyterhub-gpuspawner."
LEDGER, LEASE, DEVICES = PREFIX + "ledger", PREFIX + "lease", PREFIX + "devices"
KIND, NAME, USER = PREFIX + "kind", PREFIX + "name", PREFIX + "user"
#: where a simulated device shows in a container
MARKERS = "/run/gpus/"
#: a device that was asked for without its name ("all", or a number of them)
ANY = "*"
#: the end of an interval that has none yet
OPEN = math.inf

_RUNNING = frozenset({"running", "paused", "restarting"})


@dataclass(kw_only=True)
class Container:
    """All that is known about one container."""

    id: str
    engine: str
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    #: what the engine was told to inject; None = it was never looked at
    injected: frozenset[str] | None = None
    #: what the kernel shows inside; None = it was never looked at while it ran
    kernel: frozenset[str] | None = None
    #: its memory limit in bytes; 0 = none
    memory: int = 0
    #: (from, to) in POSIX seconds by the engine's clock, not sorted
    runs: list[tuple[float, float]] = field(default_factory=list)
    #: since when it is gone from the engine; None = it is there
    gone: float | None = None
    #: whether the engine has said so itself: an id never comes back
    destroyed: bool = False
    #: the last end that is known of
    ended: float = 0.0
    #: its state at the last look
    state: str = ""
    #: start times from events that no ``die`` followed yet
    open_since: float | None = None

    @property
    def devices(self) -> frozenset[str]:
        """What it may use: engine and kernel together; the label where neither was seen."""
        if self.injected is None and self.kernel is None:
            return labelled(self.labels)
        return (self.injected or frozenset()) | (self.kernel or frozenset())

    @property
    def who(self) -> str:
        """What people call it."""
        return self.labels.get(NAME) or self.name or self.id[:12]

    def intervals(self) -> list[tuple[float, float]]:
        """Running times, merged and in order. The end of the last may be ``OPEN``."""
        found = list(self.runs)
        if self.open_since is not None:
            found.append((self.open_since, OPEN))
        merged: list[tuple[float, float]] = []
        for begin, end in sorted(found):
            end = min(end, self.gone) if self.gone is not None else end
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            elif end >= begin:
                merged.append((begin, end))
        return merged


@dataclass(kw_only=True)
class History:
    """What was seen of all engines."""

    containers: dict[str, Container] = field(default_factory=dict)

    def of(self, container_id: str, engine: str) -> Container:
        """The record of a container, made when it is new."""
        if container_id not in self.containers:
            self.containers[container_id] = Container(id=container_id, engine=engine)
        return self.containers[container_id]

    def event(self, data: Mapping[str, Any], engine: str) -> Container | None:
        """Take in one event of the engine; the container it is about, if any."""
        if data.get("Type") != "container":
            return None
        actor: Mapping[str, Any] = data.get("Actor") or {}
        container = self.of(str(actor.get("ID")), engine)
        attributes: dict[str, str] = dict(actor.get("Attributes") or {})
        container.name = container.name or attributes.get("name", "")
        for label, text in attributes.items():
            container.labels.setdefault(label, text)
        self._happened(container, str(data.get("Action")), moment(data))
        return container

    def _happened(self, container: Container, action: str, when: float) -> None:
        if action == "start" and container.open_since is None:
            container.open_since = when
        elif action == "die":
            begin = container.open_since if container.open_since is not None else when
            container.runs.append((begin, when))
            container.open_since = None
            container.ended = max(container.ended, when)
        elif action == "destroy":
            container.gone, container.destroyed = when, True

    def look(self, info: Mapping[str, Any], engine: str, kernel: frozenset[str] | None) -> None:
        """Take in an inspect answer, and what the kernel shows at that moment.

        The container may have ended since: an end that is known of is not taken back.
        """
        container = self.of(str(info["Id"]), engine)
        container.name = str(info.get("Name") or "").lstrip("/")
        container.labels = dict((info.get("Config") or {}).get("Labels") or {})
        if not container.destroyed:
            container.gone = None
        host: Mapping[str, Any] = info.get("HostConfig") or {}
        container.injected = injected(host)
        container.memory = int(host.get("Memory") or 0)
        if kernel is not None:
            container.kernel = (container.kernel or frozenset()) | kernel
        state: Mapping[str, Any] = info.get("State") or {}
        container.state = str(state.get("Status") or "")
        begin = seconds(state.get("StartedAt"))
        if begin is None:
            return
        if container.state in _RUNNING:
            running = begin > container.ended
            if running and (container.open_since is None or begin < container.open_since):
                container.open_since = begin
        else:
            end = seconds(state.get("FinishedAt"))
            container.runs.append((begin, end if end is not None and end >= begin else begin))
            container.ended = max(container.ended, container.runs[-1][1])
            if end is not None and (container.open_since or OPEN) <= end:
                container.open_since = None

    def absent(self, missing: Iterable[str], engine: str, when: float) -> None:
        """A complete list does not have these, known before it: gone, at the latest now."""
        for container_id in missing:
            container = self.containers[container_id]
            if container.engine == engine and container.gone is None:
                container.gone = when


def injected(host: Mapping[str, Any]) -> frozenset[str]:
    """Ids of the devices that a HostConfig asks for."""
    found: set[str] = set()
    targets = [str(bind).split(":")[1:2] for bind in host.get("Binds") or ()]
    targets += [[str(mount.get("Target") or "")] for mount in host.get("Mounts") or ()]
    for target in targets:
        found.update(path[len(MARKERS) :] for path in target if path.startswith(MARKERS))
    for request in host.get("DeviceRequests") or ():
        ids = [str(name) for name in request.get("DeviceIDs") or ()]
        found.update(name.rpartition("=")[2] if "=" in name else name for name in ids)
        if request.get("Count"):
            found.add(ANY)
    found = {ANY if name == "all" else name for name in found}
    for device in host.get("Devices") or ():
        path = str(device.get("PathOnHost") or "")
        if path.startswith("/dev/nvidia") and path[-1:].isdigit():
            found.add(path)
    return frozenset(found)


def labelled(labels: Mapping[str, str]) -> frozenset[str]:
    """Ids of the devices that the label names."""
    return frozenset(name for name in labels.get(DEVICES, "").split(",") if name)


def moment(data: Mapping[str, Any]) -> float:
    """POSIX seconds of an event."""
    nano = data.get("timeNano")
    return float(nano) / 1e9 if nano else float(data.get("time") or 0)


def seconds(text: object) -> float | None:
    """Docker's time (``2026-01-02T03:04:05.123456789Z``) in POSIX seconds; None = never."""
    if not isinstance(text, str) or len(text) < 19 or text.startswith("0001-"):
        return None
    whole = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    fraction = text[19:].rstrip("Z")
    return whole.timestamp() + (float(fraction) if fraction.startswith(".") else 0.0)
