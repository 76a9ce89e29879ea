"""The nodes of a Swarm and their GPUs, as its manager lists them. Pure: ``/nodes`` -> reports.

A GPU is a generic resource of its node, in a kind of its own::

    "node-generic-resources": ["GPU0=GPU-5f1b…", "GPU1=GPU-9c02…"]

Then a reservation of one ``GPU0`` names exactly that device. The manager knows no model and no
memory of a device: node labels may say them. What a device is used for outside of Swarm, and
whether its memory is empty, nobody here can know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..scheduler.models import Admin, Device, DeviceStatus, Health, Injection, Mode, Node
from ..swarm_nodes import kinds_of, resources_of
from ..units import parse_memory
from .base import Report, Usage
from .simulated import DEFAULT_MEMORY, DEFAULT_MODEL, PREFIX

Json = Mapping[str, Any]

#: labels of a node (``docker node update --label-add``) that say what its GPUs are
MODEL_LABEL = "jupyterhub-gpuspawner.gpu-model"
MEMORY_LABEL = "jupyterhub-gpuspawner.gpu-memory"

#: Swarm's word for whether a node takes tasks is the admin's word about the node
ADMIN = {"active": Admin.OPEN, "pause": Admin.CORDONED, "drain": Admin.DRAINING}

_INDEX = re.compile(r"(\d+)\Z")


def report(node: Json, name: str) -> Report:
    """What the manager knows about a node."""
    description: Json = node.get("Description") or {}
    resources: Json = description.get("Resources") or {}
    usable = kinds_of(node)
    devices = []
    for number, (kind, value) in enumerate(resources_of(node)):
        index = _INDEX.search(kind)
        device, note = _device(node, name, value, int(index[1]) if index else number)
        if value not in usable:
            note = f"kind {kind!r} does not name it alone, or has '-' in its name: one kind per GPU"
        status = DeviceStatus(health=Health.SUSPECT if note else Health.OK, note=note)
        devices.append((device, status))
    return Report(
        node=Node(
            name=name,
            memory=int(resources.get("MemoryBytes") or 0),
            cpus=int(resources.get("NanoCPUs") or 0) / 1e9,
        ),
        devices=tuple(devices),
        # of the others nothing is known, which is not "empty" but can't be waited for either
        usage={device.id: Usage(memory_used=0) for device, _ in devices if device.simulated},
    )


def injection(device: Device) -> Injection:
    """How a device gets into a service."""
    return Injection.BIND if device.simulated else Injection.NVIDIA


def admin(node: Json) -> Admin:
    """What the admin said about the node, with ``docker node update --availability``."""
    availability = str((node.get("Spec") or {}).get("Availability") or "active")
    return ADMIN.get(availability, Admin.CORDONED)


def _device(node: Json, name: str, value: str, index: int) -> tuple[Device, str]:
    """A device, and what is wrong with what the node's labels say about it."""
    found: Json = (node.get("Spec") or {}).get("Labels") or {}
    simulated = value.startswith(PREFIX)
    memory, note = DEFAULT_MEMORY if simulated else 0, ""
    try:
        memory = parse_memory(found.get(MEMORY_LABEL) or memory) or 0
    except ValueError as error:
        note = f"label {MEMORY_LABEL}: {error}"
    device = Device(
        id=value,
        node=name,
        index=index,
        model=str(found.get(MODEL_LABEL) or (DEFAULT_MODEL if simulated else "GPU")),
        memory=memory,
        mode=Mode.MIG if value.startswith("MIG-") else Mode.EXCLUSIVE,
        simulated=simulated,
    )
    return device, note
