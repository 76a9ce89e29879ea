"""Who is served first, on which devices, and what the others are told."""

import pytest

from jupyterhub_gpuspawner.scheduler import events, queue
from jupyterhub_gpuspawner.scheduler.models import (
    Admin,
    DeviceStatus,
    Health,
    Limits,
    Mode,
    Reason,
    Settings,
)
from jupyterhub_gpuspawner.scheduler.policy import Fairness
from jupyterhub_gpuspawner.scheduler.reasons import why
from tests.unit.scheduler_world import GIB, World, gpu, machine

BAD = DeviceStatus(health=Health.BAD)


# -- first come, first served ----------------------------------------------------------------


def test_devices_go_to_those_who_wait_in_the_order_of_arrival():
    world = World("g1")
    servers = [world.ask(user) for user in ("ann", "bob", "cy", "dan")]
    order = []
    while world.state.tables.leases:
        (lease,) = world.state.tables.leases
        order.append(lease)
        world.bind(lease)
        world.end(lease)
    assert order == servers


def test_a_younger_request_does_not_take_what_an_older_one_could_use():
    world = World("g1", "g2")
    ann = world.run("ann")
    bob = world.ask("bob", 2)
    cy = world.ask("cy")
    assert world.line() == [
        ("bob", Reason.WAITING_FOR_DEVICES),
        ("cy", Reason.BEHIND_OTHERS),
    ]
    world.end(ann)
    assert world.devices_of(bob) == {"g1", "g2"}
    assert not world.granted(cy)


def test_a_younger_request_may_take_what_the_older_one_can_not_use():
    world = World("g1", gpu("h2", model="H100"))
    world.run("ann", model="A100")
    world.ask("bob", model="A100")
    assert world.devices_of(world.ask("cy", model="H100")) == {"h2"}
    assert world.granted(world.ask("dan", 0))


def test_behind_others_is_the_reason_only_where_the_held_devices_would_do():
    world = World("g1", "g2", "g3")
    world.run("ann")
    world.ask("bob", 3)
    world.ask("cy", 2)
    world.ask("dan", 3, length=60.0)
    assert dict(world.line()) == {
        "bob": Reason.WAITING_FOR_DEVICES,
        "cy": Reason.BEHIND_OTHERS,
        "dan": Reason.WAITING_FOR_DEVICES,
    }


def test_a_request_that_only_a_repair_could_serve_holds_nothing():
    world = World("g1", "g2")
    world.report(g1=BAD)
    bob = world.ask("bob", 2)
    cy = world.ask("cy")
    assert world.devices_of(cy) == {"g2"}
    world.bind(cy)
    assert world.why("bob") is Reason.DEVICE_UNHEALTHY, "also while g2 is busy"
    world.tick()
    assert world.why("bob") is Reason.DEVICE_UNHEALTHY
    world.report()
    assert world.why("bob") is Reason.WAITING_FOR_DEVICES
    dan = world.ask("dan")
    assert not world.granted(dan), "once repaired, the older one's turn comes first"
    world.end(cy)
    assert world.granted(bob)


def test_a_request_whose_devices_vanished_holds_nobody_up():
    world = World("g1", "g2")
    ann = world.run("ann", 2)
    world.ask("bob", 2)
    world.report(but=["g2"])
    world.end(ann)
    assert world.devices_of(world.ask("cy")) == {"g1"}
    assert world.why("bob") is Reason.DEVICE_UNHEALTHY


def test_a_request_holds_nothing_on_a_node_that_is_too_small_for_it():
    world = World("g1", gpu("h1", "n2"))
    world.nodes["n2"] = machine("n2", memory=10 * GIB)
    world.report("n2")
    world.run("ann", memory=50 * GIB)
    world.ask("bob", memory=50 * GIB)
    assert world.devices_of(world.ask("cy")) == {"h1"}


def test_who_waits_for_a_limit_of_his_own_holds_nobody_up():
    world = World("g1", "g2", settings=Settings(limits=Limits(per_user=1)))
    world.run("ann")
    world.ask("ann/second")
    assert world.why("ann/second") is Reason.USER_LIMIT
    assert world.granted(world.ask("bob"))


