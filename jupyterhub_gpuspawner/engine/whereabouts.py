"""On which node a volume is that exists on one node only, as the Swarm itself remembers it.

A *config* of the Swarm for each volume: it outlives manager, Hub and scheduler, and its name is
unique, so that of two servers that start at once the first one decides. It is made before the
service that makes the volume: should we die in between, it points to a node with no such volume
yet, which is made there by the next start. Functions take a client of a manager and block.
"""

from __future__ import annotations

from collections.abc import Iterable

import docker
import docker.errors

from . import labels
from .swarm_owner import read_config
from .volumes import digest

#: what the names of such configs begin with
PREFIX = "gpus-volume-"


def config_name(volume: str) -> str:
    """Name of the config that says where a volume is."""
    return PREFIX + digest("whereabouts", volume)[:32]


def find(client: docker.DockerClient, volumes: Iterable[str]) -> dict[str, str]:
    """Volume -> name of its node, of those of which it is known."""
    found = {}
    for volume in volumes:
        config = read_config(client, config_name(volume))
        if config is not None:
            found[volume] = str((config["Spec"].get("Labels") or {}).get(labels.NODE) or "")
    return found


def settle(client: docker.DockerClient, volume: str, node: str, ledger: str) -> str:
    """Say that a volume is on ``node``, unless it is somewhere already; where it is."""
    try:
        client.api.create_config(
            config_name(volume),
            f"volume {volume} is on {node}\n".encode(),
            labels=labels.whereabouts_labels(ledger=ledger, volume=volume, node=node),
        )
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        return find(client, [volume]).get(volume) or node
    return node
