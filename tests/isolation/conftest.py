"""A machine with an engine, a Hub, an uplink and other services, in namespaces of its own.

The tests are in the machine's network namespace themselves, as the Hub is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.quickstart.person import Person
from deploy.quickstart.trial import TrialHub
from tests.hub.conftest import container_of, make_hub, start
from tests.hubs import clear, run_hub
from tests.isolation import surroundings
from tests.isolation.surroundings import DATABASE, DOCKER_TCP, ON_THE_MACHINE

#: has a Hub of its own, which can own the engine only while the others' one does not
FIRST = "test_docker_proxy.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    ordered = iter(sorted(here, key=lambda item: item.path.name != FIRST))
    items[:] = [next(ordered) if item in here else item for item in items]


#: profiles that the tests of limits and rights need
PROFILES = """
c.GPUScheduler.reconcile_interval = 2
c.GPUScheduler.network_grace = 2
c.GPUDockerSpawner.home_path = "/home/jovyan"
c.GPUDockerSpawner.read_only_volumes = {"gpus-test-data": "/srv/data"}
c.GPUDockerSpawner.profile_list += [
    profile("few", gpus=0, pids_limit=40, shm_size="8M", mem_limit="96M"),
    profile(
        "board",
        gpus=0,
        companions={
            "board": {
                "image": c.GPUDockerSpawner.image,
                "cmd": ["python3", "-m", "http.server", "6006"],
                "mem_limit": "32M",
                "home": "ro",
            }
        },
    ),
    profile("greedy", gpus=1, image="gpus-stub-greedy:latest"),
]
"""


@pytest.fixture(scope="package")
def alone(docker_client: Any, stub_image: str) -> Iterator[Any]:
    """An engine in a network namespace of its own, with the stub image."""
    from tests.testbed.alone import EngineAlone
    from tests.testbed.images import copy

    engine = EngineAlone.from_environment()
    started = engine.start()
    client = engine.client()
    copy(docker_client, client, stub_image)
    client.close()
    yield engine
    if started:
        engine.stop()


@pytest.fixture(scope="package")
def machine(alone: Any) -> Iterator[Any]:
    """A client of that engine; the test's thread is in the machine's network namespace."""
    from tests.testbed.alone import inside

    with (
        inside(alone.pid),
        surroundings.internet(),
        surroundings.echo(ON_THE_MACHINE, [DOCKER_TCP, DATABASE]),
    ):
        client = alone.client()
        try:
            yield client
        finally:
            surroundings.firewall("down")
            clear(client)
            client.close()


@pytest.fixture(scope="package")
def site(alone: Any, machine: Any, stub_image: str) -> Iterator[TrialHub]:
    """A Hub on the machine, with the firewall up."""
    with run_hub(make_hub(alone, stub_image, after=PROFILES), machine) as hub:
        surroundings.firewall("up", "--hub", hub_api(alone, hub))
        yield hub


@pytest.fixture(scope="package")
def server(site: TrialHub, machine: Any) -> Callable[..., Any]:
    """Starts a user's server with a profile, once; (its container, its user)."""
    people: dict[str, Person] = {}
    running: dict[tuple[str, str], Any] = {}

    def get(name: str, named: str = "", profile: str = "cpu") -> Any:
        if name not in people:
            people[name] = site.person(name)
        if (name, named) not in running:
            start(people[name], profile, named)
            running[name, named] = container_of(machine, people[name], named)
        return running[name, named], people[name]

    return get


def hub_api(alone: Any, hub: TrialHub) -> str:
    """Where the Hub's API is, as ADDRESS:PORT."""
    return f"{alone.gateway}:{port_of(hub, 'GPUS_HUB_PORT')}"


def port_of(hub: TrialHub, variable: str) -> int:
    """One of the ports that the trial chose."""
    return int(hub._env[variable])
