"""What doctor asks the scheduler about a Swarm's nodes, over a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from jupyterhub_gpuspawner.doctor import gather_swarm
from jupyterhub_gpuspawner.doctor.finding import Unknown
from tests.unit.web_server import serving

pytestmark = pytest.mark.slow

TOKEN = "t" * 32
VERDICT = {"way": "volume-mounts", "version": "1.17.8", "enforces": "all", "trouble": ""}


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GPUS_SERVICE_TOKEN", raising=False)
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


async def answer(request: web.Request) -> web.Response:
    if request.headers.get("Authorization") != f"token {TOKEN}":
        return web.json_response({}, status=403)
    return web.json_response({"toolkits": {"node2": VERDICT, "node3": None}})


async def test_the_scheduler_says_what_the_agents_have_told(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(web.get("/services/gpus/api/internal/summary", answer)) as url:
        ask = asyncio.to_thread(gather_swarm.toolkits, f"{url}services/gpus/", token)
        assert await ask == {"node2": VERDICT, "node3": None}
        monkeypatch.setenv("GPUS_SERVICE_TOKEN", "x" * 32)
        found = await asyncio.to_thread(gather_swarm.toolkits, f"{url}services/gpus/", token)
        assert isinstance(found, Unknown) and "403" in found.why


async def test_a_scheduler_of_an_older_version_is_no_crash(token: Path) -> None:
    async def older(request: web.Request) -> web.Response:
        return web.json_response({"devices": []})

    async with serving(web.get("/services/gpus/api/internal/summary", older)) as url:
        found = await asyncio.to_thread(gather_swarm.toolkits, f"{url}services/gpus/", token)
    assert isinstance(found, Unknown)


def test_without_a_scheduler_or_a_token_nothing_is_asked_and_nothing_made(token: Path) -> None:
    assert isinstance(gather_swarm.toolkits("", token), Unknown)
    token.unlink()
    found = gather_swarm.toolkits("http://127.0.0.1:9/", token)
    assert isinstance(found, Unknown) and "no service token" in found.why
    assert not token.exists()
