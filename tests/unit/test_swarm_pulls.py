"""How far the nodes of a Swarm are with an image, by what the manager lists."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.engine import pulls
from jupyterhub_gpuspawner.engine.events import Reconnected
from jupyterhub_gpuspawner.engine.pulls import progress
from jupyterhub_gpuspawner.engine.service_watch import parse_event
from jupyterhub_gpuspawner.service.swarm_reconciler import pulls_of
from tests.unit.swarm_fakes import Manager, node

LAB = "team/lab:1"


def task(state, words=""):
    return {"NodeID": "n2", "Status": {"State": state, "Err": words}}


@pytest.mark.parametrize(
    "state,words,wanted",
    [
        ("pending", "", "waiting"),
        ("preparing", "", "pulling"),
        ("starting", "", "there"),
        ("complete", "", "there"),
        ("failed", 'exec: "true": executable file not found', "there"),
        ("rejected", "No such image: a:b", "failed"),
    ],
)
def test_a_node_has_the_image_once_its_task_is_past_the_pull(state, words, wanted):
    (found,) = progress([node(2)], [task(state, words)])
    assert (found.node, found.state) == ("node2", wanted)
    assert found.over is (wanted in ("there", "failed"))


def test_a_node_that_does_not_answer_or_takes_no_tasks_is_not_waited_for():
    nodes = [node(1), node(2, state="down"), node(3, availability="drain")]
    found = progress(nodes, [task("complete")])
    assert [(one.state, one.over) for one in found] == [
        ("waiting", False),
        ("silent", True),
        ("failed", True),
    ]


def pulling(image, state, **more):
    labels = {"jupyterhub-gpuspawner.kind": "image"}
    return {**task(state, **more), "Spec": {"ContainerSpec": {"Image": image, "Labels": labels}}}


def test_the_swarm_remembers_who_has_an_image_since_the_last_pull():
    manager = Manager(node(1), node(2))
    manager.create_config("pip-conf", b"")
    assert pulls.remembered(manager) == {}
    pulls.remember(manager, LAB, ["node1"])
    pulls.remember(manager, LAB, ["node2", "node1"])
    pulls.remember(manager, "team/none:1", [])
    assert pulls.remembered(manager) == {LAB: {"node1", "node2"}, "team/none:1": frozenset()}


def test_what_is_pulled_now_is_told_for_each_node():
    nodes = [node(1), node(2), node(3, state="down")]
    server = {**task("running"), "Spec": {"ContainerSpec": {"Image": "team/server:1"}}}
    found = pulls.going_on(nodes, [pulling(LAB, "preparing"), server, {"NodeID": "n1"}])
    assert list(found) == [LAB]
    assert pulls_of(found) == {
        "node1": ((LAB, "waiting"),),
        "node2": ((LAB, "pulling"),),
        "node3": ((LAB, "the node does not answer"),),
    }


def test_what_is_there_is_no_longer_pulled():
    failed = pulling("team/absent:1", "rejected", words="No such image: team/absent:1")
    found = pulls.going_on([node(2)], [pulling(LAB, "complete"), failed])
    assert pulls_of(found) == {"node2": (("team/absent:1", "No such image: team/absent:1"),)}


@pytest.mark.parametrize("name,everything", [("gpus-pull-1a2b", True), ("gpus-ann-1a2b", False)])
def test_a_job_that_pulls_has_everything_looked_at(name, everything):
    actor = {"ID": "s1", "Attributes": {"name": name}}
    item = parse_event({"Type": "service", "Action": "create", "Actor": actor, "time": 1})
    assert isinstance(item, Reconnected) is everything
