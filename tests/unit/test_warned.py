"""Warnings reach the server that they are about, and its user's wish to keep it comes back."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from jupyterhub_gpuspawner import warned
from jupyterhub_gpuspawner.client import Warned
from jupyterhub_gpuspawner.errors import SchedulerUnavailable
from jupyterhub_gpuspawner.warned import Deaf, WarningTraits, tell
from tests.unit.web_server import serving

# real sockets, files or processes
pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "images" / "singleuser" / "notice"
STOPS = Warned(stop_at=5000.0, idle=True)
KEPT = Warned(kept_until=9000.0)


@pytest.fixture
def notice(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The image's server extension, without a Jupyter Server."""
    for name, fake in {
        "jupyter_server": ModuleType("jupyter_server"),
        "jupyter_server.base": ModuleType("jupyter_server.base"),
        "jupyter_server.base.handlers": SimpleNamespace(APIHandler=object),
        "jupyter_server.utils": SimpleNamespace(url_path_join=lambda *parts: "/".join(parts)),
    }.items():
        monkeypatch.setitem(sys.modules, name, fake)
    spec = importlib.util.spec_from_file_location("gpus_notice", FOLDER / "gpus_notice.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def serve(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """A server below ``/user/ann/``; its URL."""
    async with serving(web.put("/user/ann/gpus/notice", answer)) as url:
        yield f"{url}user/ann/"


class Scheduler:
    """Keeps what it is asked to keep."""

    def __init__(self, **warned: Warned) -> None:
        self.state = warned
        self.kept: list[str] = []
        self.looks = 0
        self.broken = False

    async def warned(self) -> dict[str, Warned]:
        self.looks += 1
        if self.broken:
            raise SchedulerUnavailable("away")
        return dict(self.state)

    async def keep(self, lease: str) -> None:
        self.kept.append(lease)
        if not self.broken:
            self.state[lease] = KEPT


class Spawner(WarningTraits):
    """As much of a spawner as this needs."""

    def __init__(self, scheduler: Scheduler, url: str) -> None:
        super().__init__(warning_interval=0.01)
        self.scheduler = scheduler
        self.server = SimpleNamespace(url=url)
        self.user = SimpleNamespace(settings={})
        self.internal_ssl = False
        self.lease_id, self.object_id, self._log_name = "l1", "c1", "ann"
        self.log = SimpleNamespace(debug=lambda *_: None)
        self.tasks: list[asyncio.Task[Any]] = []

    def own(self, work: Any) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.ensure_future(work))
        return self.tasks[-1]

    async def hint(self, report: Awaitable[Any]) -> bool:
        try:
            await report
        except SchedulerUnavailable:
            return False
        return True

    def _server_pass(self) -> str:
        return "secret"

    async def end(self) -> None:
        self.lease_id = ""
        await asyncio.wait_for(asyncio.gather(*self.tasks), 30)


async def until(check: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), 30)


def beside(notice: Any) -> tuple[Any, Callable[[web.Request], Awaitable[web.Response]], list[Any]]:
    """The extension's state, its handler as the Hub sees it, and who called."""
    state, calls = notice.Notice(), []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.headers["Authorization"])
        return web.json_response({"keep": await state.tell(notice.told(await request.json()))})

    return state, answer, calls


async def test_a_warning_reaches_the_server_and_the_button_the_scheduler(notice: Any) -> None:
    state, answer, calls = beside(notice)
    scheduler = Scheduler(l1=STOPS, other=STOPS)
    async with serve(answer) as url:
        spawner = Spawner(scheduler, url)
        spawner.listen_for_warnings()
        await until(lambda: state.now()["stop_at"] == 5000)
        assert state.now() == STOPS.body()
        assert await asyncio.wait_for(state.keep(), 30)
        assert state.now() == KEPT.body()
        assert scheduler.kept == ["l1"]
        await spawner.end()
    assert set(calls) == {"token secret"}


async def test_who_could_not_be_kept_is_told_so(notice: Any) -> None:
    state, answer, _ = beside(notice)
    scheduler = Scheduler(l1=STOPS)
    async with serve(answer) as url:
        spawner = Spawner(scheduler, url)
        spawner.listen_for_warnings()
        await until(lambda: state.now()["stop_at"] == 5000)
        scheduler.broken = True
        assert await asyncio.wait_for(state.keep(), 30)
        assert state.now() == STOPS.body()
        spawner.object_id = ""
        state._asked.set()
        await spawner.end()


