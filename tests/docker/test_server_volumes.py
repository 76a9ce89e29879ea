"""The volumes of a server on a real engine: homes, shared data, groups, NFS, a user's delete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from jupyterhub import orm

from jupyterhub_gpuspawner.client import Granted
from jupyterhub_gpuspawner.docker_spec import build_spec, identity_of
from jupyterhub_gpuspawner.engine import containers, labels
from jupyterhub_gpuspawner.engine.faults import translate
from jupyterhub_gpuspawner.engine.limits import ResourceLimits
from jupyterhub_gpuspawner.errors import EngineError
from jupyterhub_gpuspawner.scheduler.models import Injection
from tests.unit.hub_fakes import LEDGER, Spawner, World, spawner_of

GRANTED = Granted(lease="lease-1", node="n", ledger=LEDGER, devices=(), injection=Injection.CDI)


class RealSpawner(Spawner):
    """A spawner whose engine is the testbed's."""

    client_of_the_test: Any

    async def engine(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return call(self.client_of_the_test, *args, **kwargs)

    async def user_network(self, ledger: str) -> str | None:
        return None


@pytest.fixture
def volume(docker_client: docker.DockerClient) -> Iterator[Callable[[str], str]]:
    """Makes a volume that an admin has made; it is removed at the end."""
    made: list[str] = []

    def named(name: str) -> str:
        docker_client.api.create_volume(name=name)
        made.append(name)
        return name

    yield named
    for name in made:
        docker_client.api.remove_volume(name, force=True)


@pytest.fixture
def make(
    docker_client: docker.DockerClient,
    stub_image: str,
    volume: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Any]]:
    """Makes a spawner of a new user; all that comes of it is removed, and before the volumes."""
    monkeypatch.setattr(RealSpawner, "client_of_the_test", docker_client, raising=False)

    def spawner(groups: tuple[str, ...] = (), **options: Any) -> Any:
        values = {"image": stub_image, **options}
        made = spawner_of(World(), values, cls=RealSpawner)
        made.user.orm_user.groups.extend(_group(made, name) for name in groups)
        return made

    yield spawner
    chosen = {"label": f"{labels.LEDGER}={LEDGER}"}
    for container in docker_client.containers.list(all=True, filters=chosen):
        with suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)
    for volume in docker_client.volumes.list(filters=chosen):
        volume.remove()


def _group(spawner: Any, name: str) -> Any:
    """A group of the Hub of that name."""
    return orm.Group.find(spawner.user.db, name) or orm.Group(name=name)


async def _create(spawner: Any) -> str:
    spec = await build_spec(spawner, GRANTED, ResourceLimits(mem_limit=64 << 20))
    return str(await spawner.engine(containers.create, spec))


async def _mounts(spawner: Any) -> dict[str, tuple[str, bool]]:
    """Path in the container -> (source, whether it may be written), as the engine has them."""
    container_id = await _create(spawner)
    found: Any = spawner.client_of_the_test.api.inspect_container(container_id)
    containers.remove(spawner.client_of_the_test, container_id)
    return {
        one["Destination"]: (one.get("Name") or one["Source"], one["RW"]) for one in found["Mounts"]
    }


def _home(spawner: Any) -> Any:
    owner = identity_of(spawner, GRANTED).owner
    found = spawner.client_of_the_test.volumes.list(filters={"label": f"{labels.OWNER}={owner}"})
    return found[0] if found else None


async def test_a_server_has_its_home_its_folder_and_the_shared_data(
    make: Any, volume: Any, tmp_path: Path
) -> None:
    data = volume("gpus-test-data")
    spawner = make(
        volumes={f"{tmp_path}/users/{{username}}": "/home/jovyan/old"},
        read_only_volumes={data: "/data", str(tmp_path): "/sets"},
    )
    mounts = await _mounts(spawner)
    assert mounts == {
        "/home/jovyan": (_home(spawner).name, True),
        "/home/jovyan/old": (f"{tmp_path}/users/{spawner.escaped_name}", True),
        "/data": (data, False),
        "/sets": (str(tmp_path), False),
    }


async def test_shared_data_can_really_not_be_written(make: Any, volume: Any) -> None:
    spawner = make(read_only_volumes={volume("gpus-test-data"): "/data"})
    container_id = await _create(spawner)
    container = spawner.client_of_the_test.containers.get(container_id)
    container.start()
    code, said = container.exec_run(["touch", "/data/x"], user="0")
    assert code == 1
    assert b"Read-only file system" in said


SHARED = {
    "vision": {"gpus-test-vision": "/home/jovyan/vision"},
    "guests": {"gpus-test-vision": {"bind": "/samples", "mode": "ro"}},
    "writers": {"gpus-test-data": {"bind": "/data", "mode": "rw"}},
}


