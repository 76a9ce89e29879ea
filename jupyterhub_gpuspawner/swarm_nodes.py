"""How the nodes of a Swarm are called, and which of their resources are GPUs. Pure.

Both discovery (which reports them) and the engine (which asks for them) read ``/nodes``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

#: of the variable in which Swarm names the resources of a kind
VARIABLE_PREFIX = "DOCKER_RESOURCE_"
_DEVICE = re.compile(r"(GPU|MIG|SIMULATED)-[0-9A-Za-z][0-9A-Za-z./_-]*\Z")
#: with "-" in it the variable of a kind would be dropped by ``sh``
_KIND = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def named(nodes: Sequence[Json]) -> list[tuple[Json, str]]:
    """Each node with its name: the host name, and more of it where two nodes share one.

    A node that left and joined again shares its name with its dead self, which is left out.
    """
    alive = [node for node in nodes if not _is_ghost(node, nodes)]
    count = Counter(_hostname(node) for node in alive)
    return [
        (node, name if count[name] == 1 else f"{name}-{str(node['ID'])[:8]}")
        for node in alive
        for name in [_hostname(node)]
    ]


def kinds_of(node: Json) -> dict[str, str]:
    """Device id -> the kind of generic resource that holds this device alone."""
    held = resources_of(node)
    alone = Counter(kind for kind, _ in held)
    return {value: kind for kind, value in held if alone[kind] == 1 and _KIND.match(kind)}


def variable_of(kind: str) -> str:
    """The environment variable in which Swarm names a task's resources of a kind."""
    return f"{VARIABLE_PREFIX}{kind}".upper()


def resources_of(node: Json) -> list[tuple[str, str]]:
    """(kind, value) of the named resources that are GPUs."""
    resources: Json = (node.get("Description") or {}).get("Resources") or {}
    specs = [
        item.get("NamedResourceSpec") or {} for item in resources.get("GenericResources") or ()
    ]
    pairs = ((str(spec.get("Kind")), str(spec.get("Value"))) for spec in specs)
    return sorted((kind, value) for kind, value in pairs if _DEVICE.match(value))


def _hostname(node: Json) -> str:
    return str((node.get("Description") or {}).get("Hostname") or node["ID"])


def _is_ghost(node: Json, nodes: Sequence[Json]) -> bool:
    """Whether it is down and a younger node has its host name."""
    if (node.get("Status") or {}).get("State") == "ready":
        return False
    return any(
        _hostname(other) == _hostname(node)
        and str(other.get("CreatedAt")) > str(node.get("CreatedAt"))
        for other in nodes
    )
