"""The state tables are DESIGN's, and nothing moves outside them (S8)."""

from itertools import product

import pytest

from jupyterhub_gpuspawner.scheduler import transitions
from jupyterhub_gpuspawner.scheduler.models import (
    EntryState,
    Health,
    LeaseState,
    NodeState,
    Target,
)

TABLES = {
    EntryState: (
        transitions.ENTRY,
        "queued>granted granted>bound bound>done queued>cancelled queued>rejected "
        "granted>cancelled granted>rejected",
    ),
    LeaseState: (
        transitions.LEASE,
        "reserved>starting starting>running running>stopping stopping>released "
        "reserved>stopping starting>stopping",
    ),
    Target: (transitions.TARGET, "run>gone"),
    Health: (transitions.HEALTH, "ok>suspect ok>bad suspect>ok suspect>bad bad>ok"),
    NodeState: (
        transitions.NODE,
        "up>silent up>down silent>up silent>down down>up",
    ),
}


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_exactly_the_arrows_of_the_table_are_allowed(kind):
    table, arrows = TABLES[kind]
    for old, new in product(kind, kind):
        if old is new or f"{old}>{new}" in arrows.split():
            transitions.check(table, old, new, "x")
        else:
            with pytest.raises(transitions.IllegalTransition) as caught:
                transitions.check(table, old, new, "x")
            assert str(caught.value) == f"x: {old} -> {new} is not allowed"


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_what_did_not_exist_may_begin_anywhere(kind):
    for new in kind:
        transitions.check(TABLES[kind][0], None, new, "x")


def test_every_lease_state_has_its_target():
    gone = {state for state, target in transitions.TARGET_OF.items() if target is Target.GONE}
    assert gone == {LeaseState.STOPPING, LeaseState.RELEASED}
    assert set(transitions.TARGET_OF) == set(LeaseState)
