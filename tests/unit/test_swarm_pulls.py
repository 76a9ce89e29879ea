"""How far the nodes of a Swarm are with an image, by what the manager lists."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.engine.pulls import progress
from tests.unit.swarm_fakes import node


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
