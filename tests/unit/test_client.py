"""The client waits as long as the user does, and leaves no connection behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from jupyterhub_gpuspawner import client as module
from jupyterhub_gpuspawner.client import Ask, End, Granted, Queued, SchedulerClient
from jupyterhub_gpuspawner.errors import RefusedError, SchedulerUnavailable
from jupyterhub_gpuspawner.scheduler.models import GPURequest

# real sockets, files or processes
pytestmark = pytest.mark.slow

ASK = Ask(user="alice", server="", groups=("g",), profile="p", request=GPURequest(count=1))
QUEUED = {
    "event": "queued",
    "entry": "e1",
    "position": 2,
    "reason": "waiting_for_devices",
    "message": "wait",
}
GRANTED = {
    "event": "granted",
    "entry": "e1",
    "lease": {
        "id": "l1",
        "node": "n",
        "ledger": "L",
        "devices": [{"id": "GPU-1", "index": 3, "model": "T", "memory": 5, "simulated": False}],
        "injection": "nvidia",
    },
}


class Service:
    """A scheduler service on a local port that answers each request as the test says."""

    def __init__(self) -> None:
        #: one per connection, in order; the last one repeats
        self.scripts: list[Callable[[asyncio.StreamWriter], Awaitable[None]]] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.tokens: list[str] = []
        self.open = 0
        self.closed = asyncio.Event()
        self.over = asyncio.Event()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        body = await reader.readexactly(int(fields.get("Content-Length", 0)))
        self.requests.append((head.splitlines()[0], json.loads(body or "{}")))
        self.tokens.append(fields.get("Authorization", ""))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        await script(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.closed.clear()
        try:
            while not writer.is_closing():
                await self.answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.open -= 1
            self.closed.set()


def stream(*lines: Any, end: str = "", cut: int = 0) -> Callable[..., Awaitable[None]]:
    """Answer 200 with lines in chunks; ``cut``: bytes per chunk; ``end``: close, end or stay."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        data = b"".join(
            line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
        )
        size = cut or max(len(data), 1)
        for start in range(0, len(data), size):
            part = data[start : start + size]
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
        if end == "end":
            writer.write(b"0\r\n\r\n")
        if end == "cut":
            writer.close()

    return script


def answer(status: int, body: bytes) -> Callable[..., Awaitable[None]]:
    async def script(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    return script


@asynccontextmanager
async def serving(*scripts: Any) -> AsyncIterator[tuple[Service, SchedulerClient]]:
    service = Service()
    service.scripts = list(scripts)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = SchedulerClient(f"http://127.0.0.1:{port}/services/gpus/", "secret", timeout=2.0)
    try:
        yield service, client
    finally:
        await client.close()
        server.close()
        for _ in range(100):
            await asyncio.sleep(0 if not service.open else 0.005)
        assert service.open == 0, "a connection is left"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(module, "RETRY_MOST", 0.002)


async def events(client: SchedulerClient) -> list[Queued | Granted]:
    async with aclosing(client.request(ASK)) as found:
        return [event async for event in found]


@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_events_come_whole_however_they_are_split(cut: int) -> None:
    async with serving(stream(QUEUED, b"\n", GRANTED, end="end", cut=cut)) as (service, client):
        queued, granted = await events(client)
    assert queued == Queued(entry="e1", position=2, reason="waiting_for_devices", message="wait")
    assert isinstance(granted, Granted)
    assert (granted.lease, granted.node, granted.ledger) == ("l1", "n", "L")
    assert [(d.id, d.index, d.node) for d in granted.devices] == [("GPU-1", 3, "n")]
    (request,) = service.requests
    assert request[0] == "POST /services/gpus/api/internal/requests HTTP/1.1"
    assert request[1]["boot_id"] == module.BOOT_ID
    assert service.tokens == ["token secret"]


@pytest.mark.parametrize(
    "bad",
    [
        stream(QUEUED, end="cut"),
        stream(QUEUED, end="end"),
        stream(QUEUED, b'{"event": "queu', end="end"),
        stream(QUEUED, b"[1]\n"),
        stream(QUEUED, b'{"event": "queued"}\n'),
        stream(QUEUED, {"event": "granted", "lease": {"id": "l1"}}),
        answer(503, b'{"reason": "starting", "message": "soon"}'),
        answer(404, b"<html>"),
        answer(401, b'{"reason": "token", "message": "no"}'),
        answer(500, b""),
    ],
)
async def test_whatever_breaks_the_same_request_is_made_again(bad: Any) -> None:
    async with serving(bad, stream(GRANTED, end="end")) as (service, client):
        found = await events(client)
    assert isinstance(found[-1], Granted)
    assert [event.reason for event in found if isinstance(event, Queued)][-1] == (
        "scheduler_unavailable"
    )
    assert len(service.requests) == 2
    assert service.requests[0] == service.requests[1]


async def test_a_service_that_is_not_there_is_asked_until_it_is() -> None:
    async with serving(stream(GRANTED, end="end")) as (_, client):
        there, client._base = client._base, "http://127.0.0.1:1/api/"
        async with aclosing(client.request(ASK)) as found:
            for _ in range(3):
                event = await anext(found)
                assert isinstance(event, Queued) and event.position == 0
            client._base = there
            assert isinstance(await anext(found), Granted)


async def test_the_log_says_once_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    bad = answer(401, b'{"reason": "token", "message": "wrong token"}')
    async with serving(bad, bad, bad, stream(GRANTED, end="end")) as (_, client):
        await events(client)
    lines = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert len(lines) == 1
    assert "401" in lines[0]
    assert "wrong token" in lines[0]
    assert "secret" not in lines[0]


async def test_silence_is_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.03)
    async with serving(stream(QUEUED), stream(GRANTED, end="end")) as (_, client):
        found = await events(client)
    assert [type(event) for event in found] == [Queued, Queued, Granted]