async def test_a_warning_that_is_withdrawn_goes_and_the_server_is_then_left_alone(
    notice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "HELD", 0.02)
    state, answer, calls = beside(notice)
    scheduler = Scheduler(l1=STOPS)
    async with serve(answer) as url:
        spawner = Spawner(scheduler, url)
        spawner.listen_for_warnings()
        await until(lambda: state.now()["stop_at"] == 5000)
        scheduler.state = {}
        await until(lambda: state.now() == notice.NOTHING)
        await until(lambda: spawner._telling is not None and spawner._telling.done())
        called, looks = len(calls), scheduler.looks
        await until(lambda: scheduler.looks > looks + 3)
        assert len(calls) == called
        await spawner.end()


async def test_a_server_without_the_extension_is_asked_again_only_at_the_next_look() -> None:
    calls = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=404)

    scheduler = Scheduler(l1=STOPS)
    async with serve(answer) as url:
        spawner = Spawner(scheduler, url)
        spawner.listen_for_warnings()
        await until(lambda: len(calls) > 2)
        assert len(calls) <= scheduler.looks
        await spawner.end()
    assert not scheduler.kept


async def test_one_look_serves_all_and_ends_with_the_last_server(notice: Any) -> None:
    scheduler = Scheduler()
    first, second = Spawner(scheduler, "http://127.0.0.1:1/"), Spawner(scheduler, "")
    second.lease_id = "l2"
    for spawner in (first, second, first):
        spawner.listen_for_warnings()
    assert len(first.tasks) == 1 and not second.tasks
    await until(lambda: scheduler.looks > 2)
    second.lease_id = ""
    await first.end()


@pytest.mark.parametrize(
    ("status", "text"),
    [(200, "[]"), (200, '{"keep": 1}'), (200, "{}")],
)
async def test_only_a_clear_word_keeps_a_server(status: int, text: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    async with serve(answer) as url:
        assert not await tell(f"{url}gpus/notice", "t", STOPS)


@pytest.mark.parametrize(("status", "text"), [(404, ""), (302, ""), (200, "no JSON"), (500, "{}")])
async def test_whatever_is_no_answer_is_deaf(status: int, text: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers={"Location": "/hub/login"})

    async with serve(answer) as url:
        with pytest.raises(Deaf):
            await tell(f"{url}gpus/notice", "t", STOPS)


async def test_a_server_is_told_nothing_where_nobody_asked_for_it() -> None:
    spawner = Spawner(Scheduler(l1=STOPS), "")
    spawner.warning_interval = 0
    spawner.listen_for_warnings()
    assert not spawner.tasks
    assert warned.Warnings(spawner.scheduler, 1).of("l1") == Warned()  # type: ignore[arg-type]


# -- the extension -------------------------------------------------------------------------------


async def test_a_warning_that_is_not_repeated_is_forgotten(
    notice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "HELD", 0.01)
    state = notice.Notice()
    assert not await state.tell(notice.told(STOPS.body()))
    assert state.now() == STOPS.body()
    monkeypatch.setattr(notice, "FRESH", 0.0)
    assert state.now() == notice.NOTHING


async def test_a_click_that_nobody_hears_says_so(
    notice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "PATIENCE", 0.01)
    state = notice.Notice()
    assert not await state.keep()
    # it is not lost: the Hub hears it when it speaks next
    assert await state.tell(STOPS.body())


@pytest.mark.parametrize(
    "body",
    [
        *(None, [], "x", {"stop_at": "soon"}, {"stop_at": True}, {"kept_until": {}}),
        *({"stop_at": float("nan")}, {"kept_until": float("inf")}),
    ],
)
def test_what_the_hub_would_never_say_is_refused(notice: Any, body: Any) -> None:
    with pytest.raises(ValueError):
        notice.told(body)


def test_what_the_hub_says_is_understood_and_nothing_else_is_kept(notice: Any) -> None:
    body = {**STOPS.body(), "more": "<script>"}
    assert notice.told(body) == STOPS.body()
    assert notice.told({}) == notice.NOTHING
