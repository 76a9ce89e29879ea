"""What may be asked for beyond a number of GPUs: capability, node, pool, GPUs by name."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import GPURequest, Mode, Reason, Settings
from tests.unit.scheduler_world import GIB, World, gpu

POOLS = Settings(pools={"new": ("n2", "n3"), "empty": ("x*",)})


def site() -> World:
    """Two old GPUs in n1; two new ones in n2; one of unknown capability in n3."""
    return World(
        gpu("g1", capability=(7, 0), model="V100"),
        gpu("g2", capability=(7, 0), model="V100"),
        gpu("h1", "n2", capability=(9, 0)),
        gpu("h2", "n2", capability=(9, 0)),
        gpu("k1", "n3", memory=24 * GIB),
        settings=POOLS,
    )


def refusal(world: World, **asked: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        world.ask("ann", **asked)
    return caught.value


def test_a_gpu_of_the_capability_asked_for_or_a_newer_one_is_granted() -> None:
    world = site()
    assert world.devices_of(world.ask("ann", min_capability=(8, 0))) == {"h1"}
    assert world.devices_of(world.ask("bob", 2, min_capability=(7, 0))) == {"g1", "g2"}


def test_a_gpu_of_unknown_capability_serves_only_who_does_not_care() -> None:
    world = site()
    assert world.devices_of(world.ask("ann")) == {"k1"}
    for user in ("bob", "cy", "dan", "eve"):
        world.ask(user, min_capability=(5, 0))
    assert world.why_not("fay", min_capability=(5, 0)) is Reason.WAITING_FOR_DEVICES


def test_the_server_goes_to_the_node_asked_for() -> None:
    world = site()
    assert world.lease(world.ask("ann", node="n2")).node == "n2"
    assert world.lease(world.ask("bob", 0, node="n1")).node == "n1", "also without a GPU"
    world.ask("cy", node="n2")
    assert world.why_not("dan", node="n2") is Reason.WAITING_FOR_DEVICES


def test_the_server_goes_to_a_node_of_the_pool_asked_for() -> None:
    world = site()
    nodes = [world.lease(world.ask(user, pool="new")).node for user in ("ann", "bob", "cy")]
    assert nodes == ["n3", "n2", "n2"]
    assert world.why_not("dan", pool="new") is Reason.WAITING_FOR_DEVICES


def test_another_pool_is_looked_up_where_the_settings_change() -> None:
    world = site()
    for user in ("ann", "bob", "cy"):
        world.ask(user, pool="new")
    dan = world.ask("dan", pool="new")
    world.do(events.SettingsChanged(settings=Settings(pools={"new": ("n1",)})))
    assert world.lease(dan).node == "n1"


def test_an_admin_gets_the_gpus_that_he_names() -> None:
    world = site()
    lease = world.ask("root", 2, devices=("h2", "h1"), admin=True)
    assert world.devices_of(lease) == {"h1", "h2"}
    assert world.devices_of(world.ask("root/b", devices=("g2",), admin=True)) == {"g2"}


def test_who_waits_for_a_gpu_by_name_is_not_passed_on_it() -> None:
    world = site()
    ann = world.run("ann", 2, node="n2")
    root = world.ask("root", 2, devices=("g1", "g2"), admin=True, id="first")
    assert world.granted(root)
    boss = world.ask("boss", devices=("g1",), admin=True)
    world.bind(root)
    world.end(root)
    assert world.devices_of(boss) == {"g1"}
    assert world.devices_of(world.ask("cy", model="V100")) == {"g2"}
    assert world.lease(ann).live


def test_others_take_the_gpus_that_nobody_names_first() -> None:
    world = World("g1", "g2", "g3")
    hog = world.run("hog", devices=("g2",), admin=True)
    boss = world.ask("boss", 2, devices=("g1", "g2"), admin=True)
    assert world.devices_of(world.ask("cy")) == {"g3"}
    assert not world.granted(world.ask("dan")), "the last one is the first one's, by name"
    world.end(hog)
    assert world.devices_of(boss) == {"g1", "g2"}


def test_others_do_not_name_gpus() -> None:
    error = refusal(site(), devices=("g1",))
    assert error.reason == Reason.ADMIN_ONLY.value
    assert error.user_message == "Only an administrator may ask for GPUs by name."


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"count": 8, "model": "V100"},
            "no node has 8 GPUs of model V100; the largest has 2",
        ),
        (
            {"min_capability": (10, 0)},
            "no node has 1 GPU of compute capability 10.0 or newer; the largest has 0",
        ),
        (
            {"count": 3, "pool": "new"},
            "no node in pool new has 3 GPUs; the largest has 2",
        ),
        ({"count": 3, "node": "n1"}, "node n1 does not have 3 GPUs; it has 2"),
        (
            {"node": "n1", "pool": "new"},
            "node n1 in pool new does not have 1 GPU; it has 0",
        ),
        ({"node": "n9"}, "there is no node n9; there are n1, n2, n3"),
        ({"pool": "old"}, "there is no pool old; there are empty, new"),
        ({"pool": "empty"}, "no node in pool empty has 1 GPU; the largest has 0"),
        ({"count": 0, "node": "n9"}, "there is no node n9; there are n1, n2, n3"),
        ({"devices": ("x1",)}, "there is no GPU x1"),
        ({"devices": ("g1", "g2")}, "2 GPUs are named, and 1 asked for"),
        (
            {"count": 2, "devices": ("g1", "h1")},
            "no node has 2 GPUs (g1, h1); the largest has 1",
        ),
        (
            {"sharing": Mode.MIG, "devices": ("g1",)},
            "no node has 1 MIG instance (g1); the largest has 0",
        ),
    ],
)
def test_what_can_never_be_met_is_refused_with_the_reason(
    asked: dict[str, Any], words: str
) -> None:
    error = refusal(site(), admin=True, **asked)
    assert error.reason == Reason.IMPOSSIBLE.value
    assert error.user_message == f"This can never be granted here: {words}."


def test_a_long_list_of_nodes_is_cut() -> None:
    world = World(*(gpu(f"g{n}", f"n{n}") for n in range(10)))
    assert "n0, n1, n2, n3, n4, n5, n6, n7 and others" in refusal(world, node="x").user_message


def test_without_pools_there_are_none() -> None:
    assert "there is no pool a; there are none" in refusal(World("g1"), pool="a").user_message


def test_a_request_without_wishes_is_the_same_as_before() -> None:
    assert GPURequest(count=1) == GPURequest(
        count=1, min_capability=None, node=None, pool=None, devices=()
    )


def test_a_cap_needs_a_shared_gpu_whose_memory_something_caps() -> None:
    world = World(gpu("s1", mode=Mode.SLOTS, atoms=2, cap=10 * GIB, mps="/run/mps"), "g1")
    assert world.devices_of(world.ask("ann", sharing=Mode.SLOTS, cap=10 * GIB)) == {"s1"}
    words = str(refusal(world, sharing=Mode.SLOTS, cap=5 * GIB))
    assert "1 shared GPU that MPS caps at 5 GiB or less" in words
    assert "only the memory of shared GPUs (slots) can be capped" in str(refusal(world, cap=GIB))
