"""The manager's daemon is killed and comes back, with the Hub's place on it."""

from __future__ import annotations

import pytest

from tests.hub.conftest import start
from tests.testbed.swarm import wait_until


@pytest.fixture(scope="module", autouse=True)
def _a_new_swarm_afterwards(swarm):
    """What a killed manager left of its networks may stand in the way of the other tests."""
    yield
    swarm.stop()
    swarm.start()


def test_servers_survive_a_restart_of_the_manager(hub, swarm, auditor):
    alice = hub.person("alice")
    start(alice, "gpu")
    task, container = hub.task_of(alice), hub.container_of(alice).id
    auditor.protect(alice.name)
    hub.kill()
    swarm.manager.kill9()
    swarm.manager.restart()
    wait_until(swarm.answers, 150, "all nodes")
    with swarm.client() as manager:
        again = manager.api.inspect_task(task["ID"])
    assert (again["Status"]["State"], again["DesiredState"]) == ("running", "complete")
    assert hub.container_of(alice).id == container
    auditor.release(alice.name)
