"""Each call of the scheduler service x each fault of Docker.

Several services at once, each with a socket that fails, a server that must live on, and somebody
who waits and reads. A case: a server ends, and while the service clears up after it one of its
calls fails. Then everything must come right by itself.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from jupyterhub_gpuspawner.engine import containers, devices, labels
from jupyterhub_gpuspawner.engine.containers import ContainerSpec
from jupyterhub_gpuspawner.scheduler.models import Device, Injection
from tests.auditor import Auditor
from tests.docker.service_process import wait_for
from tests.faults.conftest import MakeService
from tests.faults.service import FaultService
from tests.faults.words import REFUSED
from tests.logs import tracebacks
from tests.testbed.engine import Engine
from tests.testbed.faultsocket import FAULTS, GONE, FaultSocket
from tests.testbed.images import ensure_base

#: services at a time
TOGETHER = 4
#: seconds for what follows by itself; a removal that seems to go on is looked at for 30
SOON = 120.0
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]

#: every call of the service, with what makes it happen now if it is not part of each look
CALLS: dict[str, str] = {
    "GET /version": "reconnect",
    "POST /volumes/create": "",
    "GET /volumes/{name}": "",
    "GET /info": "",
    "GET /containers/json": "",
    "GET /containers/json?filters": "",
    "GET /containers/{id}/json": "",
    "POST /containers/{id}/stop": "",
    "DELETE /containers/{id}": "",
    "GET /networks": "",
    "GET /networks/{id}": "",
    "DELETE /networks/{id}": "",
    "GET /_ping": "events",
    "GET /events": "events",
}
#: calls that only a service that owns its engine makes: one can
OWNERS = ("POST /volumes/create", "GET /volumes/{name}")

WAITS = "You hold as many SIMULATED GPUs as you may; stop another server first."
SILENT = "Docker does not answer at the moment. Your place is kept."
CHECKED = "The machine does not answer, or is being checked."
#: all that somebody who waits may read while Docker fails
READABLE = {WAITS, SILENT, REFUSED, CHECKED}

Key = tuple[str, str]
CASES = [
    (call, fault)
    for call in CALLS
    for fault in ((*FAULTS, GONE) if "containers/{id}" in call else FAULTS)
]


@dataclass(kw_only=True)
class Result:
    """What came of a case."""

    read: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Desk:
    """A service behind a socket that fails, with a server that lives and somebody who waits."""

    def __init__(self, make: MakeService, engine: Engine, client: Any, folder: Path, n: int):
        self.client = client
        self.image = ensure_base(client)
        self.number = n
        self.socket = FaultSocket(Path(engine.socket), folder / f"service{n}.sock")
        self.service: FaultService = make(
            engine,
            f"faults{n}",
            docker_host=self.socket.base_url,
            claim_engine=n == 0,
            simulate=4,
            user_gpu_limits={"keeper": 1},
            reconcile_interval=0.5,
            exited_grace=0.5,
            network_grace=0.5,
            # from grant to container, on a busy machine
            detach_grace=60,
            engine_timeout=4,
        )
        self.service.start()
        self.service.wait_serving()
        self.ledger = self.service.ledger_id()
        self.keeper = self.run("keeper", SLEEP)
        self._lines: list[str] = []
        threading.Thread(target=self._wait, daemon=True).start()
        wait_for("somebody waits", lambda: self._lines, SOON)

    def _wait(self) -> None:
        with (
            suppress(OSError),
            self.service.ask("keeper", 1, server="second") as lines,
        ):
            for line in lines:
                self._lines.append(str(line.get("message")))

    def run(self, user: str, command: list[str]) -> str:
        """A server from request to running; the container's id."""
        lease = self.service.lease(user, 1)
        given = tuple(
            Device(id=d["id"], node=lease["node"], simulated=True) for d in lease["devices"]
        )
        ids = tuple(device.id for device in given)
        who = labels.Identity(ledger=lease["ledger"], lease=lease["id"], user=user, devices=ids)
        injection = Injection(lease["injection"])
        spec = ContainerSpec(
            name=f"faults-{lease['id'][:12]}",
            image=self.image,
            labels=labels.server_labels(who),
            host=devices.host_config(given, injection),
            options={"command": command, "environment": devices.environment(given, injection)},
        )
        container_id = containers.create(self.client, spec)
        bound = self.service.post(f"leases/{lease['id']}/bind", {"container_id": container_id})
        assert bound[0] == 200, bound
        containers.start(self.client, container_id)
        return container_id

    def case(self, number: int, call: str, fault: str) -> Result:
        """Let a call fail while the service clears up after a server."""
        result = Result()
        read_before = len(self._lines)
        user = f"user{number}"
        try:
            container = self.run(user, ["sh", "-c", "exit 3"])
            # a network that the server's user does not need any more goes as well
            owned = labels.network_labels(ledger=self.ledger, user=user, owner=user)
            self.client.api.create_network(f"faults-{user}", labels=owned)
            # what is removed in the moment before must be this server, and no other
            only = container[:12] if fault == GONE else ""
            rule = self.socket.arm(call, fault, container=only)
            self._provoke(call)
            wait_for("the fault happens", rule.fired.is_set, SOON)
            if fault == "refused":
                # all of Docker is gone until it is healed: nothing may be given back meanwhile
                wait_for(
                    "those who wait are told", lambda: SILENT in self._lines[read_before:], SOON
                )
                closed = lambda: "free" not in self.service.states()  # noqa: E731
                wait_for("nothing is given out any more", closed, SOON)
                self._unchanged(user, container, result)
                self.socket.heal()
            self._comes_right(user, container)
        except AssertionError as error:
            result.problems.append(str(error))
        finally:
            self.socket.heal()
        if containers.name_taken(self.client, self.keeper) is None or not self._keeper_runs():
            result.problems.append("the server that was not asked to stop does not run")
        result.read = self._lines[read_before:]
        return result

    def _provoke(self, call: str) -> None:
        how = CALLS[call]
        if how == "reconnect":
            # a thread whose call failed asks for the version again
            self.socket.arm("GET /info", "500")
        elif how == "events":
            self.socket.hang_up("GET /events")

    def _unchanged(self, user: str, container: str, result: Result) -> None:
        held = user in {name for name, _ in self.service.leases()}
        there = containers.name_taken(self.client, container) is not None
        if there and not held:
            result.problems.append("its lease ended without proof")

    def _comes_right(self, user: str, container: str) -> None:
        gone = lambda: containers.name_taken(self.client, container) is None  # noqa: E731
        wait_for("the container is removed", gone, SOON)
        over = lambda: user not in {name for name, _ in self.service.leases()}  # noqa: E731
        wait_for("its lease is over", over, SOON)
        left = lambda: self.client.networks.list(names=[f"faults-{user}"])  # noqa: E731
        wait_for("its user's network is removed", lambda: not left(), SOON)
        wait_for("the service serves", self.service.serving, SOON)

    def _keeper_runs(self) -> bool:
        seen = containers.name_taken(self.client, self.keeper)
        held = {name for name, _ in self.service.leases()}
        return seen is not None and seen.live and "keeper" in held

    def close(self) -> None:
        self.socket.heal()
        self.service.end()
        self.socket.close()


