"""The verbs of a server that is a Swarm service, against a manager with Swarm's rules."""

from __future__ import annotations

from typing import Any

import docker.errors
import pytest

from jupyterhub_gpuspawner.engine import labels, service_spec, services, swarm_owner
from jupyterhub_gpuspawner.engine.service_spec import ServiceSpec
from jupyterhub_gpuspawner.errors import EngineConflict, EngineError, EngineUnknown
from tests.unit.swarm_fakes import Manager, answered, node

GPUS = (("GPU0", "SIMULATED-node2-0"), ("GPU1", "SIMULATED-node2-1"))


def identity(lease: str = "l1") -> labels.Identity:
    return labels.Identity(ledger="book", lease=lease, user="alice", devices=(GPUS[0][1],))


def spec(lease: str = "l1") -> ServiceSpec:
    task = {"Placement": {"Constraints": [service_spec.constraint("n2")]}}
    return ServiceSpec(name="gpus-alice", labels=labels.server_labels(identity(lease)), task=task)


@pytest.fixture
def manager() -> Manager:
    return Manager(node(1), node(2, gpus=GPUS))


def state_of(manager: Any, service: str) -> str:
    seen = services.observe(manager, service)
    assert seen is not None
    return seen.state


def test_a_new_service_has_no_task_and_a_start_gives_it_one(manager):
    service = services.create(manager, spec())
    assert state_of(manager, service) == "created"
    assert manager.tasks() == []
    services.start_new(manager, service)
    services.start_new(manager, service)
    assert len(manager.tasks()) == 1
    assert state_of(manager, service) == "starting"
    manager.run(service)
    assert state_of(manager, service) == "running"


def test_a_create_whose_answer_was_lost_finds_its_service_again(manager):
    assert services.create(manager, spec()) == services.create(manager, spec())


def test_a_name_that_another_lease_has_is_refused_and_left_alone(manager):
    services.create(manager, spec("l0"))
    with pytest.raises(EngineConflict, match="lease l0 of alice"):
        services.create(manager, spec("l1"))
    assert len(manager.services()) == 1


def test_a_service_that_was_stopped_never_starts(manager):
    service = services.create(manager, spec())
    services.stop(manager, service, sleep=manager.step)
    with pytest.raises(EngineError, match="stopped before it was started"):
        services.start_new(manager, service)
    assert manager.tasks() == []


