"""Homes and the owner volume on a real engine: found by owner, never taken from anybody."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import docker
import docker.errors
import pytest

from jupyterhub_gpuspawner.engine import labels, owner, volumes
from jupyterhub_gpuspawner.engine.volumes import HomeVolume
from jupyterhub_gpuspawner.errors import EngineConflict


@pytest.fixture
def ledger(docker_client: docker.DockerClient) -> Iterator[str]:
    """A ledger of its own; its volumes are removed at the end."""
    name = uuid.uuid4().hex
    yield name
    answer: Any = docker_client.api.volumes(filters={"label": f"{labels.LEDGER}={name}"})
    for volume in answer["Volumes"] or []:
        docker_client.api.remove_volume(volume["Name"])


@pytest.fixture
def person() -> str:
    return uuid.uuid4().hex


Home = Callable[[str, str], HomeVolume]


@pytest.fixture
def home(docker_client: docker.DockerClient, ledger: str) -> Home:
    def ensure(username: str, person: str) -> HomeVolume:
        return volumes.ensure_home(docker_client, username=username, owner=person, ledger=ledger)

    return ensure


def test_a_home_is_made_once(home: Home, person: str) -> None:
    first = home("alice", person)
    assert first == HomeVolume(name=volumes.home_volume_name("alice", person), created=True)
    assert home("alice", person) == HomeVolume(name=first.name, created=False)


def test_a_renamed_user_keeps_the_home(home: Home, person: str) -> None:
    assert home("Alice Müller 🎉", person).name == home("alice", person).name


def test_a_new_user_of_the_same_name_gets_another_home(home: Home) -> None:
    before, after = (uuid.uuid4().hex for _ in range(2))
    assert home("alice", before).name != home("alice", after).name
    assert home("alice", after).created is False


@pytest.mark.parametrize("mine", [None, "other"], ids=["no labels", "another owner"])
def test_a_volume_of_somebody_else_is_refused_and_stays(
    docker_client: docker.DockerClient, home: Home, ledger: str, person: str, mine: str | None
) -> None:
    name = volumes.home_volume_name("alice", person)
    found = labels.home_labels(ledger=ledger, user="alice", owner=mine) if mine else {}
    docker_client.api.create_volume(name=name, labels=found)
    try:
        with pytest.raises(EngineConflict, match=f"volume {name}: .*{mine or 'nobody'}"):
            home("alice", person)
        kept: Any = docker_client.api.inspect_volume(name)
        assert (kept["Labels"] or {}) == found
    finally:
        docker_client.api.remove_volume(name)


def test_two_first_starts_at_once_make_one_home(engine: Any, ledger: str, person: str) -> None:
    def ensure(_: int) -> str:
        client = engine.client()
        try:
            meet.wait()
            home = volumes.ensure_home(client, username="alice", owner=person, ledger=ledger)
            return home.name
        finally:
            client.close()

    meet = threading.Barrier(4, timeout=30)
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(ensure, range(4)))) == 1


@pytest.fixture
def owner_volume(
    docker_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Another name for the owner volume: the engine is shared, and may have an owner."""
    name = f"gpus-owner-{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr(owner, "OWNER_VOLUME", name)
    yield name
    with suppress(docker.errors.NotFound):
        docker_client.api.remove_volume(name)


def test_an_engine_is_claimed_by_one_ledger_for_good(
    docker_client: docker.DockerClient, owner_volume: str
) -> None:
    assert owner.engine_owner(docker_client) is None
    for _ in range(2):
        owner.claim_engine(docker_client, "first")
    with pytest.raises(EngineConflict, match="belongs to ledger first, not to ledger second"):
        owner.claim_engine(docker_client, "second")
    assert owner.engine_owner(docker_client) == "first"


def test_a_volume_of_that_name_that_is_not_ours_is_no_claim(
    docker_client: docker.DockerClient, owner_volume: str
) -> None:
    docker_client.api.create_volume(name=owner_volume)
    with pytest.raises(EngineConflict, match="not a scheduler's ledger"):
        owner.claim_engine(docker_client, "first")


def test_of_ledgers_that_claim_at_once_exactly_one_wins(engine: Any, owner_volume: str) -> None:
    def claim(number: int) -> bool:
        client = engine.client()
        try:
            meet.wait()
            owner.claim_engine(client, f"ledger-{number}")
        except EngineConflict:
            return False
        else:
            return True
        finally:
            client.close()

    meet = threading.Barrier(8, timeout=30)
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(claim, range(8))) == 1
