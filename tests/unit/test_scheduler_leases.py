"""The life of a lease: two-phase start, intent before act, release needs proof, adoption."""

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import DeviceStored, LeaseStored, Noted
from jupyterhub_gpuspawner.scheduler.models import (
    EntryState,
    LeaseState,
    Mode,
    NodeState,
    Reason,
    Target,
)
from tests.unit.scheduler_world import World, dump, gpu


def refused(world: World, lease_id: str, container: str) -> RefusedError:
    before = dump(world.state.tables)
    with pytest.raises(RefusedError) as caught:
        world.bind(lease_id, container)
    assert dump(world.state.tables) == before, "a refusal changes nothing"
    return caught.value


def test_a_lease_goes_from_grant_to_release():
    world = World("g1")
    ann = world.ask("ann")
    world.now += 1
    world.bind(ann, "c1")
    assert (world.lease(ann).state, world.lease(ann).container_id) == (LeaseState.STARTING, "c1")
    assert world.state.tables.entries[ann].state is EntryState.BOUND
    world.now += 1
    world.running(ann)
    assert (world.lease(ann).state, world.lease(ann).moved_at) == (LeaseState.RUNNING, 1002.0)
    world.stop(ann)
    assert (world.lease(ann).state, world.lease(ann).target) == (LeaseState.STOPPING, Target.GONE)
    assert world.free() == set()
    world.now += 1
    world.gone(ann, "c1")
    last = world.history(LeaseStored)[-1].lease
    assert (last.state, last.released_at, last.reason) == (
        LeaseState.RELEASED,
        1003.0,
        Reason.STOPPED,
    )
    assert world.gone_for_good(ann) is EntryState.DONE
    assert world.free() == {"g1"}


def test_every_step_may_be_repeated_and_decides_nothing_the_second_time():
    world = World("g1")
    ann = world.ask("ann")
    for step in (
        lambda: world.bind(ann, "c1"),
        lambda: world.running(ann),
        lambda: world.stop(ann),
        lambda: world.do(events.StopHung(lease_id=ann)),
        lambda: world.gone(ann, "c1"),
    ):
        assert step() != []
        before = dump(world.state.tables)
        assert step() == []
        assert dump(world.state.tables) == before


def test_what_is_said_of_unknown_leases_is_ignored():
    world = World("g1")
    assert world.running("x") == []
    assert world.stop("x") == []
    assert world.gone("x", "c") == []
    assert world.do(events.StopHung(lease_id="x")) == []


def test_a_container_of_an_unknown_lease_may_not_start():
    error = refused(World("g1"), "x", "c" * 64)
    assert str(error) == "lease x: container cccccccccccc may not start: over"
    assert error.reason == Reason.STOPPED
    assert error.user_message == (
        "The GPUs were given back before the server started. Start it again."
    )


def test_a_container_may_not_start_once_the_target_is_gone():
    world = World("g1")
    ann = world.ask("ann")
    world.stop(ann)
    assert world.free() == {"g1"}
    assert refused(world, ann, "late").reason == Reason.STOPPED


def test_the_bound_container_may_not_start_once_the_target_is_gone():
    world = World("g1")
    ann = world.ask("ann")
    world.bind(ann, "c1")
    world.stop(ann, Reason.CANCELLED)
    error = refused(world, ann, "c1")
    assert error.reason == Reason.CANCELLED
    assert str(error).endswith("may not start: stopping")


@pytest.mark.parametrize("running", [False, True])
def test_a_second_container_of_a_lease_may_not_start(running):
    world = World("g1")
    ann = world.ask("ann")
    world.bind(ann, "c1")
    if running:
        world.running(ann)
    refused(world, ann, "c2")
    assert world.lease(ann).container_id == "c1"


def test_a_lease_whose_entry_was_lost_can_still_be_used():
    world = World("g1")
    ann = world.ask("ann")
    state = type(world.state)(world.state.settings, epoch=2)
    state.restore([LeaseStored(lease=world.lease(ann))], world.now)
    world.state = state
    world.bind(ann)
    world.end(ann)
    assert world.state.tables.leases == {}


