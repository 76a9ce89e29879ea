"""A site's spawner by environment variable, for its config: containers here, or on a Swarm."""

from __future__ import annotations

from typing import Any

from . import environment
from .swarm_traits import SwarmTraits

_NODES = '{"datasets": "node2"}'


def site_spawner(c: Any) -> None:
    """Set which spawner the Hub has, and what only one of them has.

    Variables: ``GPUS_SPAWNER``, ``GPUS_NETWORK``, ``GPUS_LOCAL_VOLUMES``, ``GPUS_VOLUME_NODES``,
    ``GPUS_NETWORK_MEMBERS``. A wrong one ends the program with one line.
    """
    kind = environment.choice("GPUS_SPAWNER", ("docker", "swarm"))
    c.JupyterHub.spawner_class = f"gpu-{kind}"
    if kind == "swarm":
        c.GPUSwarmSpawner.network_name = environment.text("GPUS_NETWORK", "gpus")
        c.GPUSwarmSpawner.local_volumes = environment.choice(
            "GPUS_LOCAL_VOLUMES", tuple(SwarmTraits.local_volumes.values or ())
        )
        c.GPUSwarmSpawner.volume_nodes = environment.table("GPUS_VOLUME_NODES", str, _NODES)
    else:
        c.GPUDockerSpawner.network_members = sorted(environment.names("GPUS_NETWORK_MEMBERS"))
