"""The numbers of the policy: who is served first, who may hold how much."""

from __future__ import annotations

from dataclasses import dataclass, field

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A group's part of the GPUs. Groups without a share are not told apart."""

    #: name of the Hub's group
    name: str
    #: name of the share that this one is a part of; empty = of the whole
    parent: str = ""
    #: how much usage counts as much as one GPU hour of a sibling of weight 1
    weight: float = 1.0
    #: GPUs that the group may hold before others may borrow: below it, it is served first
    quota: int = 0
    #: GPUs above ``quota`` that it may hold while others leave them free; None = any number
    borrow: int | None = None

    @property
    def cap(self) -> int | None:
        """The most GPUs that the group may hold; None = no bound."""
        return None if self.borrow is None else self.quota + self.borrow


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """GPU hours that somebody may use in each period."""

    #: GPUs times hours
    hours: float
    #: seconds
    period: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much one may hold at a time, in GPUs. None = unlimited."""

    #: for each user without an entry in ``users``
    per_user: int | None = None
    #: by user name
    users: dict[str, int] = field(default_factory=dict)
    #: by group name; a user's groups all have to agree
    groups: dict[str, int] = field(default_factory=dict)
    #: GPU hours in each period, for each user without an entry in ``user_budgets``
    user_budget: Budget | None = None
    #: by user name; None = unlimited
    user_budgets: dict[str, Budget | None] = field(default_factory=dict)
    #: of all members of a group together, by group name
    group_budgets: dict[str, Budget] = field(default_factory=dict)
    #: waiting entries one user may have at a time
    queued_per_user: int = 10
    #: waiting entries of all users together; None = unlimited
    queued_total: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Idle:
    """When a server with GPUs that nobody uses is stopped. Seconds."""

    #: without activity before the warning, for users of no group in ``groups``; None = never
    timeout: float | None = None
    #: the same by group name; a user has the longest of his groups, and None is the longest
    groups: dict[str, float | None] = field(default_factory=dict)
    #: from the warning to the stop
    warning: float = HOUR / 2
    #: from the start of a server; before, it is not even warned
    min_runtime: float = HOUR
    #: that a user may have a server kept, from the moment of asking
    extension: float = 8 * HOUR

    @property
    def active(self) -> bool:
        """Whether it can stop anything at all."""
        return self.timeout is not None or any(v is not None for v in self.groups.values())

    def timeout_of(self, groups: tuple[str, ...]) -> float | None:
        """Seconds for a user of these groups; None = exempt."""
        own = [self.groups[name] for name in groups if name in self.groups]
        if not own:
            return self.timeout
        known = [seconds for seconds in own if seconds is not None]
        return max(known) if len(known) == len(own) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Which of the nodes that have room."""

    #: where free GPUs are spoilt least for those who usually ask; False = the fewest left over
    gradient: bool = False
    #: requests for these pools go where most is free; ``*`` = all requests
    spread: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fairness:
    """How the line is ordered."""

    #: False: order of arrival, whatever anybody has used
    by_usage: bool = True
    #: shares by groups; a parent's name has to be a share's
    shares: tuple[Share, ...] = ()
    #: higher is served first, by group; a user has the highest of his groups. Default 0
    priorities: dict[str, int] = field(default_factory=dict)
    #: seconds after which usage counts half
    half_life: float = 7 * DAY
    #: seconds that a request without a length is charged for
    unbounded_length: float = DAY
    #: GPU hours of usage that an hour of the length asked for counts as much as, in the order
    length_weight: float = 4.0
    #: seconds of waiting after which a request is first in line; None = never
    age_first: float | None = DAY
    #: seconds of waiting after which nobody younger passes any more; None = never
    age_guard: float | None = 2 * DAY
    #: whether others may pass the first one where that doesn't delay it
    backfill: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The policy's numbers. Changing them never stops anything."""

    limits: Limits = field(default_factory=Limits)
    #: share of a node's memory that grants never touch, 0..1
    memory_reserve: float = 0.2
    #: sum of CPU limits / CPUs a node may be granted; None = no bound
    cpu_overcommit: float | None = None
    #: seconds from grant to a bound container before the lease is taken back
    bind_deadline: float = 120.0
    #: seconds from STARTING to RUNNING before the lease is taken back
    start_deadline: float = 600.0
    #: seconds a detached entry of the running Hub is kept
    detach_grace: float = 15.0
    #: seconds a detached entry of an earlier Hub is kept
    requeue_grace: float = 3600.0
    #: seconds after a restart for which GPUs are kept for those who waited before it
    return_grace: float = 30.0
    #: seconds of warning before a server past its length is stopped for others; None = never
    reclaim_warning: float | None = None
    #: pool -> patterns on names of nodes, e.g. ``{"a100": ("gpu-0*",)}``
    pools: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: which of the nodes that have room
    placement: Placement = field(default_factory=Placement)
    #: who is served first
    fairness: Fairness = field(default_factory=Fairness)
    #: when an unused server is stopped
    idle: Idle = field(default_factory=Idle)
