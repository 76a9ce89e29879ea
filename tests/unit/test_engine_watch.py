"""One picture of all servers: never trusted when old, and each end told once."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timezone
from typing import Any

import pytest

from jupyterhub_gpuspawner.engine import watch as module
from jupyterhub_gpuspawner.engine.events import ContainerEvent, Reconnected
from jupyterhub_gpuspawner.engine.watch import EngineWatch
from jupyterhub_gpuspawner.errors import EngineUnknown
from tests.unit.hub_fakes import Gone

# takes JupyterHub to import
pytestmark = pytest.mark.slow


class Pool:
    """A list call that returns what the test put there."""

    base_url = None
    options: dict[str, Any] = {}

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.error: Exception | None = None
        self.listed = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, key: str, fn: Any, timeout: float | None = None) -> dict[str, str]:
        states = dict(self.states)
        self.listed += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return states


class Events:
    """Docker's events, one by one."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __anext__(self) -> Any:
        return await self.items.get()

    def send(self, action: str, container: str) -> None:
        self.items.put_nowait(
            ContainerEvent(
                action=action, container_id=container, labels={}, exit_code=None, time=0.0
            )
        )


class Setup:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.pool, self.events = Pool(), Events()
        monkeypatch.setattr(module, "EngineEvents", lambda *_, **__: self.events)
        self.watch = EngineWatch(self.pool, "l1", 30.0, lambda: self.now)  # type: ignore[arg-type]
        self.told: list[str] = []

    def follow(self, container: str) -> None:
        async def tell() -> None:
            self.told.append(container)

        self.watch.follow(container, tell)

    async def run(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def setup(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Setup(monkeypatch)
    made.pool.states = {"a": "running", "b": "exited"}
    made.watch.start()
    made.events.items.put_nowait(Reconnected())
    await made.run()
    yield made
    await made.watch.close()


async def test_before_the_first_list_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Setup(monkeypatch).watch.is_live("a") is None


async def test_a_list_says_who_runs_and_proves_nothing_about_others(setup: Setup) -> None:
    assert [setup.watch.is_live(name) for name in "abc"] == [True, False, False]


async def test_an_old_picture_is_no_picture(setup: Setup) -> None:
    setup.now += 60.0
    assert setup.watch.is_live("a") is True
    setup.now += 0.1
    assert setup.watch.is_live("a") is None


async def test_a_steady_stream_of_events_does_not_put_off_the_list(setup: Setup) -> None:
    for _ in range(5):
        setup.now += 30.0
        setup.events.send("start", "c")
        await setup.run()
    assert setup.pool.listed >= 5
    assert setup.watch.is_live("a") is True


@pytest.mark.parametrize("error", [EngineUnknown("no answer"), Gone("x")])
async def test_an_error_keeps_the_picture_and_the_watch(setup: Setup, error: Exception) -> None:
    setup.follow("a")
    setup.pool.error = error
    setup.events.items.put_nowait(Reconnected())
    await setup.run()
    assert setup.told == []
    assert setup.watch.is_live("a") is True
    setup.pool.error, setup.pool.states = None, {}
    setup.events.items.put_nowait(Reconnected())
    await setup.run()
    assert setup.told == ["a"]


async def test_a_list_that_failed_is_tried_again_soon(setup: Setup) -> None:
    setup.pool.error = EngineUnknown("no answer")
    setup.events.items.put_nowait(Reconnected())
    await setup.run()
    listed = setup.pool.listed
    setup.pool.error = None
    setup.now += module.RETRY
    setup.events.send("start", "c")  # any event makes it look at the clock
    await setup.run()
    assert setup.pool.listed == listed + 1


async def test_a_watch_that_is_closed_in_the_moment_of_an_event_ends(setup: Setup) -> None:
    for _ in range(20):
        setup.watch.start()
        await setup.run()
        setup.events.send("start", "c")
        await asyncio.sleep(0)
        await asyncio.wait_for(setup.watch.close(), 5)


async def test_an_end_while_the_engine_was_away_is_known_as_such(setup: Setup) -> None:
    told: list[str] = []

    def end(when: str) -> None:
        setup.watch.if_away(when, lambda: told.append(when))

    end("2026-01-01T00:00:58.5Z")  # the daemon ends containers before it goes
    end("2026-01-01T00:00:40Z")
    assert told == []
    end(datetime.now(timezone.utc).isoformat()[:19] + "Z")
    setup.events.items.put_nowait(Reconnected(lost_at=time.time()))
    await setup.run()
    assert told == [], "only a connection was made anew"
    setup.events.items.put_nowait(Reconnected(lost_at=1767225660.0))  # 2026-01-01T00:01:00Z
    await setup.run()
    assert told[0] == "2026-01-01T00:00:58.5Z"
    told.clear()
    end("2026-01-01T00:01:10Z")
    end("")
    assert told == ["2026-01-01T00:01:10Z"]


async def test_an_end_is_told_once_although_events_come_twice(setup: Setup) -> None:
    setup.follow("a")
    for action in ("die", "die", "destroy"):
        setup.events.send(action, "a")
    setup.events.items.put_nowait(Reconnected())
    await setup.run()
    assert setup.told == ["a"]
    assert setup.watch.is_live("a") is not None


async def test_an_end_that_no_event_told_is_found_by_the_list(setup: Setup) -> None:
    setup.follow("a")
    setup.pool.states = {"a": "exited"}
    setup.events.items.put_nowait(Reconnected())
    await setup.run()
    assert setup.told == ["a"]


async def test_a_container_that_is_younger_than_the_list_has_not_ended(setup: Setup) -> None:
    setup.pool.gate.clear()
    setup.events.items.put_nowait(Reconnected())
    await setup.run()
    setup.follow("new")
    setup.pool.gate.set()
    await setup.run()
    assert setup.told == []


async def test_a_container_that_was_created_and_not_started_has_not_ended(setup: Setup) -> None:
    setup.follow("c")
    setup.pool.states = {"c": "created"}
    setup.events.items.put_nowait(Reconnected())
    await setup.run()
    assert setup.told == []
    setup.follow("c")
    await setup.run()
    assert setup.told == []


async def test_who_follows_a_container_that_has_ended_hears_it_at_once(setup: Setup) -> None:
    setup.events.send("die", "a")
    await setup.run()
    setup.follow("a")
    await setup.run()
    assert setup.told == ["a"]


async def test_who_follows_no_more_hears_nothing(setup: Setup) -> None:
    setup.follow("a")
    setup.watch.unfollow("a")
    setup.events.send("die", "a")
    await setup.run()
    assert setup.told == []


async def test_a_follower_that_fails_is_logged_and_the_watch_goes_on(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise RuntimeError("odd")

    setup.watch.follow("a", fails)
    setup.events.send("die", "a")
    await setup.run()
    assert "could not be handled" in caplog.text
    setup.events.send("start", "z")
    await setup.run()
    assert setup.watch.is_live("z") is True
