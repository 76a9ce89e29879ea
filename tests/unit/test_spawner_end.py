"""A server's state is told truthfully, and its end is read and told once."""

from __future__ import annotations

import asyncio
from typing import Any

import jupyterhub
import pytest

from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.errors import EngineUnknown, RefusedError
from jupyterhub_gpuspawner.live_server import ContainerEnded
from jupyterhub_gpuspawner.notice import LastEnd
from tests.unit.hub_fakes import Gone, World, no_waiting, ours, settle, spawner_of

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)


async def running(**options: Any) -> tuple[World, Any]:
    """A server that runs, as the Hub has it after its start."""
    world = World()
    spawner = spawner_of(world, options)
    await spawner.run_pre_spawn_hook()
    await spawner.start()
    await settle()
    spawner._spawn_pending = spawner._start_pending = False
    return world, spawner


async def test_who_never_started_is_stopped() -> None:
    assert await spawner_of(World()).poll() == 0


async def test_a_running_server_is_running_with_and_without_the_watch() -> None:
    world, spawner = await running()
    assert await spawner.poll() is None
    world.watch.live[spawner.object_id] = True  # type: ignore[attr-defined]
    before = len(world.calls)
    assert await spawner.poll() is None
    assert len(world.calls) == before


async def test_an_engine_that_does_not_answer_says_nothing_about_a_server() -> None:
    world, spawner = await running()
    world.engine.down = True
    assert await spawner.poll() is None


