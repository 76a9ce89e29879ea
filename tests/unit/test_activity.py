"""A server says when it was last used; anything but a clear answer is "not known"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import pytest
from aiohttp import web

from jupyterhub_gpuspawner.activity import Unknown, ask, idle_for
from tests.unit.web_server import serving

# real sockets, files or processes
pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)
STATUS = {"started": "2026-11-22T08:00:00.000000Z"}


def kernel(at: str, state: str = "idle") -> dict[str, str]:
    return {"id": "1", "last_activity": f"2026-11-22T{at}Z", "execution_state": state}


def terminal(at: str) -> dict[str, str]:
    return {"name": "1", "last_activity": f"2026-11-22T{at}Z"}


@pytest.mark.parametrize(
    ("kernels", "terminals", "seconds"),
    [
        ([], [], 4 * 3600),
        ([kernel("11:59:00.5")], [], 59.5),
        ([kernel("10:00:00"), kernel("11:00:00")], [], 3600),
        ([kernel("10:00:00")], [terminal("11:30:00")], 1800),
        # it computes without a word
        ([kernel("09:00:00", "busy")], [], 0),
        ([kernel("09:00:00", "starting")], [], 0),
        ([kernel("09:00:00", "dead")], [], 3 * 3600),
        # a clock that is ahead
        ([kernel("12:00:01")], [], 0),
    ],
)
def test_the_last_use_counts(kernels: Any, terminals: Any, seconds: float) -> None:
    assert idle_for(STATUS, kernels, terminals, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "kernels"),
    [
        ({}, []),
        (None, []),
        ({"started": 5}, []),
        (STATUS, {}),
        (STATUS, [None]),
        (STATUS, [{"execution_state": "idle"}]),
        (STATUS, [{"last_activity": "yesterday"}]),
    ],
)
def test_an_odd_answer_is_not_known(status: Any, kernels: Any) -> None:
    with pytest.raises(Unknown):
        idle_for(status, kernels, [], NOW)


@asynccontextmanager
async def server(**answers: Any) -> AsyncIterator[tuple[str, list[str]]]:
    """A server with these answers; its API's URL, and what it was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.path_qs} {request.headers['Authorization']}")
        found = answers.get(request.path.rpartition("/")[2], web.Response(status=404))
        return found if isinstance(found, web.Response) else web.json_response(found)

    async with serving(web.get("/user/ann/api/{what}", answer)) as url:
        yield f"{url}user/ann/api/", asked


async def test_a_server_is_asked_so_that_the_question_is_no_activity() -> None:
    kernels = [{"last_activity": "2026-11-22T08:00:00Z", "execution_state": "busy"}]
    async with server(status=STATUS, kernels=kernels, terminals=[]) as (api, asked):
        assert await ask(api, "secret") == 0
    path = "/user/ann/api/status?no_track_activity=1"
    assert asked[0] == f"{path} token secret" and len(asked) == 3


async def test_a_server_without_terminals_is_known_all_the_same() -> None:
    async with server(status=STATUS, kernels=[]) as (api, _):
        assert await ask(api, "secret") > 0


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"status": STATUS},
        {"status": web.Response(text="hello"), "kernels": []},
        {"status": STATUS, "kernels": web.Response(status=403)},
        {"status": web.Response(status=302, headers={"Location": "/hub/login"})},
        {"status": STATUS, "kernels": [], "terminals": web.Response(status=500)},
    ],
)
async def test_whatever_is_no_answer_is_not_known(answers: dict[str, Any]) -> None:
    async with server(**answers) as (api, _):
        with pytest.raises(Unknown):
            await ask(api, "secret")


async def test_a_server_that_does_not_listen_is_not_known() -> None:
    async with server() as (api, _):
        pass
    with pytest.raises(Unknown):
        await ask(api, "secret")
