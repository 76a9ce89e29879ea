"""Requests: asked for, repeated, replaced, left, cancelled, refused."""

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import entries, events
from jupyterhub_gpuspawner.scheduler.decisions import EntryStored, LeaseStored
from jupyterhub_gpuspawner.scheduler.models import (
    EntryState,
    GPURequest,
    LeaseState,
    Limits,
    Mode,
    Reason,
    Settings,
)
from tests.unit.scheduler_world import GIB, World, dump, gpu, key, machine


def refused(world: World, *args, **fields) -> RefusedError:
    before = dump(world.state.tables)
    with pytest.raises(RefusedError) as caught:
        world.ask(*args, **fields)
    assert dump(world.state.tables) == before, "a refusal changes nothing"
    world.state.validate()
    return caught.value


def test_a_free_gpu_is_granted_at_once():
    world = World("g1", "g2")
    lease = world.lease(world.ask("ann", length=3600.0, groups=("lab",)))
    assert (lease.state, lease.devices, lease.node) == (LeaseState.RESERVED, ("g1",), "n1")
    assert (lease.ends_at, lease.granted_at, lease.epoch) == (4600.0, 1000.0, 1)
    assert (lease.boot_id, lease.groups) == ("boot-1", ("lab",))


def test_who_finds_nothing_free_waits_with_position_and_reason():
    world = World("g1")
    world.run("ann")
    world.ask("bob")
    world.ask("cy")
    assert [w.position for w in world.state.waiting()] == [1, 2]
    assert world.line() == [
        ("bob", Reason.WAITING_FOR_DEVICES),
        ("cy", Reason.WAITING_FOR_DEVICES),
    ]


def test_a_server_without_gpu_needs_no_device():
    world = World("g1")
    world.run("ann")
    lease = world.lease(world.ask("bob", 0, memory=GIB))
    assert lease.claims == ()


def test_the_same_request_again_keeps_its_place():
    world = World("g1")
    world.run("ann")
    first = world.ask("bob")
    world.ask("cy")
    assert world.ask("bob") == first
    assert [user for user, _ in world.line()] == ["bob", "cy"]


def test_a_request_after_a_hub_restart_keeps_its_place_and_learns_the_new_boot_and_groups():
    world = World("g1")
    world.run("ann")
    first = world.ask("bob")
    world.ask("cy")
    assert world.ask("bob", boot="boot-2", groups=("lab",)) == first
    entry = world.state.tables.entries[first]
    assert (entry.boot_id, entry.groups, entry.seq) == ("boot-2", ("lab",), 2)
    assert [user for user, _ in world.line()] == ["bob", "cy"]


def test_another_request_of_the_same_server_starts_at_the_end():
    world = World("g1", "g2")
    world.run("ann", 2)
    first = world.ask("bob")
    world.ask("cy")
    second = world.ask("bob", 2)
    assert world.gone_for_good(first) is EntryState.CANCELLED
    assert second != first
    assert [user for user, _ in world.line()] == ["cy", "bob"]


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        ({"count": 2}, {"count": 1}, True),
        ({"count": 1}, {"count": 2}, False),
        ({"count": 2, "length": 7200.0}, {"count": 2, "length": 3600.0}, True),
        ({"count": 2, "length": 3600.0}, {"count": 2, "length": 7200.0}, False),
        ({"count": 2, "length": 3600.0}, {"count": 2}, False),
        ({"count": 2}, {"count": 2, "length": 3600.0}, True),
        ({"count": 2, "memory": 2 * GIB}, {"count": 2, "memory": GIB}, True),
        ({"count": 2, "memory": GIB}, {"count": 2}, False),
        ({"count": 2, "cpu": 2.0}, {"count": 2, "cpu": 1.0}, True),
        ({"count": 2, "cpu": 1.0}, {"count": 2}, False),
        ({"count": 2, "model": "*A100*"}, {"count": 2}, True),
        ({"count": 2}, {"count": 1, "model": "*A100*"}, False),
        ({"count": 2, "node": "n1"}, {"count": 1}, True),
        ({"count": 2}, {"count": 1, "node": "n1"}, False),
        ({"count": 2, "min_memory": GIB}, {"count": 2, "min_memory": 2 * GIB}, False),
        ({"count": 2}, {"count": 2, "min_capability": (8, 0)}, False),
        ({"count": 2}, {"count": 2, "sharing": Mode.SLOTS}, False),
        ({"count": 1, "devices": ("g1",)}, {"count": 1}, True),
        ({"count": 1}, {"count": 1, "devices": ("g1",)}, False),
    ],
)
def test_a_request_for_less_keeps_the_place_and_one_for_more_does_not(first, then, kept):
    old, new = GPURequest(**first), GPURequest(**then)
    assert entries.asks_for_less(new, old) is kept
    assert entries.asks_for_less(old, old) and entries.asks_for_less(new, new)


