"""The service with everything outside it replaced by fakes that keep the real things' rules."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker.errors
import pytest
from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from traitlets.config import Config

from jupyterhub_gpuspawner.client import SchedulerClient
from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.engine.companions import CompanionSeen
from jupyterhub_gpuspawner.engine.events import ContainerEvent, Item, Reconnected
from jupyterhub_gpuspawner.engine.networks import UserNetwork
from jupyterhub_gpuspawner.engine.observe import Observation
from jupyterhub_gpuspawner.errors import (
    EngineConflict,
    EngineError,
    EngineUnknown,
    LedgerError,
    LedgerFenced,
)
from jupyterhub_gpuspawner.scheduler.decisions import (
    Decision,
    LeaseStored,
    Noted,
    from_json,
    to_json,
)
from jupyterhub_gpuspawner.scheduler.models import GPURequest, Lease
from jupyterhub_gpuspawner.service import actor, runtime, waiting
from jupyterhub_gpuspawner.service.app import add_routes, web_application
from jupyterhub_gpuspawner.service.desk import Desk
from jupyterhub_gpuspawner.service.engine_view import Seen
from jupyterhub_gpuspawner.service.options import GPUScheduler
from jupyterhub_gpuspawner.service.pace import Pace
from jupyterhub_gpuspawner.service.requeue import Answer
from jupyterhub_gpuspawner.service.runtime import Outside, Runtime
from jupyterhub_gpuspawner.store.replay import JournalRow, Snapshot, snapshot

TOKEN = "t" * 32
PREFIX = "/services/gpus/"
LEDGER = "a" * 32


@dataclass(kw_only=True)
class FakeLedger:
    """Keeps decisions as JSON; a commit happens wholly or not at all."""

    id: str = LEDGER
    epoch: int = 0
    rows: list[str] = field(default_factory=list)
    #: raised by the next commits, until it is None again
    broken: LedgerError | None = None
    #: raised by load
    unreadable: LedgerError | None = None
    #: raised once, after the commit has happened: its answer is lost
    lost: LedgerError | None = None
    commits: int = 0

    def raise_epoch(self) -> int:
        self.epoch += 1
        return self.epoch

    def commit(self, decisions: Sequence[Decision], now: float) -> None:
        if self.broken is not None:
            raise self.broken
        self.rows += [json.dumps(to_json(decision)) for decision in decisions]
        self.commits += 1
        if self.lost is not None:
            lost, self.lost = self.lost, None
            raise lost

    def load(self) -> Snapshot:
        if self.unreadable is not None:
            raise self.unreadable
        return snapshot(self.decisions())

    def leases(
        self, user: str | None = None, live: bool | None = None, limit: int = 100
    ) -> list[Lease]:
        last = {d.lease.id: d.lease for d in self.decisions() if isinstance(d, LeaseStored)}
        newest = sorted(last.values(), key=lambda lease: lease.granted_at, reverse=True)
        return [
            lease
            for lease in newest
            if live in (None, lease.live) and user in (None, lease.key.user)
        ][:limit]

    def decisions(self) -> list[Decision]:
        return [from_json(json.loads(row)) for row in self.rows]

    def journal(self, after: int = 0, limit: int = 1000) -> list[JournalRow]:
        rows = [
            JournalRow(seq=seq, time=1.0, epoch=1, decision=decision)
            for seq, decision in enumerate(self.decisions(), start=1)
        ]
        return rows[after : after + limit]

    def granted(
        self, since: float, until: float, after: tuple[float, str] = (0.0, ""), limit: int = 1000
    ) -> list[Lease]:
        leases = sorted(self.leases(limit=10**6), key=lambda lease: (lease.granted_at, lease.id))
        return [
            lease
            for lease in leases
            if since <= lease.granted_at < until and (lease.granted_at, lease.id) > after
        ][:limit]

    def notes(self, before: int | None = None, limit: int = 100) -> list[JournalRow]:
        rows = [row for row in self.journal(limit=10**6) if isinstance(row.decision, Noted)]
        return [row for row in rows[::-1] if before is None or row.seq < before][:limit]

    def close(self) -> None:
        pass


@dataclass(kw_only=True)
class FakeEngine:
    """Containers with Docker's rules: unknown ids are absent, a running one is not discarded."""

    containers: dict[str, Observation] = field(default_factory=dict)
    #: raised by every call
    down: EngineError | None = None
    #: ids that a removal leaves where they are, with a time-out
    stuck: set[str] = field(default_factory=set)
    companions_there: dict[str, CompanionSeen] = field(default_factory=dict)
    networks_there: tuple[UserNetwork, ...] = ()
    networks_gone: list[str] = field(default_factory=list)
    network_looks: int = 0
    #: running containers of other people
    others: tuple[Observation, ...] = ()
    memory: int = 2**34
    removed: list[str] = field(default_factory=list)
    looks: int = 0
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def create(
        self,
        lease: str,
        user: str = "alice",
        *,
        devices: Sequence[str] = (),
        injected: Sequence[str] | None = None,
        created_at: float = 0.0,
        ledger: str = LEDGER,
    ) -> str:
        """As the spawner creates it; the id."""
        container_id = f"{next(self._ids):064x}"
        identity = labels.Identity(ledger=ledger, lease=lease, user=user, devices=tuple(devices))
        self.containers[container_id] = Observation(
            container_id=container_id,
            name=f"server-{user}",
            labels=labels.server_labels(identity),
            state="created",
            exit_code=None,
            oom=False,
            started=False,
            created_at=created_at,
            device_ids=tuple(devices),
            injected=tuple(sorted(devices if injected is None else injected)),
        )
        return container_id

    def change(self, container_id: str, **fields: Any) -> None:
        self.containers[container_id] = replace(self.containers[container_id], **fields)

    def start(self, container_id: str) -> None:
        self.change(container_id, state="running", started=True)

    def die(self, container_id: str, exit_code: int = 1, oom: bool = False) -> None:
        self.change(container_id, state="exited", exit_code=exit_code, oom=oom)

    # -- EngineView ------------------------------------------------------------------------

    async def claim(self) -> tuple[Mapping[str, Any], str]:
        await self._answer()
        return {"MemTotal": self.memory, "NCPU": 8}, "1.41"

    async def look(self) -> Seen:
        await self._answer()
        self.looks += 1
        return Seen(ours=tuple(self.containers.values()), others=self.others)

    async def look_at(self, container_id: str) -> Observation | None:
        await self._answer()
        return self.containers.get(container_id)

    async def limits(self, container_id: str, devices: int) -> GPURequest:
        await self._answer()
        if container_id not in self.containers:
            raise docker.errors.NotFound("no such container")
        return GPURequest(count=devices, memory=2**30)

    async def remove(self, container_id: str) -> None:
        await self._answer()
        if container_id in self.stuck:
            raise EngineUnknown("no answer")
        if self.containers.pop(container_id, None) is not None:
            self.removed.append(container_id)

    async def discard(self, container_id: str) -> None:
        await self._answer()
        container = self.containers.get(container_id)
        if container is not None and container.live:
            raise EngineConflict("You cannot remove a running container")
        if self.containers.pop(container_id, None) is not None:
            self.removed.append(container_id)

    async def networks(self) -> tuple[UserNetwork, ...]:
        self.network_looks += 1
        await self._answer()
        return self.networks_there

    async def companions(self) -> tuple[CompanionSeen, ...]:
        await self._answer()
        return tuple(self.companions_there.values())

    async def remove_companion(self, container_id: str) -> None:
        await self._answer()
        if container_id in self.stuck:
            raise EngineUnknown("no answer")
        self.companions_there.pop(container_id, None)

    async def remove_network(self, network_id: str) -> bool:
        await self._answer()
        self.networks_gone.append(network_id)
        left = (one for one in self.networks_there if one.network_id != network_id)
        self.networks_there = tuple(left)
        return True

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.down is not None:
            raise self.down


