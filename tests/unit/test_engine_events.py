"""Events: each connection starts with "list once", faults are survived, closing is prompt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from jupyterhub_gpuspawner.engine import events, labels
from jupyterhub_gpuspawner.engine.events import ContainerEvent, EngineEvents, Reconnected
from tests.unit.engine_fakes import Answer, ReplayEngine

# real sockets, files or processes
pytestmark = pytest.mark.slow

LONG = 5.0


def event(action: str, container: str = "c1", **attributes: str) -> dict[str, Any]:
    return {
        "Type": "container",
        "Action": action,
        "Actor": {"ID": container, "Attributes": attributes},
        "time": 1,
        "timeNano": 1_500_000_000,
    }


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(events, "LAST_PAUSE", 0.002)


async def take(stream: EngineEvents, count: int) -> list[events.Item]:
    return [await asyncio.wait_for(anext(stream), LONG) for _ in range(count)]


async def test_events_come_after_one_mark_to_list() -> None:
    lines = (event("start"), event("oom"), event("die", exitCode="137"), event("destroy"))
    with ReplayEngine({"GET /events": Answer(stream=lines)}) as engine:
        async with EngineEvents("l1", engine.url) as stream:
            first, *rest = await take(stream, 5)
            assert stream.trouble == ""
    assert first == Reconnected()
    assert rest[2] == ContainerEvent(
        action="die", container_id="c1", labels={"exitCode": "137"}, exit_code=137, time=1.5
    )
    actions = [item.action for item in rest if isinstance(item, ContainerEvent)]
    assert actions == ["start", "oom", "die", "destroy"]
    query = parse_qs(engine.details[engine.requests.index("GET /events")][0])
    filters = json.loads(query["filters"][0])
    assert filters["label"] == labels.selectors("l1", labels.Kind.SERVER)
    assert filters["type"] == ["container"]
    assert int(query["since"][0]) > 0


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=500, body={"message": "later"}),
        Answer(reset=True),
        Answer(stream=(b"{not json",)),
        Answer(stream=({"Type": "container", "Action": "die"},)),
        Answer(stream=(event("start", "before"),), cut=0),
        Answer(stream=(event("start", "before"),), ends=True),
    ],
    ids=["500", "reset", "not json", "broken event", "cut", "ended"],
)
async def test_after_a_fault_it_connects_again_and_says_so(fault: Answer) -> None:
    good = Answer(stream=(event("start", "after"),))
    with ReplayEngine({"GET /events": [fault, fault, good]}) as engine:
        async with EngineEvents("l1", engine.url) as stream:
            seen: list[events.Item] = []
            while not (isinstance(seen and seen[-1], ContainerEvent) and last_is_after(seen)):
                seen.extend(await take(stream, 1))
    assert seen[-2] == Reconnected()
    assert engine.requests.count("GET /events") == 3


def last_is_after(seen: list[events.Item]) -> bool:
    last = seen[-1]
    return isinstance(last, ContainerEvent) and last.container_id == "after"


async def test_a_silent_connection_is_made_anew() -> None:
    with ReplayEngine({"GET /events": Answer(stream=(b"",))}) as engine:
        async with EngineEvents("l1", engine.url, silence=0.05) as stream:
            assert await take(stream, 3) == [Reconnected()] * 3


async def test_an_engine_that_comes_late_is_found() -> None:
    stream = EngineEvents("l1", "tcp://127.0.0.1:1")
    async with stream:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)
        assert "127.0.0.1" in stream.trouble
        with ReplayEngine({"GET /events": Answer(stream=(b"",))}) as engine:
            stream.base_url = engine.url
            assert await take(stream, 1) == [Reconnected()]
            await stream.close()


async def test_closing_ends_the_iteration_and_the_thread_at_once() -> None:
    with ReplayEngine({"GET /events": Answer(stream=(b"",))}) as engine:
        stream = EngineEvents("l1", engine.url, silence=600)
        reader = asyncio.create_task(collect(aiter(stream)))
        while "GET /events" not in engine.requests:
            assert await asyncio.to_thread(engine.arrived.acquire, timeout=LONG)
        await asyncio.wait_for(stream.close(timeout=600), LONG)
        await stream.close()
        assert await asyncio.wait_for(reader, LONG) in ([], [Reconnected()])
        assert stream._thread is not None
        assert not stream._thread.is_alive()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def collect(stream: AsyncIterator[events.Item]) -> list[events.Item]:
    return [item async for item in stream]


async def test_closing_what_was_never_read_is_fine() -> None:
    await EngineEvents("l1", "tcp://127.0.0.1:1").close()


async def test_a_reader_that_does_not_keep_up_is_told_to_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "LARGEST_BACKLOG", 5)
    stream = EngineEvents("l1", "tcp://127.0.0.1:1")
    for number in range(6):
        parsed = events.parse_event(event("die", str(number)))
        assert parsed is not None
        stream._put(parsed)
    assert await take(stream, 1) == [Reconnected(why="backlog")]
    assert stream._items.empty()


@pytest.mark.parametrize(
    "data",
    [
        {"Type": "network", "Action": "start"},
        event("exec_start: ls"),
        event("health_status: healthy"),
        {},
    ],
)
def test_what_nobody_asked_for_is_skipped(data: dict[str, Any]) -> None:
    assert events.parse_event(data) is None
