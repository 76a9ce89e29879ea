"""The pool: one call at a time for each key, whatever the waiters do."""

from __future__ import annotations

import asyncio
import socketserver
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from jupyterhub_gpuspawner.engine.connect import client_options, connect
from jupyterhub_gpuspawner.engine.pool import EnginePool
from jupyterhub_gpuspawner.errors import EngineError, EngineUnknown
from tests.unit.engine_fakes import Answer, ReplayEngine

# real sockets, files or processes
pytestmark = pytest.mark.slow

LONG = 5.0


@pytest.fixture
def engine() -> Iterator[ReplayEngine]:
    with ReplayEngine() as server:
        yield server


@pytest.fixture
async def pool(engine: ReplayEngine) -> AsyncIterator[EnginePool]:
    made = EnginePool(engine.url, size=4, timeout=LONG)
    yield made
    made.close()
    assert await made.drain(LONG)


class Gate:
    """A call that tells when it has begun, and ends when it is let go."""

    def __init__(self, result: str = "done") -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()
        self.result = result

    def __call__(self, client: docker.DockerClient) -> str:
        self.began.set()
        assert self.go.wait(LONG)
        self.ended.set()
        return self.result

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.began.wait, LONG)


async def test_a_call_returns_what_the_function_returns(pool: EnginePool) -> None:
    assert await pool.run("a", lambda client: client.api.api_version) == "1.41"


async def test_calls_with_one_key_run_in_order_and_never_overlap(pool: EnginePool) -> None:
    order: list[int] = []
    inside = threading.Lock()

    def call(number: int) -> Any:
        def fn(client: docker.DockerClient) -> None:
            assert inside.acquire(blocking=False), "two calls at once"
            order.append(number)
            inside.release()

        return fn

    await asyncio.gather(*(pool.run("a", call(number)) for number in range(50)))
    assert order == list(range(50))


async def test_calls_with_different_keys_run_side_by_side(pool: EnginePool) -> None:
    meet = threading.Barrier(4, timeout=LONG)
    results = await asyncio.gather(*(pool.run(str(n), lambda c: meet.wait()) for n in range(4)))
    assert sorted(results) == [0, 1, 2, 3]


async def test_each_thread_has_a_client_of_its_own(pool: EnginePool) -> None:
    meet = threading.Barrier(4, timeout=LONG)

    def mine(client: docker.DockerClient) -> tuple[int, int]:
        meet.wait()
        return threading.get_ident(), id(client)

    first = await asyncio.gather(*(pool.run(str(n), mine) for n in range(4)))
    again = await asyncio.gather(*(pool.run(str(n), mine) for n in range(4)))
    assert len({client for _, client in first}) == 4
    assert dict(first) == dict(again)


async def test_a_cancelled_call_keeps_its_key_until_the_thread_is_done(pool: EnginePool) -> None:
    start, removal = Gate(), Gate()
    task = asyncio.create_task(pool.run("a", start))
    await start.begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    behind = asyncio.create_task(pool.run("a", removal))
    await pool.run("b", lambda client: None)  # the loop and the other threads go on
    assert not removal.began.is_set()
    start.go.set()
    removal.go.set()
    assert await behind == "done"
    assert start.ended.is_set()


async def test_a_timed_out_call_keeps_its_key_and_says_that_it_goes_on(pool: EnginePool) -> None:
    slow = Gate()
    with pytest.raises(EngineUnknown, match=r"a: no answer after 0.05 s; the call was begun"):
        await pool.run("a", slow, timeout=0.05)
    after = Gate()
    with pytest.raises(EngineUnknown, match="the call was not begun"):
        await pool.run("a", after, timeout=0.05)
    slow.go.set()
    assert await pool.drain(LONG)
    assert slow.ended.is_set()
    assert not after.began.is_set()


async def test_a_waiter_that_is_cancelled_before_its_turn_never_runs(pool: EnginePool) -> None:
    first, dropped, last = Gate(), Gate(), Gate()
    running = asyncio.create_task(pool.run("a", first))
    await first.begun()
    waiting = asyncio.create_task(pool.run("a", dropped))
    behind = asyncio.create_task(pool.run("a", last))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for gate in (first, last):
        gate.go.set()
    assert await running == await behind == "done"
    assert not dropped.began.is_set()


async def test_a_stuck_engine_costs_one_thread_and_not_the_others(pool: EnginePool) -> None:
    stuck = [Gate() for _ in range(3)]
    tasks = [asyncio.create_task(pool.run(str(n), gate)) for n, gate in enumerate(stuck)]
    for gate in stuck:
        await gate.begun()
    assert await pool.run("free", lambda client: 1) == 1
    for gate in stuck:
        gate.go.set()
    await asyncio.gather(*tasks)