@pytest.mark.parametrize(
    "refusal",
    [
        stream({"event": "refused", "reason": "impossible", "message": "too many"}, end="end"),
        answer(409, b'{"reason": "impossible", "message": "too many"}'),
        answer(400, b'{"reason": "impossible", "message": "too many"}'),
    ],
)
async def test_a_refusal_ends_the_wait_with_its_reason(refusal: Any) -> None:
    async with serving(refusal) as (service, client):
        with pytest.raises(RefusedError) as refused:
            await events(client)
    assert (refused.value.reason, refused.value.user_message) == ("impossible", "too many")
    assert len(service.requests) == 1


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_who_stops_waiting_closes_the_connection_at_once(how: str) -> None:
    async with serving(stream(QUEUED)) as (service, client):
        found = client.request(ASK)
        await anext(found)
        assert service.open == 1
        if how == "cancel":
            waiting = asyncio.ensure_future(anext(found))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        await found.aclose()
        await asyncio.wait_for(service.closed.wait(), 1)
        assert service.open == 0


async def test_many_may_wait_at_once() -> None:
    async with serving(stream(QUEUED)) as (service, client):
        waiting = [client.request(ASK) for _ in range(101)]
        await asyncio.gather(*(anext(found) for found in waiting))
        assert service.open == 101
        await asyncio.gather(*(found.aclose() for found in waiting))


CALLS = {
    "requests/e%2F1/cancel": lambda client: client.cancel("e/1"),
    "leases/l1/bind": lambda client: client.bind("l1", "c1"),
    "leases/l1/running": lambda client: client.running("l1"),
    "leases/l1/stopping": lambda client: client.stopping("l1", "stopped"),
    "leases/l1/ended": lambda client: client.ended(
        "l1", reason="exited", note="", exit_code=1, oom=False
    ),
    "summary": lambda client: client.summary(),
}


@pytest.mark.parametrize("path", CALLS)
async def test_each_call_has_its_address_and_body(path: str) -> None:
    async with serving(answer(200, b'{"released": true}')) as (service, client):
        result = await CALLS[path](client)
    (line, body) = service.requests[0]
    assert line.split()[1] == f"/services/gpus/api/internal/{path}"
    if path.endswith("ended"):
        assert result == End(released=True)
        assert body == {"reason": "exited", "note": "", "exit_code": 1, "oom": False}
    if path.endswith("bind"):
        assert body == {"container_id": "c1"}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer(409, b'{"reason": "gone", "message": "m"}'), RefusedError),
        (answer(404, b'{"reason": "unknown", "message": "m"}'), RefusedError),
        (answer(404, b"nothing here"), SchedulerUnavailable),
        (answer(403, b'{"reason": "token", "message": "m"}'), SchedulerUnavailable),
        (answer(500, b'{"reason": "x", "message": "m"}'), SchedulerUnavailable),
        (answer(200, b"[]"), SchedulerUnavailable),
        (answer(200, b"{"), SchedulerUnavailable),
        (stream(b"", end="cut"), SchedulerUnavailable),
    ],
)
async def test_only_a_4xx_with_a_reason_is_a_no(reply: Any, error: type[Exception]) -> None:
    async with serving(reply) as (_, client):
        with pytest.raises(error):
            await client.bind("l1", "c1")


async def test_a_closed_client_can_be_closed_again_and_used_again() -> None:
    async with serving(answer(200, b"{}")) as (_, client):
        await client.running("l1")
        await client.close()
        await client.close()
        await client.running("l1")
