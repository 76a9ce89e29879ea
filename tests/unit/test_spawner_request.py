"""From options to a lease: asked for each spawn, told to the user, forgotten afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.web import HTTPError

from jupyterhub_gpuspawner.client import Queued
from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.progress import Progress
from tests.unit.hub_fakes import World, no_waiting, settle, spawner_of

# takes JupyterHub to import
pytestmark = pytest.mark.slow

PROFILES = [
    {
        "display_name": "GPU",
        "slug": "gpu",
        "spawner_override": {"gpus": 1, "mem_limit": "1G", "environment": {"A": "b"}},
    },
    {"display_name": "CPU", "slug": "cpu", "spawner_override": {"gpus": 0}},
]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)


async def test_what_a_profile_sets_is_forgotten_before_the_next_spawn() -> None:
    world = World()
    spawner = spawner_of(world, {"profile_list": PROFILES, "environment": {"C": "d"}})
    before = (spawner.mem_limit, dict(spawner.environment))
    spawner.user_options = {"profile": "gpu"}
    await spawner.run_pre_spawn_hook()
    assert spawner.mem_limit == 2**30
    assert spawner.environment == {"A": "b", "C": "d"}
    spawner.clear_state()
    assert (spawner.mem_limit, spawner.environment) == before
    spawner.mem_limit = 5 * 2**30  # a group's override, which the Hub applies before the hook
    spawner.user_options = {"profile": "cpu"}
    await spawner.run_pre_spawn_hook()
    assert world.scheduler.asks[-1].request.memory == 5 * 2**30
    await settle()


async def test_what_a_profile_mounts_is_added_for_this_spawn_only() -> None:
    def tmpfs(target: str, size: int) -> dict[str, Any]:
        return {"type": "tmpfs", "source": "", "target": target, "tmpfs_size": size}

    profiles = [
        {
            "display_name": "Data",
            "spawner_override": {
                "gpus": 0,
                "volumes": {"data-{username}": {"bind": "/data", "mode": "ro"}},
                "mounts": [tmpfs("/scratch", 2)],
            },
        }
    ]
    own = {"volumes": {"tools": "/tools"}, "mounts": [tmpfs("/scratch", 1), tmpfs("/var", 1)]}
    spawner = spawner_of(World(), {"profile_list": profiles, **own})
    await spawner.run_pre_spawn_hook()
    name = f"data-{spawner.escaped_name}"
    assert spawner.volume_binds[name] == {"bind": "/data", "mode": "ro"}
    assert spawner.volume_binds["tools"]["bind"] == "/tools"
    assert [dict(one)["Target"] for one in spawner.mount_binds] == ["/var", "/scratch"]
    spawner.clear_state()
    assert (spawner.volumes, spawner.mounts) == (own["volumes"], own["mounts"])
    await settle()


async def test_callables_are_asked_at_each_spawn() -> None:
    world = World()
    sizes = iter([2**26, 2**27])
    counts = iter([1, 2])
    options = {"mem_limit": lambda spawner: next(sizes), "gpus": lambda spawner: next(counts)}
    spawner = spawner_of(world, options)
    for size, count in ((2**26, 1), (2**27, 2)):
        await spawner.run_pre_spawn_hook()
        assert world.scheduler.asks[-1].request.memory == size
        assert world.scheduler.asks[-1].request.count == count
        spawner.clear_state()
    await settle()


@pytest.mark.parametrize("value", [-1, "2", None, True, 1.5])
async def test_a_callable_that_returns_no_number_of_gpus_is_a_mistake_of_the_admin(
    value: object,
) -> None:
    spawner = spawner_of(World(), {"gpus": lambda spawner: value})
    with pytest.raises(HTTPError) as refused:
        await spawner.run_pre_spawn_hook()
    assert "administrator" in refused.value.jupyterhub_message  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [["a"], "text", 7, {"profile": "nonesuch"}, {"x": 1}])
async def test_odd_options_are_refused_with_400_before_anything_is_asked(options: Any) -> None:
    world = World()
    spawner = spawner_of(world, {"profile_list": PROFILES})
    spawner.user_options = options
    with pytest.raises(HTTPError) as refused:
        await spawner.run_pre_spawn_hook()
    assert refused.value.status_code == 400
    assert world.calls == []


async def test_no_options_are_the_default_profile() -> None:
    world = World()
    spawner = spawner_of(world, {"profile_list": PROFILES})
    spawner.user_options = None
    await spawner.run_pre_spawn_hook()
    assert world.scheduler.asks[-1].profile == "gpu"
    assert spawner.orm_spawner.user_options["profile"] == "gpu"


async def test_an_image_that_is_missing_is_told_before_a_lease_is_asked_for() -> None:
    world = World()
    spawner = spawner_of(world, {"image": "nope", "pull_policy": "never"})
    with pytest.raises(HTTPError) as refused:
        await spawner.run_pre_spawn_hook()
    assert "nope" in refused.value.jupyterhub_message  # type: ignore[attr-defined]
    assert world.scheduler.asks == []


async def test_a_refusal_of_the_scheduler_reaches_the_user() -> None:
    world = World()
    world.scheduler.answer = RefusedError("log", "too many", reason="impossible")
    spawner = spawner_of(world)
    with pytest.raises(HTTPError) as refused:
        await spawner.run_pre_spawn_hook()
    assert refused.value.status_code == 409
    assert refused.value.jupyterhub_message == "too many"  # type: ignore[attr-defined]
    assert world.scheduler.streams_open == 0


async def test_who_is_cancelled_in_the_queue_leaves_no_stream_and_no_phantom() -> None:
    world = World()
    line = Queued(entry="e", position=1, reason="waiting_for_devices", message="m")
    world.scheduler.waits = [line] * 1000
    spawner = spawner_of(world)
    waiting = asyncio.ensure_future(spawner.run_pre_spawn_hook())
    for _ in range(50):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert world.scheduler.streams_open == 0
    assert spawner.server is None
    assert world.scheduler.told == []


async def test_a_grant_is_acknowledged() -> None:
    world = World()
    spawner = spawner_of(world)
    await spawner.run_pre_spawn_hook()
    await settle()
    assert world.scheduler.heard == ["lease1"]


async def test_the_same_news_is_shown_once() -> None:
    world = World()
    lines = [(2, "busy"), (2, "busy"), (1, "busy"), (0, "The scheduler does not answer")]
    world.scheduler.waits = [
        Queued(entry="e", position=position, reason="r", message=text) for position, text in lines
    ]
    spawner = spawner_of(world)
    await spawner.run_pre_spawn_hook()
    spawner._spawn_pending = False
    shown = [line["message"] async for line in spawner.progress()]
    assert shown == [
        "Waiting, position 2 in the queue: busy",
        "Waiting, position 1 in the queue: busy",
        "The scheduler does not answer",
        "Granted on n: SIMULATED GPU 0",
    ]


async def heard(progress: Progress, pending: list[bool]) -> list[str]:
    return [line["message"] async for line in progress.listen(lambda: pending[0])]


async def test_each_listener_hears_everything_once_and_then_the_end() -> None:
    progress, pending = Progress(), [True]
    progress.say(1, "a")
    early = asyncio.ensure_future(heard(progress, pending))
    await asyncio.sleep(0)
    progress.say(2, "b")
    progress.say(3, "c")
    await asyncio.sleep(0)
    late = asyncio.ensure_future(heard(progress, pending))
    await asyncio.sleep(0)
    pending[0] = False
    progress.say(4, "d")
    assert await asyncio.gather(early, late) == [["a", "b", "c", "d"]] * 2


async def test_a_listener_starts_over_with_the_next_start() -> None:
    progress, pending = Progress(), [True]
    for text in ("old", "older"):
        progress.say(1, text)
    listener = asyncio.ensure_future(heard(progress, pending))
    await asyncio.sleep(0)
    progress.restart()
    progress.say(1, "new")
    pending[0] = False
    assert await listener == ["old", "older", "new"]