class FakeEvents:
    """The engine's events, as the test sends them."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[Item] = asyncio.Queue()

    def send(self, action: str, container_id: str) -> None:
        self.items.put_nowait(
            ContainerEvent(
                action=action, container_id=container_id, labels={}, exit_code=None, time=0.0
            )
        )

    async def __aenter__(self) -> FakeEvents:
        self.items.put_nowait(Reconnected())
        return self

    async def __aexit__(self, *args: object) -> None:
        pass

    def __aiter__(self) -> FakeEvents:
        return self

    async def __anext__(self) -> Item:
        return await self.items.get()


class FakeHub:
    """Answers "start this server"; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answers: dict[str, Answer] = {}

    async def start(self, user: str, server: str) -> Answer:
        self.asked.append((user, server))
        return self.answers.get(user, Answer.STARTED)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A service under test."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        section = {
            "state_dir": str(tmp_path),
            "discovery": "simulated",
            "simulate": 2,
            "node_name": "n1",
            **options,
        }
        self.options = GPUScheduler(config=Config({"GPUScheduler": section}))
        self.ledger = FakeLedger()
        self.engine = FakeEngine()
        self.events = FakeEvents()
        self.hub: FakeHub | None = None
        self.clock = Clock()
        self.boot_id = "boot-1"
        self.open_ledger: Callable[[], FakeLedger] = lambda: self.ledger
        self.fenced: list[LedgerFenced] = []
        self.pace = Pace()
        self.desk = Desk(TOKEN, self.boot_id, self.pace)
        #: the service's own, as the Hub says it
        self.prefix = PREFIX
        self.url = ""

    @asynccontextmanager
    async def running(self, *, wait: bool = True) -> AsyncIterator[World]:
        """A life of the service, from start to kill -9 (nothing is told to anybody)."""
        self.desk = Desk(TOKEN, self.boot_id, self.pace)
        outside = Outside(
            open_ledger=self.open_ledger,  # type: ignore[arg-type]
            engine=lambda ledger: self.engine,  # type: ignore[arg-type, return-value]
            events=lambda ledger: self.events,  # type: ignore[arg-type, return-value]
            hub=self.hub.start if self.hub is not None else None,
            clock=self.clock,
        )
        service = Runtime(self.options, self.desk, outside, self.fenced.append)
        web = web_application()
        add_routes(web, self.prefix, self.desk)
        self.server = server = HTTPServer(web)
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}{PREFIX}"
        self.http = SimpleAsyncHTTPClient(force_instance=True, max_clients=100)
        task = asyncio.create_task(service.run())
        try:
            if wait:
                await self.until(lambda: self.desk.status().reason is None, task)
            yield self
        finally:
            await waiting.end([task])
            server.stop()
            self.http.close()
            await server.close_all_connections()

    async def until(self, check: Callable[[], Any], task: asyncio.Task[None] | None = None) -> None:
        """Let the service work until ``check()`` is true."""
        async with _limit(8.0, check):
            while not check():
                if task is not None and task.done():
                    task.result()
                await asyncio.sleep(0.002)

    def client(self) -> SchedulerClient:
        """The spawner's own client."""
        return SchedulerClient(self.url, TOKEN)

    async def fetch(
        self, path: str, body: Any = None, *, token: str | None = TOKEN, **options: Any
    ) -> HTTPResponse:
        """GET, or POST if there is a body (bytes, or JSON)."""
        headers = {"Authorization": f"token {token}"} if token is not None else {}
        headers.update(options.pop("headers", {}))
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        request = HTTPRequest(
            self.url + path,
            method=options.pop("method", "GET" if data is None else "POST"),
            body=data,
            headers=headers,
            follow_redirects=False,
            **options,
        )
        return await self.http.fetch(request, raise_error=False)

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, JSON) of a POST to the internal API."""
        response = await self.fetch(f"api/internal/{path}", {} if body is None else body)
        return response.code, json.loads(response.body)

    async def states(self) -> list[str]:
        """The state of each device."""
        response = await self.fetch("api/internal/summary")
        assert response.code == 200, response.body
        return [device["state"] for device in json.loads(response.body)["devices"]]

    async def until_states(self, *states: str) -> None:
        async with _limit(8.0, lambda: states):
            while await self.states() != list(states):  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    def ask(self, user: str, count: int = 1, **more: Any) -> Stream:
        return Stream(self, {"user": user, "request": {"count": count}, **more})

    async def grant(self, user: str, count: int = 1) -> dict[str, Any]:
        """Ask and get a lease."""
        async with self.ask(user, count) as stream:
            while (line := await stream.line())["event"] == "queued":
                pass
        assert line["event"] == "granted", line
        lease: dict[str, Any] = line["lease"]
        return lease

    async def run(self, user: str, count: int = 1) -> tuple[dict[str, Any], str]:
        """A server from request to running: (lease, container id)."""
        lease = await self.grant(user, count)
        ids = [device["id"] for device in lease["devices"]]
        container = self.engine.create(lease["id"], user, devices=ids)
        assert await self.post(f"leases/{lease['id']}/bind", {"container_id": container}) == (
            200,
            {},
        )
        self.engine.start(container)
        assert await self.post(f"leases/{lease['id']}/running") == (200, {})
        return lease, container


def do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the service's pauses short."""
    monkeypatch.setattr(runtime, "TICK", 0.01)
    monkeypatch.setattr(runtime, "OPEN_RETRY", 0.01)
    monkeypatch.setattr(actor, "RETRY_FIRST", 0.01)


