"""Options of homes: from which size on their users are asked to tidy up."""

from __future__ import annotations

from traitlets.config import Configurable

from .traits import Memory, Seconds


class HomeOptions(Configurable):
    """Part of :class:`~.options.GPUScheduler`: what is said of large homes."""

    home_warning = Memory(
        None,
        allow_none=True,
        help="""Size of a home from which on its user is warned.

        Bytes or text such as ``"50G"``. The user reads it above *My servers*, and it is a line of
        the log; nothing is refused or deleted. Not for homes on a Swarm's nodes, and not for
        volume drivers that can't say how much is in a volume. None (the default) = nothing is
        measured. Example: ``"50G"``.

        .. versionadded:: 0.2
        """,
    ).tag(config=True)

    home_interval = Seconds(
        6 * 3600.0,
        help="""Seconds between two measurements of all homes.

        Docker reads every folder of every volume for it, as ``jupyterhub-gpuspawner storage``
        has it do: minutes where there are many files. Only with ``home_warning``. Default:
        6 hours.

        .. versionadded:: 0.2
        """,
    ).tag(config=True)
