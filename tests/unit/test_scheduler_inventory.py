"""Nodes and devices: what sources report, what admins decide, what nobody knows."""

import pytest

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import (
    Admin,
    DeviceStatus,
    Health,
    LeaseState,
    Mode,
    NodeState,
    Reason,
    Settings,
)
from tests.unit.scheduler_world import GIB, OK, World, gpu, machine

BAD = DeviceStatus(health=Health.BAD, note="XID 79")
SUSPECT = DeviceStatus(health=Health.SUSPECT, note="XID 13")
FOREIGN = DeviceStatus(foreign=True, note="PID 7")


def test_no_grant_before_the_first_reconcile():
    world = World("g1", ready=False)
    ann = world.ask("ann")
    assert world.line() == [("ann", Reason.NODE_NOT_READY)]
    assert not world.state.is_ready("n1")
    world.do(events.NodeReconciled(node="n1"))
    assert world.granted(ann)
    assert world.state.is_ready("n1")


def test_an_unchanged_report_decides_nothing():
    world = World("g1", "g2")
    world.run("ann")
    assert world.report() == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (BAD, Reason.DEVICE_UNHEALTHY),
        (SUSPECT, Reason.DEVICE_UNHEALTHY),
        (FOREIGN, Reason.DEVICE_FOREIGN),
    ],
)
def test_a_device_that_is_not_well_is_not_granted_until_it_is(status, reason):
    world = World("g1")
    world.report(g1=status)
    ann = world.ask("ann")
    assert world.line() == [("ann", reason)]
    assert world.state.device_state("g1") is reason
    world.report()
    assert world.granted(ann)


def test_a_bad_device_does_not_become_suspect_and_recovers_only_without_claims():
    world = World("g1")
    ann = world.run("ann")
    world.report(g1=BAD)
    assert world.lease(ann).state is LeaseState.RUNNING
    world.report()
    assert world.state.tables.status["g1"].health is Health.BAD
    world.end(ann)
    world.report(g1=SUSPECT)
    assert world.state.tables.status["g1"].health is Health.BAD
    world.report()
    assert world.free() == {"g1"}


def test_a_suspect_device_may_recover_while_it_is_used():
    world = World("g1")
    world.run("ann")
    world.report(g1=SUSPECT)
    world.report()
    assert world.state.tables.status["g1"].health is Health.OK


def test_a_device_that_vanishes_while_it_is_used_stays_its_users():
    world = World("g1")
    ann = world.run("ann")
    world.report(but=["g1"])
    assert world.state.tables.status["g1"] == DeviceStatus(present=False, note="no longer reported")
    assert world.devices_of(ann) == {"g1"}
    world.end(ann)
    assert world.state.device_state("g1") is Reason.DEVICE_UNHEALTHY
    world.report()
    assert world.free() == {"g1"}
    assert world.state.tables.status["g1"] == OK


def test_a_vanished_device_counts_for_nothing_when_the_possible_is_asked():
    world = World("g1", "g2")
    world.report(but=["g1"])
    ann = world.ask("ann")
    assert world.devices_of(ann) == {"g2"}


def test_how_a_device_is_divided_changes_only_without_claims():
    world = World(gpu("g1", mode=Mode.SLOTS, atoms=2))
    ann = world.run("ann", sharing=Mode.SLOTS)
    world.devices = [gpu("g1")]
    world.report()
    assert world.state.tables.devices["g1"].atoms == 2
    world.end(ann)
    world.report()
    assert world.state.tables.devices["g1"] == gpu("g1")


def test_a_claimed_device_that_another_machine_shows_stays_where_its_lease_is():
    world = World("g1", gpu("h1", "n2"))
    ann = world.ask("ann", model="A100")
    held, other = world.lease(ann).devices[0], "n2" if world.lease(ann).node == "n1" else "n1"
    before = world.state.tables.devices[held]
    world.devices.append(gpu(held, other))
    world.report(other, **{held: BAD})
    assert world.state.tables.devices[held] == before
    assert world.state.tables.status[held] == OK
    world.cancel(ann)
    world.report(other)
    assert world.state.tables.devices[held].node == other
    assert world.free() == {"g1", "h1"}


# -- reboot ----------------------------------------------------------------------------------


def quarantined() -> World:
    world = World("g1", "g2")
    ann = world.run("ann")
    world.stop(ann)
    world.do(events.StopHung(lease_id=ann))
    world.gone(ann)
    assert world.state.tables.status["g1"].quarantined
    return world


def test_a_new_boot_id_ends_a_quarantine_also_of_a_device_that_comes_up_later():
    world = quarantined()
    world.report(boot="n1-boot-2", but=["g1"])
    world.nodes["n1"] = machine(boot_id="n1-boot-2")
    world.report()
    assert world.free() == {"g1", "g2"}


def test_a_boot_id_that_could_not_be_read_is_no_reboot():
    world = quarantined()
    world.report(boot="")
    assert world.state.tables.nodes["n1"].boot_id == "n1-boot-1"
    world.report()
    world.report(but=["g1"])
    world.report()
    assert world.state.tables.status["g1"].quarantined


def test_the_first_boot_id_that_is_read_is_no_reboot():
    world = World("g1")
    world.nodes["n1"] = machine("n1", boot_id="")
    world.state = type(world.state)(Settings(), epoch=1)
    world.report()
    world.do(events.NodeReconciled(node="n1"))
    ann = world.run("ann")
    world.stop(ann)
    world.do(events.StopHung(lease_id=ann))
    world.report(boot="known-at-last")
    assert world.state.tables.status["g1"].quarantined


