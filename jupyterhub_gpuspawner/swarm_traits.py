"""Options that only servers on a Swarm have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traitlets import Dict, Enum, TraitError, Unicode, validate
from traitlets.config import Configurable


class SwarmTraits(Configurable):
    """What a service has and a container has not."""

    local_volumes = Enum(
        ("refuse", "tie", "each"),
        "refuse",
        config=True,
        help="""
        What becomes of volumes that exist on one node only.

        A named volume of the driver ``local`` without options, as a home by default is, is there
        on the node that made it. ``"refuse"`` (the default): a server that has one does not
        start; set ``home_options`` or ``home_driver`` to what all nodes share. ``"tie"``: the
        first start decides, and all later servers with that volume start on that node or wait
        for it; a config of the Swarm (``docker config ls``) remembers which. ``"each"``: a user
        has another, at first empty, volume on each node.

        .. versionadded:: 0.2
        """,
    )

    volume_nodes = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        config=True,
        help="""
        Nodes of volumes that an admin has made on one node.

        A dict: name of the volume -> name of the node. Servers that have it start there,
        whatever ``local_volumes`` says. Example::

            c.GPUSwarmSpawner.volume_nodes = {"datasets": "node2"}

        .. versionadded:: 0.2
        """,
    )

    secrets = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        config=True,
        help="""
        Secrets of the Swarm that every server can read.

        A dict: name (``docker secret create``) -> path of the file in the container; a name
        alone is below ``/run/secrets``. Whoever has a server can read them. Example::

            c.GPUSwarmSpawner.secrets = {"wandb-key": "wandb-key"}

        .. versionadded:: 0.2
        """,
    )

    configs = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        config=True,
        help="""
        Configs of the Swarm that every server has as a file.

        A dict: name (``docker config create``) -> path of the file in the container. Example::

            c.GPUSwarmSpawner.configs = {"pip-conf": "/etc/pip.conf"}

        .. versionadded:: 0.2
        """,
    )

    @validate("volume_nodes", "secrets", "configs")
    def _nothing_is_empty(self, proposal: Any) -> Mapping[str, str]:
        for name, value in proposal.value.items():
            if not name or not value:
                raise TraitError(
                    f"{proposal.trait.name}: {name!r}: {value!r}: neither may be empty"
                )
        found: Mapping[str, str] = proposal.value
        return found
