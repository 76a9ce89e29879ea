"""A scheduler service on the testbed's engine, and users whose Docker fails."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from jupyterhub_gpuspawner.engine.owner import OWNER_VOLUME
from tests.faults.cases import Bench
from tests.faults.driver import quiet_hub
from tests.faults.service import FaultService
from tests.hubs import clear
from tests.testbed.engine import Engine

quiet_hub()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            # The SDK leaves its socket open where the engine fails its first call.
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )


@pytest.fixture(scope="module", autouse=True)
def _collect() -> Iterator[None]:
    """Such sockets are closed before the next module begins, not at the end of all."""
    yield
    gc.collect()


#: options of the services here: short graces, and simulated GPUs of their own
SHORT = {
    "discovery": "simulated",
    "simulate": 16,
    "stop_grace": 1,
    "exited_grace": 3,
    "created_grace": 1,
    "detach_grace": 5,
    "reconcile_interval": 2,
}


def copy_image(source: docker.DockerClient, target: docker.DockerClient, image: str) -> None:
    """Have an image of one engine on another."""
    if not target.images.list(name=image):
        target.images.load(source.images.get(image).save(named=image))


MakeService = Callable[..., FaultService]


@pytest.fixture(scope="module")
def make_service(
    docker_client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeService]:
    """Make services; they are stopped at the end, and what they left on the engine removed."""
    clear(docker_client)
    made: list[FaultService] = []

    def make(engine: Engine, node: str, **options: Any) -> FaultService:
        folder = tmp_path_factory.mktemp(node)
        values = {
            **SHORT,
            "node_name": node,
            "docker_host": engine.base_url,
            "cdi_dir": str(engine.folder / "cdi"),
            **options,
        }
        service = FaultService(folder, **values)
        if "state_dir" in options:
            service.state = Path(options["state_dir"])
        made.append(service)
        return service

    yield make
    for service in made:
        service.end()
        print(service.log.read_text()[-4000:])
    clear(docker_client)
    with suppress(docker.errors.NotFound):
        docker_client.volumes.get(OWNER_VOLUME).remove()


@pytest.fixture(scope="module")
def bench(
    engine: Engine,
    docker_client: docker.DockerClient,
    stub_image: str,
    make_service: MakeService,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    """A service that serves, on an engine that is well; what fails is before the users."""
    # the Hub may need a while to read an end, where Docker is silent
    service = make_service(engine, "faults", exited_grace=15)
    service.start()
    service.wait_serving()
    return Bench(
        service=service,
        client=docker_client,
        engine=Path(engine.socket),
        folder=tmp_path_factory.mktemp("sockets"),
        image=stub_image,
    )