def test_after_a_reboot_nothing_is_granted_before_the_node_was_compared():
    world = World("g1")
    world.report(boot="n1-boot-2")
    ann = world.ask("ann")
    assert not world.granted(ann)
    world.do(events.NodeReconciled(node="n1"))
    assert world.granted(ann)


# -- silence ---------------------------------------------------------------------------------


def test_a_silent_node_keeps_its_leases_as_uncertain_and_takes_no_new_ones():
    world = World("g1", "g2", gpu("h1", "n2"))
    ann = world.run("ann")
    bob = world.run("bob", model="A100", min_memory=1)
    cy = world.run("cy")
    mine = {id for id in (ann, bob, cy) if world.lease(id).node == "n1"}
    assert len(mine) == 2
    world.node_is(NodeState.SILENT)
    assert {id for id in (ann, bob, cy) if world.lease(id).uncertain} == mine
    assert all(world.lease(id).state is LeaseState.RUNNING for id in mine)
    world.report()
    assert not any(world.lease(id).uncertain for id in mine)
    assert world.state.tables.nodes["n1"].state is NodeState.UP


def test_a_node_that_answers_again_is_compared_before_the_next_grant():
    world = World("g1")
    world.node_is(NodeState.SILENT)
    ann = world.ask("ann")
    assert world.line() == [("ann", Reason.NODE_NOT_READY)]
    world.node_is(NodeState.UP)
    assert not world.granted(ann)
    world.do(events.NodeReconciled(node="n1"))
    assert world.granted(ann)


def test_a_silent_node_takes_no_servers_even_if_its_engine_was_compared():
    world = World("g1")
    world.node_is(NodeState.SILENT)
    world.do(events.NodeReconciled(node="n1"))
    ann = world.ask("ann")
    assert not world.granted(ann)
    world.report()
    assert world.granted(ann)


def test_silence_of_a_node_that_was_declared_down_is_no_news():
    world = World("g1")
    world.run("ann")
    assert world.node_is(NodeState.DOWN) != []
    assert world.node_is(NodeState.SILENT) == []
    assert world.node_is(NodeState.DOWN) == []
    assert world.state.tables.nodes["n1"].state is NodeState.DOWN
    world.node_is(NodeState.UP)
    assert world.state.tables.nodes["n1"].state is NodeState.UP


def test_an_unknown_node_is_ignored():
    world = World("g1")
    assert world.node_is(NodeState.SILENT, "n9") == []


# -- admins ----------------------------------------------------------------------------------


@pytest.mark.parametrize("admin", [Admin.CORDONED, Admin.DRAINING])
def test_a_closed_device_is_not_granted_and_its_server_goes_on(admin):
    world = World("g1")
    ann, bob = world.run("ann"), world.ask("bob")
    assert world.admin(admin, device="g1", note="fan replaced on Monday") != []
    assert world.admin(admin, device="g1", note="fan replaced on Monday") == []
    assert world.lease(ann).state is LeaseState.RUNNING
    world.end(ann)
    world.report()
    assert world.line() == [("bob", Reason.DEVICE_CORDONED)]
    assert world.state.tables.status["g1"].note == "fan replaced on Monday"
    world.admin(Admin.OPEN, device="g1")
    assert world.granted(bob)


def test_a_cordoned_device_that_recovers_is_still_cordoned():
    world = World("g1")
    world.admin(Admin.CORDONED, device="g1")
    world.report(g1=BAD)
    assert world.state.tables.status["g1"].note == "XID 79"
    world.report()
    assert world.state.device_state("g1") is Reason.DEVICE_CORDONED


@pytest.mark.parametrize("admin", [Admin.CORDONED, Admin.DRAINING])
def test_a_closed_node_takes_no_servers_and_a_repeated_wish_decides_nothing(admin):
    world = World("g1")
    assert world.admin(admin, node="n1") != []
    assert world.admin(admin, node="n1") == []
    ann = world.ask("ann")
    assert world.line() == [("ann", Reason.NODE_CORDONED)]
    world.report()
    assert world.state.tables.nodes["n1"].admin is admin
    world.admin(Admin.OPEN, node="n1")
    assert world.granted(ann)


def test_closing_what_is_unknown_is_ignored():
    world = World("g1")
    assert world.admin(Admin.CORDONED, device="g9") == []
    assert world.admin(Admin.CORDONED, node="n9") == []


# -- MIG -------------------------------------------------------------------------------------


def mig() -> World:
    parts = [gpu(f"m{n}", mode=Mode.MIG, parent="g1", memory=10 * GIB) for n in (2, 3)]
    return World(gpu("g1"), *parts)


def test_a_gpu_is_not_granted_while_an_instance_of_it_is():
    world = mig()
    ann = world.run("ann", sharing=Mode.MIG)
    bob = world.ask("bob")
    assert world.line() == [("bob", Reason.WAITING_FOR_DEVICES)]
    cy = world.ask("cy", sharing=Mode.MIG)
    assert world.why("cy") is Reason.BEHIND_OTHERS, "it would keep the whole GPU from bob"
    world.end(ann)
    assert world.granted(bob)
    assert not world.granted(cy)


def test_an_instance_is_not_granted_while_its_gpu_is():
    world = mig()
    ann = world.run("ann")
    bob = world.ask("bob", sharing=Mode.MIG)
    assert not world.granted(bob)
    world.end(ann)
    assert world.granted(bob)


def test_an_instance_may_become_part_of_another_gpu_while_nobody_uses_it():
    world = World("g1", "g2", gpu("m3", mode=Mode.MIG, parent="g1"))
    world.devices[-1] = gpu("m3", mode=Mode.MIG, parent="g2")
    world.report()
    assert world.state.tables.relatives("g1") == ()
    assert world.state.tables.relatives("g2") == ("m3",)
    assert world.state.tables.relatives("m3") == ("g2",)
