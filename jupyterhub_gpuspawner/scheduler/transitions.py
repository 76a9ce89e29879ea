"""Which state may follow which: the tables of DESIGN, and the check that applies them.

Staying in a state is always allowed, because every operation may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from .models import EntryState, Health, LeaseState, NodeState, Target

S = TypeVar("S")

ENTRY: Mapping[EntryState, frozenset[EntryState]] = {
    EntryState.QUEUED: frozenset({EntryState.GRANTED, EntryState.CANCELLED, EntryState.REJECTED}),
    EntryState.GRANTED: frozenset({EntryState.BOUND, EntryState.CANCELLED, EntryState.REJECTED}),
    EntryState.BOUND: frozenset({EntryState.DONE}),
    EntryState.DONE: frozenset(),
    EntryState.CANCELLED: frozenset(),
    EntryState.REJECTED: frozenset(),
}

LEASE: Mapping[LeaseState, frozenset[LeaseState]] = {
    LeaseState.RESERVED: frozenset({LeaseState.STARTING, LeaseState.STOPPING}),
    LeaseState.STARTING: frozenset({LeaseState.RUNNING, LeaseState.STOPPING}),
    LeaseState.RUNNING: frozenset({LeaseState.STOPPING}),
    LeaseState.STOPPING: frozenset({LeaseState.RELEASED}),
    LeaseState.RELEASED: frozenset(),
}

TARGET: Mapping[Target, frozenset[Target]] = {
    Target.RUN: frozenset({Target.GONE}),
    Target.GONE: frozenset(),
}

HEALTH: Mapping[Health, frozenset[Health]] = {
    Health.OK: frozenset({Health.SUSPECT, Health.BAD}),
    Health.SUSPECT: frozenset({Health.OK, Health.BAD}),
    Health.BAD: frozenset({Health.OK}),
}

NODE: Mapping[NodeState, frozenset[NodeState]] = {
    NodeState.UP: frozenset({NodeState.SILENT, NodeState.DOWN}),
    NodeState.SILENT: frozenset({NodeState.UP, NodeState.DOWN}),
    NodeState.DOWN: frozenset({NodeState.UP}),
}

#: What a lease is meant to become in each state; a lease between two is a bug.
TARGET_OF: Mapping[LeaseState, Target] = {
    LeaseState.RESERVED: Target.RUN,
    LeaseState.STARTING: Target.RUN,
    LeaseState.RUNNING: Target.RUN,
    LeaseState.STOPPING: Target.GONE,
    LeaseState.RELEASED: Target.GONE,
}


class IllegalTransition(AssertionError):
    """A state moved along no arrow of its table: a bug of the scheduler, never of a caller."""


def check(table: Mapping[S, frozenset[S]], old: S | None, new: S, subject: str) -> None:
    """Raise :class:`IllegalTransition` unless ``old`` may become ``new``. None = did not exist."""
    if old is None or old == new or new in table[old]:
        return
    raise IllegalTransition(f"{subject}: {old} -> {new} is not allowed")
