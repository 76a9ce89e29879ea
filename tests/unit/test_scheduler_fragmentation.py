"""Which machine: fragmentation as by its definition, and the three placements."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuspawner.scheduler import events, fragmentation
from jupyterhub_gpuspawner.scheduler.fragmentation import WHOLE, Fragments, Left, Scale, Task
from jupyterhub_gpuspawner.scheduler.models import Mode, Placement, Settings
from tests.unit.scheduler_world import GIB, World, gpu

SCALE = Scale(cpus=10, memory=10, gpus=8 * WHOLE)
PARTS = (250, 500, WHOLE)


def naive(tasks: list[Task], left: Left) -> float:
    """By the definition, task by task."""
    weights = [task.weight for task in tasks]
    lost = 0.0
    for task, weight in zip(tasks, weights, strict=True):
        unusable = sum(free for free in left.gpus if free < task.part)
        if not left.choices(task):
            unusable = sum(left.gpus)
        lost += weight / sum(weights) * unusable
    return lost


tasks = st.builds(
    Task,
    count=st.integers(1, 3),
    part=st.sampled_from(PARTS),
    cpus=st.integers(0, 5),
    memory=st.integers(0, 5),
    kinds=st.sampled_from((None, frozenset({"a"}), frozenset({"a", "b"}))),
    weight=st.integers(1, 5).map(float),
)
lefts = st.builds(
    Left,
    cpus=st.integers(0, 6),
    memory=st.integers(0, 6),
    gpus=st.lists(st.sampled_from((0, *PARTS)), max_size=4).map(lambda g: tuple(sorted(g))),
    kind=st.sampled_from("ab"),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(tasks, min_size=1, max_size=6), st.lists(lefts, min_size=1, max_size=4))
def test_fragmentation_is_what_its_definition_says(usual, nodes):
    fragments = Fragments(usual, SCALE)
    for left in [*nodes, *nodes]:
        assert fragments.of(left) == pytest.approx(naive(usual, left))


@settings(max_examples=40, deadline=None)
@given(st.lists(tasks, min_size=1, max_size=4), lefts, tasks)
def test_the_best_gpus_of_a_node_are_those_that_spoil_least(usual, left, task):
    best = Fragments(usual, SCALE).best(left, task)
    choices = left.choices(task)
    assert (best is None) == (not choices)
    if best is not None:
        growth = {n: naive(usual, left.take(task, n)) for n in choices}
        assert growth[best[1]] == pytest.approx(min(growth.values()))
        assert sum(left.take(task, best[1]).gpus) == sum(left.gpus) - task.count * task.part


def test_what_is_remembered_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(fragmentation, "_REMEMBERED", 2)
    fragments = Fragments([Task(count=1)], SCALE)
    for free in range(5):
        fragments.of(Left(cpus=1, memory=1, gpus=(free,)))
    assert len(fragments._known) <= 2


def test_without_anything_usual_nothing_is_lost_but_emptiness_counts():
    fragments = Fragments([], SCALE)
    full, empty = (Left(cpus=1, memory=1, gpus=(WHOLE,) * n) for n in (1, 4))
    task = Task(count=1)
    assert fragments.best(full, task) < fragments.best(empty, task)


# -- in the scheduler ----------------------------------------------------------------------------


def two(placement: Placement, **fields) -> World:
    """Two machines with two GPUs each."""
    return World(
        *(gpu(f"n{n}-g{k}", f"n{n}", **fields) for n in (1, 2) for k in range(2)),
        settings=Settings(placement=placement, pools={"all": ("n*",)}),
    )


GRADIENT = Placement(gradient=True)


def test_a_small_server_goes_where_the_gpus_are_of_no_use_to_others():
    world = two(GRADIENT)
    short = world.lease(world.ask("big", 0, memory=76 * GIB)).node
    other = world.lease(world.ask("ann", 1, memory=16 * GIB)).node
    assert other != short
    # the other one has fewer left over
    assert world.lease(world.ask("bob", 1, memory=2 * GIB)).node == short
    best = two(Placement())
    best.ask("big", 0, memory=76 * GIB)
    best.ask("ann", 1, memory=16 * GIB)
    assert best.lease(best.ask("bob", 1, memory=2 * GIB)).node == other


def test_a_pair_is_left_to_those_who_ask_for_pairs():
    world = two(GRADIENT)
    world.ask("ann", 1)
    first = world.lease(world.ask("pair", 2)).node
    assert world.lease(world.ask("bob", 1)).node != first


def test_slots_are_parts_of_a_gpu():
    world = two(GRADIENT, mode=Mode.SLOTS, atoms=2)
    leases = [world.ask(f"user{n}", 1, sharing=Mode.SLOTS) for n in range(8)]
    assert all(world.granted(lease) for lease in leases)
    # a GPU that is begun is filled first
    assert world.devices_of(leases[0]) == world.devices_of(leases[1])


def test_a_node_whose_memory_is_used_up_takes_those_without_a_limit_last():
    world = two(GRADIENT)
    short = world.lease(world.ask("big", 0, memory=80 * GIB)).node
    world.do(events.SettingsChanged(settings=Settings(placement=GRADIENT, memory_reserve=0.5)))
    assert world.lease(world.ask("ann", 1)).node != short
    world.ask("bob", 1)
    assert world.lease(world.ask("cid", 1)).node == short


def test_what_is_usual_is_looked_at_again(monkeypatch):
    monkeypatch.setattr("jupyterhub_gpuspawner.scheduler.strategies._CHANGES", 1)
    world = two(GRADIENT)
    assert world.granted(world.ask("ann", 1)) and world.granted(world.ask("bob", 2))


@pytest.mark.parametrize(
    ("pools", "pool", "apart"),
    [({"all"}, "all", True), ({"*"}, None, True), ({"all"}, None, False), ((), "all", False)],
)
def test_servers_of_a_spread_pool_go_where_most_is_free(pools, pool, apart):
    world = two(Placement(spread=tuple(pools)))
    nodes = {world.lease(world.ask(user, 1, pool=pool)).node for user in ("ann", "bob")}
    assert (len(nodes) == 2) is apart


def test_spread_looks_at_memory_where_as_many_gpus_are_free():
    world = two(Placement(spread=("*",)))
    first = world.lease(world.ask("ann", 0, memory=10 * GIB)).node
    assert world.lease(world.ask("bob", 1)).node != first


def test_spread_waits_where_nothing_is_free_and_passes_nobody():
    world = two(Placement(spread=("*",)))
    for user in ("ann", "bob"):
        world.ask(user, 2, length=60.0)
    world.ask("cid", 2)
    assert world.line()
