"""An admin declares a machine gone for good: by the API, on one machine."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import EngineUnknown
from tests import howto
from tests.unit.service_world import World, do_not_wait
from tests.unit.test_cli_live import Admin

# real sockets
pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    do_not_wait(monkeypatch)
    return World(tmp_path, simulate=3)


async def ask(world: World, path: str, body: Any = None) -> tuple[int, Any]:
    response = await world.fetch(f"api/{path}", body)
    return response.code, json.loads(response.body)


async def name_of(world: World) -> str:
    _, answer = await ask(world, "nodes")
    name: str = answer["items"][0]["name"]
    return name


async def said(world: World) -> list[str]:
    _, journal = await ask(world, "journal?limit=1000")
    return [row["decision"].get("text", "") for row in journal["items"]]


async def test_a_machine_that_answers_is_not_gone(world: World) -> None:
    async with world.running():
        code, answer = await ask(world, f"nodes/{await name_of(world)}/lost", {})
        assert (code, answer["reason"]) == (409, "impossible")
        assert "answers, so it is not gone" in answer["message"]
        assert not any("declared" in text for text in await said(world))


async def test_its_users_are_free_and_what_runs_there_is_removed_when_it_is_back(
    world: World,
) -> None:
    async with world.running():
        lease, container = await world.run("alice", 1)
        name = await name_of(world)
        world.engine.down = EngineUnknown("no answer from Docker")
        world.desk.reconciler.nudge()
        await world.until_states("busy", "unavailable", "unavailable")
        assert await ask(world, f"nodes/{name}/lost", {"note": "lightning"}) == (200, {"ok": True})
        assert "gone for good" in world.desk.why_stopped(lease["id"])
        _, answer = await ask(world, "leases")
        rows = [(row["server"], row["state"], row["uncertain"]) for row in answer["items"]]
        assert rows == [("lost/alice", "stopping", True)]
        assert container in world.engine.containers
        world.engine.down = None
        world.desk.reconciler.nudge()
        await world.until_states("free", "free", "free")
        assert container not in world.engine.containers
        assert "declared gone for good by service token: lightning" in await said(world)


async def test_the_second_word_is_in_the_journal(world: World) -> None:
    async with world.running():
        path = f"nodes/{await name_of(world)}/lost"
        assert await ask(world, path, {"empty": True}) == (200, {"ok": True})
        assert "declared emptied by service token" in await said(world)


async def test_the_commands_of_the_page_work(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        await world.run("alice", 1)
        name = await name_of(world)
        world.engine.down = EngineUnknown("no answer from Docker")
        world.desk.reconciler.nudge()
        await world.until_states("busy", "unavailable", "unavailable")
        held = []
        for line in howto.commands("run-it", __file__):
            program, *words = shlex.split(line.replace("node2", name))
            code, _, error = await admin.run(*words)
            assert (program, code) == ("jupyterhub-gpuspawner", 0), error
            held.append([row["server"] for row in (await ask(world, "leases"))[1]["items"]])
        assert held == [["lost/alice"], []]
