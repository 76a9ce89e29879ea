"""Options of where servers may run: pools of machines."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, List, TraitError, Unicode, validate
from traitlets.config import Configurable


class PlaceOptions(Configurable):
    """Part of :class:`~.options.GPUScheduler`: names for groups of machines."""

    node_pools = Dict(
        key_trait=Unicode(),
        value_trait=List(trait=Unicode()),
        help="""Pools of machines, which profiles may ask for.

        Patterns on the names of machines, by pool; a machine may be in several. A profile asks
        with ``pool``; a pool that is not here is refused. Example: ``{"a100": ["gpu-0*"],
        "teaching": ["lab-1", "lab-2"]}``. Empty (the default) = no pools.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    @validate("node_pools")
    def _validate_pools(self, proposal: Any) -> dict[str, list[str]]:
        for pool, patterns in proposal.value.items():
            if not pool or not patterns or not all(patterns):
                raise TraitError(
                    f"node_pools: {pool!r}: {patterns!r}; want a name and a list of names of "
                    'machines, e.g. {"a100": ["gpu-0*"]}'
                )
        return dict(proposal.value)

    def pools(self) -> dict[str, tuple[str, ...]]:
        """Pool -> patterns on names of nodes."""
        return {pool: tuple(patterns) for pool, patterns in self.node_pools.items()}
