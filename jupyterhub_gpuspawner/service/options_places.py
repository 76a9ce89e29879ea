"""Options of where servers may run: GPUs withheld, pools, and which of several machines."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from ..errors import ConfigError
from ..scheduler.models import Placement
from .traits import Seconds

PLACEMENTS = ("best_fit", "fgd")


class PlaceOptions(Configurable):
    """Part of :class:`~.options.GPUScheduler`: where servers go."""

    alarm_hold = Seconds(
        60.0,
        help="""Seconds that a reported error of a GPU counts.

        Meanwhile the GPU is given to nobody; what runs on it goes on. Critical errors (XIDs, but
        for those of programs) and double-bit memory errors are heard as they happen. After this
        time without another one the measurements decide again. Default: 60.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

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

    placement = Unicode(
        "best_fit",
        help="""Which of several machines with room gets a server.

        ``best_fit``: the one with the fewest GPUs of that kind left over, then the one with the
        least memory. ``fgd``: where the free GPUs stay of most use to those who usually ask,
        that is who holds GPUs and who waits at the moment: not where its memory is used up and
        its GPUs are left, and not where a pair is broken that others ask for. On a replayed trace
        of 6,212 GPUs it used 3 % more of them; it looks at every machine with room, so that it
        takes longer with many hundreds. Several GPUs that are connected by NVLink go where they
        have the most links, with either. Default: ``best_fit``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    spread_pools = List(
        trait=Unicode(),
        help="""Pools whose servers are spread over their machines.

        Names of ``node_pools``. A server whose profile asks for such a pool goes to the machine
        with the most free GPUs of its kind, then the most free memory; that leaves none empty
        for large requests, but neighbours share less. ``"*"`` = all servers, whatever pool.
        Example: ``["teaching"]``. Empty (the default) = machines are filled one after the other.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    @validate("placement")
    def _validate_placement(self, proposal: Any) -> str:
        if proposal.value not in PLACEMENTS:
            raise TraitError(f"placement is {proposal.value!r}; allowed: {', '.join(PLACEMENTS)}")
        return str(proposal.value)

    @validate("node_pools")
    def _validate_pools(self, proposal: Any) -> dict[str, list[str]]:
        for pool, patterns in proposal.value.items():
            if not pool or not patterns or not all(patterns):
                raise TraitError(
                    f"node_pools: {pool!r}: {patterns!r}; want a name and a list of names of "
                    'machines, e.g. {"a100": ["gpu-0*"]}'
                )
        return dict(proposal.value)

    def where(self) -> Placement:
        """Which of the machines that have room."""
        unknown = sorted(set(self.spread_pools) - set(self.node_pools) - {"*"})
        if unknown:
            known = ", ".join(self.node_pools) or "none"
            raise ConfigError(
                f"GPUScheduler.spread_pools: there is no pool {unknown[0]!r} in node_pools; "
                f"there are {known}"
            )
        return Placement(gradient=self.placement == "fgd", spread=tuple(self.spread_pools))

    def pools(self) -> dict[str, tuple[str, ...]]:
        """Pool -> patterns on names of nodes."""
        return {pool: tuple(patterns) for pool, patterns in self.node_pools.items()}