def test_one_container_serves_one_lease():
    world = World("g1", "g2")
    ann, bob = world.ask("ann"), world.ask("bob")
    world.bind(ann, "c1")
    refused(world, bob, "c1")


def test_a_lease_is_not_running_before_its_container_is_bound():
    world = World("g1")
    ann = world.ask("ann")
    assert world.running(ann) == []
    assert world.lease(ann).state is LeaseState.RESERVED


@pytest.mark.parametrize("steps", ["bind", "bind running", "bind stop", "bind running stop"])
def test_another_containers_end_is_no_proof(steps):
    world = World("g1")
    ann = world.ask("ann")
    for step in steps.split():
        getattr(world, step)(ann)
    before = world.lease(ann)
    assert world.gone(ann, "other") == []
    assert world.lease(ann) == before
    assert world.free() == set()


def test_no_containers_end_frees_what_has_no_container_yet():
    world = World("g1")
    ann = world.ask("ann")
    assert world.gone(ann, "other") == []
    assert world.granted(ann)


def test_a_stop_alone_frees_nothing():
    world = World("g1")
    ann = world.run("ann")
    bob = world.ask("bob")
    world.stop(ann)
    world.tick(10**6)
    assert not world.granted(bob)
    world.gone(ann)
    assert world.granted(bob)


def test_a_container_that_vanished_frees_its_devices_and_says_why():
    world = World("g1")
    ann = world.run("ann")
    world.do(
        events.ContainerGone(
            lease_id=ann,
            container_id=f"c-{ann}",
            reason=Reason.OUT_OF_MEMORY,
            note="limit 8 GiB",
        )
    )
    states = [d.lease.state for d in world.history(LeaseStored)[-2:]]
    assert states == [LeaseState.STOPPING, LeaseState.RELEASED]
    last = world.history(LeaseStored)[-1].lease
    assert (last.reason, last.note) == (Reason.OUT_OF_MEMORY, "limit 8 GiB")


def test_the_last_words_of_a_stopped_container_are_kept_and_the_reason_is_that_of_the_stop():
    world = World("g1")
    ann = world.run("ann")
    world.stop(ann, Reason.STOPPED)
    world.do(
        events.ContainerGone(
            lease_id=ann, container_id=f"c-{ann}", reason=Reason.EXITED, note="exit code 3"
        )
    )
    last = world.history(LeaseStored)[-1].lease
    assert (last.reason, last.note) == (Reason.STOPPED, "exit code 3")


def test_without_a_container_in_time_the_lease_is_taken_back():
    world = World("g1")
    ann = world.ask("ann")
    world.tick(120)
    assert world.granted(ann)
    world.tick(1)
    last = world.history(LeaseStored)[-1].lease
    assert (last.state, last.reason) == (LeaseState.RELEASED, Reason.START_TIMEOUT)
    assert world.gone_for_good(ann) is EntryState.CANCELLED
    refused(world, ann, "late")


def test_without_a_start_in_time_the_lease_is_taken_back_and_needs_proof():
    world = World("g1")
    ann = world.ask("ann")
    world.bind(ann)
    world.tick(600)
    assert world.lease(ann).state is LeaseState.STARTING
    world.tick(1)
    assert (world.lease(ann).state, world.lease(ann).reason) == (
        LeaseState.STOPPING,
        Reason.START_TIMEOUT,
    )
    world.gone(ann)
    assert world.free() == {"g1"}


def test_a_running_server_is_never_taken_back_by_time():
    world = World("g1")
    ann = world.run("ann", length=3600.0)
    world.tick(10**7)
    assert world.lease(ann).state is LeaseState.RUNNING


def test_a_starting_lease_is_not_taken_back_while_nothing_is_known_of_its_node():
    world = World("g1")
    ann = world.ask("ann")
    world.bind(ann)
    world.node_is(NodeState.SILENT)
    world.tick(601)
    world.report()
    world.tick()  # it answers, but was not yet compared
    assert world.lease(ann).state is LeaseState.STARTING
    world.running(ann)
    world.do(events.NodeReconciled(node="n1"))
    world.tick()
    assert world.lease(ann).state is LeaseState.RUNNING