def test_a_stop_ends_when_the_node_has_said_so(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    steps = []

    def sleep(_: float) -> None:
        steps.append([task["Status"]["State"] for task in manager.tasks()])
        manager.step()

    services.stop(manager, service, sleep=sleep)
    assert steps == [["running"]]
    assert state_of(manager, service) == "exited"
    services.remove(manager, service, sleep=manager.step)
    assert manager.services() == []
    services.remove(manager, service, sleep=manager.step)


def test_what_somebody_else_has_removed_is_not_waited_for(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    manager.nodes_by_id["n2"]["Status"]["State"] = "down"
    manager.remove_service(service)
    services.remove(manager, service, sleep=lambda _: pytest.fail("it waits"))
    assert len(manager.tasks()) == 1


def test_a_service_whose_task_swarm_does_not_forget_stays(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service, "complete", DesiredState="remove")
    with pytest.raises(EngineUnknown, match="does not forget its task"):
        services.remove(manager, service, sleep=lambda _: None)
    assert len(manager.services()) == 1


def test_nothing_is_removed_while_the_node_does_not_answer(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    manager.nodes_by_id["n2"]["Status"]["State"] = "down"
    with pytest.raises(EngineUnknown, match="n2 does not answer"):
        services.remove(manager, service, sleep=manager.step)
    assert manager.services_by_id[service]["Spec"]["Mode"] == service_spec.ONE_TASK
    seen = services.observe(manager, service)
    assert (seen.state, seen.certain) == ("running", False)


def test_a_node_that_goes_silent_during_a_stop_proves_nothing(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)

    def sleep(_: float) -> None:
        manager.nodes_by_id["n2"]["Status"]["State"] = "down"

    with pytest.raises(EngineUnknown):
        services.stop(manager, service, sleep=sleep)
    assert services.observe(manager, service) is not None


def test_a_task_that_does_not_end_in_time_is_told(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service)
    with pytest.raises(EngineUnknown, match="not ended yet"):
        services.stop(manager, service, 0, sleep=lambda _: None)


def test_an_orphaned_task_is_never_taken_for_an_end(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service, "orphaned")
    assert state_of(manager, service) == "unknown"
    with pytest.raises(EngineUnknown, match="lost with its task"):
        services.remove(manager, service, sleep=manager.step)


def test_a_change_at_the_same_moment_is_read_again(manager):
    service = services.create(manager, spec())
    really, beaten = manager.inspect_service, []

    def inspect(which: str) -> dict[str, Any]:
        info = really(which)
        if not beaten:
            beaten.append(which)
            manager.services_by_id[service]["Version"]["Index"] += 1
        return info

    manager.inspect_service = inspect
    services.stop(manager, service, sleep=manager.step)
    assert state_of(manager, service) == "exited"


def test_a_start_under_an_old_version_is_refused(manager):
    service = services.create(manager, spec())
    really = manager.inspect_service

    def inspect(which: str) -> dict[str, Any]:
        info = really(which)
        manager.services_by_id[service]["Version"]["Index"] += 1
        return info

    manager.inspect_service = inspect
    with pytest.raises(docker.errors.APIError, match="out of sequence"):
        services.start_new(manager, service)
    assert manager.tasks() == []


def test_what_has_a_task_is_not_discarded(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    with pytest.raises(EngineError, match="has a task"):
        services.discard(manager, service)
    other = services.create(manager, ServiceSpec(name="other", labels=spec().labels, task={}))
    services.discard(manager, other)
    services.discard(manager, other)
    assert [one["ID"] for one in manager.services()] == [service]


def test_progress_has_swarms_words_devices_and_address(manager):
    service = services.create(manager, spec())
    assert services.progress(manager, service, "net").state == "new"
    services.start_new(manager, service)
    manager.run(
        service,
        GenericResources=[{"NamedResourceSpec": {"Kind": "GPU0", "Value": GPUS[0][1]}}],
        NetworksAttachments=[
            {"Network": {"ID": "x", "Spec": {"Name": "net"}}, "Addresses": ["10.0.1.5/24"]}
        ],
    )
    seen = services.progress(manager, service, "net")
    assert (seen.state, seen.assigned, seen.address) == ("running", (GPUS[0][1],), "10.0.1.5")
    assert services.observe(manager, service).injected == (GPUS[0][1],)
    manager.remove_service(service)
    with pytest.raises(EngineError, match="removed while it started"):
        services.progress(manager, service, "net")


@pytest.mark.parametrize(
    "state,words,lacks",
    [
        ("rejected", "No such image: a/b:latest", "image"),
        ("rejected", 'invalid mount config for type "bind": bind source path does not', "mount"),
        ("failed", "starting container failed: failed to mount local volume: mount :/x", "mount"),
        ("failed", "task: non-zero exit (137)", ""),
        ("pending", "no suitable node (volume)", ""),
    ],
)
def test_the_words_of_a_task_tell_what_its_node_lacks(state, words, lacks):
    assert services.Progress(state=state, words=words).lacks == lacks


def test_the_report_of_an_end_has_code_words_and_log(manager):
    service = services.create(manager, spec())
    services.start_new(manager, service)
    manager.run(service, "failed")
    (task,) = manager.tasks_by_id.values()
    task["Status"].update(Err="task: non-zero exit (7)", ContainerStatus={"ExitCode": 7})
    report = services.exit_report(manager, service)
    assert (report.exit_code, report.error) == (7, "task: non-zero exit (7)")
    assert report.log_tail == "its last words"
    assert services.exit_report(manager, "s99") is None


def test_the_place_of_a_lease_is_the_nodes_id_and_a_kind_for_each_device(manager):
    found = services.place(manager, "node2", [GPUS[1][1]])
    assert (found.node_id, found.kinds) == ("n2", {GPUS[1][1]: "GPU1"})
    with pytest.raises(EngineError, match="no kind of generic resource"):
        services.place(manager, "node1", [GPUS[1][1]])
    manager.nodes_by_id["n2"]["Status"]["State"] = "down"
    with pytest.raises(EngineError, match="not ready"):
        services.place(manager, "node2", [])


def test_a_404_that_is_not_about_the_service_proves_nothing(manager):
    def inspect(which: str) -> dict[str, Any]:
        raise docker.errors.NotFound("404", answered(404), "page not found")

    manager.inspect_service = inspect
    with pytest.raises(EngineUnknown):
        services.observe(manager, "s1")


def test_a_404_that_is_not_swarms_own_says_nothing_about_who_owns_the_swarm(manager):
    words = ["page not found", "config gpus-owner not found"]

    def inspect(which: str) -> dict[str, Any]:
        raise docker.errors.NotFound("404", answered(404), words.pop(0))

    manager.inspect_config = inspect
    with pytest.raises(EngineUnknown):
        swarm_owner.swarm_owner(manager)
    assert swarm_owner.swarm_owner(manager) is None
