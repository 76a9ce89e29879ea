"""Containers beside a server: made and started by its spawner, removed by the scheduler.

They hold no GPU and no part of a lease: whether they are there proves nothing about one, and
nothing waits for them. Functions take a client and block: run them in the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import docker
import docker.errors

from ..errors import EngineConflict
from . import labels
from .containers import ContainerSpec, create_new
from .faults import says_gone
from .labels import Kind
from .volumes import digest, slug


@dataclass(frozen=True, kw_only=True, slots=True)
class CompanionSeen:
    """A companion, as the engine lists it."""

    container_id: str
    name: str
    #: id of the lease whose server it was made for
    lease: str
    user: str
    server: str


def companion_name(user: str, lease: str, name: str) -> str:
    """Return a container's name; another one for each start of the server."""
    return f"companion-{slug(user)[:18]}-{name[:18]}-{digest('companion', lease, name)[:12]}"


def start_companion(client: docker.DockerClient, spec: ContainerSpec) -> str:
    """Create and start a companion; its id. May be repeated: one that is there is started.

    Raises
    ------
    EngineConflict
        The name is taken by something else. It is left as it is.
    docker.errors.APIError
        The engine refused.
    """
    try:
        container_id = create_new(client, spec)
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        container_id = _ours(client, spec)
    client.api.start(container_id)
    return container_id


def _ours(client: docker.DockerClient, spec: ContainerSpec) -> str:
    info = cast("dict[str, Any]", client.api.inspect_container(spec.name))
    found: Mapping[str, str] = (info.get("Config") or {}).get("Labels") or {}
    if any(found.get(name) != text for name, text in spec.labels.items()):
        raise EngineConflict(f"container name {spec.name} is taken; left as it is")
    return str(info["Id"])


def list_companions(client: docker.DockerClient, ledger: str) -> tuple[CompanionSeen, ...]:
    """Return all companions of a ledger, stopped ones too."""
    filters = {"label": labels.selectors(ledger, Kind.COMPANION)}
    rows = cast("list[dict[str, Any]]", client.api.containers(all=True, filters=filters))
    return tuple(_seen(row) for row in rows)


def _seen(row: Mapping[str, Any]) -> CompanionSeen:
    found: Mapping[str, str] = row.get("Labels") or {}
    return CompanionSeen(
        container_id=str(row["Id"]),
        name=found.get(labels.NAME, ""),
        lease=found.get(labels.COMPANION_OF, ""),
        user=found.get(labels.USER, ""),
        server=found.get(labels.SERVER, ""),
    )


def remove_companion(client: docker.DockerClient, container_id: str, grace: int) -> None:
    """Stop and remove a companion. Gone already is a success."""
    try:
        client.api.stop(container_id, timeout=grace)
        client.api.remove_container(container_id, v=True, force=True)
    except docker.errors.APIError as error:
        if not says_gone(error) and error.status_code != 409:
            raise  # 409: it is being removed