@pytest.fixture(scope="module")
def desks(
    engine: Engine,
    docker_client: docker.DockerClient,
    make_service: MakeService,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Desk]]:
    folder = tmp_path_factory.mktemp("sockets")
    made = [Desk(make_service, engine, docker_client, folder, number) for number in range(TOGETHER)]
    yield made
    for desk in made:
        desk.close()


@pytest.fixture(scope="module")
def ran(request: pytest.FixtureRequest, desks: list[Desk]) -> tuple[dict[Key, Result], list[Any]]:
    """The result of each selected case, and the auditor's verdict on each service."""
    wanted: list[Key] = [
        item.callspec.params["case"]
        for item in request.session.items
        if item.module is request.module
        and "case" in getattr(item, "callspec", item).__dict__.get("params", {})
    ]
    results: dict[Key, Result] = {}
    todo: queue.SimpleQueue[tuple[int, Key]] = queue.SimpleQueue()
    for number, key in enumerate(wanted):
        if key[0] not in OWNERS:
            todo.put((number, key))
    first = [(number, key) for number, key in enumerate(wanted) if key[0] in OWNERS]

    def work(desk: Desk) -> None:
        if desk.number == 0:
            for number, key in first:
                results[key] = desk.case(number, *key)
        with suppress(queue.Empty):
            while True:
                number, key = todo.get_nowait()
                results[key] = desk.case(number, *key)

    auditors = []
    for desk in desks:
        auditor = Auditor(sockets=[str(desk.socket._upstream)], ledger=desk.ledger)
        auditor.book(desk.service.ledger_file)
        auditor.begin()
        auditor.protect("keeper")
        auditors.append(auditor)
    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(work, desks))
    for auditor in auditors:
        auditor.end()
    return results, [auditor.judge(running={"keeper"}) for auditor in auditors]


def test_every_call_of_the_service_is_in_the_table(desks: list[Desk]) -> None:
    for desk in desks[:2]:
        desk.case(900 + desk.number, "GET /info", "slow")
    assert {call for desk in desks for call in desk.socket.calls} == set(CALLS)


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_fault_delays_a_release_and_nothing_else(
    ran: tuple[dict[Key, Result], list[Any]], case: Key
) -> None:
    result = ran[0][case]
    assert result.problems == []
    assert set(result.read) <= READABLE


def test_the_auditor_finds_nothing_doubled_lost_stopped_or_left(
    ran: tuple[dict[Key, Result], list[Any]],
) -> None:
    assert [str(verdict) for verdict in ran[1] if not verdict.ok] == []


def test_the_log_has_a_line_for_each_trouble_and_no_traceback(
    ran: tuple[dict[Key, Result], list[Any]], desks: list[Desk]
) -> None:
    for desk in desks:
        log = desk.service.log.read_text()
        assert tracebacks(log) == []
        assert "no answer from Docker" in log
    # all of Docker was gone for some of them, until it gave nothing out
    assert any("Docker answers again" in desk.service.log.read_text() for desk in desks)
