"""What is free: the files of nodes by kind, and the choice of a node."""

import pytest

from jupyterhub_gpuspawner.scheduler.capacity import Capacity
from jupyterhub_gpuspawner.scheduler.models import GPURequest, Mode
from tests.unit.scheduler_world import GIB, World, gpu, machine


def test_the_least_memory_that_will_do_comes_before_the_fullest_node():
    world = World(gpu("g1", memory=80 * GIB), gpu("h1", "n2"), gpu("h2", "n2"))
    assert world.lease(world.ask("ann")).node == "n2"


def test_kinds_together_are_enough_where_no_single_one_is():
    mixed = [gpu("g1"), gpu("g2"), gpu("g3", model="H100", memory=80 * GIB)]
    world = World(*mixed, gpu("h1", "n2"), gpu("h2", "n2", model="H100"))
    assert world.devices_of(world.ask("ann", 3)) == {"g1", "g2", "g3"}
    assert world.devices_of(world.ask("bob", 2)) == {"h1", "h2"}


def test_of_mixed_nodes_the_one_with_the_fewest_left_over_is_taken():
    world = World(
        *(gpu(f"g{n}", model=f"M{n}") for n in range(4)),
        *(gpu(f"h{n}", "n2", model=f"M{n}") for n in range(3)),
    )
    assert world.lease(world.ask("ann", 2)).node == "n2"


def test_a_mixed_node_that_others_come_first_on_is_passed_by():
    world = World(*(gpu(f"g{n}", model=f"M{n}") for n in range(3)))
    world.run("ann")
    world.ask("bob", 3)
    assert not world.granted(world.ask("cy", 2))


def test_a_node_without_memory_for_it_is_passed_by():
    world = World("g1", "g2", gpu("h1", "n2"), gpu("h2", "n2"), gpu("h3", "n2"))
    world.run("ann", 0, memory=80 * GIB)
    assert world.lease("e1").node == "n1"
    assert world.lease(world.ask("bob", memory=10 * GIB)).node == "n2"
    assert world.lease(world.ask("cy")).node == "n1", "no limit counts as nothing"


def test_a_node_without_processors_for_it_is_passed_by():
    world = World("g1", gpu("h1", "n2"))
    world.nodes["n1"] = machine(cpus=1.0)
    world.report()
    from jupyterhub_gpuspawner.scheduler import events
    from jupyterhub_gpuspawner.scheduler.models import Settings

    world.do(events.SettingsChanged(settings=Settings(cpu_overcommit=1.0)))
    assert world.lease(world.ask("ann", cpu=2.0)).node == "n2"


def test_a_device_that_moves_to_another_node_is_counted_there():
    world = World("g1", gpu("h1", "n2"))
    world.devices = [gpu("g1", "n2"), gpu("h1", "n2")]
    world.report("n2")
    assert world.lease(world.ask("ann", 2)).node == "n2"


def test_a_new_kind_is_seen_by_those_who_wait():
    world = World("g1")
    world.run("ann")
    bob = world.ask("bob", min_memory=GIB)
    world.devices.append(gpu("g2", model="H100", memory=80 * GIB))
    world.report()
    assert world.devices_of(bob) == {"g2"}


def test_more_sizes_than_are_remembered_do_no_harm():
    world = World("g1")
    world.run("ann")
    bob = world.ask("bob", memory=5 * GIB)
    capacity = world.state._queue.capacity
    for number in range(1100):
        capacity.want(GPURequest(count=1, memory=number))
        world.state._core.impossible(GPURequest(count=1, memory=number))
    assert not world.granted(world.ask("cy", memory=5 * GIB))
    world.end("e1")
    assert world.granted(bob)


def test_the_files_are_right_from_the_first_look():
    world = World("g1", gpu("s2", mode=Mode.SLOTS, atoms=2), gpu("h1", "n2"))
    world.run("ann")
    core = world.state._core
    capacity = Capacity(core.tables, core.settings, core.ready, core.settling)
    capacity.update()
    capacity.validate()
    assert capacity.kind_of("nothing") is None
    assert capacity.kind_of("g1") is capacity.kind_of("h1") is not capacity.kind_of("s2")


def test_validate_sees_a_device_that_is_filed_wrongly():
    world = World("g1")
    capacity = world.state._queue.capacity
    (shelf,) = capacity.rooms["n1"].shelves.values()
    shelf.free.clear()
    with pytest.raises(AssertionError, match="files of free devices"):
        capacity.validate()
