"""Fixtures for tests with real parts. Everything is imported late: unit tests need no daemon.

Which tests need the testbed shows in the folder they lie in; they get the folder's marker here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import docker

    from tests.testbed.engine import Engine

if os.environ.get("GPUS_LONG") == "1":
    # ./run-tests long: the property tests that don't say how many examples they want
    from hypothesis import settings

    settings.register_profile("long", max_examples=10_000, deadline=None)
    settings.load_profile("long")

_HERE = Path(__file__).parent
_MARKED = ("docker", "faults", "hub", "isolation", "swarm", "browser", "login", "deploy")
#: Fixtures that build large images, and seconds for the test that is the first to want one: a slow
#: mirror is no failure.
_BUILDS, _BUILD_SECONDS = {"singleuser_image", "image", "site", "bundle"}, 1800
#: Labels of containers that belong to this project, by their prefix.
_OUR_LABELS = "jupyterhub-gpuspawner."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parts = item.path.relative_to(_HERE).parts if item.path.is_relative_to(_HERE) else ()
        if parts and parts[0] in _MARKED:
            item.add_marker(parts[0])
        if _BUILDS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(_BUILD_SECONDS))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The testbed's Docker engine: running, with CDI and simulated devices.

    An engine that is up (``python -m tests.testbed up``) is used and left up.
    """
    from tests.testbed import rootfs

    reason = rootfs.missing()
    if reason is not None:
        pytest.skip(reason)
    from tests.testbed.engine import Engine

    engine = Engine.from_environment()
    started = engine.start()
    yield engine
    if started:
        engine.stop()


@pytest.fixture(scope="session")
def docker_client(engine: Engine) -> Iterator[docker.DockerClient]:
    """One client of the testbed's engine for the whole session."""
    client = engine.client()
    yield client
    client.close()


@pytest.fixture(scope="session")
def stub_image(docker_client: docker.DockerClient) -> str:
    """The name of the stub image (see ``testbed/stub/stub.py``), built when it is missing."""
    from tests.testbed.images import ensure_stub

    return ensure_stub(docker_client)


@pytest.fixture(scope="session")
def singleuser_image(engine: Engine) -> Iterator[str]:
    """The name of the shipped single-user image on the testbed, built when missing (minutes)."""
    from deploy.quickstart.recipes import ensure_singleuser
    from tests.testbed.images import ensure_base

    client = engine.client(timeout=900)
    ensure_base(client)
    yield ensure_singleuser(client).tag
    client.close()


@pytest.fixture
def run_container(docker_client: docker.DockerClient) -> Iterator[Callable[..., Any]]:
    """``containers.create`` and start, unless ``start=False``; all are removed at the end."""
    made = []

    def run(image: str, command: Any = None, *, start: bool = True, **options: Any) -> Any:
        container = docker_client.containers.create(image, command, **options)
        made.append(container.id)
        if start:
            container.start()
        return container

    yield run
    from docker.errors import NotFound

    for container_id in made:
        with suppress(NotFound):
            docker_client.containers.get(container_id).remove(force=True, v=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add to a failed test what the engine says about our containers, and their last words."""
    report = yield
    client = getattr(item, "funcargs", {}).get("docker_client")
    if report.failed and client is not None:
        report.sections.append(("containers on the testbed", describe_containers(client)))
    return report


def describe_containers(client: docker.DockerClient, lines: int = 30) -> str:
    """State and last log lines of each container of ours that the engine still has."""
    from docker.errors import DockerException

    parts = []
    try:
        for container in client.containers.list(all=True, ignore_removed=True):
            if not any(label.startswith(_OUR_LABELS) for label in container.labels):
                continue
            state = container.attrs["State"]
            log = container.logs(tail=lines).decode(errors="replace")
            parts.append(
                f"{container.name}: {state['Status']}, exit code {state['ExitCode']}, "
                f"oom {state['OOMKilled']}, {state['Error'] or 'no error'}\n{log}"
            )
    except (DockerException, OSError) as error:
        parts.append(f"the engine does not answer: {error}")
    return "\n".join(parts) or "none of ours"


@pytest.fixture(autouse=True, scope="session")
def _no_docker_context() -> Iterator[None]:
    """No test may reach a Docker engine of the machine by accident."""
    before = os.environ.pop("DOCKER_HOST", None)
    yield
    if before is not None:
        os.environ["DOCKER_HOST"] = before