@pytest.mark.parametrize("error", [Gone("proxy"), OSError(), KeyError("State"), RuntimeError()])
async def test_poll_never_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    _, spawner = await running()

    async def broken(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(type(spawner), "engine", broken)
    assert await spawner.poll() is None


async def test_a_death_is_read_told_and_kept_for_the_user() -> None:
    world, spawner = await running()
    world.api.die(spawner.object_id, 137, oom=True)
    assert await spawner.poll() == "stopped: out of memory, limit 64 MiB"
    assert ours(world) == []
    assert spawner.last_end.log_tail == "its last words"
    assert world.scheduler.verbs() == ["bind", "running", "ended"]
    assert world.scheduler.told[-1][2]["reason"] == "out_of_memory"
    assert await spawner.poll() == 0


async def test_a_container_that_somebody_removed_has_vanished() -> None:
    world, spawner = await running()
    world.api.containers_by_id.clear()
    assert "somebody removed it" in str(await spawner.poll())
    assert world.scheduler.told[-1][2]["reason"] == "vanished"


async def test_many_polls_at_once_read_and_tell_one_end() -> None:
    world, spawner = await running()
    world.api.die(spawner.object_id, 3)
    found = await asyncio.gather(*(spawner.poll() for _ in range(5)))
    assert "stopped unexpectedly (exit code 3)" in found
    assert None not in found
    assert spawner.last_end.text == "stopped unexpectedly (exit code 3)"
    assert world.scheduler.verbs().count("ended") == 1


async def test_an_end_is_told_although_the_container_can_not_be_removed() -> None:
    world, spawner = await running()
    world.api.die(spawner.object_id, 3)

    def busy(*_: Any, **__: Any) -> None:
        raise EngineUnknown("device busy")

    world.api.remove_container = busy  # type: ignore[method-assign]
    assert await spawner.poll() == "stopped unexpectedly (exit code 3)"
    assert world.scheduler.verbs()[-1] == "ended"
    assert await spawner.poll() == 0


async def test_who_is_stopped_by_an_admin_reads_that_and_not_how_the_container_ended() -> None:
    world, spawner = await running()
    world.scheduler.why = "stopped by an administrator: the lab closes"
    world.api.die(spawner.object_id, 137)
    assert await spawner.poll() == "stopped by an administrator: the lab closes"
    assert spawner.last_end == LastEnd(text="stopped by an administrator: the lab closes")


async def test_a_stop_stores_the_intent_first_and_may_be_repeated() -> None:
    world, spawner = await running()
    await spawner.stop()
    await spawner.stop()
    assert world.scheduler.verbs() == ["bind", "running", "stopping", "ended"]
    assert [verb for verb, _ in world.api.done[world.scheduler.gone["lease1"] :]] == [
        "stop",
        "remove",
    ]
    assert spawner.last_end is None
    assert await spawner.poll() == 0


async def test_stops_and_polls_at_once_are_one_stop() -> None:
    world, spawner = await running()
    *_, first, second = await asyncio.gather(
        spawner.stop(), spawner.stop(), spawner.poll(), spawner.poll()
    )
    assert (first, second) == (None, None)
    assert world.scheduler.verbs().count("ended") == 1
    assert spawner.last_end is None


async def test_a_stop_that_is_cancelled_goes_on() -> None:
    world, spawner = await running()
    stop = asyncio.ensure_future(spawner.stop())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stop.cancel()
    await settle()
    assert stop.cancelled()
    assert ours(world) == []


async def test_a_stop_that_fails_is_left_to_the_scheduler_at_once() -> None:
    world, spawner = await running()
    world.engine.down = True
    with pytest.raises(EngineUnknown):
        await spawner.stop()
    assert world.scheduler.verbs() == ["bind", "running", "stopping", "ended"]
    assert spawner.object_id
    world.engine.down = False
    await spawner.stop()
    assert ours(world) == []


async def test_a_stop_works_while_the_scheduler_is_down() -> None:
    world, spawner = await running()
    world.scheduler.down = True
    await spawner.stop()
    assert ours(world) == []


async def test_a_stop_that_failed_can_be_made_again() -> None:
    world, spawner = await running()
    world.engine.down = True
    with pytest.raises(EngineUnknown):
        await spawner.stop()
    assert await spawner.poll() is None
    world.engine.down = False
    await spawner.stop()
    assert ours(world) == []


async def test_an_abandoned_start_that_could_not_be_stopped_can_be_stopped_later() -> None:
    world, spawner = await running()

    async def fails() -> None:
        raise EngineUnknown("no answer")

    spawner._abandoned = spawner.own(fails())
    await spawner.stop()
    assert ours(world) == []


async def test_an_event_tells_the_hub_once_and_only_when_it_listens() -> None:
    world, spawner = await running()
    heard: list[Any] = []
    spawner._spawn_pending = True
    spawner._spawn_future = asyncio.get_running_loop().create_future()
    world.api.die(spawner.object_id, 3)
    follower = world.watch.followers[spawner.object_id]  # type: ignore[attr-defined]
    telling = asyncio.ensure_future(follower())
    for _ in range(30):
        await asyncio.sleep(0)
    assert ours(world) == []  # read and removed at once
    assert not telling.done()
    spawner.add_poll_callback(heard.append, "ended")  # the Hub does it last in a start
    spawner._spawn_pending = False
    spawner._spawn_future.set_result(None)
    await telling
    assert heard == ["ended"]
    assert world.watch.followers == {}  # type: ignore[attr-defined]


async def test_a_server_found_again_after_a_restart_of_the_hub_is_followed() -> None:
    world, spawner = await running()
    state = spawner.get_state()
    world.watch.followers.clear()  # type: ignore[attr-defined]
    world.watch.live[spawner.object_id] = True  # type: ignore[attr-defined]
    spawner.load_state(state)
    assert await spawner.poll() is None
    assert spawner.object_id in world.watch.followers  # type: ignore[attr-defined]


async def test_the_hub_saves_which_gpus_a_server_has_and_knows_it_after_its_restart() -> None:
    world, spawner = await running()
    saved = spawner.get_state()
    assert saved["gpus"] == "n: SIMULATED GPU 0 (SIMULATED-n-0)"
    found_again = spawner_of(world)
    found_again.load_state(saved)
    assert found_again.get_state()["gpus"] == saved["gpus"]
    found_again.clear_state()
    assert "gpus" not in found_again.get_state()


async def test_a_hub_that_died_in_mid_start_finds_the_running_container_by_its_name() -> None:
    _, spawner = await running()
    key = spawner.object_id
    spawner.clear_state()
    assert await spawner.poll() == 0
    spawner._check_pending = True
    assert await spawner.poll() is None
    assert (spawner.object_id, spawner.lease_id) == (key, "lease1")


async def test_a_hub_that_starts_takes_over_what_runs_without_an_answer() -> None:
    _, spawner = await running()
    spawner._check_pending = True
    assert await spawner.poll() is None
    # as the Hub does: no socket is opened, and the Hub sees no other version than its own
    answer = await spawner.server.wait_up(
        http=True, timeout=0.01, ssl_context=None, extra_path="api"
    )
    assert answer.headers == {"X-JupyterHub-Version": jupyterhub.__version__}


async def test_a_foreign_container_of_that_name_is_not_found_again() -> None:
    world = World()
    spawner = spawner_of(world)
    world.api.put(spawner.object_name, {"theirs": "1"}, "running")
    spawner._check_pending = True
    assert await spawner.poll() == 0


@pytest.mark.parametrize("whose", [("mallory", ""), (None, "train")])
async def test_a_running_container_of_another_server_is_not_found_again(
    whose: tuple[str | None, str],
) -> None:
    world = World()
    spawner = spawner_of(world)
    user, server = whose
    identity = labels.Identity(
        ledger="l1", lease="lease9", user=user or spawner.user.name, server=server, devices=()
    )
    world.api.put(spawner.object_name, labels.server_labels(identity), "running")
    spawner._check_pending = True
    assert await spawner.poll() == 0
    assert spawner.object_id == ""


async def test_the_address_never_raises() -> None:
    world, spawner = await running()
    known = spawner.server.url
    assert await spawner.get_url() == f"http://127.0.0.1:{spawner.port}"
    info = world.api.find(spawner.object_id)
    (endpoint,) = info["NetworkSettings"]["Networks"].values()
    endpoint["IPAddress"] = ""
    assert await spawner.get_url() == known
    world.engine.down = True
    assert await spawner.get_url() == known
    spawner.forget_server()
    assert await spawner.get_url() == ""


async def test_a_stop_while_nobody_answers_is_done_when_the_scheduler_is_back() -> None:
    world, spawner = await running()
    world.engine.down = world.scheduler.down = True
    with pytest.raises(EngineUnknown):
        await spawner.stop()
    # what the Hub does after a stop, failed or not
    spawner.clear_state()
    assert ours(world) == ["running"]
    assert "lease1" not in world.scheduler.gone
    world.scheduler.down = False
    await settle()
    assert "lease1" in world.scheduler.gone, "the scheduler stops it as soon as it can"


async def test_a_stop_that_the_engine_fails_is_left_to_the_scheduler_at_once() -> None:
    world, spawner = await running()
    world.engine.down = True
    with pytest.raises(EngineUnknown):
        await spawner.stop()
    assert world.scheduler.verbs() == ["bind", "running", "stopping", "ended"]


async def test_an_intent_for_a_lease_that_is_over_is_told_once() -> None:
    world, spawner = await running()
    world.scheduler.down = True
    told = []

    async def over(lease: str, reason: str) -> None:
        told.append(lease)
        raise RefusedError("not known", "over", reason="not_found")

    await spawner.stop()
    world.scheduler.stopping = over  # type: ignore[method-assign]
    world.scheduler.down = False
    await settle()
    assert told == ["lease1"]


async def test_who_ended_in_a_restart_of_docker_reads_that() -> None:
    world, spawner = await running()
    world.watch.away.add("2026-01-01T00:00:10Z")  # type: ignore[attr-defined]
    state = world.api.find(spawner.object_id)["State"]
    state["FinishedAt"] = "2026-01-01T00:00:10Z"
    world.api.die(spawner.object_id, 137)
    await spawner.poll()
    assert spawner.last_end.text == "stopped when Docker was stopped or restarted (exit code 137)"


async def test_that_docker_was_stopped_shows_later_and_reaches_the_stored_note() -> None:
    world, spawner = await running()
    world.api.die(spawner.object_id, 0)
    assert await spawner.poll() == "stopped by itself (exit code 0)"
    spawner.clear_state()
    spawner.orm_spawner.state = {**spawner.get_state(), "object_id": "of the next server"}
    (turns_out,) = world.watch.ends  # type: ignore[attr-defined]
    turns_out()
    stored = spawner.orm_spawner.state
    words = "stopped when Docker was stopped or restarted (exit code 0)"
    assert stored["last_end"]["text"] == spawner.last_end.text == words
    assert stored["object_id"] == "of the next server"


async def hub_looks(spawner: Any, limit: float = 30.0) -> Any:
    """The Hub's own check of a server."""
    return await spawner.server.wait_up(http=True, timeout=limit, extra_path="api")


async def test_who_dies_after_a_start_and_before_the_hubs_check_is_told_at_once() -> None:
    world, spawner = await running()
    spawner.server.ip, spawner.server.port = "127.0.0.1", 9  # nobody answers there
    looks = asyncio.ensure_future(hub_looks(spawner))
    await asyncio.sleep(0)
    world.api.die(spawner.object_id, 3)
    assert await spawner.poll() == "stopped unexpectedly (exit code 3)"
    with pytest.raises(ContainerEnded) as caught:
        await asyncio.wait_for(looks, 5)
    words = "Your server stopped unexpectedly (exit code 3). It said last:\nits last words"
    assert caught.value.jupyterhub_message == words


async def test_a_server_that_never_answers_after_its_start_is_given_up_by_the_hub() -> None:
    _, spawner = await running()
    spawner.server.ip, spawner.server.port = "127.0.0.1", 9
    with pytest.raises(asyncio.TimeoutError) as caught:
        await hub_looks(spawner, limit=0.01)
    assert not hasattr(caught.value, "jupyterhub_message")
