"""Options of idle servers: when one with GPUs that nobody uses is stopped."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, TraitError, Unicode, validate
from traitlets.config import Configurable

from ..scheduler.policy import Idle
from ..units import parse_duration
from .traits import Seconds


class IdleOptions(Configurable):
    """Part of :class:`~.options.GPUScheduler`: what becomes of unused GPUs."""

    idle_timeout = Seconds(
        None,
        allow_none=True,
        help="""Seconds after which unused GPUs are taken back.

        Counts only for servers with GPUs. A server is used while a kernel computes or gave
        output, somebody works in a terminal, or one of its GPUs computes; an open browser alone
        is no use. It is warned first (``idle_warning``), and its user can have it kept
        (``idle_extension``). What can't be asked or measured counts as used: a server that is no
        Jupyter server, a GPU that no driver reports on, everything while the Hub is down. None
        (the default) = never. Example: ``"2h"``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    group_idle_timeouts = Dict(
        key_trait=Unicode(),
        help="""Seconds by group of the Hub; replaces ``idle_timeout``.

        None = members are exempt. A user in several of them has the longest. Example:
        ``{"staff": None, "students": "30m"}``. Empty (the default) = no exceptions.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    idle_warning = Seconds(
        1800.0,
        help="""Seconds from the warning of an unused server to its stop.

        The warning stands in the user's JupyterLab, on the GPUs page and in the log. Any use in
        this time withdraws it.
        Default: 30 minutes.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    idle_min_runtime = Seconds(
        3600.0,
        help="""Seconds after a start in which nothing is taken back.

        A server is not even warned before. Default: one hour.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    idle_extension = Seconds(
        8 * 3600.0,
        help="""Seconds for which a user may have an unused server kept.

        From the click on *Keep it* in JupyterLab or on the GPUs page, or the call of
        ``api/leases/ID/keep``; may be repeated. Default: 8 hours.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    cpu_idle_timeout = Seconds(
        None,
        allow_none=True,
        help="""Seconds after which idle servers without GPUs are stopped.

        ``setup(c)`` adds the stock service ``jupyterhub-idle-culler`` for them (install the
        extra ``idle``). It goes by the Hub's activity: an open browser keeps a server, and a
        kernel that computes in silence does not, so give hours. Servers with GPUs are none of
        its business. None (the default) = they are not stopped. Example: ``"12h"``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    @validate("group_idle_timeouts")
    def _validate_groups(self, proposal: Any) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name, value in proposal.value.items():
            try:
                found[name] = None if value is None else parse_duration(value)
            except ValueError as error:
                raise TraitError(f"group_idle_timeouts: {name}: {error}") from None
        return found

    def idle(self) -> Idle:
        """What the scheduler itself needs."""
        return Idle(
            timeout=self.idle_timeout,
            groups=dict(self.group_idle_timeouts),
            warning=self.idle_warning,
            min_runtime=self.idle_min_runtime,
            extension=self.idle_extension,
        )
