"""What an engine can inject, and which way each device goes. Pure.

Docker's ``/info`` says so in three places: ``CDISpecDirs`` (empty or absent = CDI is off; it
is on with ``features.cdi`` from engine 25, by default from 28.2), ``DiscoveredDevices`` (from
API 1.50: what CDI found) and ``Runtimes`` (``nvidia`` where the toolkit has registered it).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..device_names import CDI_KIND, qualified
from ..scheduler.models import Device, Injection

#: the first API version whose ``/info`` has ``DiscoveredDevices``
_LISTS_DEVICES = (1, 50)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What ``/info`` says about devices."""

    #: the engine injects CDI devices
    cdi: bool = False
    #: the NVIDIA runtime is registered
    nvidia_runtime: bool = False
    #: fully qualified names the engine found; None = this engine doesn't list them
    cdi_devices: tuple[str, ...] | None = None
    #: directories the engine reads CDI specs from
    spec_dirs: tuple[str, ...] = ()
    #: of the engine, for people
    version: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How each device of a node gets into a container."""

    #: by device id; real devices all go one way, so that a lease has one way too
    injections: Mapping[str, Injection]
    #: device id -> why the engine can't inject it, and what to do, in one line
    problems: Mapping[str, str]


def capabilities(info: Mapping[str, Any], api_version: str = "") -> Capabilities:
    """Read Docker's ``/info``.

    ``api_version`` is the version it was asked with (``client.api._version``), such as
    ``"1.50"``. The engine leaves empty fields out, so that only the version tells an engine
    that found no device from one that doesn't list them.
    """
    dirs = tuple(str(path) for path in info.get("CDISpecDirs") or ())
    return Capabilities(
        cdi=bool(dirs),
        nvidia_runtime="nvidia" in (info.get("Runtimes") or {}),
        cdi_devices=_listed(info, api_version) if dirs else (),
        spec_dirs=dirs,
        version=str(info.get("ServerVersion") or ""),
    )


def _listed(info: Mapping[str, Any], api_version: str) -> tuple[str, ...] | None:
    found = info.get("DiscoveredDevices") or ()
    if not found and _version(api_version) < _LISTS_DEVICES:
        return None
    return tuple(
        str(device["ID"]) for device in found if device.get("Source") == "cdi" and device.get("ID")
    )


def _version(text: str) -> tuple[int, ...]:
    """``(1, 50)`` for ``"1.50"``; ``(0,)`` for what is no version."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(p.isdigit() for p in parts) else (0,)


def plan(
    devices: Sequence[Device], engine: Capabilities, local_names: Collection[str] = ()
) -> Plan:
    """Choose how ``devices`` of one node are injected.

    ``local_names`` are fully qualified names that spec files define (:func:`cdi.names_in` on
    ``engine.spec_dirs``, or a spec just written). They count only where the engine uses CDI
    without listing devices.

    Simulated devices: CDI where all are known, else a bind mount. Real ones: CDI where all
    are known; else the NVIDIA runtime; else those that CDI knows, and the others are problems.
    """
    names = set(engine.cdi_devices if engine.cdi_devices is not None else local_names)
    known = {device.id for device in devices if engine.cdi and qualified(device.id) in names}
    injections: dict[str, Injection] = {}
    problems: dict[str, str] = {}
    simulated = [device.id for device in devices if device.simulated]
    real = [device.id for device in devices if not device.simulated]
    way = Injection.CDI if known.issuperset(simulated) else Injection.BIND
    injections.update(dict.fromkeys(simulated, way))
    if engine.nvidia_runtime and not known.issuperset(real):
        injections.update(dict.fromkeys(real, Injection.NVIDIA))
    else:
        for device_id in real:
            if device_id in known:
                injections[device_id] = Injection.CDI
            else:
                problems[device_id] = _problem(device_id, engine, names)
    return Plan(injections=injections, problems=problems)


def _problem(device_id: str, engine: Capabilities, names: Collection[str]) -> str:
    """Why a real device can't be injected, and what the admin can do."""
    what = f"{device_id}: Docker {engine.version}".rstrip() + " can't put it into a container: "
    generate = "'nvidia-ctk cdi generate --device-name-strategy=uuid --output=/etc/cdi/nvidia.yaml'"
    if not engine.cdi:
        return (
            what + "it has no NVIDIA runtime and CDI is off. Install nvidia-container-toolkit, "
            "then run 'nvidia-ctk runtime configure --runtime=docker' and restart Docker"
        )
    if any(name.startswith(f"{CDI_KIND}=") for name in names):
        return what + f"CDI knows other GPUs, but not this UUID. Run {generate}"
    return (
        what + "CDI is on, but no spec names an NVIDIA GPU. "
        f"Install nvidia-container-toolkit and run {generate}"
    )
