"""A site on the testbed's engine, brought up once by its one command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.compose import recipes
from deploy.quickstart.trial import TrialError, wait_for
from jupyterhub_gpuspawner import images
from tests.testbed import rootfs


@pytest.fixture(scope="package")
def alone(engine: Any) -> Iterator[Any]:
    """An engine in a network namespace of its own: with Docker's firewall, and no way out."""
    from tests.testbed.alone import EngineAlone

    alone = EngineAlone.from_environment()
    started = alone.start()
    yield alone
    if started:
        alone.stop()


@pytest.fixture(scope="module")
def machine(alone: Any) -> Iterator[Any]:
    """A client of that engine; the test's thread is in the machine's network namespace."""
    from tests.testbed.alone import inside

    client = alone.client(timeout=600)
    with inside(alone.pid):
        yield client
    client.close()


@pytest.fixture(scope="module")
def bring(engine: Any, machine: Any) -> Iterator[Callable[..., list[str]]]:
    """Builds the images of compose.yml where packages can be reached, and brings them over.

    Minutes, the first time. It says the names of what it brought.
    """
    from tests.testbed.images import copy

    client = engine.client(timeout=900)

    def build(release: str = "") -> list[str]:
        name = recipes.base({})
        if not images.present(client, name):
            with rootfs.ensure_base_tar(rootfs.SITE_SUITE).open("rb") as archive:
                images.import_tar(client, name, archive, labels={})
        made = recipes.ensure_all(client, release=release, latest=False)
        brought = []
        for part in recipes.PARTS:
            tag = made[part].tag
            copy(client, machine, tag)
            machine.images.get(tag).tag(f"{recipes.REPOSITORY}/{part}", "latest")
            brought.append(tag)
        return brought

    yield build
    client.close()


@pytest.fixture(scope="module")
def site(
    alone: Any,
    machine: Any,
    bring: Any,
    docker_client: Any,
    stub_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """The site, up."""
    from tests.deploy.site import Site
    from tests.testbed.images import copy

    bring()
    copy(docker_client, machine, stub_image)
    site = Site(alone, machine, tmp_path_factory.mktemp("site"), image=stub_image)
    alone.wipe()
    try:
        site.up("--no-images")
        yield site
    finally:
        print(site.last_words())  # pytest shows it where a test failed
        alone.wipe()


def until(what: str, limit: float, check: Any) -> None:
    """Wait until ``check()`` is true; what the site is busy with may fail meanwhile."""
    failed: list[BaseException] = []

    def holds() -> bool:
        try:
            return bool(check())
        except Exception as error:  # noqa: BLE001 - said where the time is over
            failed[:] = [error]
            return False

    try:
        wait_for(what, limit, holds)
    except TrialError as error:
        raise AssertionError(f"{error}; at last: {failed}") from None
