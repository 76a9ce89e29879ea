"""The tables refuse what must not be, whatever the deciding code thinks; validate() sees it."""

from dataclasses import replace

import pytest

from jupyterhub_gpuspawner.scheduler.decisions import (
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
    Noted,
)
from jupyterhub_gpuspawner.scheduler.models import (
    Claim,
    DeviceStatus,
    EntryState,
    GPURequest,
    Health,
    Lease,
    LeaseState,
    Mode,
    NodeState,
    QueueEntry,
    Target,
)
from jupyterhub_gpuspawner.scheduler.tables import Tables
from jupyterhub_gpuspawner.scheduler.transitions import IllegalTransition
from tests.unit.scheduler_world import dump, gpu, key, machine

ONE = GPURequest(count=1)


def lease(id: str, user: str, *atoms: tuple[str, int], **fields) -> Lease:
    claims = tuple(Claim(device=device, atom=atom, lease_id=id) for device, atom in atoms)
    return Lease(id=id, key=key(user), request=ONE, node="n1", claims=claims, **fields)


def entry(id: str, user: str, seq: int, **fields) -> QueueEntry:
    return QueueEntry(id=id, key=key(user), request=ONE, seq=seq, **fields)


def tables(*values) -> Tables:
    made = Tables()
    for device in (gpu("g1"), gpu("g2"), gpu("m3", mode=Mode.MIG, parent="g2")):
        made.apply(DeviceStored(device=device, status=DeviceStatus()))
    made.apply(NodeStored(node=machine()))
    for value in values:
        store(made, value)
    return made


def store(made: Tables, value: Lease | QueueEntry) -> None:
    is_lease = isinstance(value, Lease)
    made.apply(LeaseStored(lease=value) if is_lease else EntryStored(entry=value))


RUNS = lease("a", "ann", ("g1", 0), state=LeaseState.RUNNING, container_id="c1")
GONE = replace(RUNS, state=LeaseState.STOPPING, target=Target.GONE)


@pytest.mark.parametrize(
    ("before", "value"),
    [
        ([RUNS], lease("b", "bob", ("g1", 0))),  # an atom of another lease
        ([RUNS], lease("b", "ann", ("g2", 0))),  # a second lease of a server
        ([RUNS], replace(RUNS, state=LeaseState.STARTING)),  # back
        ([RUNS], replace(RUNS, state=LeaseState.RELEASED)),  # released without intent
        ([GONE], replace(GONE, target=Target.RUN)),  # the target back
        ([], lease("b", "bob", ("g1", 0), ("g1", 0))),  # an atom twice
        ([lease("a", "ann", ("g2", 0))], lease("b", "bob", ("m3", 0))),  # its parent is taken
        ([lease("a", "ann", ("m3", 0))], lease("b", "bob", ("g2", 0))),  # its child is taken
        ([entry("x", "ann", 1)], entry("y", "ann", 2)),  # a second place in line
        ([entry("x", "ann", 1)], entry("x", "ann", 1, state=EntryState.DONE)),
        ([entry("x", "ann", 1, state=EntryState.BOUND)], entry("x", "ann", 1)),
    ],
)
def test_what_must_not_be_is_refused_and_changes_nothing(before, value):
    made = tables(*before)
    old = dump(made)
    with pytest.raises(IllegalTransition):
        store(made, value)
    assert dump(made) == old
    made.validate()


def test_a_node_and_a_devices_health_move_along_their_tables():
    made = tables()
    made.apply(NodeStored(node=machine(state=NodeState.DOWN)))
    made.apply(DeviceStored(device=gpu("g1"), status=DeviceStatus(health=Health.BAD)))
    old = dump(made)
    with pytest.raises(IllegalTransition):
        made.apply(NodeStored(node=machine(state=NodeState.SILENT)))
    with pytest.raises(IllegalTransition):
        made.apply(DeviceStored(device=gpu("g1"), status=DeviceStatus(health=Health.SUSPECT)))
    assert dump(made) == old


def test_a_family_conflict_that_is_there_already_stops_no_later_change():
    # both were claimed before anybody knew that they are one piece of hardware
    made = tables(lease("a", "ann", ("g1", 0)), lease("b", "bob", ("x9", 0)))
    made.apply(DeviceStored(device=gpu("x9", mode=Mode.MIG, parent="g1"), status=DeviceStatus()))
    store(made, lease("b", "bob", ("x9", 0), state=LeaseState.STARTING, container_id="c"))
    with pytest.raises(AssertionError, match="S4"):
        made.validate()


