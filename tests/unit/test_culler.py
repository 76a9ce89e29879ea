"""The stock culler stops what is idle and known to hold no GPU."""

from __future__ import annotations

import signal
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from jupyterhub_gpuspawner import culler
from jupyterhub_gpuspawner.culler import server_of, without_gpus

# real sockets, files or processes
pytestmark = pytest.mark.slow

LONG, SHORT = timedelta(hours=5), timedelta(hours=1)
LIMIT = 4 * 3600
LEASES = [
    {"server": "ann", "devices": []},
    {"server": "bob", "devices": ["GPU-1"]},
    {"server": "bob/notes", "devices": []},
]


def model(user: str, name: str = "") -> dict[str, Any]:
    return {"name": name, "url": f"/hub7/user/{user}/{name and name + '/'}"}


@pytest.fixture
async def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scheduler's list of leases, one at a time."""

    async def leases(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "token secret":
            raise web.HTTPForbidden
        offset = int(request.query["offset"])
        return web.json_response({"items": LEASES[offset : offset + 1], "total": len(LEASES)})

    app = web.Application()
    app.router.add_get("/services/gpus/api/leases", leases)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    token = tmp_path / "token"
    token.write_text("secret\n")
    monkeypatch.setenv(culler.API, f"http://127.0.0.1:{port}/services/gpus/api/")
    monkeypatch.setenv(culler.TOKEN_FILE, str(token))
    yield runner
    await runner.cleanup()


@pytest.mark.parametrize(
    ("user", "name", "inactive", "stopped"),
    [
        ("ann", "", LONG, True),
        ("ann", "", SHORT, False),
        ("ann", "", None, False),
        ("bob", "", LONG, False),
        ("bob", "notes", LONG, True),
        # nobody knows what it holds
        ("eve", "", LONG, False),
    ],
)
async def test_it_stops_idle_servers_without_gpus(
    scheduler: Any, user: str, name: str, inactive: Any, stopped: bool
) -> None:
    assert await without_gpus(inactive, LIMIT, model(user, name)) is stopped


async def test_it_stops_nothing_while_the_scheduler_does_not_answer(scheduler: Any) -> None:
    await scheduler.cleanup()
    assert await without_gpus(LONG, LIMIT, model("ann")) is False


async def test_it_stops_nothing_with_a_wrong_token(scheduler: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("other")
    assert await without_gpus(LONG, LIMIT, model("ann")) is False


def test_a_user_name_in_a_url_is_read_as_it_is() -> None:
    assert server_of({"name": "", "url": "/user/a%20b@c.org/"}) == "a b@c.org"
    assert server_of({"name": "x", "url": "https://ann.hub.example.org/user/ann/x/"}) == "ann/x"


def test_it_does_not_start_where_its_hub_is_gone_and_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[list[str]] = []
    fake = SimpleNamespace(
        IdleCuller=lambda **_: SimpleNamespace(initialize=started.append, start=lambda: None)
    )
    monkeypatch.setitem(sys.modules, "jupyterhub_idle_culler", fake)
    asked: list[tuple[int, int | None]] = []

    def lives(sig: int, expected: int | None) -> bool:
        asked.append((sig, expected))
        return expected == 17

    monkeypatch.setattr(culler, "die_with_parent", lives)
    monkeypatch.setenv("GPUS_HUB_PID", "16")
    culler.main(["--timeout=1"])
    assert started == []
    monkeypatch.setenv("GPUS_HUB_PID", "17")
    culler.main(["--timeout=1"])
    assert started == [["--timeout=1"]]
    assert asked == [(signal.SIGTERM, 16), (signal.SIGTERM, 17)]
