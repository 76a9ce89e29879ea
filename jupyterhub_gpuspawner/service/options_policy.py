"""Options of the policy: limits of users, groups and machines, and deadlines."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, Float, Int, TraitError, Unicode, validate

from ..scheduler.models import Limits, Settings
from .options_agents import AgentOptions
from .options_budgets import BudgetOptions
from .options_fairness import FairnessOptions
from .options_homes import HomeOptions
from .options_idle import IdleOptions
from .options_places import PlaceOptions
from .traits import Seconds


class PolicyOptions(
    FairnessOptions, BudgetOptions, IdleOptions, PlaceOptions, AgentOptions, HomeOptions
):
    """Part of :class:`~.options.GPUScheduler`: what :class:`Settings` is made of."""

    memory_reserve = Float(
        0.2,
        help="""Share of the machine's memory that is never granted.

        0 to below 1. With 0.2 (the default) the memory limits of all servers add up to at
        most 80 % of the machine's memory; a request above that waits.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    cpu_overcommit = Float(
        None,
        allow_none=True,
        help="""CPU limits that may be granted for each processor.

        4 means that the CPU limits of all servers add up to at most four times the
        machine's processors. None (the default) = no bound.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    user_gpu_limit = Int(
        None,
        allow_none=True,
        help="""GPUs that one user may hold at a time.

        Counts over all of the user's servers. A request above it is refused; one that would
        exceed it together with running servers waits. None (the default) = no limit, 0 = no
        GPUs for users without an entry in ``user_gpu_limits``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    user_gpu_limits = Dict(
        key_trait=Unicode(),
        value_trait=Int(min=0),
        help="""GPUs by user name; replaces ``user_gpu_limit`` for them.

        Example: ``{"alice": 4, "guest": 0}``. Empty (the default) = no exceptions.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    group_gpu_limits = Dict(
        key_trait=Unicode(),
        value_trait=Int(min=0),
        help="""GPUs that a group's members hold together, by group name.

        Example: ``{"students": 6}``. A user in several groups needs room in each of them.
        Empty (the default) = no limits.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    queued_per_user = Int(
        10,
        min=1,
        help="""Requests of one user that may wait at a time.

        One more is refused. Default: 10.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    queued_total = Int(
        1000,
        min=1,
        allow_none=True,
        help="""Requests of all users that may wait at a time.

        One more is refused; who waits already keeps the place. It bounds what a flood of
        users costs; one user's share of it is ``queued_per_user``. None = no bound.
        Default: 1000.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    request_rate = Float(
        60.0,
        help="""Requests a minute that one user may make for long.

        A request is a start of a server, or a new connection of one that waits. Above it (see
        ``request_burst``) a start is refused with ``too_many_requests`` and the seconds to
        wait; who waits already only connects later. 0 = no bound. Default: 60.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    request_burst = Int(
        30,
        min=1,
        help="""Requests that one user may make at once.

        They come back at ``request_rate``. Give at least as many as one user may have servers:
        after a restart of the service all that wait connect again. Default: 30.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    bind_deadline = Seconds(
        120.0,
        help="""Seconds from a grant to a created container.

        After that the GPUs are given to the next one. Default: 120.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    start_deadline = Seconds(
        600.0,
        help="""Seconds that a created container may wait for its start.

        After that it is removed and the GPUs are given back. Default: 600.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    detach_grace = Seconds(
        15.0,
        help="""Seconds a waiting request outlives its connection.

        A connection that breaks is not a cancel: whoever comes back in time keeps the place
        in the queue. A grant that reached nobody is taken back after as long. Default: 15.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    requeue_grace = Seconds(
        3600.0,
        help="""Seconds a waiting request outlives its Hub.

        After a restart of the Hub the service asks it to start the waiting servers again, in
        order. Default: one hour.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    return_grace = Seconds(
        30.0,
        help="""Seconds after a restart in which the order is kept.

        Spawns that waited before a restart of the Hub or the service connect again one by one.
        Until each is back, or this has passed, nobody behind it is given what it could use.
        0 = whoever is back first is served first. Default: 30.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    reclaim_warning = Seconds(
        None,
        allow_none=True,
        help="""Seconds of warning before a server past its length ends.

        Only where a request waits that could use its GPUs, and not before the warning has run
        out; a server within its length, or without one, is never stopped. The warning stands
        in JupyterLab, on the GPUs page and in the log. None (the default) = a server past its
        length is left alone. Example: ``"30m"``.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    @validate("memory_reserve")
    def _validate_reserve(self, proposal: Any) -> float:
        if not 0 <= proposal.value < 1:
            raise TraitError(f"memory_reserve is {proposal.value!r}; want 0 to below 1, e.g. 0.2")
        return float(proposal.value)

    @validate("cpu_overcommit")
    def _validate_overcommit(self, proposal: Any) -> float | None:
        if proposal.value is not None and not 0 < proposal.value < float("inf"):
            raise TraitError(f"cpu_overcommit is {proposal.value!r}; want a number above 0 or None")
        return proposal.value

    @validate("user_gpu_limit")
    def _validate_limit(self, proposal: Any) -> int | None:
        if proposal.value is not None and proposal.value < 0:
            raise TraitError(f"user_gpu_limit is {proposal.value!r}; want 0 or more, or None")
        return proposal.value

    @validate("request_rate")
    def _validate_rate(self, proposal: Any) -> float:
        if not 0 <= proposal.value < float("inf"):
            raise TraitError(f"request_rate is {proposal.value!r}; want 0 or more, e.g. 60")
        return float(proposal.value)

    def settings(self) -> Settings:
        """The numbers that the scheduler itself needs."""
        return Settings(
            limits=Limits(
                per_user=self.user_gpu_limit,
                users=dict(self.user_gpu_limits),
                groups=dict(self.group_gpu_limits),
                queued_per_user=self.queued_per_user,
                queued_total=self.queued_total,
                **self.budgets(),
            ),
            memory_reserve=self.memory_reserve,
            cpu_overcommit=self.cpu_overcommit,
            bind_deadline=self.bind_deadline,
            start_deadline=self.start_deadline,
            detach_grace=self.detach_grace,
            requeue_grace=self.requeue_grace,
            return_grace=self.return_grace,
            reclaim_warning=self.reclaim_warning,
            pools=self.pools(),
            placement=self.where(),
            fairness=self.fairness(),
            idle=self.idle(),
        )