async def test_an_error_of_the_function_reaches_the_waiter_and_frees_the_key(
    pool: EnginePool,
) -> None:
    def fail(client: docker.DockerClient) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await pool.run("a", fail)
    assert await pool.run("a", lambda client: 1) == 1


async def test_a_404_stays_not_found() -> None:
    gone = Answer(status=404, body={"message": "No such container: x"})
    with ReplayEngine({"GET /containers/x/json": gone}) as engine:
        pool = EnginePool(engine.url)
        with pytest.raises(docker.errors.NotFound):
            await pool.run("x", lambda client: client.api.inspect_container("x"))
        pool.close()


@pytest.mark.parametrize(
    "fault",
    [
        Answer(silent=True),
        Answer(reset=True),
        Answer(body={"Id": "x"}, cut=3),
        Answer(body=b"{not json"),
        Answer(status=500, body={"message": "no space left on device"}),
        Answer(status=502, body=b"<html>bad gateway</html>"),
    ],
    ids=["silent", "reset", "cut", "not json", "500", "502"],
)
async def test_an_answer_that_proves_nothing_is_unknown_and_the_next_call_works(
    fault: Answer,
) -> None:
    table = {"GET /containers/x/json": [fault, Answer(body={"Id": "x"})]}
    with ReplayEngine(table) as engine:
        pool = EnginePool(engine.url, size=1, timeout=0.2)

        def inspect(client: docker.DockerClient) -> Any:
            return client.api.inspect_container("x")

        with pytest.raises(EngineUnknown) as caught:
            await pool.run("x", inspect, timeout=LONG)
        assert caught.value.__cause__ is not None
        assert await pool.run("x", inspect, timeout=LONG) == {"Id": "x"}
        assert engine.requests.count("GET /version") == 2, "the version is asked for again"
        pool.close()


async def test_no_engine_at_all_is_unknown_too() -> None:
    pool = EnginePool("tcp://127.0.0.1:1")
    with pytest.raises(EngineUnknown, match="no answer from Docker"):
        await pool.run("a", lambda client: None)
    pool.close()


async def test_a_closed_pool_refuses_and_drops_what_has_not_begun(engine: ReplayEngine) -> None:
    pool = EnginePool(engine.url, size=1)
    first, other = Gate(), Gate()
    running = asyncio.create_task(pool.run("a", first))
    await first.begun()
    same = asyncio.create_task(pool.run("a", other))
    another = asyncio.create_task(pool.run("b", other))
    await asyncio.sleep(0)
    pool.close()
    pool.close()
    for task in (same, another):
        with pytest.raises(EngineError, match="closed before the call began"):
            await task
    with pytest.raises(EngineError, match="the pool is closed"):
        await pool.run("a", other)
    assert not await pool.drain(0.01)
    first.go.set()
    assert await running == "done"
    assert await pool.drain(LONG)
    assert not other.began.is_set()


async def test_draining_an_idle_pool_returns_at_once(pool: EnginePool) -> None:
    assert await pool.drain(0)


async def test_threads_end_when_the_pool_is_closed(engine: ReplayEngine) -> None:
    pool = EnginePool(engine.url, size=2)
    threads = await asyncio.gather(
        *(pool.run(str(n), lambda client: threading.current_thread()) for n in range(8))
    )
    assert len(set(threads)) <= 2
    pool.close()
    for thread in set(threads):
        await asyncio.to_thread(thread.join, LONG)
        assert not thread.is_alive()


def test_a_pool_has_a_thread() -> None:
    with pytest.raises(ValueError, match="not 0"):
        EnginePool(size=0)


def test_settings_come_from_the_environment_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://env:2375")
    for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert client_options(None, 5)["base_url"] == "tcp://env:2375"
    options = client_options("tcp://given:2376", 5, {"tls": {"verify": False}, "version": "1.41"})
    assert options["base_url"] == "tcp://given:2376"
    assert (options["version"], options["timeout"]) == ("1.41", 5)
    assert options["tls"].verify is False


class _Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers every request, and knows the connections that are open."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.open: set[Any] = set()
        super().__init__(str(path), _Answer)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"ApiVersion": "1.44"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_client_that_asked_for_many_containers_keeps_none_of_the_connections(
    tmp_path: Path,
) -> None:
    with _Engine(tmp_path / "engine.sock") as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        client = connect(f"unix://{tmp_path}/engine.sock", 5)
        try:
            for number in range(20):
                client.api.inspect_container(f"container{number}")
            until = time.monotonic() + 10
            # the engine hears of a close a moment after it
            while len(engine.open) > 1 and time.monotonic() < until:
                time.sleep(0.01)
            # the one that asked for the engine's version
            assert len(engine.open) <= 1
        finally:
            client.close()
            engine.shutdown()
