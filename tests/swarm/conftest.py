"""Fixtures of the tests with a real Swarm of three nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import docker
import pytest

from deploy.quickstart.person import Person
from deploy.quickstart.trial import wait_for
from tests.auditor import Auditor
from tests.hubs import people
from tests.swarm.hubs import SwarmHub, run_hub
from tests.testbed import rootfs
from tests.testbed.swarm import Swarm


@pytest.fixture(scope="session")
def swarm() -> Iterator[Swarm]:
    """The testbed's Swarm. One that is up is used and left up."""
    reason = rootfs.missing()
    if reason is not None:
        pytest.skip(reason)
    swarm = Swarm.from_environment()
    started = swarm.start()
    if not started:
        swarm.wipe()
    yield swarm
    if started:
        swarm.stop()


@pytest.fixture(scope="module", autouse=True)
def _up(swarm: Swarm) -> None:
    """A module before may have taken it down."""
    swarm.start()


@pytest.fixture(scope="session")
def manager(swarm: Swarm) -> Iterator[docker.DockerClient]:
    """A client of the manager's engine."""
    swarm.start()
    with swarm.client() as client:
        yield client


@pytest.fixture(scope="module")
def hub(swarm: Swarm) -> Iterator[SwarmHub]:
    """A Hub on the Swarm, one for the tests of a module."""
    yield from run_hub(swarm)


@pytest.fixture
def auditor(swarm: Swarm, hub: SwarmHub) -> Iterator[Auditor]:
    """Hears each node's own engine while a test runs, and judges what must hold at any time."""
    watcher = Auditor([str(node.socket) for node in swarm.nodes], hub.summary()["ledger"])
    with watcher.watching():
        yield watcher
    verdict = watcher.judge()
    assert verdict.ok, verdict


@pytest.fixture
def somebody(swarm: Swarm, hub: SwarmHub) -> Iterator[Callable[..., Person]]:
    """Makes a new user who is logged in; their servers are stopped at the end."""

    def mend() -> None:
        for node in swarm.nodes:
            node.plug()
            if not node.answers():
                node.restart()
        wait_for("all nodes", 150, swarm.answers)

    with people(hub, mend, limit=60) as make:
        yield make