def test_a_starting_lease_on_a_silent_node_is_kept_even_if_its_engine_was_compared():
    world = World("g1")
    ann = world.ask("ann")
    world.bind(ann)
    world.node_is(NodeState.SILENT)
    world.do(events.NodeReconciled(node="n1"))
    world.tick(601)
    assert world.lease(ann).state is LeaseState.STARTING


def test_after_a_restart_a_starting_lease_waits_for_the_first_reconcile():
    world = World("g1")
    ann = world.ask("ann")
    world.bind(ann)
    world = world.restart()
    world.tick(601)
    assert world.lease(ann).state is LeaseState.STARTING
    world.do(events.NodeReconciled(node="n1"))
    world.tick()
    assert world.lease(ann).state is LeaseState.STOPPING


# -- a stop that hangs -----------------------------------------------------------------------


def test_a_stop_that_hangs_puts_the_devices_out_of_service_until_a_reboot():
    world = World("g1", "g2", "g3")
    ann = world.run("ann", 2)
    world.stop(ann)
    world.do(events.StopHung(lease_id=ann, note="process 17 does not end"))
    assert world.lease(ann).quarantined
    assert [d.status.note for d in world.history(DeviceStored)[-2:]] == [
        "process 17 does not end"
    ] * 2
    world.gone(ann)
    assert world.free() == {"g3"}
    world.report()
    bob = world.ask("bob", 2)
    assert world.why("bob") is Reason.DEVICE_QUARANTINED
    assert world.state.tables.status["g1"].note == "process 17 does not end"
    world.report(boot="n1-boot-2")
    world.do(events.NodeReconciled(node="n1"))
    assert world.granted(bob)
    assert world.state.tables.status["g1"].note == ""


def test_a_running_server_is_not_quarantined():
    world = World("g1")
    ann = world.run("ann")
    assert world.do(events.StopHung(lease_id=ann)) == []


def test_a_hung_stop_of_a_server_without_known_devices_is_marked_on_the_lease():
    world = World("g1")
    world.find("ann", "c9", "ghost")
    world.stop("old")
    world.do(events.StopHung(lease_id="old"))
    assert world.lease("old").quarantined


# -- settling --------------------------------------------------------------------------------


def test_a_real_gpu_is_granted_again_only_after_its_memory_was_seen_empty():
    world = World(gpu("g1", simulated=False))
    ann = world.run("ann")
    bob = world.ask("bob")
    world.now += 10
    world.end(ann)
    assert world.free() == set()
    assert world.why("bob") is Reason.WAITING_FOR_DEVICES
    world.tick(60)
    assert not world.granted(bob)
    world.report(occupied=["g1"])
    assert not world.granted(bob)
    world.report(but=["g1"])
    world.report(taken_at=1009.9)  # the look began before the release
    assert not world.granted(bob)
    world.report(taken_at=1010.0)
    assert world.granted(bob)


def test_a_simulated_gpu_has_no_memory_to_wait_for():
    world = World("g1")
    ann, bob = world.run("ann"), world.ask("bob")
    world.end(ann)
    assert world.granted(bob)


def test_after_a_restart_real_gpus_are_looked_at_first():
    world = World(gpu("g1", simulated=False), "g2").restart()
    world.do(events.NodeReconciled(node="n1"))
    world.ask("ann")
    bob = world.ask("bob")
    assert world.free() == set()
    assert not world.granted(bob)
    world.report()
    assert world.granted(bob)


def test_a_mig_instance_settles_together_with_its_gpu():
    world = World(
        gpu("g1", simulated=False),
        gpu("m2", simulated=False, mode=Mode.MIG, parent="g1"),
    )
    ann = world.run("ann", sharing=Mode.MIG)
    world.end(ann)
    bob = world.ask("bob")
    assert not world.granted(bob)
    world.report()
    assert world.granted(bob)


# -- adoption --------------------------------------------------------------------------------