def test_an_added_gpu_is_granted_to_the_first_who_waits():
    world = World("g1")
    world.run("ann")
    bob, cy = world.ask("bob"), world.ask("cy")
    world.devices.append(gpu("g2"))
    world.report()
    assert world.granted(bob) and not world.granted(cy)


def test_without_a_change_the_line_is_not_looked_at(monkeypatch):
    world = World("g1")
    ann = world.run("ann")
    world.ask("bob")
    looks = []
    monkeypatch.setattr(queue.Queue, "next", lambda *args: looks.append(args))
    quiet = [
        events.NodeReconciled(node="n1"),
        events.ContainerRunning(lease_id=ann),
        events.StopWanted(lease_id=ann),
        events.SettingsChanged(settings=world.state.settings),
        events.BootSeen(boot_id="boot-1"),
    ]
    for event in quiet:
        world.do(event)
    world.report()
    world.ask("bob")
    assert looks == []


# -- after a restart -------------------------------------------------------------------------


def back(world: World, node: str = "n1") -> World:
    """The scheduler was restarted, and has compared the node."""
    again = world.restart()
    again.report(node)
    again.do(events.NodeReconciled(node=node))
    return again


def test_who_is_back_first_after_a_restart_does_not_overtake():
    world = World("g1")
    ann = world.run("ann")
    bob, cy = world.ask("bob"), world.ask("cy")
    world = back(world)
    assert world.ask("cy") == cy
    world.end(ann)
    assert world.line() == [("bob", Reason.NOT_ATTACHED), ("cy", Reason.BEHIND_OTHERS)]
    assert world.ask("bob") == bob
    assert world.granted(bob) and not world.granted(cy)


def test_who_does_not_come_back_holds_the_others_up_for_a_while_only():
    world = World("g1")
    ann = world.run("ann")
    bob, cy = world.ask("bob"), world.ask("cy")
    world = back(world)
    world.end(ann)
    world.now += 29
    assert world.ask("cy") == cy and not world.granted(cy)
    world.tick(1)
    assert world.granted(cy) and not world.granted(bob)


def test_who_is_not_back_holds_only_what_he_could_use():
    world = World("g1", gpu("h1", model="H100"))
    ann = world.run("ann", model="A100")
    world.ask("bob", model="A100")
    world = back(world)
    world.end(ann)
    assert world.granted(world.ask("cy", model="H100"))
    assert not world.granted(world.ask("dan", model="A100"))


def test_who_cancels_while_away_holds_nothing():
    world = World("g1")
    ann = world.run("ann")
    bob, cy = world.ask("bob"), world.ask("cy")
    world = back(world)
    world.ask("cy")
    world.end(ann)
    world.cancel(bob)
    assert world.granted(cy)


def test_a_new_hub_has_its_time_to_bring_back_those_who_waited():
    world = World("g1")
    ann = world.run("ann", boot="boot-1")
    world.do(events.BootSeen(boot_id="boot-1"))
    bob = world.ask("bob")
    world.detach(bob)
    world.do(events.BootSeen(boot_id="boot-2"))
    world.end(ann)
    cy = world.ask("cy", boot="boot-2")
    assert not world.granted(cy)
    assert world.ask("bob", boot="boot-2") == bob
    assert world.granted(bob)


def test_who_is_cut_off_while_hub_and_scheduler_live_holds_nothing():
    world = World("g1")
    ann = world.run("ann")
    world.detach(world.ask("bob"))
    world.end(ann)
    assert world.granted(world.ask("cy"))


def test_without_a_return_grace_the_first_one_back_is_served():
    world = World("g1", settings=Settings(return_grace=0))
    ann = world.run("ann")
    world.ask("bob")
    world = back(world)
    world.end(ann)
    assert world.granted(world.ask("cy"))


# -- memory and CPU of the node (S5) ---------------------------------------------------------


def test_memory_limits_add_up_to_at_most_80_percent():
    world = World("g1", "g2", "g3")
    ann = world.run("ann", memory=50 * GIB)
    assert world.granted(world.ask("bob", memory=30 * GIB))
    cy = world.ask("cy", memory=1)
    assert world.why("cy") is Reason.NODE_MEMORY
    world.end(ann)
    assert world.granted(cy)


def test_a_server_without_a_memory_limit_counts_as_nothing():
    world = World("g1", "g2")
    world.run("ann", memory=80 * GIB)
    assert world.granted(world.ask("bob"))