@asynccontextmanager
async def _limit(seconds: float, what: Callable[[], Any]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    handle = loop.call_later(seconds, task.cancel, f"not within {seconds:g} s: {what()}")
    try:
        yield
    finally:
        handle.cancel()


class Stream:
    """A request that waits: its lines as they come. Leaving it cuts the connection."""

    def __init__(self, world: World, body: dict[str, Any]) -> None:
        self._world = world
        self._body = json.dumps({"boot_id": world.boot_id, **body}).encode()
        self.begun = False

    async def __aenter__(self) -> Stream:
        await self.send()
        await self.begin()
        return self

    async def send(self) -> None:
        """Connect and ask."""
        # by hand: tornado's client leaves the connection open when its caller goes away
        address = urlsplit(self._world.url)
        self._reader, self._writer = await asyncio.open_connection(address.hostname, address.port)
        head = (
            f"POST {address.path}api/internal/requests HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: token {TOKEN}\r\nContent-Length: {len(self._body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + self._body)

    async def begin(self) -> None:
        """Read the answer's head, which comes with its first line."""
        self.begun = True
        status = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 8.0)
        assert b" 200 OK" in status, status

    async def __aexit__(self, *args: object) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def line(self) -> dict[str, Any]:
        """The next line; AssertionError where the stream has ended."""
        data = await self._chunk()
        assert data, "the stream has ended"
        line: dict[str, Any] = json.loads(data)
        return line

    async def ended(self) -> bool:
        """Whether nothing more comes, once the connection ends."""
        return not await self._chunk()

    async def until(self, **fields: Any) -> dict[str, Any]:
        """The next line with these values."""
        while True:
            line = await self.line()
            if fields.items() <= line.items():
                return line

    async def _chunk(self) -> bytes:
        """One flush of the server; empty at the end."""
        size = await asyncio.wait_for(self._reader.readline(), 8.0)
        chunk = await self._reader.readexactly(int(size or b"0", 16) + 2) if size else b""
        return chunk.strip()
