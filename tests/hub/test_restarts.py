"""What dies comes back, and nothing that ran is lost: Hub, scheduler, both."""

from __future__ import annotations

import os
import signal
import time

from deploy.quickstart.trial import wait_for

from .conftest import container_of, facts, scheduler_pids, server_of, start


def test_servers_survive_a_killed_hub_and_are_found_again(own_hub, docker_client):
    hub = own_hub
    alice = hub.person("alice")
    start(alice)
    before = container_of(docker_client, alice)
    gpus = facts(hub, alice, docker_client)["gpus"]
    hub.kill()
    hub.start()
    after = container_of(docker_client, alice)
    assert after.id == before.id
    assert after.status == "running"
    wait_for("alice's server", 60, lambda: (server_of(alice) or {}).get("ready"))
    assert hub.busy() == set(gpus)
    alice.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())


def test_servers_survive_an_orderly_stop_of_the_hub(own_hub, docker_client):
    hub = own_hub
    alice = hub.person("alice")
    start(alice)
    before = container_of(docker_client, alice)
    hub.stop()
    before.reload()
    assert before.status == "running"
    hub.start()
    wait_for("alice's server", 60, lambda: (server_of(alice) or {}).get("ready"))


def test_waiting_users_keep_their_order_over_a_killed_hub(own_hub, docker_client):
    hub = own_hub
    alice = hub.person("alice")
    start(alice, "gpu2")
    waiting = line_of_five(hub)
    hub.kill()
    hub.start()
    wait_for("the queue", 60, lambda: hub.summary()["queue"] == 5)
    wait_for(
        "pending spawns",
        60,
        lambda: all((server_of(person) or {}).get("pending") == "spawn" for person in waiting),
    )
    served_in_order(alice, waiting)


def line_of_five(hub):
    """Five people who wait, each for all GPUs."""
    waiting = [hub.person(name) for name in ("zoe", "bob", "mia", "dave", "carol")]
    for place, person in enumerate(waiting, start=1):
        person.api("POST", f"/users/{person.name}/server", json={"profile": "gpu2"})
        wait_for("the queue", 60, lambda place=place: hub.summary()["queue"] == place)
    return waiting


def served_in_order(holder, waiting):
    """Each gets the GPUs when the one before stops, and nobody else does."""
    for before, heir in zip([holder, *waiting], waiting, strict=False):
        before.stop()
        wait_for(
            f"{heir.name}'s server", 60, lambda heir=heir: (server_of(heir) or {}).get("ready")
        )


def test_a_killed_scheduler_is_back_soon_and_knows_its_leases(own_hub, docker_client):
    hub = own_hub
    alice, bob = hub.person("alice"), hub.person("bob")
    start(alice, "gpu2")
    bob.api("POST", f"/users/{bob.name}/server", json={"profile": "gpu"})
    wait_for("the queue", 60, lambda: hub.summary()["queue"] == 1)
    busy = hub.busy()
    (pid,) = scheduler_pids(hub)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()

    def back() -> bool:
        try:
            return hub.summary()["queue"] == 1 and hub.busy() == busy
        except OSError:
            return False

    wait_for("the scheduler", 60, back)
    assert time.monotonic() - began < 20
    alice.stop()
    wait_for("bob's server", 60, lambda: (server_of(bob) or {}).get("ready"))


def test_who_waits_keeps_the_order_over_a_killed_scheduler(own_hub, docker_client):
    hub = own_hub
    alice = hub.person("alice")
    start(alice, "gpu2")
    waiting = line_of_five(hub)
    (pid,) = scheduler_pids(hub)
    os.kill(pid, signal.SIGKILL)
    wait_for("another scheduler", 60, lambda: scheduler_pids(hub) not in ([], [pid]))
    # the same starts wait on, nobody has to click again
    assert all((server_of(person) or {}).get("pending") == "spawn" for person in waiting)
    served_in_order(alice, waiting)


def test_a_stop_works_while_the_scheduler_is_down(own_hub, docker_client):
    hub = own_hub
    alice = hub.person("alice")
    start(alice)
    for pid in scheduler_pids(hub):
        os.kill(pid, signal.SIGSTOP)
    try:
        alice.stop(limit=60)
    finally:
        for pid in scheduler_pids(hub):
            os.kill(pid, signal.SIGCONT)
    wait_for("free GPUs", 60, lambda: not hub.busy())
