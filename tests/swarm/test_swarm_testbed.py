"""The Swarm of the testbed: what all other tests here rely on."""

from __future__ import annotations

import pytest

from tests.testbed.images import stub_tag
from tests.testbed.swarm import wait_until


@pytest.fixture
def make_service(manager):
    """Makes a service with one task; all are removed at the end."""
    made = []

    def make(name, kind, node):
        task = {
            "ContainerSpec": {"Image": stub_tag(), "Command": ["sleep", "1000"], "Init": True},
            "Resources": {"Reservations": {"GenericResources": [discrete(kind)]}},
            "RestartPolicy": {"Condition": "none"},
            "Placement": {"Constraints": [f"node.hostname=={node}"]},
        }
        mode = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}
        answer = manager.api.create_service(task, name=name, mode=mode)
        made.append(answer["ID"])
        return answer["ID"]

    yield make
    for service_id in made:
        manager.api.remove_service(service_id)
    wait_until(lambda: not manager.api.tasks(), 30, "no task left")


def discrete(kind):
    return {"DiscreteResourceSpec": {"Kind": kind, "Value": 1}}


def task_of(manager, service_id):
    found = [task for task in manager.api.tasks() if task["ServiceID"] == service_id]
    return found[0] if found else None


def state_of(manager, service_id):
    task = task_of(manager, service_id)
    return task["Status"]["State"] if task else None


def test_one_manager_and_two_gpu_workers_are_ready(swarm):
    assert swarm.states() == [("node1", "ready"), ("node2", "ready"), ("node3", "ready")]
    assert swarm.manager.device_ids == ()
    assert len({*swarm.workers[0].device_ids, *swarm.workers[1].device_ids}) == 4


def test_starting_a_running_swarm_changes_nothing(swarm):
    assert swarm.start() is False


def test_a_kind_names_one_device_and_the_second_who_wants_it_waits(swarm, manager, make_service):
    worker = swarm.workers[1]
    first = make_service("first", "GPU1", worker.node)
    wait_until(lambda: state_of(manager, first) == "running", 20, "the first runs")
    assigned = task_of(manager, first)["GenericResources"]
    assert assigned == [
        {"NamedResourceSpec": {"Kind": "GPU1", "Value": worker.device_ids[1]}},
    ]
    second = make_service("second", "GPU1", worker.node)
    wait_until(lambda: "Err" in (task_of(manager, second) or {"Status": {}})["Status"], 20, "told")
    assert state_of(manager, second) == "pending"
    assert "insufficient resources" in task_of(manager, second)["Status"]["Err"]


def test_a_partition_takes_the_node_down_and_leaves_its_container_alone(
    swarm, manager, make_service
):
    worker = swarm.workers[0]
    service = make_service("cut-off", "GPU0", worker.node)
    wait_until(lambda: state_of(manager, service) == "running", 20, "it runs")
    container = task_of(manager, service)["Status"]["ContainerStatus"]["ContainerID"]
    with swarm.client(worker) as client:
        worker.unplug()
        try:
            swarm.await_state(worker, "down")
            assert client.containers.get(container).status == "running"
        finally:
            worker.plug()
        swarm.await_state(worker, "ready")
        # a job of Swarm's: a task of a replicated service would be told to end now
        assert task_of(manager, service)["DesiredState"] == "complete"
        assert client.containers.get(container).status == "running"