def test_who_asks_for_less_while_waiting_keeps_place_and_age():
    world = World("g1", "g2")
    world.run("ann", 2)
    bob = world.ask("bob", 2)
    world.ask("cy")
    world.do(events.Detached(entry_id=bob))
    world.now += 5
    less = world.ask("bob", 1)
    assert [place.entry.key.user for place in world.state.waiting()] == ["bob", "cy"]
    old = world.state.tables.entries[less]
    assert (old.submitted_at, less != bob) == (1000.0, True)
    world.ask("bob", 2)
    assert [place.entry.key.user for place in world.state.waiting()] == ["cy", "bob"]


def test_a_grant_that_was_never_used_is_given_again():
    world = World("g1")
    lease = world.ask("ann")
    world.tick(100)
    assert world.ask("ann", boot="boot-2") == lease
    assert world.lease(lease).boot_id == "boot-2"
    # its time to make a container begins anew
    world.tick(100)
    assert world.granted(lease)


def test_a_grant_is_given_again_to_the_same_boot_without_a_decision():
    world = World("g1")
    lease = world.ask("ann")
    before = len(world.journal)
    assert world.ask("ann") == lease
    assert len(world.journal) == before


def test_another_request_gives_an_unused_grant_back_and_takes_a_new_one():
    world = World("g1", "g2")
    old = world.ask("ann")
    new = world.ask("ann", 2)
    assert old not in world.state.tables.leases
    assert world.gone_for_good(old) is EntryState.CANCELLED
    assert world.devices_of(new) == {"g1", "g2"}


def test_a_new_start_waits_for_the_proof_that_the_old_server_is_gone():
    world = World("g1", "g2")
    old = world.run("ann")
    new = world.ask("ann")
    assert world.why("ann") is Reason.PREVIOUS_SERVER
    assert world.lease(old).state is LeaseState.STOPPING
    # it holds nobody up meanwhile
    assert world.granted(world.ask("bob"))
    world.gone(old)
    assert world.granted(new)
    assert world.lease(new).state is LeaseState.RESERVED


def test_a_new_start_does_not_change_why_the_old_server_stops():
    world = World("g1")
    old = world.run("ann")
    world.stop(old, Reason.OUT_OF_MEMORY)
    world.ask("ann")
    assert world.lease(old).reason is Reason.OUT_OF_MEMORY


def test_an_entry_id_is_for_one_request_only():
    world = World("g1", "g2")
    world.run("ann", id="x")
    error = refused(world, "ann", id="x")
    assert error.reason == Reason.PREVIOUS_SERVER
    assert world.lease("x").state is LeaseState.RUNNING
    assert refused(world, "bob", id="x").reason == Reason.PREVIOUS_SERVER
    assert "another request needs another id" in str(error)


def test_a_detached_entry_is_never_granted_and_keeps_its_place():
    world = World("g1")
    old = world.run("ann")
    bob = world.ask("bob")
    world.detach(bob)
    assert world.why("bob") is Reason.NOT_ATTACHED
    world.end(old)
    assert not world.granted(bob)
    assert world.ask("bob") == bob
    assert world.granted(bob)


def test_a_detached_entry_holds_nobody_up():
    world = World("g1", "g2")
    world.run("ann")
    bob = world.ask("bob", 2)
    cy = world.ask("cy")
    assert world.why("cy") is Reason.BEHIND_OTHERS
    world.detach(bob)
    assert world.granted(cy)


def test_a_grant_that_reached_nobody_is_taken_back_after_the_grace():
    world = World("g1")
    ann = world.ask("ann")
    bob = world.ask("bob")
    world.detach(ann)
    world.tick(15)
    assert world.granted(ann)
    world.tick(1)
    assert world.gone_for_good(ann) is EntryState.CANCELLED
    assert world.granted(bob)
    with pytest.raises(RefusedError, match="may not start"):
        world.bind(ann)


def test_a_grant_that_reached_nobody_is_not_kept_for_a_new_hub():
    world = World("g1")
    ann = world.ask("ann")
    world.detach(ann)
    world.do(events.BootSeen(boot_id="boot-2"))
    assert world.state._core.awaited == {}
    world.tick(16.0)
    world.tick(3600.0)
    assert not world.state.tables.leases
    assert world.granted(world.ask("bob", boot="boot-2"))