def test_a_gpu_and_its_mig_instances_are_never_held_at_once():
    world = World(
        *(gpu(f"m{n}", mode=Mode.MIG, parent="g1") for n in (2, 3)),
        gpu("g1"),
    )
    ann = world.run("ann", sharing=Mode.MIG)
    bob = world.ask("bob")
    assert not world.granted(bob)
    world.end(ann)
    assert world.granted(bob)
    assert not world.granted(world.ask("cy", sharing=Mode.MIG))


def test_a_running_container_without_a_lease_is_adopted_with_its_devices():
    world = World("g1", "g2")
    world.find("ann", "c9", "g1")
    lease = world.lease("old")
    assert (lease.state, lease.devices, lease.container_id) == (LeaseState.RUNNING, ("g1",), "c9")
    assert world.history(Noted)[-1] == Noted(
        kind="adopted",
        text="container c9 was running without a lease and is adopted",
        subject="ann",
    )
    before = len(world.journal)
    world.find("ann", "c9", "g1")
    assert len(world.journal) == before
    world.gone("old", "c9")
    assert world.free() == {"g1", "g2"}


def test_an_adopted_container_makes_its_user_wait_for_its_end():
    world = World("g1", "g2")
    world.find("ann", "c9", "g1")
    world.ask("ann")
    assert world.why("ann") is Reason.PREVIOUS_SERVER
    assert world.lease("old").target is Target.GONE


def test_a_container_of_a_server_that_has_a_lease_is_adopted_under_another_name():
    world = World("g1", "g2")
    ann = world.run("ann")
    world.find("ann", "c9", "g1", "g2")
    assert world.devices_of(ann) == {"g1"}
    lease = world.lease("old")
    assert (lease.key.server, lease.devices) == ("@c9", ("g2",))
    assert world.history(Noted)[-1].text == (
        "container c9 was running without a lease and is adopted; "
        "it also uses g1, which others hold"
    )


def test_a_second_container_of_one_lease_is_adopted_as_a_lease_of_its_own():
    world = World("g1")
    ann = world.run("ann")
    world.find("ann", "c9", "g1", lease=ann)
    assert world.lease(ann).container_id == f"c-{ann}"
    assert world.lease(f"{ann}@c9").container_id == "c9"
    world.gone(f"{ann}@c9", "c9")
    assert world.lease(ann).state is LeaseState.RUNNING


def test_the_container_of_an_entry_that_waits_again_is_adopted_beside_it():
    # the ledger was restored from a backup of before the grant
    world = World("g1")
    world.admin(events.Admin.CORDONED, node="n1")
    ann = world.ask("ann")
    world.find("ann", "c9", "g1", lease=ann)
    world.gone(f"{ann}@c9", "c9")
    world.admin(events.Admin.OPEN, node="n1")
    assert world.granted(ann)


def test_a_device_listed_twice_is_claimed_once():
    world = World("g1")
    world.find("ann", "c9", "g1", "g1")
    world.gone("old", "c9")
    assert world.free() == {"g1"}


def test_a_device_that_no_source_listed_yet_is_claimed_before_it_is_listed():
    world = World("g1")
    world.find("ann", "c9", "g2")
    world.devices.append(gpu("g2"))
    world.report()
    assert world.free() == {"g1"}
    assert world.history(Noted)[-1].text.endswith("is adopted")
    world.find("bob", "c8", "g2", lease="older")
    assert world.lease("older").claims == ()


def test_an_adopted_container_takes_one_slot_of_a_shared_gpu_and_all_of_an_exclusive_one():
    world = World(gpu("s1", mode=Mode.SLOTS, atoms=3))
    world.find("ann", "c1", "s1", lease="a", sharing=Mode.SLOTS)
    assert [claim.atom for claim in world.lease("a").claims] == [0]
    world.find("bob", "c2", "s1", lease="b")
    assert [claim.atom for claim in world.lease("b").claims] == [1, 2]


def test_parent_and_child_in_one_container_are_one_lease():
    world = World(gpu("g1"), gpu("m2", mode=Mode.MIG, parent="g1"))
    world.find("ann", "c1", "g1", "m2")
    assert world.devices_of("old") == {"g1", "m2"}
