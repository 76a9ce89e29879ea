"""Of equally good nodes, the one that has the image already."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.scheduler import events, tables
from jupyterhub_gpuspawner.scheduler.models import Device, Settings
from jupyterhub_gpuspawner.scheduler.policy import Placement
from jupyterhub_gpuspawner.scheduler.topology import bond
from tests.unit.scheduler_world import World, gpu

LAB, OTHER = "lab:1", "lab:2"
PLACEMENTS = {
    "best fit": Placement(),
    "spread": Placement(spread=("*",)),
    "fgd": Placement(gradient=True),
}


def site(placement: Placement = PLACEMENTS["best fit"]) -> World:
    """Three nodes of two GPUs; a server of LAB has run on n3, and has ended."""
    names = [(f"g{node}{k}", f"n{node}") for node in (1, 2, 3) for k in (1, 2)]
    world = World(*(gpu(*name) for name in names), settings=Settings(placement=placement))
    world.end(world.run("old", node="n3", image=LAB))
    return world


@pytest.mark.parametrize("name", PLACEMENTS)
def test_of_equal_nodes_the_one_that_has_the_image_is_taken(name: str) -> None:
    world = site(PLACEMENTS[name])
    assert world.lease(world.ask("ann", image=LAB)).node == "n3"


@pytest.mark.parametrize("name", PLACEMENTS)
@pytest.mark.parametrize("image", ["", OTHER])
def test_an_image_that_is_nowhere_known_to_be_decides_nothing(name: str, image: str) -> None:
    world = site(PLACEMENTS[name])
    assert world.lease(world.ask("ann", image=image)).node == "n1"


def test_what_is_left_over_counts_more_than_the_image() -> None:
    world = site()
    world.run("bob", node="n2")
    # n2 has one left, which is filled first; n3 would have to be begun
    assert world.lease(world.ask("ann", image=LAB)).node == "n2"
    assert world.lease(world.ask("cid", 2, image=LAB)).node == "n3"


def test_an_image_is_known_where_a_server_of_it_ran_not_where_it_was_only_granted() -> None:
    world = site()
    lease = world.ask("bob", image=OTHER, node="n2")
    world.stop(lease)
    assert world.lease(world.ask("ann", image=OTHER)).node == "n1"


def test_an_image_that_was_pulled_is_known_without_a_server_of_it() -> None:
    world = site()
    world.do(events.ImagesSeen(images={OTHER: frozenset({"n2"}), "": frozenset({"n3"})}))
    assert world.lease(world.ask("ann", image=OTHER)).node == "n2"
    assert world.lease(world.ask("bob", image=LAB)).node == "n2"  # filled first
    assert "" not in world.state.tables.images


def test_it_is_known_after_a_restart_from_what_runs() -> None:
    world = site()
    world.run("bob", node="n3", image=OTHER)
    world.run("eve", node="n3")
    world = world.restart()
    assert world.state.tables.images == {OTHER: {"n3"}}


def test_a_new_image_costs_nobody_the_place_in_line() -> None:
    world = World("g1")
    world.run("ann")
    first = world.ask("bob", image=LAB)
    assert world.ask("bob", image=OTHER) == first
    assert world.ask("bob", image=OTHER, memory=5) != first


def test_where_images_are_is_forgotten_before_it_grows_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "_IMAGES", 2)
    world = World("g1")
    for number in range(4):
        world.end(world.run("ann", image=f"own:{number}"))
    assert world.state.tables.images == {"own:3": {"n1"}}


def test_of_nodes_with_as_many_links_the_one_that_has_the_image_is_taken() -> None:
    def pair(node: str) -> list[Device]:
        names = (f"{node}g0", f"{node}g1")
        return [gpu(a, node, bonds=((b, bond(1, "PIX")),)) for a, b in (names, names[::-1])]

    world = World(*pair("n1"), *pair("n2"), *pair("n3"))
    world.end(world.run("old", node="n2", image=LAB))
    assert world.lease(world.ask("ann", 2, image=LAB)).node == "n2"
    assert world.lease(world.ask("bob", 2, image=LAB)).node == "n1"
