"""Whose Swarm this is: one scheduler's ledger for each Swarm.

As :mod:`.owner` does it with a volume of an engine, here with a *config* of the Swarm: it is the
same for every manager, and its name is unique.
"""

from __future__ import annotations

from typing import Any, cast

import docker
import docker.errors

from ..errors import EngineError, EngineUnknown
from . import labels
from .faults import explain
from .owner import refuse_other

#: name of the Swarm's config that says which ledger owns the Swarm
OWNER_CONFIG = "gpus-owner"


def claim_swarm(client: docker.DockerClient, ledger_id: str) -> dict[str, Any]:
    """Claim the Swarm for a ledger, or see that it is claimed; Docker's ``/info``.

    Raises
    ------
    EngineError
        The engine is no manager of a Swarm.
    EngineConflict
        Another ledger owns the Swarm.
    """
    info = cast("dict[str, Any]", client.api.info())
    if not (info.get("Swarm") or {}).get("ControlAvailable"):
        raise EngineError(
            "docker_host is not a manager of a Swarm ('docker info' says so): use one, or run "
            "'docker swarm init'",
            "The Swarm's manager does not answer. Please tell your administrator.",
        )
    try:
        client.api.create_config(
            OWNER_CONFIG, ledger_id.encode(), labels=labels.owner_labels(ledger_id)
        )
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
    refuse_other(
        swarm_owner(client),
        ledger_id,
        what="Swarm",
        remedy=f"remove its services and run 'docker config rm {OWNER_CONFIG}'",
        whom="The machines'",
    )
    return info


def swarm_owner(client: docker.DockerClient) -> str | None:
    """Return the id of the ledger that owns the Swarm; None = nobody, or no ledger of ours."""
    config = read_config(client, OWNER_CONFIG)
    return labels.ledger_of((config.get("Spec") or {}).get("Labels")) if config else None


def read_config(client: docker.DockerClient, name: str) -> dict[str, Any] | None:
    """A config of the Swarm by name; None = the manager itself says that there is none."""
    try:
        return cast("dict[str, Any]", client.api.inspect_config(name))
    except docker.errors.NotFound as error:
        words = explain(error).lower()
        if "config" not in words or "not found" not in words:
            # a proxy's or a router's 404 says nothing about the config
            raise EngineUnknown(f"config {name}: 404 with {explain(error)!r}") from error
        return None
