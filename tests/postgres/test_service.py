"""The scheduler service and the Hub with their databases on PostgreSQL, and real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from deploy.quickstart.trial import TrialHub, wait_for
from jupyterhub_gpuspawner.store import Ledger
from tests.docker.service_process import wait_for as wait_until
from tests.faults.cases import Bench, Case
from tests.faults.conftest import SHORT, clear
from tests.faults.driver import run
from tests.faults.service import FaultService
from tests.faults.test_disk_full import NOT_STORED
from tests.hub.conftest import container_of, facts, make_hub, run_hub, server_of, start
from tests.logs import tracebacks
from tests.postgres.cluster import Cluster
from tests.postgres.conftest import PostgresPlace
from tests.testbed.engine import Engine


class PostgresService(FaultService):
    """A service whose ledger is on PostgreSQL."""

    place: PostgresPlace

    def leases(self) -> list[tuple[str, str]]:
        query = """SELECT leases.username, claims.device FROM leases
                   LEFT JOIN claims ON claims.lease_id = leases.id WHERE leases.live"""
        found = self.place.cluster.admin(query, self.place.name)
        return [(str(user), str(device or "")) for user, device in found]


@pytest.fixture
def bench(
    engine: Engine, docker_client: Any, stub_image: str, place: PostgresPlace, tmp_path: Path
) -> Iterator[Bench]:
    """A service that is not started, and its engine."""
    clear(docker_client)
    place.cluster.database(place.name)
    service = PostgresService(
        tmp_path,
        **SHORT,
        node_name="postgres",
        docker_host=engine.base_url,
        cdi_dir=str(engine.folder / "cdi"),
        ledger_url=place.url,
        claim_engine=False,
    )
    service.place = place
    yield Bench(
        service=service,
        client=docker_client,
        engine=Path(engine.socket),
        folder=tmp_path,
        image=stub_image,
    )
    service.end()
    print(service.log.read_text()[-4000:])
    clear(docker_client)


def _line(service: FaultService, words: str) -> bool:
    """Whether one line of the log has the words; never a traceback, never the password."""
    log = service.log.read_text()
    assert tracebacks(log) == []
    assert "p@ss" not in log
    assert "p%40ss" not in log
    return any(words in line for line in log.splitlines())


def test_while_the_server_is_away_nothing_is_granted_and_servers_run_on(
    bench: Bench, cluster: Cluster
) -> None:
    service = bench.service
    # away at the start already
    cluster.stop()
    service.start()
    wait_until("it says why", lambda: _line(service, "tried again by itself"), 60)
    health = service.health()
    assert (health["phase"], health["reason"]) == ("starting", "ledger_unavailable")
    cluster.start()
    service.wait_serving()

    async def story() -> None:
        alice, bob = Case(bench, "alice"), Case(bench, "bob")
        assert await alice.person.start() == ""
        held = await alice.leased()
        assert len(held) == 1
        await asyncio.to_thread(cluster.stop)
        waiting = asyncio.create_task(bob.person.start())

        async def told() -> bool:
            return any(NOT_STORED in line for line in bob.person.said())

        await bob.until("bob reads why", told)
        assert (await asyncio.to_thread(service.health))["reason"] == "ledger_unavailable"
        assert await alice.person.poll() is None
        await asyncio.to_thread(cluster.start)
        assert await waiting == "", "he kept his place"
        assert await alice.leased() == held
        assert await bob.leased() not in ([], held)
        # the scheduler dies, and finds everything again
        await asyncio.to_thread(service.kill_scheduler)
        await asyncio.to_thread(service.wait_serving, 60)
        assert await alice.leased() == held
        for case in (alice, bob):
            await case.person.stop()
            await case.nothing_left()
            assert case.outcome.problems == []
            await case.close()

    run(story())
    assert _line(service, "it can be written again")


def test_a_wrong_password_is_one_line_and_nothing_is_granted(
    bench: Bench, cluster: Cluster
) -> None:
    service = bench.service
    service.change(ledger_url=cluster.url(bench.service.place.name, password="p%40ss-no"))
    service.start()
    wait_until("it says why", lambda: _line(service, "look at user and password in the"), 60)
    wait_until("it looks again", lambda: service.health()["reason"] == "ledger_unavailable", 60)
    # the same line is not said at each try
    assert service.log.read_text().count("password authentication failed") == 1
    cluster.admin("ALTER ROLE gpus PASSWORD 'p@ss-no'")
    try:
        service.wait_serving()
    finally:
        cluster.admin("ALTER ROLE gpus PASSWORD 'p@ss:word/'")


def test_a_second_service_waits_for_the_first(bench: Bench, tmp_path: Path) -> None:
    first = bench.service
    first.start()
    first.wait_serving()
    folder = tmp_path / "second"
    folder.mkdir()
    second = PostgresService(folder)
    second.change(**{**_options(first), "state_dir": str(second.state), "url": _url(second)})
    try:
        second.start()
        wait_until("it says why", lambda: _line(second, "one scheduler may have it at a time"), 60)
        assert second.health()["phase"] == "starting"
        first.stop()
        second.wait_serving()
    finally:
        second.end()


def _options(service: FaultService) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(service.config.read_text())["GPUScheduler"]
    return options


def _url(service: FaultService) -> str:
    return f"http://127.0.0.1:{service.port}"


#: both databases on the server
BOTH = """
c.JupyterHub.db_url = "{hub}"
c.GPUScheduler.ledger_url = "{ledger}"
"""


@pytest.fixture
def hub(
    engine: Any, docker_client: Any, stub_image: str, cluster: Cluster
) -> Iterator[tuple[TrialHub, str]]:
    """A Hub whose databases are on PostgreSQL; and the ledger's URL."""
    cluster.start()
    urls = [cluster.url(cluster.database()) for _ in range(2)]
    after = BOTH.format(hub=urls[0], ledger=urls[1])
    trial = make_hub(engine, stub_image, after)
    trial.limit = 180.0  # two starts beside a database server, where the machine is busy
    with run_hub(trial, docker_client) as made:
        yield made, urls[1]


def test_a_hub_with_both_databases_there_survives_a_restart_of_itself_and_of_the_server(
    hub: tuple[TrialHub, str], docker_client: Any, cluster: Cluster
) -> None:
    trial, url = hub
    alice = trial.person("alice")
    start(alice)
    before = container_of(docker_client, alice)
    gpus = facts(trial, alice, docker_client)["gpus"]
    assert len(gpus) == 1
    trial.kill()
    trial.start()
    cluster.stop()
    cluster.start()
    wait_for("alice's server", 60, lambda: bool((server_of(alice) or {}).get("ready")))
    wait_for("her GPU", 60, lambda: _busy(trial) == set(gpus))
    assert container_of(docker_client, alice).id == before.id
    bob = trial.person("bob")
    start(bob)
    for person in (alice, bob):
        person.stop()
    wait_for("free GPUs", 60, lambda: not _busy(trial))
    trial.stop()
    assert not (trial.state / "gpus" / "ledger.sqlite").exists()
    assert not (trial.state / "jupyterhub.sqlite").exists()
    assert "p@ss" not in trial.log()
    with Ledger.open(url) as ledger:
        assert {lease.key.user for lease in ledger.leases(live=False)} == {"alice", "bob"}


def _busy(trial: TrialHub) -> set[str] | None:
    """Devices that are taken; None while the scheduler can't say."""
    try:
        return trial.busy()
    except requests.RequestException:
        return None
