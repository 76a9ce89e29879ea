"""What proves that a service which is gone has no container any more."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from jupyterhub_gpuspawner.engine import services, tasks
from jupyterhub_gpuspawner.engine.observe import seconds
from jupyterhub_gpuspawner.service.reconcile import View, plan
from jupyterhub_gpuspawner.service.swarm_view import FORGETS_AFTER, Held, SwarmView, proven
from tests.unit.swarm_fakes import CREATED, Manager, node
from tests.unit.test_swarm_services import GPUS, spec

JOINED = seconds(CREATED)
HOUR = 3600.0
GRANTED = JOINED + HOUR
HELD = Held(node="node2", granted_at=GRANTED)
LATE = GRANTED + 10 * FORGETS_AFTER


def at(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat().replace("+00:00", "Z")


def test_a_node_that_was_ready_all_the_time_has_said_it_itself():
    assert proven(node(2), [], HELD, 0.0, LATE)


@pytest.mark.parametrize("state", ["down", "unknown", "disconnected"])
def test_a_node_that_is_not_ready_proves_nothing(state):
    assert not proven(node(2, state=state), [], HELD, 0.0, GRANTED + 1)


def test_a_node_that_left_the_swarm_proves_nothing():
    assert not proven(None, [], HELD, 0.0, GRANTED + 1)


def test_a_node_that_joined_again_since_the_grant_proves_nothing():
    assert not proven(node(2, CreatedAt=at(GRANTED + 1)), [], HELD, 0.0, GRANTED + 5)


@pytest.mark.parametrize(
    "state,proof", [("running", False), ("starting", False), ("orphaned", False), ("failed", True)]
)
def test_a_task_that_swarm_still_knows_has_to_be_over(state, proof):
    left = [{"Status": {"State": state}}]
    assert proven(node(2), left, HELD, 0.0, LATE) is proof


def test_a_node_that_was_down_meanwhile_proves_it_only_before_swarm_forgets_tasks():
    flapped = node(2, UpdatedAt=at(GRANTED + HOUR))
    assert proven(flapped, [], HELD, 0.0, GRANTED + FORGETS_AFTER - 1)
    assert not proven(flapped, [], HELD, 0.0, GRANTED + FORGETS_AFTER + 1)
    # seen with the service and ready after its last change: it was never down since
    assert proven(flapped, [], HELD, GRANTED + 2 * HOUR, LATE)


@pytest.fixture
def manager() -> Manager:
    return Manager(node(1), node(2, gpus=GPUS))


class InlinePool:
    """Runs calls at once."""

    def __init__(self, client):
        self.client = client

    async def run(self, key, fn, timeout=None):
        return fn(self.client)


def make_view(manager, clock, held=HELD):
    view = SwarmView(InlinePool(manager), "book", 10.0, clock=clock)

    async def recall(service):
        return held

    view.recall = recall
    return view


async def test_a_removed_service_is_gone_when_its_task_is(manager):
    view = make_view(manager, lambda: LATE)
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    manager.remove_service(service)
    seen = await view.look_at(service)
    assert (seen.state, seen.certain) == ("removing", False)
    manager.step()
    manager.step()
    assert await view.look_at(service) is None


async def test_a_service_removed_while_its_node_is_down_is_not_gone(manager):
    view = make_view(manager, lambda: GRANTED + HOUR)
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    manager.nodes_by_id["n2"]["Status"]["State"] = "down"
    manager.remove_service(service)
    # even if the task's record is lost: a node that does not answer may still run it
    manager.tasks_by_id.clear()
    assert (await view.look_at(service)).state == "removing"
    manager.nodes_by_id["n2"].update(Status={"State": "ready"}, UpdatedAt=at(GRANTED + HOUR))
    assert await view.look_at(service) is None


async def test_a_service_of_a_lost_node_is_removed_without_a_word_of_the_node(manager):
    view = make_view(manager, lambda: GRANTED + HOUR)
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    manager.nodes_by_id["n2"]["Status"]["State"] = "down"
    await view.abandon(service)
    await view.abandon(service)
    assert not manager.services()
    # its name is free, and its container is not proven gone
    services.create(manager, spec())
    assert (await view.look_at(service)).state == "removing"


async def test_one_look_has_our_services_with_their_node_and_who_else_holds_gpus(manager):
    view = make_view(manager, lambda: LATE)
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    resources = [{"NamedResourceSpec": {"Kind": "GPU1", "Value": GPUS[1][1]}}]
    manager.task("s99", "running", GenericResources=resources)
    manager.task("s98", "failed", GenericResources=resources)
    seen = await view.look()
    assert [(one.container_id, one.node, one.state) for one in seen.ours] == [
        (service, "node2", "running")
    ]
    assert [(one.injected, one.node) for one in seen.others] == [((GPUS[1][1],), "node2")]
    assert [name for _, name in seen.nodes] == ["node1", "node2"]


@pytest.mark.parametrize("state,steps", [("ready", 1), ("down", 0)])
def test_what_is_not_certain_leads_to_no_step(manager, state, steps):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    manager.nodes_by_id["n2"]["Status"]["State"] = state
    seen = tasks.observation(
        manager.inspect_service(service), manager.tasks(), tasks.ready_ids(manager.nodes()), LATE
    )
    # nobody's lease: adopted where it is certain that it runs
    view = View(now=LATE, ledger="book", leases={}, seen=(seen,))
    assert len(plan(view)) == steps


def test_an_end_that_the_node_has_reported_stays_an_end_when_it_is_down(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service, "failed")
    manager.nodes_by_id["n2"]["Status"]["State"] = "down"
    seen = services.observe(manager, service)
    assert (seen.state, seen.certain) == ("exited", True)


def test_a_task_that_was_never_made_is_waited_for_only_a_while(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.tasks_by_id.clear()
    info = manager.inspect_service(service)
    assert tasks.overall(info, [], JOINED + 5) == "starting"
    assert tasks.overall(info, [], JOINED + 5 + tasks.TASK_DELAY) == "exited"