def test_memory_that_an_older_request_needs_is_not_given_to_a_younger_one():
    world = World("g1", "g2")
    ann = world.run("ann", memory=40 * GIB)
    bob = world.ask("bob", memory=60 * GIB)
    assert world.why("bob") is Reason.NODE_MEMORY
    cy = world.ask("cy", 0, memory=30 * GIB)
    assert world.why("cy") is Reason.BEHIND_OTHERS
    assert world.granted(world.ask("dan", 0))
    world.end(ann)
    assert world.granted(bob)
    assert not world.granted(cy)


def test_memory_is_kept_for_the_first_who_waits():
    world = World("g1")
    world.run("ann", memory=20 * GIB)
    world.ask("bob", memory=30 * GIB)
    assert not world.granted(world.ask("cy", 0, memory=60 * GIB))
    assert world.granted(world.ask("dan", 0, memory=50 * GIB))


def test_a_larger_reserve_stops_nothing():
    world = World("g1", "g2")
    ann = world.run("ann", memory=80 * GIB)
    world.do(events.SettingsChanged(settings=Settings(memory_reserve=0.9)))
    assert world.lease(ann).live
    assert world.granted(world.ask("bob"))
    world.do(events.SettingsChanged(settings=Settings(memory_reserve=0.0)))
    assert world.granted(world.ask("cy", 0, memory=20 * GIB))


def test_cpu_limits_add_up_exactly_and_wait_for_room():
    world = World("g1", settings=Settings(cpu_overcommit=0.01875))
    world.nodes["n1"] = machine(cpus=16.0)  # 0.3 CPUs may be granted
    servers = [world.run(user, 0, cpu=0.1) for user in ("ann", "bob", "cy")]
    dan = world.ask("dan", 0, cpu=0.3)
    assert world.why("dan") is Reason.NODE_CPU
    assert world.granted(world.ask("eve", 0)), "no CPU limit counts as nothing"
    for server in servers[:2]:
        world.end(server)
    fay = world.ask("fay", 0, cpu=0.1)
    assert world.why("fay") is Reason.BEHIND_OTHERS
    world.end(servers[2])
    assert world.granted(dan)
    assert not world.granted(fay)


def test_without_an_overcommit_factor_cpu_is_not_counted():
    world = World("g1")
    assert world.granted(world.ask("ann", 0, cpu=1000.0))


# -- placement -------------------------------------------------------------------------------


def test_the_smallest_gpu_that_will_do_is_taken():
    world = World(
        gpu("g1", memory=80 * GIB), gpu("g2", memory=40 * GIB), gpu("g3", memory=24 * GIB)
    )
    assert world.devices_of(world.ask("ann", min_memory=30 * GIB)) == {"g2"}
    assert world.devices_of(world.ask("bob")) == {"g3"}


def test_the_node_with_the_fewest_gpus_left_over_is_taken():
    world = World("g1", "g2", "g3", gpu("h1", "n2"), gpu("h2", "n2"))
    assert world.lease(world.ask("ann", 2)).node == "n2"
    assert world.lease(world.ask("bob", 3)).node == "n1"


def test_all_gpus_of_a_lease_are_on_one_node():
    world = World("g1", "g2", gpu("h1", "n2"), gpu("h2", "n2"))
    world.run("ann")
    world.run("bob", model="A100", min_memory=1)
    two = world.ask("cy", 2)
    assert len({d[0] for d in world.devices_of(two)}) == 1


def test_models_are_matched_as_patterns_without_regard_to_case():
    world = World(gpu("g1", model="NVIDIA A100-SXM4-80GB"), gpu("g2", model="NVIDIA L4"))
    assert world.devices_of(world.ask("ann", model="*a100*")) == {"g1"}


def test_slots_of_one_gpu_go_to_different_servers():
    world = World(gpu("s1", mode=Mode.SLOTS, atoms=2), gpu("s2", mode=Mode.SLOTS, atoms=2), "g3")
    ann = world.ask("ann", sharing=Mode.SLOTS)
    bob = world.ask("bob", sharing=Mode.SLOTS)
    assert world.devices_of(ann) == world.devices_of(bob) == {"s1"}, "packed"
    two = world.ask("cy", sharing=Mode.SLOTS)
    assert world.devices_of(two) == {"s2"}
    wide = world.ask("dan", 2, sharing=Mode.SLOTS)
    assert not world.granted(wide), "two slots are slots of two GPUs"
    world.cancel(ann)
    assert world.devices_of(wide) == {"s1", "s2"}


