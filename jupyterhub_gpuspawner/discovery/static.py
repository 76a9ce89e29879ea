"""Devices named in the configuration, for machines that can't be asked.

::

    [{"id": "GPU-5f1b…", "model": "NVIDIA A100-SXM4-80GB", "memory": "80G", "index": 0}]
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .. import units
from ..errors import ConfigError
from ..scheduler.models import Device, DeviceStatus, Health, Mode
from .base import Report
from .facts import NodeFacts, read_node

#: ids stand in container labels (comma lists), CDI names and file names
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{2,127}", re.ASCII)
#: it stands in a bind mount, where a colon ends it
_FOLDER = re.compile(r"[A-Za-z0-9/_.+-]{2,255}", re.ASCII)
_KEYS = ("id", "model", "memory", "index", "mode", "atoms", "parent", "mps", "mps_limit")
_MAX_ATOMS = 1024

T = TypeVar("T")


def parse_devices(entries: object, node: str) -> tuple[Device, ...]:
    """Devices of ``node`` from configuration; see the module for the form.

    Keys: ``id`` (required, an NVIDIA UUID), ``model``, ``memory`` (bytes or ``"80G"``),
    ``index`` (default: place in the list), ``mode`` (``exclusive``, ``slots``, ``mig``),
    ``atoms`` (for ``slots``: how many), ``parent`` (for ``mig``: UUID of the GPU), ``mps``
    (for ``slots``: folder of the MPS daemon that serves it, with ``pipe`` and ``shm`` in it) and
    ``mps_limit`` (what that daemon lets each client have of the GPU's memory).

    Raises
    ------
    ConfigError
        An unknown key, a wrong value, an id given twice, a MIG instance beside its parent.
    """
    if isinstance(entries, (str, bytes, Mapping)) or not isinstance(entries, Sequence):
        raise ConfigError(f"devices: want a list of dicts, not {type(entries).__name__}")
    devices: dict[str, Device] = {}
    for place, entry in enumerate(entries):
        device = _parse_one(entry, node, place)
        if device.id in devices:
            raise ConfigError(f"devices[{place}]: id {device.id!r} is given twice")
        devices[device.id] = device
    for device in devices.values():
        if device.parent in devices:
            raise ConfigError(
                f"devices: {device.id!r} is part of {device.parent!r}; name one of the two, "
                "because a GPU divided by MIG can't be given out whole"
            )
    return tuple(devices.values())


def _parse_one(entry: object, node: str, place: int) -> Device:
    where = f"devices[{place}]"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: want a dict, not {type(entry).__name__}")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    device_id = _parse_id(entry.get("id"), f"{where}.id")
    mode = _parse_mode(entry.get("mode", Mode.EXCLUSIVE.value), f"{where}.mode")
    return Device(
        id=device_id,
        node=node,
        index=_whole(entry.get("index", place), f"{where}.index", least=0),
        model=_typed(entry.get("model", ""), f"{where}.model", str, "text"),
        memory=_memory(entry.get("memory", 0), f"{where}.memory"),
        mode=mode,
        atoms=_parse_atoms(entry, mode, where),
        parent=_parse_parent(entry, mode, where),
        cap=_memory(entry.get("mps_limit", 0), f"{where}.mps_limit"),
        mps=_parse_mps(entry, mode, where),
        simulated=device_id.startswith("SIMULATED-"),
    )


def _parse_id(value: object, where: str) -> str:
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        raise ConfigError(
            f"{where}: {value!r} is an index; indexes change when a GPU fails. "
            "Write the UUID that 'nvidia-smi -L' prints"
        )
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ConfigError(
            f"{where}: {value!r} is not a device id; want a UUID such as "
            "'GPU-8e6f1d2c-…' (3 to 128 letters, digits, '-', '_', '.')"
        )
    return value


def _parse_mode(value: object, where: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        known = ", ".join(mode.value for mode in Mode)
        raise ConfigError(f"{where}: {value!r} is not a mode; known are {known}") from None


def _parse_atoms(entry: Mapping[str, Any], mode: Mode, where: str) -> int:
    atoms = _whole(entry.get("atoms", 1), f"{where}.atoms", least=1)
    if atoms > _MAX_ATOMS:
        raise ConfigError(f"{where}.atoms: {atoms} is more than {_MAX_ATOMS}")
    if atoms != 1 and mode is not Mode.SLOTS:
        raise ConfigError(f"{where}.atoms: {atoms} needs mode 'slots'; {mode} always has 1")
    return atoms


def _parse_parent(entry: Mapping[str, Any], mode: Mode, where: str) -> str | None:
    parent = entry.get("parent")
    if mode is Mode.MIG:
        if parent is None:
            raise ConfigError(f"{where}.parent: missing; a MIG instance names the UUID of its GPU")
        return _parse_id(parent, f"{where}.parent")
    if parent is not None:
        raise ConfigError(f"{where}.parent: only a device of mode 'mig' has a parent")
    return None


def _parse_mps(entry: Mapping[str, Any], mode: Mode, where: str) -> str:
    folder = _typed(entry.get("mps", ""), f"{where}.mps", str, "text")
    if folder and mode is not Mode.SLOTS:
        raise ConfigError(f"{where}.mps: MPS shares a GPU; it needs mode 'slots', not '{mode}'")
    if folder and not (os.path.isabs(folder) and _FOLDER.fullmatch(folder)):
        raise ConfigError(f"{where}.mps: {folder!r} is not the path of a folder: /run/nvidia/mps")
    if entry.get("mps_limit") and not folder:
        raise ConfigError(f"{where}.mps_limit: without 'mps' nothing enforces it")
    return folder


def _memory(value: object, where: str) -> int:
    try:
        return units.parse_memory(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _whole(value: object, where: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{where}: want a whole number of at least {least}, not {value!r}")
    return value


def _typed(value: object, where: str, kind: type[T], word: str) -> T:
    if not isinstance(value, kind):
        raise ConfigError(f"{where}: want {word}, not {value!r}")
    return value


class StaticSource:
    """Reports what the configuration says, healthy but where its MPS daemon is not there.

    Without the daemon a program would get the GPU all the same, and no cap.
    """

    name = "static"

    def __init__(self, devices: object, node: str, *, facts: NodeFacts = read_node) -> None:
        self._node = node
        self._facts = facts
        self.devices = parse_devices(devices, node)

    def discover(self) -> Report:
        """The configured devices and this machine's facts."""
        return Report(
            node=self._facts(self._node),
            devices=tuple((device, _status(device)) for device in self.devices),
        )


def _status(device: Device) -> DeviceStatus:
    # the daemon makes the pipe when it starts, and removes it when it ends
    pipe = Path(device.mps, "pipe", "control")
    if not device.mps or pipe.exists():
        return DeviceStatus()
    note = f"no MPS daemon has its pipe at {pipe}; start nvidia-cuda-mps-control"
    return DeviceStatus(health=Health.SUSPECT, note=note)
