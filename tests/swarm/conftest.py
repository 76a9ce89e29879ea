"""Fixtures of the tests with a real Swarm of three nodes."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

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


@pytest.fixture(scope="session")
def manager(swarm: Swarm) -> Iterator[docker.DockerClient]:
    """A client of the manager's engine."""
    with swarm.client() as client:
        yield client
