"""What a real Swarm does when parts of it are cut off, killed, or raced for.

A partition means: the link is down, daemons and containers live on.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from docker.errors import APIError

from deploy.quickstart.trial import wait_for
from tests.hub.conftest import server_of, start
from tests.swarm.hubs import assert_quiet, logs_in

PROGRAM = "jupyterhub_gpuspawner.cli"
#: seconds in which a node is seen again: its connection is tried in growing steps
HEALING = 150


def forget_ended(swarm, node):
    """Remove what ended with a killed daemon: Swarm does not always (see not-enforced.md)."""
    with swarm.client(node) as client:
        for container in client.containers.list(all=True, ignore_removed=True):
            assert container.status != "running"
            with suppress(APIError):
                container.remove()


def silent(hub, node):
    return hub.nodes()[node.node]["state"] == "silent"


def test_a_server_survives_a_partition_and_its_gpu_is_nobody_elses(hub, somebody, swarm, auditor):
    alice, bob, carol = somebody("alice"), somebody("bob"), somebody("carol")
    start(alice, "gpu")
    held = hub.facts(alice)["gpus"]
    node = hub.node_of(alice)
    auditor.protect(alice.name)
    node.unplug()
    wait_for("silence", 60, lambda: silent(hub, node))
    # two for the other node, which has two: the one that is cut off gives none
    start(bob, "gpu")
    start(carol, "gpu")
    assert {hub.node_of(bob).node, hub.node_of(carol).node}.isdisjoint({node.node})
    assert set(held) < hub.busy()
    assert server_of(alice)["ready"]
    node.plug()
    wait_for("the node", HEALING, lambda: not silent(hub, node))
    wait_for("the server", 60, lambda: alice.visit("facts").status_code == 200)
    assert hub.facts(alice)["gpus"] == held
    assert_quiet(auditor, {alice.name, bob.name, carol.name})
    auditor.release(alice.name)


def test_a_stop_of_a_server_that_is_cut_off_frees_nothing_before_it_is_over(
    hub, somebody, swarm, auditor
):
    alice = somebody("alice")
    start(alice, "gpu")
    held = set(hub.facts(alice)["gpus"])
    node = hub.node_of(alice)
    container = hub.container_of(alice).id
    node.unplug()
    wait_for("silence", 60, lambda: silent(hub, node))
    alice.cancel()
    with swarm.client(node) as client:
        assert held <= hub.busy()
        assert client.containers.get(container).status == "running"
        node.plug()
        wait_for("free GPUs", HEALING, lambda: not hub.busy())
        left = [one for one in client.containers.list() if one.id == container]
    assert left == []


def test_a_service_removed_while_its_node_is_cut_off_frees_nothing(
    hub, somebody, swarm, manager, auditor
):
    alice = somebody("alice")
    start(alice, "gpu")
    held = set(hub.facts(alice)["gpus"])
    node = hub.node_of(alice)
    node.unplug()
    wait_for("silence", 60, lambda: silent(hub, node))
    manager.api.remove_service(hub.service_of(alice)["ID"])
    wait_for("the end", 60, lambda: server_of(alice) is None)
    assert held <= hub.busy()
    node.plug()
    wait_for("free GPUs", HEALING, lambda: not hub.busy())
    assert all(one.status != "running" for one in hub.containers_on(node, alice))


def declare_gone(hub, node):
    token = (hub.state / "gpus" / "service-token").read_text().strip()
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, "lost", node.node, "--url", hub.service],
        env={**hub.environment, "GPUS_TOKEN": token, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["daemon", "machine"])
def test_a_killed_worker_frees_nothing_until_it_is_back(hub, somebody, swarm, auditor, what):
    alice = somebody("alice")
    start(alice, "gpu")
    held = set(hub.facts(alice)["gpus"])
    node = hub.node_of(alice)
    if what == "daemon":
        node.kill9()
    else:
        node.power_off()
    wait_for("silence", 60, lambda: silent(hub, node))
    assert held <= hub.busy()
    node.restart()
    # without "live-restore", which a node of a Swarm can't have, the containers end with it
    wait_for("the end", 90, lambda: server_of(alice) is None)
    wait_for("free GPUs", 60, lambda: not hub.busy())
    forget_ended(swarm, node)
    start(alice, "gpu")


def test_a_restart_of_a_workers_daemon_ends_its_servers_and_frees_their_gpus(
    hub, somebody, swarm, auditor
):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice, "gpu2")
    start(bob, "gpu")
    auditor.protect(bob.name)
    node = hub.node_of(alice)
    node.restart()
    wait_for("the end", 90, lambda: server_of(alice) is None)
    wait_for("free GPUs", 60, lambda: len(hub.busy()) == 1)
    forget_ended(swarm, node)
    wait_for("the node", HEALING, lambda: not silent(hub, node))
    start(alice, "gpu2")
    assert hub.node_of(alice).node == node.node
    assert_quiet(auditor, {alice.name, bob.name})
    auditor.release(bob.name)


def test_a_node_that_was_declared_gone_comes_back_and_is_cleaned_up_first(
    hub, somebody, swarm, auditor
):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice, "gpu")
    held = set(hub.facts(alice)["gpus"])
    node, old = hub.node_of(alice), hub.container_of(alice).id
    with swarm.client(node) as client:
        node.unplug()
        wait_for("silence", 60, lambda: silent(hub, node))
        declare_gone(hub, node)
        wait_for("the end", 60, lambda: server_of(alice) is None)
        assert "gone for good" in alice.form()
        # the same server, elsewhere, while the old one still runs
        start(alice, "gpu")
        assert hub.node_of(alice).node != node.node
        assert client.containers.get(old).status == "running"
        assert held <= hub.busy()
        node.plug()
        wait_for("one lease", HEALING, lambda: len(hub.busy()) == 1)
        assert old not in [one.id for one in client.containers.list()]
    wait_for("the node", 60, lambda: hub.nodes()[node.node]["reason"] is None)
    start(bob, "gpu2")
    assert hub.node_of(bob).node == node.node
    assert_quiet(auditor, {alice.name, bob.name})


def test_of_two_users_who_want_the_last_gpu_at_once_one_gets_it(hub, somebody, auditor):
    alice, bob, carol = somebody("alice"), somebody("bob"), somebody("carol")
    start(alice, "gpu2")
    threads = [
        threading.Thread(target=person.ask, args=({"profile": "gpu2"},)) for person in (bob, carol)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for("one of them", 60, lambda: sum(is_up(p) for p in (bob, carol)) == 1)
    first, second = (bob, carol) if is_up(bob) else (carol, bob)
    first.stop()
    wait_for("the other", 60, lambda: is_up(second))
    assert_quiet(auditor, {alice.name, second.name})


def is_up(person):
    server = server_of(person)
    return server is not None and server["ready"]


@pytest.mark.parametrize("moment", ["created", "starting", "running"])
def test_a_hub_killed_in_mid_start_leaks_nothing(hub, somebody, auditor, moment):
    alice = somebody("alice")
    alice.ask({"profile": "slow"})
    wait_for(moment, 30, lambda: reached(hub, alice, moment))
    hub.kill()
    hub.start()
    wait_for("the login", 60, lambda: logs_in(alice))
    # a task that runs is found again (or its start is taken up); any other is cleaned up
    wait_for("a decision", 90, lambda: hub.task_of(alice) is None or is_up(alice))
    if is_up(alice):
        assert set(hub.facts(alice)["gpus"]) == hub.busy()
        assert_quiet(auditor, {alice.name})
    else:
        wait_for("free GPUs", HEALING, lambda: not hub.busy())
        assert_quiet(auditor, set())


def reached(hub, person, moment):
    if moment == "created":
        return hub.service_of(person) is not None
    task = hub.task_of(person)
    return task is not None and (moment == "starting" or task["Status"]["State"] == moment)