@pytest.mark.parametrize(
    ("groups", "shared"),
    [
        ((), {"/data": ("gpus-test-data", False)}),
        (("others",), {"/data": ("gpus-test-data", False)}),
        (
            ("vision",),
            {
                "/data": ("gpus-test-data", False),
                "/home/jovyan/vision": ("gpus-test-vision", True),
            },
        ),
        (
            ("guests",),
            {"/data": ("gpus-test-data", False), "/samples": ("gpus-test-vision", False)},
        ),
        # what all read, a group may write
        (("writers",), {"/data": ("gpus-test-data", True)}),
    ],
)
async def test_members_of_a_group_have_its_volumes_and_nobody_else(
    make: Any, volume: Any, groups: tuple[str, ...], shared: dict[str, tuple[str, bool]]
) -> None:
    volume("gpus-test-vision")
    read_only = {volume("gpus-test-data"): "/data"}
    spawner = make(groups, read_only_volumes=read_only, group_volumes=SHARED)
    mounts = await _mounts(spawner)
    del mounts["/home/jovyan"]
    assert mounts == shared


async def test_who_leaves_a_group_is_without_its_volumes_at_the_next_start(
    make: Any, volume: Any
) -> None:
    volume("gpus-test-vision")
    spawner = make(("vision",), group_volumes=SHARED)
    assert "/home/jovyan/vision" in await _mounts(spawner)
    spawner.user.orm_user.groups.clear()
    assert set(await _mounts(spawner)) == {"/home/jovyan"}
    spawner.user.orm_user.groups.append(_group(spawner, "guests"))
    assert set(await _mounts(spawner)) == {"/home/jovyan", "/samples"}


async def test_a_home_on_nfs_is_a_volume_with_these_options(make: Any) -> None:
    options = {"type": "nfs", "o": "addr=10.0.0.5,rw,nfsvers=4", "device": ":/homes/{volume}"}
    spawner = make(home_options=options)
    # Docker mounts it when a container is made; there is no such server
    with pytest.raises(docker.errors.APIError, match=r"failed to mount local volume: mount :/home"):
        await _create(spawner)
    home = _home(spawner)
    assert home.attrs["Driver"] == "local"
    assert home.attrs["Options"] == {**options, "device": f":/homes/{home.name}"}


async def test_a_home_by_other_options_of_the_local_driver_is_mounted(make: Any) -> None:
    # a file system that the machine has, by the way that NFS takes
    spawner = make(home_options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=1777"})
    container_id = await _create(spawner)
    container = spawner.client_of_the_test.containers.get(container_id)
    container.start()
    code, said = container.exec_run(["stat", "-f", "-c", "%T %b", "/home/jovyan"])
    assert (code, said.split()) == (0, [b"tmpfs", b"256"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"home_driver": "nothing-like-it"}, "nothing-like-it"),
        ({"home_options": {"type": "nfs"}}, "missing required option"),
    ],
)
async def test_a_driver_or_option_that_docker_refuses_ends_the_start_with_its_words(
    make: Any, options: dict[str, Any], words: str
) -> None:
    spawner = make(**options)
    with pytest.raises(docker.errors.APIError) as caught:
        await _create(spawner)
    error = translate(caught.value)
    assert isinstance(error, (EngineError, docker.errors.NotFound))
    assert words in str(error)
    assert _home(spawner) is None


async def test_a_home_stays_when_its_user_is_deleted(make: Any) -> None:
    spawner = make()
    await _mounts(spawner)
    await spawner.delete_forever()
    assert _home(spawner) is not None


async def test_a_home_goes_with_its_user_where_that_is_wanted(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawner, other = make(delete_homes=True), make(delete_homes=True)
    await _mounts(spawner)
    await _mounts(other)
    # a named server that is removed is no user that is deleted
    with monkeypatch.context() as patch:
        patch.setattr(RealSpawner, "name", "train")
        await spawner.delete_forever()
    assert _home(spawner) is not None
    for _ in range(2):  # also for a user without one
        await spawner.delete_forever()
        assert _home(spawner) is None
    assert _home(other) is not None


async def test_a_home_in_use_stays_and_the_log_says_so(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    spawner = make(delete_homes=True)
    container_id = await _create(spawner)
    with caplog.at_level(logging.ERROR):
        await spawner.delete_forever()
    assert _home(spawner) is not None
    assert "the home stays although its user goes: volume gpus-home-" in caplog.text
    containers.remove(spawner.client_of_the_test, container_id)
    await spawner.delete_forever()
    assert _home(spawner) is None
