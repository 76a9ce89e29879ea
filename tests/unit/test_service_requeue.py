"""After a restart of the Hub: who waits is started again, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import ANY

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from jupyterhub_gpuspawner.service import requeue, runtime
from jupyterhub_gpuspawner.service.requeue import Answer, HubAPI, meaning
from tests.unit.service_world import FakeHub, World

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(runtime, "TICK", 0.01)
    monkeypatch.setattr(requeue, "LOOK", 0.005)
    monkeypatch.setattr(requeue, "RETRY_FIRST", 0.005)
    monkeypatch.setattr(requeue, "RETRY_MOST", 0.01)
    return World(tmp_path)


async def leave_behind(world: World, *users: str) -> None:
    """A Hub and a scheduler that die while these users wait, one after the other."""
    async with world.running():
        await world.run("holder", 2)
        streams = []
        for user in users:
            stream = world.ask(user)
            await stream.__aenter__()
            await stream.line()
            streams.append(stream)
    for stream in streams:
        await stream.__aexit__()
    world.boot_id = "boot-2"
    world.hub = FakeHub()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (201, Answer.STARTED),
        (202, Answer.STARTED),
        (400, Answer.KEEP),
        (409, Answer.KEEP),
        (404, Answer.GONE),
        (403, Answer.AGAIN),
        (429, Answer.AGAIN),
        (500, Answer.AGAIN),
        (503, Answer.AGAIN),
        (599, Answer.AGAIN),
    ],
)
def test_what_the_hub_says_means(status: int, answer: Answer) -> None:
    assert meaning(status) is answer


async def test_those_who_wait_are_asked_for_in_their_order(world: World) -> None:
    await leave_behind(world, "bob", "ann", "eve")
    async with world.running():
        hub = world.hub
        assert hub is not None
        await world.until(lambda: len(hub.asked) >= 3)
        assert hub.asked[:3] == [("bob", ""), ("ann", ""), ("eve", "")]
        async with world.ask("ann") as ann:
            await ann.until(position=2)


async def test_a_scheduler_that_no_hub_starts_waits_until_a_hub_says_hello(world: World) -> None:
    await leave_behind(world, "bob")
    hub = world.hub
    assert hub is not None
    world.boot_id = ""
    async with world.running():
        assert await world.post("hub", {"boot_id": "../"}) == (400, ANY)
        assert hub.asked == []
        for _ in range(2):
            assert await world.post("hub", {"boot_id": "boot-2"}) == (200, {})
        await world.until(lambda: hub.asked)
        assert hub.asked[0] == ("bob", "")


async def test_a_hub_that_has_no_time_is_asked_again_before_the_next_one(world: World) -> None:
    await leave_behind(world, "bob", "ann")
    hub = world.hub
    assert hub is not None
    hub.answers["bob"] = Answer.AGAIN
    async with world.running():
        await world.until(lambda: len(hub.asked) >= 3)
        assert hub.asked[:3] == [("bob", "")] * 3
        # one that is refused again and again does not hold up the others for ever
        await world.until(lambda: ("ann", "") in hub.asked)
        assert hub.asked.index(("ann", "")) > requeue.PATIENCE


async def test_who_is_gone_at_the_hub_leaves_the_queue(world: World) -> None:
    await leave_behind(world, "bob", "ann")
    hub = world.hub
    assert hub is not None
    hub.answers["bob"] = Answer.GONE
    async with world.running(), world.ask("ann") as ann:
        await ann.until(position=1)


async def test_who_has_to_log_in_keeps_the_place(world: World) -> None:
    await leave_behind(world, "bob", "ann")
    hub = world.hub
    assert hub is not None
    hub.answers["bob"] = Answer.KEEP
    async with world.running():
        await world.until(lambda: hub.asked.count(("bob", "")) >= 2 and ("ann", "") in hub.asked)
        async with world.ask("ann") as ann:
            await ann.until(position=2)


async def test_a_grant_that_the_dead_hub_never_used_is_asked_for_too(world: World) -> None:
    async with world.running():
        await world.grant("alice")
    world.boot_id, world.hub = "boot-2", FakeHub()
    async with world.running():
        await world.until(lambda: world.hub is not None and world.hub.asked == [("alice", "")])


async def test_entries_of_the_living_hub_are_left_to_their_spawns(world: World) -> None:
    await leave_behind(world, "bob")
    world.boot_id = "boot-1"
    async with world.running():
        await requeue.Requeue(world.desk, world.hub.start).look()  # type: ignore[union-attr]
        assert world.hub is not None
        assert world.hub.asked == []


@contextmanager
def hub_server(seen: list[tuple[str, bytes]]) -> Iterator[str]:
    """A Hub that knows every user but bob; its address."""

    class Users(RequestHandler):
        def post(self) -> None:
            seen.append((self.request.path, self.request.body))
            self.set_status(404 if "/bob/" in self.request.path else 202)

    server = HTTPServer(Application([("/hub/api/users/.*", Users)], log_function=lambda _: None))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}/hub/api"
    server.stop()


async def test_names_are_quoted_and_the_body_is_empty() -> None:
    seen: list[tuple[str, bytes]] = []
    with hub_server(seen) as url:
        api = HubAPI(url, "secret")
        assert await api.start("a/b c@d", "x y") is Answer.STARTED
        assert await api.start("bob", "") is Answer.GONE
        api.close()
    assert seen == [
        ("/hub/api/users/a%2Fb%20c%40d/servers/x%20y", b""),
        ("/hub/api/users/bob/server", b""),
    ]


async def test_a_hub_that_is_not_there_is_asked_again() -> None:
    api = HubAPI("http://127.0.0.1:9/hub/api", "secret")
    assert await api.start("bob", "") is Answer.AGAIN
    api.close()
