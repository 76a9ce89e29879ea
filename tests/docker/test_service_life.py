"""The scheduler service as a process, with a real ledger and a real engine."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from jupyterhub_gpuspawner.engine import containers, devices, labels, observe
from jupyterhub_gpuspawner.engine.containers import ContainerSpec
from jupyterhub_gpuspawner.engine.owner import OWNER_VOLUME
from jupyterhub_gpuspawner.scheduler.models import Device, Injection
from tests.docker.service_process import REPOSITORY, Service, wait_for
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_base
from tests.testbed.processes import Process

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


@pytest.fixture(scope="module")
def image(docker_client: docker.DockerClient) -> str:
    return ensure_base(docker_client)


@pytest.fixture
def service(
    engine: Engine, docker_client: docker.DockerClient, tmp_path: Path
) -> Iterator[Service]:
    """A service on the testbed's engine, which belongs to nobody before and after."""
    _disown(docker_client)
    service = Service(
        tmp_path,
        docker_host=engine.base_url,
        discovery="simulated",
        simulate=4,
        node_name=engine.node,
        cdi_dir=str(engine.folder / "cdi"),
        stop_grace=1,
        exited_grace=1,
        created_grace=1,
        # from grant to container, on a busy machine
        detach_grace=60,
        reconcile_interval=2,
    )
    yield service
    service.stop()
    for container in docker_client.containers.list(all=True, ignore_removed=True):
        if labels.KIND in container.labels:
            with suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
    _disown(docker_client)


def _disown(client: docker.DockerClient) -> None:
    with suppress(docker.errors.NotFound):
        client.volumes.get(OWNER_VOLUME).remove()


@pytest.fixture
def create(docker_client: docker.DockerClient, image: str) -> Callable[..., str]:
    """Create a lease's container as the spawner does; its id."""

    def make(lease: dict[str, Any], user: str, command: list[str] = SLEEP) -> str:
        given = tuple(
            Device(id=device["id"], node=lease["node"], simulated=device["simulated"])
            for device in lease["devices"]
        )
        identity = labels.Identity(
            ledger=lease["ledger"],
            lease=lease["id"],
            user=user,
            devices=tuple(device.id for device in given),
        )
        injection = Injection(lease["injection"])
        spec = ContainerSpec(
            name=f"service-test-{lease['id'][:12]}",
            image=image,
            labels=labels.server_labels(identity),
            host=devices.host_config(given, injection),
            options={
                "command": command,
                "environment": devices.environment(given, injection),
            },
        )
        return containers.create(docker_client, spec)

    return make


@pytest.fixture
def run(
    service: Service, docker_client: docker.DockerClient, create: Callable[..., str]
) -> Callable[..., tuple[dict[str, Any], str]]:
    """A server from request to running: (lease, container id)."""

    def make(user: str, count: int = 1, command: list[str] = SLEEP) -> tuple[dict[str, Any], str]:
        lease = service.lease(user, count)
        container_id = create(lease, user, command)
        assert service.post(f"leases/{lease['id']}/bind", {"container_id": container_id})[0] == 200
        containers.start(docker_client, container_id)
        assert service.post(f"leases/{lease['id']}/running")[0] == 200
        return lease, container_id

    return make


Run = Callable[..., tuple[dict[str, Any], str]]


def gone(client: docker.DockerClient, container_id: str) -> bool:
    return observe.observe(client, container_id) is None


def test_a_container_gets_what_its_lease_says_and_its_end_behind_our_back_frees_it(
    service: Service, run: Run, docker_client: docker.DockerClient
) -> None:
    service.start()
    service.wait_serving()
    lease, container_id = run("alice", 2)
    assert lease["injection"] == "cdi"
    seen = observe.observe(docker_client, container_id)
    assert seen is not None
    assert set(seen.injected) == {device["id"] for device in lease["devices"]}
    assert service.states() == ["busy", "busy", "free", "free"]

    docker_client.api.remove_container(container_id, force=True)
    wait_for("its devices are free", lambda: service.states() == ["free"] * 4)


def test_a_killed_scheduler_comes_back_with_its_leases_and_its_queue(
    service: Service, run: Run
) -> None:
    service.start()
    service.wait_serving()
    run("alice", 4)
    with service.ask("bob", 1) as lines:
        first = next(lines)
        assert (first["event"], first["position"]) == ("queued", 1)
        entry = first["entry"]
        service.kill_scheduler()
        with suppress(OSError):
            list(lines)
    wait_for("the new scheduler answers", service.health)
    service.wait_serving()
    assert service.states() == ["busy"] * 4
    with service.ask("carol", 1) as carol, service.ask("bob", 1) as bob:
        assert next(carol)["position"] == 2
        again = next(bob)
        assert (again["entry"], again["position"]) == (entry, 1)


def test_a_running_container_that_the_ledger_does_not_know_is_adopted(
    service: Service, run: Run, docker_client: docker.DockerClient
) -> None:
    service.start()
    service.wait_serving()
    lease, container_id = run("alice", 2)
    service.stop()
    # a backup from before the lease, with the ledger's id in it
    with closing(sqlite3.connect(service.state / "ledger.sqlite")) as ledger, ledger:
        for table in ("claims", "leases", "entries"):
            ledger.execute(f"DELETE FROM {table}")
    service.start()
    service.wait_serving()
    wait_for("its devices are held", lambda: service.states() == ["busy", "busy", "free", "free"])
    assert docker_client.containers.get(container_id).status == "running"
    assert service.post(f"leases/{lease['id']}/stopping", {"reason": "stopped"})[0] == 200
    docker_client.api.remove_container(container_id, force=True)
    assert service.post(f"leases/{lease['id']}/ended") == (200, {"released": True})


