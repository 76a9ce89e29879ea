"""From the probe's document to devices, their status and their usage. Pure.

A GPU in MIG mode is not a device: its instances are, and they share its health.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..scheduler.models import Device, DeviceStatus, Health, Mode, Node
from ..scheduler.topology import bond
from . import cgroups, health
from .base import Process, Report, Usage

#: words of ``nvidia-smi topo`` by NVML_TOPOLOGY level
_NEAR = {0: "INT", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}

#: (id of another GPU, worth)
Bonds = tuple[tuple[str, int], ...]
#: judges one process of the document
Judge = Callable[[Mapping[str, Any]], Process]


@dataclass(slots=True)
class _Draft:
    """A report while it is being made."""

    devices: list[tuple[Device, DeviceStatus]] = field(default_factory=list)
    usage: dict[str, Usage] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    #: indexes of GPUs that don't tell their UUID
    nameless: list[int] = field(default_factory=list)


def make_report(
    document: Mapping[str, Any],
    node: Node,
    ours: Collection[str],
    remembered: Collection[Device] = (),
) -> Report:
    """What ``document`` (see :mod:`.nvml_probe`, without ``error``) says about ``node``.

    ``ours`` are the ids of our containers. ``remembered`` are the devices of the last report:
    a lost GPU may not even tell its UUID, so where one is nameless, every remembered device
    that is missing now is reported as BAD instead of left out.
    """
    draft = _Draft()
    host_pids = bool(document.get("host_pids"))
    if not host_pids:
        draft.notes.append(
            "This process runs in its own PID namespace, so no process on a GPU can be told "
            "from a foreign one. Start it on the host, or its container with --pid=host"
        )

    def judge(entry: Mapping[str, Any]) -> Process:
        return _process(entry, ours, host_pids)

    names = {gpu["index"]: gpu["uuid"] for gpu in document["gpus"]}
    for gpu in document["gpus"]:
        _add_gpu(draft, gpu, node.name, judge, _bonds(gpu, names))
    _add_lost(draft, remembered)
    return Report(
        node=node,
        devices=tuple(draft.devices),
        usage=draft.usage,
        notes=tuple(draft.notes),
    )


def _bonds(gpu: Mapping[str, Any], names: Mapping[int, str | None]) -> Bonds:
    """What the GPU and each other one are worth to each other, where that is known."""
    found = []
    for index, level, nvlinks in gpu.get("peers", ()):
        name = names.get(index)
        if name is not None and level in _NEAR:
            found.append((name, bond(nvlinks, _NEAR[level])))
    return tuple(found)


def _add_gpu(draft: _Draft, gpu: Mapping[str, Any], node: str, judge: Judge, bonds: Bonds) -> None:
    state, note = health.judge(_vitals(gpu))
    if gpu["uuid"] is None:
        draft.nameless.append(gpu["index"])
        draft.notes.append(f"GPU {gpu['index']} doesn't tell its UUID: {note or 'no answer'}")
        return
    capability = tuple(gpu["capability"]) if gpu["capability"] else None
    whole = Device(
        id=gpu["uuid"],
        node=node,
        index=gpu["index"],
        model=gpu["name"],
        memory=_total(gpu),
        capability=capability,
    )
    if gpu["mig_pending"]:
        draft.notes.append(f"GPU {whole.index} changes its MIG mode at the next GPU reset")
    if not gpu["mig_enabled"]:
        _add(draft, replace(whole, bonds=bonds), gpu, (state, note), judge)
        return
    if not gpu["mig"]:
        draft.notes.append(f"GPU {whole.index} is in MIG mode and has no instance to give out")
    for instance in gpu["mig"]:
        if instance["uuid"] is None:
            draft.notes.append(f"A MIG instance of GPU {whole.index} doesn't tell its UUID")
            continue
        own_state, own_note = health.judge(health.Vitals(errors=instance["errors"]))
        part = replace(
            whole,
            id=instance["uuid"],
            model=instance["name"] or whole.model,
            memory=_total(instance),
            mode=Mode.MIG,
            parent=whole.id,
        )
        verdict = _worse((state, note), (own_state, own_note))
        _add(draft, part, instance, verdict, judge)


def _add(
    draft: _Draft,
    device: Device,
    entry: Mapping[str, Any],
    verdict: tuple[Health, str],
    judge: Judge,
) -> None:
    processes = None
    if entry["processes"] is not None:
        processes = tuple(judge(process) for process in entry["processes"])
    for what in ("processes", "memory"):
        # who uses it is not known, so it can't be given out
        if entry[what] is None and verdict[0] is Health.OK:
            verdict = (Health.SUSPECT, f"its driver doesn't tell its {what}")
    foreign = [process for process in processes or () if process.foreign]
    state, note = verdict
    if foreign:
        pids = ", ".join(str(process.pid) for process in foreign[:5])
        note = _join(note, f"in use by {len(foreign)} foreign process(es), PID {pids}")
    draft.devices.append((device, DeviceStatus(health=state, foreign=bool(foreign), note=note)))
    percent = entry.get("utilisation")
    draft.usage[device.id] = Usage(
        memory_used=entry["memory"]["used"] if entry["memory"] else None,
        utilisation=None if percent is None else percent / 100,
        temperature=entry.get("temperature"),
        processes=processes,
    )


def _add_lost(draft: _Draft, remembered: Collection[Device]) -> None:
    if not draft.nameless:
        return
    listed = {device.id for device, _ in draft.devices}
    # a MIG instance is missing only with its GPU; alone it was removed on purpose
    parents = {device.parent for device, _ in draft.devices if device.parent}
    seen = listed | parents
    for device in remembered:
        if device.id in seen or device.parent in seen:
            continue
        status = DeviceStatus(
            health=Health.BAD, note="the driver lists a GPU that gives no UUID, and not this one"
        )
        draft.devices.append((device, status))
        draft.usage[device.id] = Usage(memory_used=None, processes=None)
    draft.devices.sort(key=lambda pair: (pair[0].index, pair[0].id))


def _total(entry: Mapping[str, Any]) -> int:
    """Bytes of device memory; 0 = not known."""
    memory = entry.get("memory")
    return int(memory["total"]) if memory else 0


def _vitals(gpu: Mapping[str, Any]) -> health.Vitals:
    return health.Vitals(
        errors=gpu["errors"],
        recovery=gpu.get("recovery"),
        ecc_errors=gpu.get("ecc_errors"),
        remap_pending=gpu.get("remap_pending"),
        remap_failed=gpu.get("remap_failed"),
        retire_pending=gpu.get("retire_pending"),
    )


def _process(entry: Mapping[str, Any], ours: Collection[str], host_pids: bool) -> Process:
    # in another PID namespace, the same number may belong to anybody
    cgroup = entry["cgroup"] if host_pids else None
    ids = cgroups.container_ids(cgroup or "")
    return Process(
        pid=entry["pid"],
        memory=entry["memory"],
        container=ids[-1] if ids else None,
        foreign=not any(container in ours for container in ids),
    )


def _worse(first: tuple[Health, str], second: tuple[Health, str]) -> tuple[Health, str]:
    """The worse state with both notes, the worse one first."""
    order = (Health.OK, Health.SUSPECT, Health.BAD)
    low, high = sorted((first, second), key=lambda pair: order.index(pair[0]))
    return high[0], _join(high[1], low[1])


def _join(*notes: str) -> str:
    parts = [part for note in notes for part in note.split("; ") if part]
    return "; ".join(dict.fromkeys(parts))
