"""The manager's daemon is killed and comes back, with the Hub's place on it."""

from __future__ import annotations

import pytest

from deploy.quickstart.trial import wait_for
from tests.hub.conftest import start
from tests.swarm.hubs import logs_in
from tests.testbed.swarm import wait_until


@pytest.fixture(scope="module", autouse=True)
def _a_new_swarm_afterwards(swarm):
    """What a killed manager left of its networks may stand in the way of the other tests."""
    yield
    swarm.stop()  # whoever needs one next starts it


@pytest.mark.parametrize("end", ["restarted", "killed"])
def test_servers_and_what_is_known_of_them_survive_the_end_of_the_manager(hub, swarm, auditor, end):
    alice = hub.person(end)
    start(alice, "gpu")
    task, container = hub.task_of(alice), hub.container_of(alice).id
    held = set(hub.facts(alice)["gpus"])
    auditor.protect(alice.name)
    hub.kill()
    hub.stop()
    if end == "killed":
        swarm.manager.kill9()
    swarm.manager.restart()
    wait_until(swarm.answers, 150, "all nodes")
    with swarm.client() as manager:
        again = manager.api.inspect_task(task["ID"])
    assert (again["Status"]["State"], again["DesiredState"]) == ("running", "complete")
    assert hub.container_of(alice).id == container
    hub.move()
    hub.start()
    # its server is reached again once the nodes have told each other where it is
    wait_for("the login", 90, lambda: logs_in(alice))
    wait_for("the server", 60, lambda: alice.visit("facts").status_code == 200)
    assert set(hub.facts(alice)["gpus"]) == held == hub.busy()
    auditor.release(alice.name)
    alice.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())
