"""The manager's daemon is killed, and with it the Hub's place."""

from __future__ import annotations

import pytest

from deploy.quickstart.trial import wait_for
from tests.hub.conftest import server_of, start


@pytest.fixture(scope="module", autouse=True)
def _a_new_swarm_afterwards(swarm):
    """What a killed manager left of its networks may stand in the way of the other tests."""
    yield
    swarm.stop()
    swarm.start()


def is_up(person):
    server = server_of(person)
    return server is not None and server["ready"]


def test_servers_survive_a_restart_of_the_manager_and_of_the_hub_on_it(
    hub, somebody, swarm, auditor
):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice, "gpu")
    held = hub.facts(alice)["gpus"]
    auditor.protect(alice.name)
    hub.kill()
    swarm.manager.kill9()
    swarm.manager.restart()
    wait_for("all nodes", 150, swarm.answers)
    hub.move_in_again()
    hub.start()
    for person in (alice, bob):
        person.login()
    wait_for("grants", 60, lambda: all(n["reason"] is None for n in hub.nodes().values()))
    wait_for("the server", 60, lambda: is_up(alice))
    assert hub.facts(alice)["gpus"] == held
    start(bob, "gpu")
    assert {*held, *hub.facts(bob)["gpus"]} == hub.busy()
    auditor.release(alice.name)