def test_a_stop_that_the_hub_announced_and_did_not_do_is_done(
    service: Service, run: Run, docker_client: docker.DockerClient
) -> None:
    service.start()
    service.wait_serving()
    lease, container_id = run("alice")
    assert service.post(f"leases/{lease['id']}/stopping", {"reason": "stopped"})[0] == 200
    service.kill_scheduler()  # it forgets that the Hub wanted to do it
    wait_for("the container is gone", lambda: gone(docker_client, container_id))
    wait_for("its device is free", lambda: service.serving() and service.states()[0] == "free")


def test_an_ended_container_is_removed_and_its_devices_come_back(
    service: Service, run: Run, docker_client: docker.DockerClient
) -> None:
    service.start()
    service.wait_serving()
    _, container_id = run("alice", 1, ["sh", "-c", "exit 3"])
    wait_for("the container is gone", lambda: gone(docker_client, container_id))
    wait_for("its device is free", lambda: service.states()[0] == "free")
    assert "exited" in service.log.read_text()


def test_said_to_have_ended_is_believed_only_with_proof(
    service: Service, run: Run, docker_client: docker.DockerClient
) -> None:
    service.start()
    service.wait_serving()
    lease, container_id = run("alice")
    body = {"reason": "exited", "note": "", "exit_code": None, "oom": False}
    assert service.post(f"leases/{lease['id']}/ended", body) == (200, {"released": False})
    assert docker_client.containers.get(container_id).status == "running"
    assert service.states()[0] == "busy"


def test_a_container_that_was_never_started_is_refused_after_a_cancel_and_then_removed(
    service: Service, create: Callable[..., str], docker_client: docker.DockerClient
) -> None:
    service.start()
    service.wait_serving()
    lease = service.lease("alice")
    container_id = create(lease, "alice")
    assert service.post(f"requests/{lease['id']}/cancel")[0] == 200
    assert service.states()[0] == "free"
    status, answer = service.post(f"leases/{lease['id']}/bind", {"container_id": container_id})
    assert status == 409
    assert set(answer) == {"reason", "message"}
    wait_for("the container is gone", lambda: gone(docker_client, container_id))


def test_a_device_that_a_foreign_container_uses_is_not_granted(
    service: Service, docker_client: docker.DockerClient, image: str
) -> None:
    service.start()
    service.wait_serving()
    device = service.summary()["devices"][0]["id"]
    stranger = docker_client.containers.create(
        image, SLEEP, volumes=[f"/dev/null:/run/gpus/{device}:ro"]
    )
    try:
        stranger.start()
        wait_for("it is seen", lambda: service.states()[0] == "unavailable")
        assert service.summary()["devices"][0]["reason"] == "device_foreign"
        assert {d["id"] for d in service.lease("alice", 3)["devices"]}.isdisjoint({device})
    finally:
        stranger.remove(force=True)
    wait_for("it is free again", lambda: service.states()[0] == "free")


def test_an_engine_of_another_ledger_grants_nothing_and_says_why(
    service: Service, docker_client: docker.DockerClient
) -> None:
    docker_client.volumes.create(OWNER_VOLUME, labels=labels.owner_labels("0" * 32))
    service.start()
    wait_for("it says why", lambda: (service.health() or {}).get("reason") == "engine_not_ours")
    with service.ask("alice") as lines:
        assert next(lines)["reason"] == "engine_not_ours"
        _disown(docker_client)
        *_, last = lines
    assert last["event"] == "granted"


def test_an_engine_that_is_down_keeps_the_queue_and_comes_back(
    service: Service, engine: Engine, run: Run
) -> None:
    service.start()
    service.wait_serving()
    run("alice", 4)
    engine.freeze()
    try:
        wait_for(
            "it says why",
            lambda: (service.health() or {}).get("reason") == "engine_unavailable",
            90,
        )
        with service.ask("bob", 1) as lines:
            assert next(lines)["reason"] == "engine_unavailable"
    finally:
        engine.thaw()
    wait_for("it serves", service.serving, 30)
    assert service.states() == ["busy"] * 4


def test_the_service_needs_less_than_120_mb(service: Service, run: Run) -> None:
    service.start()
    service.wait_serving()
    run("alice", 4)
    pids = [service.process.pid if service.process else 0, service.scheduler_pid()]
    rss = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        rss += next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
    assert rss < 120 * 1024, f"{rss} kB"


def test_the_service_ends_with_the_process_that_started_it(service: Service) -> None:
    # a stand-in for the Hub, killed so that it can't say goodbye to its children
    starter = (
        "import subprocess, sys, time\n"
        "print(subprocess.Popen(sys.argv[1:]).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with open(service.log, "ab") as log:
        hub = subprocess.Popen(
            [sys.executable, "-c", starter, *service.command],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    with hub:
        assert hub.stdout is not None
        supervisor = Process.of(int(hub.stdout.readline()))
        assert supervisor is not None
        wait_for("it answers", service.health)
        hub.kill()
    wait_for("nobody answers", lambda: service.health() is None)
    wait_for("the supervisor is gone", lambda: not supervisor.alive)


def test_the_scheduler_needs_nothing_of_the_hub_to_serve() -> None:
    """The Hub's modules take as long to import as all else: its pages come later."""
    code = (
        "import sys; from jupyterhub_gpuspawner.service import everything; "
        "print({name.split('.')[0] for name in sys.modules} & {'jupyterhub', 'alembic'})"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