def test_an_exclusive_lease_takes_all_parts_of_a_device():
    world = World(gpu("g1", atoms=2), gpu("g2", atoms=2))
    world.find("eve", "c9", "g2", sharing=Mode.SLOTS)
    ann = world.ask("ann")
    assert [claim.atom for claim in world.lease(ann).claims] == [0, 1]
    bob = world.ask("bob")
    assert world.why("bob") is Reason.WAITING_FOR_DEVICES
    world.gone("old", "c9")
    assert world.devices_of(bob) == {"g2"}


def test_a_device_of_which_a_part_is_taken_does_not_count_as_one_of_two():
    world = World(gpu("g1", atoms=2), gpu("g2", atoms=2))
    world.find("eve", "c9", "g2", sharing=Mode.SLOTS)
    ann = world.ask("ann", 2)
    assert not world.granted(ann)
    world.gone("old", "c9")
    assert world.devices_of(ann) == {"g1", "g2"}


# -- reasons ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ({Reason.DEVICE_BUSY: 1, Reason.NODE_NOT_READY: 3}, Reason.WAITING_FOR_DEVICES),
        ({Reason.NODE_MEMORY: 1, Reason.DEVICE_BUSY: 8}, Reason.NODE_MEMORY),
        ({Reason.NODE_CORDONED: 1, Reason.DEVICE_FOREIGN: 2}, Reason.NODE_CORDONED),
        ({Reason.DEVICE_FOREIGN: 1, Reason.DEVICE_UNHEALTHY: 2}, Reason.DEVICE_UNHEALTHY),
        ({Reason.DEVICE_CORDONED: 1, Reason.DEVICE_FOREIGN: 1}, Reason.DEVICE_FOREIGN),
        ({}, Reason.WAITING_FOR_DEVICES),
    ],
)
def test_the_reason_told_is_the_one_nearest_to_a_grant(reasons, told):
    assert why(reasons) is told
    assert why(dict(reversed(reasons.items()))) is told


def test_a_closed_node_without_such_devices_is_not_the_reason():
    world = World("g1", gpu("h1", "n2", model="H100"))
    world.admin(Admin.CORDONED, node="n2")
    world.report(g1=BAD)
    world.ask("ann", model="A100")
    assert world.why("ann") is Reason.DEVICE_UNHEALTHY


def test_after_a_restart_the_line_says_that_nobody_waits_for_the_entries():
    world = World("g1")
    world.run("ann")
    world.ask("bob")
    assert world.restart().line() == [("bob", Reason.NOT_ATTACHED)]


def test_whom_a_limit_holds_is_passed_by_in_order_of_arrival() -> None:
    settings = Settings(limits=Limits(per_user=1), fairness=Fairness(by_usage=False))
    world = World("g1", "g2", settings=settings)
    world.run("ann")
    world.ask("ann/b")
    assert world.why("ann/b") is Reason.USER_LIMIT
    assert world.granted(world.ask("bob"))


def test_what_nobody_waits_for_any_more_is_forgotten() -> None:
    world = World("g1")
    lease = world.run("ann")
    for number in range(20):
        world.cancel(world.ask("bob", length=60.0 + number))
    assert len(world.state._queue._fits) >= 20
    world.end(lease)
    assert not world.state._queue._fits


def test_the_beginning_of_the_line_is_told_with_its_expected_starts() -> None:
    world = World("g1", settings=Settings(fairness=Fairness(by_usage=False)))
    world.run("ann", length=100.0)
    ids = [world.ask(user, length=50.0) for user in ("bob", "cy", "dan")]
    line, starts = world.state.beginning(2, 1)
    assert [w.entry.id for w in line] == ids[:2] and line == world.state.waiting()[:2]
    assert starts == {ids[0]: world.now + 100.0}
    assert world.state.starts()[ids[1]] == world.now + 150.0
    assert world.state.frees() == {"g1": world.now + 250.0}
    assert world.state.now == world.now
    assert world.state.last_work("g1") is None