@pytest.mark.parametrize("first", ["take", "detach"])
def test_a_grant_that_was_heard_of_outlives_its_connection(first):
    world = World("g1")
    ann = world.ask("ann")
    for verb in sorted(("take", "detach"), key=lambda verb: verb != first):
        getattr(world, verb)(ann)
    world.tick(100)
    world.bind(ann)
    assert world.lease(ann).state is LeaseState.STARTING


def test_a_grant_that_is_asked_for_again_is_waited_for_anew():
    world = World("g1")
    ann = world.ask("ann")
    world.detach(ann)
    assert world.ask("ann") == ann
    world.tick(100)
    assert world.granted(ann)


def test_who_only_waits_has_nothing_to_take():
    world = World("g1")
    world.run("ann")
    bob = world.ask("bob")
    world.take(bob)
    world.take("nobody")
    world.detach(bob)
    assert world.why("bob") is Reason.NOT_ATTACHED


@pytest.mark.parametrize(
    ("boot", "kept_until", "lost_after"),
    [
        ("boot-1", 15, 16),  # the Hub lives: its spawn went away
        ("boot-0", 3600, 3601),  # an earlier Hub: the new one asks again
    ],
)
def test_a_detached_entry_is_kept_for_its_grace(boot, kept_until, lost_after):
    world = World("g1")
    world.run("ann")
    bob = world.ask("bob", boot=boot)
    world.do(events.BootSeen(boot_id="boot-1"))
    world.detach(bob)
    world.tick(kept_until)
    assert world.gone_for_good(bob) is None
    world.tick(lost_after - kept_until)
    assert world.gone_for_good(bob) is EntryState.CANCELLED
    assert world.line() == []


def test_after_a_restart_entries_wait_long_for_a_hub_that_has_not_shown_itself():
    world = World("g1")
    world.run("ann")
    bob = world.ask("bob")
    world = world.restart()
    world.tick(3600)
    assert world.gone_for_good(bob) is None
    world.do(events.BootSeen(boot_id="boot-1"))
    world.tick(0)
    assert world.gone_for_good(bob) is EntryState.CANCELLED


def test_a_hub_that_asks_is_a_hub_that_lives():
    world = World("g1")
    world.run("ann", boot="boot-7")
    bob = world.ask("bob", boot="boot-7")
    world.detach(bob)
    world.tick(16)
    assert world.gone_for_good(bob) is EntryState.CANCELLED


def test_a_late_request_of_an_earlier_hub_does_not_bring_it_back():
    world = World("g1")
    world.do(events.BootSeen(boot_id="boot-2"))
    world.run("ann", boot="boot-2")
    bob = world.ask("bob", boot="boot-2")
    world.ask("cy", boot="boot-1")
    world.detach(bob)
    world.tick(16)
    assert world.gone_for_good(bob) is EntryState.CANCELLED


def test_detaching_twice_keeps_the_first_time_and_unknown_ids_are_nothing():
    world = World("g1")
    world.run("ann")
    bob = world.ask("bob")
    world.detach(bob)
    world.now += 10
    assert world.detach(bob) == []
    assert world.detach("nobody") == []
    world.tick(6)
    assert world.gone_for_good(bob) is EntryState.CANCELLED


def test_detaching_after_the_bind_changes_nothing():
    world = World("g1")
    lease = world.ask("ann")
    world.bind(lease)
    assert world.detach(lease) == []
    world.tick(30)
    assert world.lease(lease).state is LeaseState.STARTING


def test_cancelling_while_waiting_ends_the_entry():
    world = World("g1")
    world.run("ann")
    bob = world.ask("bob")
    world.cancel(bob)
    assert world.gone_for_good(bob) is EntryState.CANCELLED
    assert world.cancel(bob) == []


def test_cancelling_after_the_grant_gives_the_devices_to_the_next():
    world = World("g1")
    ann = world.ask("ann")
    bob = world.ask("bob")
    world.cancel(ann)
    assert world.gone_for_good(ann) is EntryState.CANCELLED
    assert world.granted(bob)


def test_cancelling_once_a_container_exists_waits_for_its_proof():
    world = World("g1")
    ann = world.ask("ann")
    world.bind(ann)
    world.cancel(ann)
    assert world.lease(ann).state is LeaseState.STOPPING
    assert world.lease(ann).reason is Reason.CANCELLED
    assert world.cancel(ann) == []
    world.gone(ann)
    assert world.gone_for_good(ann) is EntryState.DONE