def test_the_line_is_by_arrival_whatever_the_order_of_storing():
    made = tables(entry("c", "cy", 7), entry("a", "ann", 3), entry("b", "bob", 5))
    store(made, replace(made.entries["a"], boot_id="boot-2"))
    assert [waiting.id for waiting in made.queued()] == ["a", "b", "c"]
    store(made, replace(made.entries["b"], state=EntryState.CANCELLED))
    assert [waiting.id for waiting in made.queued()] == ["a", "c"]
    assert made.next_seq == 8
    assert made.waiting_of_user(key("ann/x")) == 1
    assert made.waiting_of_user(key("bob")) == 0


def test_sums_are_back_to_nothing_when_all_leases_are_released():
    made = tables()
    empty = dump(made)
    request = GPURequest(count=1, memory=7, cpu=0.1)
    for n, user in enumerate(("ann", "bob", "cy")):
        own = replace(lease(str(n), user, (f"x{n}", 0)), request=request, groups=("lab",))
        store(made, own)
        store(made, own)
        assert made.memory_granted("n1") == 7 * (n + 1)
        assert made.nano_cpus_granted("n1") == 100_000_000 * (n + 1)
        assert made.held_by_group("hub", "lab") == n + 1
        assert made.held_by_user(key(user)) == 1
    for own in list(made.leases.values()):
        stopping = replace(own, state=LeaseState.STOPPING, target=Target.GONE)
        store(made, stopping)
        store(made, replace(stopping, state=LeaseState.RELEASED))
    assert dump(made) == empty


def test_a_note_changes_nothing():
    made = tables()
    old = dump(made)
    made.apply(Noted(kind="adopted", text="x"))
    assert dump(made) == old


def test_history_that_is_over_leaves_nothing():
    made = tables()
    old = dump(made)
    store(made, replace(GONE, state=LeaseState.RELEASED))
    store(made, entry("x", "ann", 4, state=EntryState.DONE))
    assert dump(made) == old
    assert made.next_seq == 5


# -- validate() --------------------------------------------------------------------------------


def broken(made: Tables, value: Lease) -> None:
    """Put a lease in past all guards, as a bug of the tables would."""
    made.leases[value.id] = value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lease("b", "bob", ("g1", 0)), "S1"),
        (lease("b", "bob", ("g2", 0)), "S3"),
        (replace(lease("b", "bob"), target=Target.GONE), "S8.*target gone"),
        (lease("b", "bob", container_id="c"), "S8.*reserved with a container"),
        (lease("b", "bob", state=LeaseState.STARTING), "S8.*starting without a container"),
        (lease("b", "bob", state=LeaseState.RUNNING), "S8.*running without a container"),
        (replace(lease("x", "bob", ("g2", 0)), id="b"), "a claim of another lease"),
        (lease("b", "ann"), "two live leases of one server"),
        (lease("b", "bob", state=LeaseState.RUNNING, container_id="c"), "container index"),
    ],
)
def test_validate_sees_a_broken_lease(value, words):
    made = tables(RUNS)
    broken(made, value)
    with pytest.raises(AssertionError, match=words):
        made.validate()


def test_validate_sees_an_atom_that_does_not_exist():
    made = tables(lease("b", "bob", ("g2", 5)))
    with pytest.raises(AssertionError, match="S10"):
        made.validate()


def test_validate_sees_a_wrong_line_and_a_wrong_index():
    made = tables(entry("x", "ann", 1))
    made._line.clear()
    with pytest.raises(AssertionError, match="the line"):
        made.validate()
    made = tables(entry("x", "ann", 1))
    made.queued_of.clear()
    with pytest.raises(AssertionError, match="key index"):
        made.validate()


def test_a_lease_that_holds_more_keeps_what_it_had():
    made = tables(RUNS)
    more = (*RUNS.claims, Claim(device="g2", atom=0, lease_id="a"))
    store(made, replace(RUNS, claims=more))
    assert made.claims == {"g1": {0: "a"}, "g2": {0: "a"}}
    assert made.held_by_user(key("ann")) == 2


def test_a_container_that_is_no_longer_on_record_is_forgotten():
    made = tables(RUNS)
    store(made, replace(RUNS, container_id=None))
    assert made.lease_of_container == {}
    store(made, replace(RUNS, container_id="c2"))
    assert made.lease_of_container == {"c2": "a"}
