"""The two-phase start leaves nothing behind, wherever it is cancelled or fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.web import HTTPError

from jupyterhub_gpuspawner import hub_metrics, launch
from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.errors import RefusedError
from tests.unit.hub_fakes import World, no_waiting, ours, settle, spawner_of

# real sockets, files or processes
pytestmark = pytest.mark.slow

#: more than the calls of one spawn with its clean-up
MANY = 22


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting(monkeypatch)


async def spawn(spawner: Any) -> str:
    """What the Hub awaits of a spawner, in its order."""
    await spawner.run_pre_spawn_hook()
    url: str = await spawner.start()
    return url


async def run(world: World, spawner: Any) -> str | BaseException:
    """Spawn, and end as the Hub does when that fails; the URL or what was raised."""
    world.victim = asyncio.ensure_future(spawn(spawner))
    (result,) = await asyncio.gather(world.victim, return_exceptions=True)
    if isinstance(result, BaseException):
        spawner._start_pending = spawner._spawn_pending = False
        if await spawner.poll() is None:
            await spawner.stop()
        spawner.clear_state()
    await settle()
    return result


def check(world: World, spawner: Any, result: str | BaseException, faulty: str = "") -> None:
    """Either it runs, or nothing of it is left and the scheduler knows."""
    if isinstance(result, str):
        assert ours(world) == ["running"]
        return
    scheduler = world.scheduler
    assert spawner.object_id == ""
    if isinstance(result, asyncio.CancelledError):
        assert spawner.server is None
        assert spawner.orm_spawner.server is None
    for lease in scheduler.granted:
        if faulty != "scheduler: ended":
            assert "ended" in scheduler.verbs(lease), world.calls
        if faulty != "scheduler: stopping":
            assert lease in scheduler.gone, world.calls
            before = world.api.done[: scheduler.gone[lease]]
            assert not [verb for verb, _ in before if verb == "remove"], "removed before intent"
    left = ours(world)
    assert "running" not in left or scheduler.gone, world.calls
    if not faulty.startswith("engine"):
        assert left == [], world.calls


async def test_a_start_binds_the_container_before_it_starts_it() -> None:
    world = World()
    spawner = spawner_of(world)
    assert await run(world, spawner) == f"http://127.0.0.1:{spawner.port}"
    # by its id: a name may be another's by then
    assert world.api.done == [("create", spawner.object_id), ("start", spawner.object_id)]
    assert world.scheduler.verbs() == ["bind", "running"]
    assert world.calls.index("scheduler: bind") == len(world.calls) - 4
    assert await spawner.poll() is None


async def test_the_hub_counts_starts_and_times_each_part_of_them() -> None:
    def seen() -> dict[str, float]:
        values = {}
        for metric in (hub_metrics.STARTS, hub_metrics.START_PHASES):
            for sample in next(iter(metric.collect())).samples:
                if sample.name.endswith(("_total", "_count")):
                    values["".join(sample.labels.values())] = sample.value
        return values

    async def start(faults: dict[int, str]) -> dict[str, float]:
        before, world = seen(), World()
        world.faults = faults
        await run(world, spawner_of(world))
        return {name: value - before.get(name, 0) for name, value in seen().items()}

    parts = dict.fromkeys(("turn", "create", "record", "start", "answer"), 1)
    assert {**parts, "ready": 1} == {k: v for k, v in (await start({})).items() if v}
    world = World()
    await run(world, spawner_of(world))
    bind = world.calls.index("scheduler: bind") + 1
    failed = await start({bind - 1: "error"})
    assert (failed["failed"], failed["turn"], failed["create"], failed["answer"]) == (1, 1, 0, 0)
    cancelled = await start({bind: "cancel"})
    assert (cancelled["cancelled"], cancelled["failed"], cancelled["answer"]) == (1, 0, 0)


@pytest.mark.parametrize("fault", ["cancel", "cancel after", "error", "lost"])
async def test_a_fault_at_any_call_leaves_nothing_behind(fault: str) -> None:
    reached = 0
    for number in range(1, MANY):
        world = World()
        world.faults = {number: fault}
        spawner = spawner_of(world)
        result = await run(world, spawner)
        if len(world.calls) < number:
            break
        reached += 1
        check(world, spawner, result, world.calls[number - 1] if "cancel" not in fault else "")
    assert reached >= 7


@pytest.mark.parametrize("fault", ["cancel", "cancel after"])
async def test_a_start_that_is_cancelled_before_it_is_bound_starts_nothing(fault: str) -> None:
    world = World()
    await run(world, spawner_of(world))
    bind = world.calls.index("scheduler: bind") + 1
    assert bind >= 3
    for number in range(1, bind):
        world = World()
        world.faults = {number: fault}
        assert isinstance(await run(world, spawner_of(world)), asyncio.CancelledError)
        assert "start" not in [verb for verb, _ in world.api.done]


@pytest.mark.parametrize("first", ["error", "lost"])
async def test_a_cancel_during_the_clean_up_of_a_failure_does_not_end_the_clean_up(
    first: str,
) -> None:
    tried = 0
    for failing in range(3, 10):
        for number in range(failing + 1, MANY):
            world = World()
            world.faults = {failing: first, number: "cancel"}
            spawner = spawner_of(world)
            result = await run(world, spawner)
            if len(world.calls) < number:
                break
            tried += 1
            faulty = world.calls[failing - 1]
            if faulty.startswith("engine") and isinstance(result, BaseException):
                faulty = ""  # a call of the start: the clean-up makes its own
            check(world, spawner, result, faulty)
    assert tried >= 15


async def test_two_cancels_in_the_clean_up_do_not_end_it() -> None:
    world = World()
    world.faults = {5: "cancel", 7: "cancel", 8: "cancel"}
    spawner = spawner_of(world)
    check(world, spawner, await run(world, spawner))


async def test_a_start_that_is_cancelled_while_the_scheduler_is_silent_leaves_nothing() -> None:
    world = World()
    spawner = spawner_of(world)
    await spawner.run_pre_spawn_hook()
    world.scheduler.down = True
    start = asyncio.ensure_future(spawner.start())
    while not world.api.done:  # noqa: ASYNC110 - as short as it gets
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait([start])
    assert await spawner.poll() is None  # the clean-up is at work
    await spawner.stop()
    assert ours(world) == []
    assert await spawner.poll() == 0


async def test_a_refused_bind_removes_the_container_and_tells_the_reason() -> None:
    world = World()
    spawner = spawner_of(world)
    await spawner.run_pre_spawn_hook()
    world.scheduler.gone["lease1"] = 0
    with pytest.raises(HTTPError) as refused:
        await spawner.start()
    assert refused.value.status_code == 409
    assert refused.value.jupyterhub_message == "over"  # type: ignore[attr-defined]
    assert ours(world) == []
    assert [verb for verb, _ in world.api.done] == ["create", "remove"]


async def test_a_server_that_dies_at_its_start_tells_why_and_what_it_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    spawner = spawner_of(world)

    async def silence(host: str, port: int, path: str, **_: Any) -> bool:
        world.api.die(spawner.object_id, 137, oom=True)
        follower = world.watch.followers.pop(spawner.object_id, None)  # type: ignore[attr-defined]
        if follower is not None:
            await follower()
        return False

    monkeypatch.setattr(launch, "answers", silence)
    await spawner.run_pre_spawn_hook()
    with pytest.raises(HTTPError) as refused:
        await spawner.start()
    text = refused.value.jupyterhub_message  # type: ignore[attr-defined]
    assert "stopped: out of memory, limit 64 MiB" in text
    assert "its last words" in text
    fields = world.scheduler.told[-1][2]
    assert (fields["reason"], fields["exit_code"], fields["oom"]) == ("out_of_memory", 137, True)
    assert ours(world) == []


@pytest.mark.parametrize("state", ["created", "running", "exited"])
@pytest.mark.parametrize("whose", ["nobody's", "another user's", "another ledger's"])
async def test_a_foreign_container_of_the_same_name_is_left_as_it_is(
    whose: str, state: str
) -> None:
    world = World()
    spawner = spawner_of(world)
    found = {"theirs": "1"}
    if whose != "nobody's":
        user = "mallory" if whose == "another user's" else spawner.user.name
        ledger = "l1" if whose == "another user's" else "l2"
        found = labels.server_labels(labels.Identity(ledger=ledger, lease="l", user=user))
    world.api.put(spawner.object_name, found, state)
    result = await run(world, spawner)
    assert isinstance(result, HTTPError)
    assert "tell an admin" in result.jupyterhub_message  # type: ignore[attr-defined]
    assert [verb for verb, _ in world.api.done] == ["create"]
    assert world.scheduler.verbs() == ["stopping", "ended"]


async def test_what_an_earlier_start_of_the_same_server_left_is_removed() -> None:
    world = World()
    spawner = spawner_of(world)
    assert isinstance(await run(world, spawner), str)
    world.api.die(spawner.object_id)
    left = spawner.object_id
    spawner.clear_state()  # the Hub lost it
    assert isinstance(await run(world, spawner), str)
    assert ("remove", left) in world.api.done
    assert ours(world) == ["running"]


async def test_a_running_container_of_the_same_server_is_not_removed_by_a_start() -> None:
    world = World()
    spawner = spawner_of(world)
    assert isinstance(await run(world, spawner), str)
    spawner.clear_state()  # the Hub lost it
    assert isinstance(await run(world, spawner), HTTPError)
    assert ours(world) == ["running"]
    assert "lease1" not in world.scheduler.gone


async def test_a_start_without_a_lease_is_refused() -> None:
    world = World()
    with pytest.raises(HTTPError) as refused:
        await spawner_of(world).start()
    assert refused.value.status_code == 409
    assert world.api.done == []


async def test_a_lease_is_taken_once() -> None:
    world = World()
    spawner = spawner_of(world)
    with pytest.raises(RefusedError, match="without a lease"):
        spawner.granted()


async def test_a_cancel_between_the_grant_and_the_start_gives_the_lease_back() -> None:
    world = World()
    spawner = spawner_of(world)
    await spawner.run_pre_spawn_hook()
    spawner.clear_state()  # all that the Hub does when it is cancelled there
    await settle()
    assert world.scheduler.verbs() == ["stopping", "ended"]


async def test_the_next_spawn_asks_only_after_the_unused_lease_is_given_back() -> None:
    world = World()
    spawner = spawner_of(world)
    await spawner.run_pre_spawn_hook()
    spawner.clear_state()
    await spawner.run_pre_spawn_hook()
    verbs = [(verb, lease) for verb, lease, _ in world.scheduler.told]
    assert verbs == [("request", ""), ("stopping", "lease1"), ("ended", "lease1"), ("request", "")]
    assert spawner.lease_id == "lease2"


async def test_a_lease_that_was_used_is_not_given_back_twice() -> None:
    world = World()
    spawner = spawner_of(world)
    assert isinstance(await run(world, spawner), str)
    await spawner.stop()
    spawner.clear_state()
    await settle()
    assert world.scheduler.verbs() == ["bind", "running", "stopping", "ended"]


async def test_a_network_that_goes_between_create_and_start_is_made_again() -> None:
    world = World()
    spawner = spawner_of(world)
    real, lost = world.api.start, []

    def start(which: str) -> None:
        if not lost:
            lost.extend(world.api.networks_by_name)
            world.api.networks_by_name.clear()
        real(which)

    world.api.start = start  # type: ignore[method-assign]
    check(world, spawner, await run(world, spawner))
    assert ours(world) == ["running"]
    assert list(world.api.networks_by_name) == lost


async def test_a_network_that_can_not_be_made_ends_the_start_with_one_reason() -> None:
    world = World()
    spawner = spawner_of(world, {"network_pool": ["10.0.0.0/28"]})
    taken = {"Config": [{"Subnet": "10.0.0.0/8"}]}
    world.api.networks_by_name["vpn"] = {"Id": "x", "Name": "vpn", "Labels": {}, "IPAM": taken}
    result = await run(world, spawner)
    check(world, spawner, result)
    assert "No network can be made" in str(getattr(result, "jupyterhub_message", ""))
    assert not [verb for verb, _ in world.api.done if verb == "create"]
