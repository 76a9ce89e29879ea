"""What a user's pages are made of: own places and use, and of others numbers only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.engine.homes import Home
from jupyterhub_gpuspawner.engine.usage import Sample, read_sample
from jupyterhub_gpuspawner.errors import EngineError
from jupyterhub_gpuspawner.i18n import words_of
from jupyterhub_gpuspawner.service import live, mine
from jupyterhub_gpuspawner.service.home_watch import HomeWatch
from jupyterhub_gpuspawner.service.page_data import Viewer
from jupyterhub_gpuspawner.service.pages import mine_data, mine_part
from tests.unit.service_world import World, do_not_wait

# real sockets
pytestmark = pytest.mark.slow

ENGLISH = words_of("en")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    do_not_wait(monkeypatch)
    monkeypatch.setattr(live, "GAP", 0.01)
    return World(tmp_path, simulate=2)


async def seen(world: World, user: str, look: Any) -> Any:
    return await world.desk.show(Viewer(name=user), lambda view: look(view, ENGLISH))


async def test_who_waits_reads_place_and_reason_and_of_others_only_numbers(world: World) -> None:
    async with world.running():
        await world.run("alice", 2)
        async with world.ask("bob", 2) as bob, world.ask("carol", 1) as carol:
            await bob.until(event="queued")
            await carol.until(event="queued", position=2)
            data = await seen(world, "carol", mine.mine)
    (place,) = data["waiting"]
    assert (place["position"], place["ahead"], place["ahead_gpus"]) == (2, 1, 2)
    assert (place["ahead_users"], place["reason"]) == (1, "waiting_for_devices")
    assert place["why"] == "All suitable GPUs are in use."
    assert place["expected_at"] > world.clock.now
    assert "alice" not in json.dumps(data) and "bob" not in json.dumps(data)


class Homes:
    """What an engine says of homes; an error is raised."""

    def __init__(self) -> None:
        self.answer: list[Home] | EngineError = []

    async def __call__(self) -> list[Home]:
        if isinstance(self.answer, EngineError):
            raise self.answer
        return self.answer


def home(user: str, size: int | None, created: str = "2026-01-01T00:00:00Z") -> Home:
    return Home(
        name=f"gpus-home-{user}-{created}",
        user=user,
        owner="o",
        ledger="l",
        driver="local",
        created=created,
        size=size,
        containers=0,
    )


async def test_whose_home_is_too_large_is_told_until_it_is_smaller(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    homes = Homes()
    watch = HomeWatch(homes, 100, 1.0, lambda: said.append("changed"))
    homes.answer = [home("alice", 101), home("bob", 100), home("carol", None)]
    await watch.look()
    await watch.look()
    assert [watch.of(name) for name in ("alice", "bob", "carol")] == [
        {"bytes": 101, "limit": 100},
        None,
        None,
    ]
    # once, however often it is seen
    assert said == ["changed"]
    assert [one.getMessage() for one in caplog.records] == [
        "alice: the home has 101 B, more than 100 B"
    ]
    async with world.running():
        world.desk.large_home = watch.of
        data = await seen(world, "alice", mine_data)
        assert (await seen(world, "bob", mine.mine))["home"] is None
    assert "Your files take 101 B, more than 100 B." in mine_part(data, ENGLISH)
    # an engine that does not answer takes nothing back
    homes.answer = EngineError("no answer")
    with pytest.raises(EngineError):
        await watch.look()
    assert watch.of("alice")
    # who has the name now has another home than who had it before
    homes.answer = [home("alice", 5, "2026-02-02T00:00:00Z"), home("alice", 500)]
    await watch.look()
    assert watch.of("alice") is None and len(said) == 2


async def test_the_form_hears_what_is_free_and_when_the_next_one_is(world: World) -> None:
    async with world.running():
        before = await seen(world, "bob", mine.free)
        await world.run("alice", 1)
        after = await seen(world, "bob", mine.free)
    (group,) = before["groups"]
    assert (len(group["free"]), group["next"], before["waiting"]) == (2, [], 0)
    (group,) = after["groups"]
    assert len(group["free"]) == 1
    assert [at > world.clock.now for at in group["next"]] == [True]
    assert "alice" not in json.dumps(after)


async def test_an_ended_server_and_its_reason_are_remembered(world: World) -> None:
    async with world.running():
        lease, container = await world.run("alice", 2)
        await world.desk.recall("alice")
        world.clock.now += 1800
        world.engine.die(container, exit_code=137, oom=True)
        await world.post(f"leases/{lease['id']}/ended", {"oom": True})
        data = await seen(world, "alice", mine.mine)
        other = await seen(world, "bob", mine.mine)
    assert data["servers"] == []
    assert [(one["gpus"], one["reason"]) for one in data["ended"]] == [(2, "out_of_memory")]
    # two GPUs for half an hour
    assert data["use"]["hours"] == "1"
    assert other["ended"] == []


async def test_servers_of_those_who_look_are_sampled_and_nobody_elses(world: World) -> None:
    asked: list[str] = []
    now = iter(range(1, 100))

    async def ask(container: str) -> Sample:
        asked.append(container)
        at = next(now)
        return Sample(at=float(at), cpu_seconds=at * 0.5, memory=at * 2**20)

    async with world.running():
        lease, container = await world.run("alice", 1)
        await world.run("bob", 1)
        world.desk.watch.ask = ask
        assert await world.desk.watch.look({"alice"})
        assert await world.desk.watch.look({"alice"})
        assert not await world.desk.watch.look({"carol"})
        assert set(asked) == {container}
        await world.desk.watch.look({"alice"})
        await world.desk.watch.look({"alice"})
        (row,) = await seen(world, "alice", mine.use)
    assert row["id"] == lease["id"]
    assert (row["cpu"], row["memory"]) == ([0.5], [3 * 2**20, 4 * 2**20])


@pytest.mark.parametrize(
    ("stats", "memory"),
    [
        ({"inactive_file": 100, "total_inactive_file": 300}, 700),
        ({"inactive_file": 200}, 800),
        ({}, 1000),
        ({"inactive_file": 2000}, 0),
    ],
)
def test_files_that_the_kernel_keeps_are_not_a_containers_memory(
    stats: dict[str, int], memory: int
) -> None:
    raw = {
        "memory_stats": {"usage": 1000, "stats": stats},
        "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
    }
    assert read_sample(raw, 5.0) == Sample(at=5.0, cpu_seconds=2.5, memory=memory)


@pytest.mark.parametrize("raw", [{}, {"memory_stats": {}, "cpu_stats": {"cpu_usage": {}}}])
def test_a_container_that_does_not_run_has_no_sample(raw: dict[str, Any]) -> None:
    assert read_sample(raw, 5.0) is None
