"""Why it waits and why these devices: what each node had, now and at the moment of a grant."""

from __future__ import annotations

from jupyterhub_gpuspawner.discovery.boards import MODELS, wired
from jupyterhub_gpuspawner.scheduler.decisions import EntryStored
from jupyterhub_gpuspawner.scheduler.explain import NodeAnswer, Past
from jupyterhub_gpuspawner.scheduler.models import Admin, NodeState, Reason
from tests.unit.scheduler_world import GIB, World, gpu


def two_nodes() -> World:
    return World(*(gpu(f"n{n}-g{k}", f"n{n}") for n in (1, 2) for k in range(2)))


def now(world: World, entry: str) -> dict[str, NodeAnswer]:
    return {answer.node: answer for answer in world.state.nodes_for(entry)}


def past(world: World, lease: str) -> Past:
    found = Past(lease)
    assert any(found.take(decision) for decision in world.journal)
    return found


def test_each_node_says_what_it_lacks_for_one_that_waits():
    world = two_nodes()
    world.ask("ann", 1, node="n1")
    world.admin(Admin.CORDONED, node="n2")
    answers = now(world, world.ask("bob", 2))
    assert answers["n1"] == NodeAnswer(
        node="n1", free=1, usable=2, links=None, reason=Reason.WAITING_FOR_DEVICES
    )
    assert answers["n2"].reason is Reason.NODE_CORDONED
    world.node_is(NodeState.SILENT)
    assert now(world, "e2")["n1"].reason is Reason.NODE_NOT_READY


def test_a_node_that_was_not_asked_for_and_one_of_another_model_say_so():
    world = World(gpu("g0", "n1"), gpu("g1", "n2", model="H100"), gpu("g2", "n3"))
    world.ask("ann", 1, model="H100")
    model = now(world, world.ask("bob", 1, model="H100"))
    assert model["n1"].reason is Reason.DEVICE_MODEL
    world.ask("cid", 1, node="n1")
    named = now(world, world.ask("dee", 1, node="n1"))
    assert named["n2"].reason is Reason.NODE_OTHER


def test_a_node_that_will_not_do_is_passed_over_whatever_is_free_on_it():
    world = World(gpu("g0", "n1"), gpu("g1", "n2"))
    world.ask("ann", 1, not_node="n1")
    (lease,) = world.state.tables.leases.values()
    assert lease.node == "n2"
    answers = now(world, world.ask("bob", 1, not_node="n1"))
    assert answers["n1"].reason is Reason.NODE_OTHER
    assert answers["n2"].reason is Reason.WAITING_FOR_DEVICES


def test_memory_is_named_where_the_gpus_would_do_and_nothing_where_there_is_room():
    world = two_nodes()
    world.ask("big", 0, memory=70 * GIB)
    world.ask("bigger", 0, memory=80 * GIB)
    answers = now(world, world.ask("bob", 1, memory=20 * GIB))
    assert {answer.reason for answer in answers.values()} == {Reason.NODE_MEMORY}


def test_a_node_without_gpus_has_none_of_them():
    world = World(gpu("g0", "n1"))
    world.nodes["n2"] = world.nodes["n1"].__class__(name="n2", memory=GIB, boot_id="b")
    world.report("n2")
    world.ask("ann", 1)
    answer = now(world, world.ask("bob", 1))["n2"]
    assert (answer.free, answer.usable, answer.reason) == (0, 0, Reason.WAITING_FOR_DEVICES)


def test_one_that_is_not_in_line_is_told_what_there_is():
    world = two_nodes()
    world.ask("ann", 2)
    world.ask("bob", 2)
    entry = world.ask("cid", 1)
    world.detach(entry)
    assert {answer.free for answer in now(world, entry).values()} == {0}


def test_a_grant_is_explained_by_what_was_free_then():
    world = two_nodes()
    world.ask("ann", 1)
    lease = world.ask("bob", 1)
    world.ask("cid", 2)
    world.end(lease)
    found = past(world, lease)
    answers = {answer.node: answer for answer in found.nodes(world.state.settings)}
    node = world.lease("e1").node
    assert found.lease is not None and found.lease.node == node
    assert (answers[node].free, answers[node].reason) == (1, None)
    assert {answer.free for answer in answers.values()} == {1, 2}
    assert found.asked_at == world.now
    assert found.links() is None


def test_the_links_of_a_grant_are_counted():
    world = World(*wired(tuple(gpu(f"g{k}") for k in range(8)), MODELS["dgx-1v"]))
    found = past(world, world.ask("ann", 2))
    assert found.links() == 2
    assert [answer.links for answer in found.nodes(world.state.settings)] == [2]
    single = past(world, world.ask("bob", 1))
    assert single.links() is None
    waits = world.ask("cid", 8)
    assert now(world, waits)["n1"].links is None


def test_what_was_removed_from_the_journal_is_passed_over():
    world = two_nodes()
    entry = world.ask("ann", 1)
    world.cancel(entry)
    lease = world.run("bob", 1)
    found = Past(lease)
    # the first lines of ann's request are gone
    rest = [d for d in world.journal if not (isinstance(d, EntryStored) and d.entry.id == entry)]
    last = world.history(EntryStored)[-1]
    assert not found.take(last)
    assert any(found.take(decision) for decision in rest)


def test_a_lease_whose_grant_is_not_in_the_journal_is_not_known():
    world = two_nodes()
    lease = world.run("ann", 1)
    found = Past(lease)
    later = [d for d in world.journal if "starting" in repr(d)]
    assert any(found.take(decision) for decision in later)
    assert found.lease is None
