"""Sets of GPUs that are connected best: the same as trying all of them, and used for grants."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuspawner.discovery.boards import MODELS, wired
from jupyterhub_gpuspawner.scheduler.models import Admin, GPURequest, Mode
from jupyterhub_gpuspawner.scheduler.placement import pick
from jupyterhub_gpuspawner.scheduler.topology import NVLINK, PCIE, Board, best_set, bond, total
from tests.unit.scheduler_world import GIB, World, gpu


def value(bonds, free, chosen):
    """(within, left behind)"""
    return total(bonds, chosen), total(bonds, [a for a in free if a not in chosen])


def exhaustive(bonds, free, count):
    """The best value of all sets."""
    return max(value(bonds, free, chosen) for chosen in itertools.combinations(free, count))


@pytest.mark.parametrize("name", ["dgx-1v", "dgx-a100", "hgx-h100"])
def test_the_set_is_as_good_as_the_best_of_all_on_known_machines(name):
    bonds = MODELS[name].bonds()
    rng = random.Random(5)
    frees = [range(8), *(sorted(rng.sample(range(8), rng.randint(2, 7))) for _ in range(10))]
    for free in frees:
        for count in range(1, len(free) + 1):
            chosen = best_set(bonds, free, count)
            assert len(set(chosen)) == count and set(chosen) <= set(free)
            assert value(bonds, free, chosen) == exhaustive(bonds, free, count)


@pytest.mark.parametrize("count", [2, 3, 14])
def test_the_set_is_as_good_as_the_best_of_all_on_sixteen_gpus(count):
    bonds = MODELS["dgx-2"].bonds()
    assert value(bonds, range(16), best_set(bonds, range(16), count)) == exhaustive(
        bonds, range(16), count
    )


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_set_is_as_good_as_the_best_of_all_on_any_machine(data):
    size = data.draw(st.integers(1, 7))
    bonds = [[0] * size for _ in range(size)]
    for a, b in itertools.combinations(range(size), 2):
        bonds[a][b] = bonds[b][a] = data.draw(st.sampled_from((0, 1, 3, 1000, 2003)))
    count = data.draw(st.integers(1, size))
    chosen = best_set(bonds, range(size), count)
    assert value(bonds, range(size), chosen) == exhaustive(bonds, range(size), count)


def test_all_of_pcie_is_less_than_one_nvlink():
    assert 16 * 15 // 2 * max(PCIE.values()) < NVLINK == bond(1, "SYS") - PCIE["SYS"]


def test_links_to_gpus_that_are_not_there_don_t_count():
    board = Board.of([gpu("g0", bonds=(("g9", 5), ("g1", 2005))), gpu("g1", bonds=(("g0", 2005),))])
    assert board.bonds == [[0, 2005], [2005, 0]]
    assert board.nvlinks(["g0", "g1"], 2) == 2


def test_the_matrices_are_symmetric_and_have_as_many_links_as_the_gpus():
    for name, links in (("dgx-1v", 6), ("dgx-a100", 7 * 12), ("hgx-h100", 7 * 18), ("dgx-2", 90)):
        bonds = MODELS[name].bonds()
        assert all(bonds[a][b] == bonds[b][a] for a in range(8) for b in range(8))
        assert {sum(row) // NVLINK for row in bonds} == {links}


# -- in the scheduler ----------------------------------------------------------------------------


def dgx(node="n1", name="dgx-1v", **fields):
    model = MODELS[name]
    plain = tuple(gpu(f"{node}-g{k}", node, **fields) for k in range(model.gpus))
    return wired(plain, model)


def numbers(world, lease_id):
    return {id[-1] for id in world.devices_of(lease_id)}


def test_two_gpus_with_two_links_are_given_rather_than_the_first_two():
    world = World(*dgx())
    pairs = [{"0", "3"}, {"0", "4"}, {"1", "2"}, {"1", "5"}, {"2", "3"}, {"4", "7"}, {"5", "6"}]
    assert numbers(world, world.ask("ann", 2)) in [*pairs, {"6", "7"}]


def test_one_gpu_is_taken_where_it_leaves_the_best_set_to_others():
    # 0 and 1 have a link, and 2 is alone
    world = World(
        gpu("g0", bonds=(("g1", bond(1, "PIX")), ("g2", 1))),
        gpu("g1", bonds=(("g0", bond(1, "PIX")), ("g2", 1))),
        gpu("g2", bonds=(("g0", 1), ("g1", 1))),
    )
    assert world.devices_of(world.ask("ann", 1)) == {"g2"}
    assert world.devices_of(world.ask("bob", 2)) == {"g0", "g1"}


def apart():
    """Two machines; on n1 only GPUs 0 and 5 are open, which have no link."""
    world = World(*dgx("n1"), *dgx("n2"))
    for number in (1, 2, 3, 4, 6, 7):
        world.admin(Admin.CORDONED, device=f"n1-g{number}")
    return world


def test_a_node_with_linked_gpus_is_taken_before_one_with_fewer_left_over():
    world = apart()
    assert world.lease(world.ask("ann", 2)).node == "n2"
    # for one GPU links don't matter
    assert world.lease(world.ask("bob", 1)).node == "n1"


def test_gpus_without_links_are_given_where_there_are_no_others():
    world = apart()
    world.ask("ann", 8)
    assert numbers(world, world.ask("bob", 2)) == {"0", "5"}
    assert not world.granted(world.ask("cid", 2))


def test_of_nodes_with_as_many_links_the_one_with_fewer_left_over_is_taken():
    world = World(*dgx("n1"), *dgx("n2"))
    for name in ("n1-g2", "n1-g3", "n1-g4", "n1-g5", "n1-g6", "n1-g7"):
        world.admin(Admin.CORDONED, device=name)
    # 5 and 7 have one link, as 0 and 1 of the other machine
    for name in ("n2-g1", "n2-g2", "n2-g3", "n2-g4", "n2-g6"):
        world.admin(Admin.CORDONED, device=name)
    assert world.devices_of(world.ask("ann", 2)) == {"n1-g0", "n1-g1"}


def test_nodes_that_tell_nothing_come_after_those_with_links_and_before_none():
    world = World(*(gpu(f"n1-g{k}", "n1") for k in range(2)), *dgx("n2"))
    assert world.lease(world.ask("ann", 2)).node == "n2"
    world.ask("bob", 6)
    assert world.lease(world.ask("cid", 2)).node == "n1"


def test_links_don_t_pass_by_what_is_reserved_for_the_first_in_line():
    world = World(*dgx("n1"), *dgx("n2"))
    world.ask("ann", 8, length=60.0)
    world.ask("bob", 7, length=60.0)
    world.ask("cid", 8, length=60.0)
    # one is free, which cid will need: two are asked for
    assert not world.granted(world.ask("dee", 2, length=3600.0))
    assert world.granted(world.ask("eve", 1, length=30.0))


def test_memory_and_names_count_before_links():
    world = World(*dgx("n1"), *dgx("n2"))
    world.ask("ann", 0, memory=60 * GIB)
    full = next(lease.node for lease in world.state.tables.leases.values())
    assert world.lease(world.ask("bob", 2, memory=40 * GIB)).node != full
    named = ("n1-g1", "n1-g6")
    assert world.devices_of(world.ask("root", 2, devices=named, admin=True)) == set(named)


@pytest.mark.parametrize(("wished", "count"), [({"n1-g6", "n1-g3"}, 4), ({"n1-g0", "n1-g6"}, 7)])
def test_a_gpu_that_somebody_waits_for_by_name_comes_last(wished, count):
    world = World(*dgx())
    capacity = world.state._queue.capacity
    want = capacity.want(GPURequest(count=count))
    found = pick(world.state.tables, capacity.rooms["n1"], want, wished)
    taken = {device.id for device, _ in found}
    assert len(taken) == count
    assert len(taken & wished) == max(0, count - 6)


def test_slots_are_taken_by_free_parts_not_by_links():
    world = World(*dgx(mode=Mode.SLOTS, atoms=2))
    assert numbers(world, world.ask("ann", 2, sharing=Mode.SLOTS)) == {"0", "1"}


def test_a_board_forgets_what_it_was_asked_before_it_grows_without_end(monkeypatch):
    monkeypatch.setattr("jupyterhub_gpuspawner.scheduler.topology._REMEMBERED", 2)
    board = Board.of(dgx())
    ids = list(board.rows)
    answers = [board.choose(ids, count) for count in (1, 2, 3, 4)]
    assert [board.choose(ids, count) for count in (1, 2, 3, 4)] == answers
    assert len(board._known) <= 2


def test_a_device_that_loses_its_links_is_placed_without_them():
    world = World(*dgx())
    world.devices = [gpu(device.id) for device in world.devices]
    world.report("n1")
    assert numbers(world, world.ask("ann", 2)) == {"0", "1"}