def test_cancelling_what_is_unknown_is_no_error():
    assert World("g1").cancel("nobody") == []


def limited(**limits) -> Settings:
    return Settings(limits=Limits(**limits))


def test_what_can_never_be_granted_is_refused_at_once_in_words():
    small, big = machine("n1"), machine("n2", memory=10 * GIB, cpus=2.0)
    world = World(
        "g1",
        "g2",
        gpu("h1", "n2", model="H100", memory=80 * GIB),
        settings=Settings(cpu_overcommit=2.0),
    )
    world.nodes = {"n1": small, "n2": big}
    world.report("n2")
    cases = {
        "no node has 3 GPUs; the largest has 2": {"count": 3},
        "no node has 2 GPUs of model *H100*; the largest has 1": {"count": 2, "model": "*H100*"},
        "no node has 2 GPUs with 80 GiB; the largest has 1": {"count": 2, "min_memory": 80 * GIB},
        "no node has 1 MIG instance; the largest has 0": {"sharing": Mode.MIG},
        "no node but n1 has 2 GPUs; the largest has 1": {"count": 2, "not_node": "n1"},
        "no node has 1 shared GPU; the largest has 0": {"sharing": Mode.SLOTS},
        "no such node can give 9 GiB of memory; the largest gives 8 GiB": {
            "model": "h100",
            "memory": 9 * GIB,
        },
        "no such node can give 5 CPUs; the largest gives 4": {"model": "h100", "cpu": 5.0},
        "no such node can give 81 GiB of memory; the largest gives 80 GiB": {
            "count": 0,
            "memory": 81 * GIB,
        },
        "an amount is negative": {"count": 0, "memory": -1},
    }
    for words, request in cases.items():
        error = refused(world, "ann", **request)
        assert error.reason == Reason.IMPOSSIBLE
        assert error.user_message == f"This can never be granted here: {words}."
        assert str(error) == f"ann: impossible request: {words}"


def test_nothing_is_impossible_while_no_node_is_known():
    world = World()
    world.state = type(world.state)(Settings(), epoch=1)
    world.ask("ann", 8)
    assert world.line() == [("ann", Reason.WAITING_FOR_DEVICES)]


def test_a_user_may_have_only_so_many_servers_waiting():
    world = World("g1", settings=limited(queued_per_user=2))
    world.run("bob")
    world.ask("ann/a")
    world.ask("ann/b")
    error = refused(world, "ann/c")
    assert error.reason == Reason.QUEUE_FULL
    assert error.user_message == "You already have 2 servers waiting; cancel one first."
    # asking again, or for something else, for a server that waits is no third one
    world.ask("ann/b")
    world.ask("ann/b", 0, memory=50 * GIB)
    world.ask("cy")


def test_all_users_together_may_have_only_so_many_requests_waiting():
    world = World("g1", settings=limited(queued_total=2))
    world.run("dan")
    world.ask("ann")
    world.ask("bob")
    error = refused(world, "cy")
    assert error.reason == Reason.QUEUE_FULL
    assert error.user_message == (
        "The queue is full: 2 requests wait already. Please try again later."
    )
    # who waits may come back, and ask for something else
    world.ask("bob")
    world.ask("ann", 0, memory=50 * GIB)


def test_a_cancelled_request_that_is_made_again_has_lost_its_age():
    world = World("g1")
    world.run("dan")
    first = world.ask("ann")
    world.ask("bob")
    world.cancel(first)
    world.tick(5)
    again = world.ask("ann")
    assert world.line() == [
        ("bob", Reason.WAITING_FOR_DEVICES),
        ("ann", Reason.WAITING_FOR_DEVICES),
    ]
    assert world.state.tables.entries[again].submitted_at == 1005.0


def test_leaving_and_coming_back_never_gains_a_place_and_loses_it_after_the_grace():
    world = World("g1")
    world.run("dan")
    world.ask("bob")
    mine = world.ask("ann")
    world.ask("cy")
    for _ in range(50):
        world.detach(mine)
        world.tick(14)
        assert world.ask("ann") == mine
    assert [who for who, _ in world.line()] == ["bob", "ann", "cy"]
    world.detach(mine)
    world.tick(16)
    world.ask("ann")
    assert [who for who, _ in world.line()] == ["bob", "cy", "ann"]


def test_a_repeated_submission_decides_nothing():
    world = World("g1")
    event = events.Submitted(entry_id="x", key=key("ann"), request=GPURequest(count=1))
    assert [type(d) for d in world.do(event)] == [EntryStored, LeaseStored, EntryStored]
    assert world.do(event) == []
