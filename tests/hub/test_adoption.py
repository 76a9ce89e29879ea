"""A Hub that starts finds what runs: all of it, soon, and nothing of it is stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deploy.quickstart.person import Person
from deploy.quickstart.trial import TrialHub, wait_for
from tests.hubs import run_hub

from .conftest import container_of, make_hub, server_of, start

#: the Hub's own limits, made short: it looks for a server this long and then stops it. In the
#: test a busy server crosses them several times over within seconds
IMPATIENT = """
c.GPUDockerSpawner.http_timeout = 3
c.JupyterHub.init_spawners_timeout = 2
c.GPUDockerSpawner.poll_interval = 2
"""
SERVERS = 20


@pytest.fixture
def hub(engine: Any, docker_client: Any, stub_image: str) -> Iterator[TrialHub]:
    """A Hub that soon loses its patience."""
    wanted = make_hub(engine, stub_image, IMPATIENT, simulate=SERVERS)
    with run_hub(wanted, docker_client) as hub:
        yield hub


def freeze(container: Any) -> int:
    """Make a server too busy to answer: its port accepts, and nobody reads. The process id."""
    container.reload()
    pid: int = container.attrs["State"]["Pid"]
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_twenty_servers_outlive_the_hub_also_the_one_that_is_too_busy(hub, docker_client):
    people = [hub.person(f"user-{number:02d}") for number in range(SERVERS)]
    with ThreadPoolExecutor(10) as crowd:
        list(crowd.map(start, people))
    before = {person.name: container_of(docker_client, person).id for person in people}
    devices = hub.busy()
    assert len(devices) == SERVERS
    busy = freeze(container_of(docker_client, people[7]))
    try:
        hub.kill()
        begun = time.monotonic()
        hub.start()
        others = [person for person in people if person is not people[7]]
        for person in others:
            wait_for(f"{person.name}'s server", 60, lambda p=person: is_ready(p))
        print(f"{SERVERS} servers found again {time.monotonic() - begun:.1f} s after the kill")
        # far past every limit of the Hub's
        wait_for("the busy server", 60, lambda: is_ready(people[7]))
        for _ in range(5):
            time.sleep(1)  # the Hub polls every two seconds: let it, and see that it stops nothing
            assert is_ready(people[7])
        now = {person.name: container_of(docker_client, person) for person in people}
        assert {name: container.id for name, container in now.items()} == before
        assert {container.status for container in now.values()} == {"running"}
        assert hub.busy() == devices
    finally:
        os.kill(busy, signal.SIGCONT)
    assert people[7].visit("api").status_code == 200


def test_a_busy_server_that_dies_after_the_hubs_restart_is_noticed(hub, docker_client):
    alice = hub.person("alice")
    start(alice)
    freeze(container_of(docker_client, alice))
    hub.kill()
    hub.start()
    wait_for("alice's server", 60, lambda: server_of(alice) is not None)
    container_of(docker_client, alice).kill()
    wait_for("the end", 60, lambda: server_of(alice) is None)
    wait_for("free GPUs", 60, lambda: not hub.busy())
    start(alice)


def test_a_busy_server_can_be_stopped_after_the_hubs_restart(hub, docker_client):
    alice = hub.person("alice")
    start(alice)
    freeze(container_of(docker_client, alice))
    hub.kill()
    hub.start()
    alice.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())


def is_ready(person: Person) -> bool:
    """Whether the Hub says that the person's server is ready."""
    return bool((server_of(person) or {}).get("ready"))
