"""A start that is cancelled at any moment leaves nothing: no container, lease or phantom."""

from __future__ import annotations

import threading
import time

import pytest

from deploy.quickstart.trial import wait_for

from .conftest import containers_of, server_of, start


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0])
def test_a_start_cancelled_after_some_time_leaves_nothing(hub, somebody, docker_client, delay):
    alice = somebody("alice")
    # the Hub answers a start only after a second, and the cancel shall come before
    asking = threading.Thread(
        target=alice.api,
        args=("POST", f"/users/{alice.name}/server"),
        kwargs={"json": {"profile": "slow"}},
    )
    asking.start()
    time.sleep(delay)
    wait_for("the start", 60, lambda: (server_of(alice) or {}).get("pending") == "spawn")
    answer = alice.cancel()
    asking.join(10)
    assert answer.status_code in (202, 204), answer.text
    wait_for("the end", 60, lambda: server_of(alice) is None)
    # a cancel may overtake the answer to the request; such a grant is free after detach_grace
    wait_for("free GPUs", 60, lambda: not hub.busy())
    wait_for("no container", 60, lambda: not containers_of(docker_client, alice))


def test_cancelling_while_waiting_shows_no_phantom_and_leaves_the_queue(hub, somebody):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice, "gpu2")
    bob.api("POST", f"/users/{bob.name}/server", json={"profile": "gpu"})
    wait_for("the queue", 60, lambda: hub.summary()["queue"] == 1)
    answer = bob.cancel()
    assert answer.status_code in (202, 204), answer.text
    server = server_of(bob)
    assert server is None or not server["ready"]
    wait_for("an empty queue", 60, lambda: hub.summary()["queue"] == 0)
    assert len(hub.busy()) == 2


def test_who_asks_again_soon_keeps_the_place(hub, somebody):
    alice, bob, carol = somebody("alice"), somebody("bob"), somebody("carol")
    start(alice, "gpu2")
    for place, person in enumerate((bob, carol), start=1):
        person.api("POST", f"/users/{person.name}/server", json={"profile": "gpu2"})
        wait_for("the queue", 60, lambda place=place: hub.summary()["queue"] == place)
    bob.cancel()
    bob.api("POST", f"/users/{bob.name}/server", json={"profile": "gpu2"})
    alice.stop()
    wait_for("bob's server", 60, lambda: (server_of(bob) or {}).get("ready"))
    assert not server_of(carol)["ready"]
