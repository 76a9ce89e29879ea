"""Pool and events on a real engine: cancelled calls leave no residue, a daemon may go and come."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from jupyterhub_gpuspawner.engine import containers, labels, observe
from jupyterhub_gpuspawner.engine.containers import ContainerSpec
from jupyterhub_gpuspawner.engine.events import ContainerEvent, EngineEvents, Item, Reconnected
from jupyterhub_gpuspawner.engine.pool import EnginePool
from jupyterhub_gpuspawner.errors import EngineUnknown
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_base

LONG = 30.0


@pytest.fixture(scope="module")
def second(engine: Engine) -> Iterator[Engine]:
    """An engine that may be frozen and killed without harm to other tests."""
    second = Engine(f"{engine.name}-pool", devices=1)
    second.start()
    yield second
    second.stop()


@pytest.fixture(scope="module")
def image(second: Engine) -> str:
    client = second.client()
    try:
        return ensure_base(client)
    finally:
        client.close()


@pytest.fixture
async def pool(second: Engine) -> AsyncIterator[EnginePool]:
    made = EnginePool(f"unix://{second.socket}", size=8, timeout=LONG)
    yield made
    made.close()
    assert await made.drain(LONG)


@pytest.fixture
def ledger() -> str:
    return uuid.uuid4().hex


def spec(image: str, ledger: str, user: str, *command: str) -> ContainerSpec:
    identity = labels.Identity(ledger=ledger, lease=f"lease-{user}", user=user)
    return ContainerSpec(
        name=f"{user}-{ledger[:8]}",
        image=image,
        labels=labels.server_labels(identity),
        host={"init": True, "network_mode": "none"},
        options={"command": list(command or ("sleep", "1000"))},
    )


async def remove_by_name(pool: EnginePool, key: str, name: str) -> None:
    """What the spawner's clean-up does: look under the name, remove by id."""
    seen = await pool.run(key, lambda client: containers.name_taken(client, name))
    if seen is not None:
        await pool.run(key, lambda client: containers.remove(client, seen.container_id))


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05, 0.2])
async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing(
    pool: EnginePool, image: str, ledger: str, delay: float
) -> None:
    users = [f"u{number}" for number in range(6)]

    async def start(user: str) -> None:
        wanted = spec(image, ledger, user)
        container_id = await pool.run(user, lambda client: containers.create(client, wanted))
        await pool.run(user, lambda client: containers.start(client, container_id))

    tasks = [asyncio.create_task(start(user)) for user in users]
    await asyncio.sleep(delay)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(
        *(remove_by_name(pool, user, spec(image, ledger, user).name) for user in users)
    )
    assert await pool.drain(LONG)
    left = await pool.run("survey", lambda client: observe.observe_all(client, ledger))
    assert left == []


async def collect(stream: EngineEvents, actions: list[str]) -> list[Item]:
    """Read until these actions were seen, in this order."""
    seen: list[Item] = []
    wanted = list(actions)
    while wanted:
        item = await asyncio.wait_for(anext(stream), LONG)
        seen.append(item)
        if isinstance(item, ContainerEvent) and item.action == wanted[0]:
            wanted.pop(0)
    return seen


async def test_events_tell_of_our_servers_only(
    pool: EnginePool, second: Engine, image: str, ledger: str
) -> None:
    async with EngineEvents(ledger, f"unix://{second.socket}") as stream:
        assert await asyncio.wait_for(anext(stream), LONG) == Reconnected()
        for mine, user in (("other", "bob"), (ledger, "alice")):
            wanted = spec(image, mine, user, "sh", "-c", "exit 7")
            new = await pool.run(user, lambda c, w=wanted: containers.create(c, w))
            await pool.run(user, lambda c, new=new: containers.start(c, new))
            await pool.run(user, lambda c, new=new: c.api.wait(new))
            await pool.run(user, lambda c, new=new: containers.remove(c, new))
        seen = [item for item in await collect(stream, ["start", "die", "destroy"])]
    events = [item for item in seen if isinstance(item, ContainerEvent)]
    assert {event.container_id for event in events} == {new}
    assert [event.exit_code for event in events if event.action == "die"] == [7]
    assert {event.labels[labels.USER] for event in events} == {"alice"}


async def test_a_frozen_daemon_is_unknown_and_after_it_thaws_all_goes_on(
    second: Engine, image: str, ledger: str
) -> None:
    pool = EnginePool(f"unix://{second.socket}", size=2, timeout=0.5)
    wanted = spec(image, ledger, "alice")
    try:
        container_id = await pool.run(
            "alice", lambda client: containers.create(client, wanted), timeout=LONG
        )
        second.freeze()
        try:
            with pytest.raises(EngineUnknown):
                await pool.run("alice", lambda client: observe.observe(client, container_id))
        finally:
            second.thaw()
        seen = await pool.run("alice", lambda client: observe.observe(client, container_id))
        assert seen is not None
    finally:
        await pool.run("alice", lambda client: containers.remove(client, container_id), LONG)
        pool.close()


# The SDK leaves closing a socket that could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_killed_daemon_is_unknown_and_events_come_back_with_the_mark(
    pool: EnginePool, second: Engine, image: str, ledger: str
) -> None:
    wanted = spec(image, ledger, "alice")
    container_id = await pool.run("alice", lambda client: containers.create(client, wanted))
    async with EngineEvents(ledger, f"unix://{second.socket}") as stream:
        assert await asyncio.wait_for(anext(stream), LONG) == Reconnected()
        await asyncio.to_thread(second.kill9)
        with pytest.raises(EngineUnknown):
            await pool.run("alice", lambda client: observe.observe(client, container_id))
        await asyncio.to_thread(second.restart)
        seen: Any = None
        while not isinstance(seen, Reconnected):
            seen = await asyncio.wait_for(anext(stream), LONG)
        still = await pool.run("alice", lambda client: observe.observe(client, container_id))
        assert still is not None
        await pool.run("alice", lambda client: containers.remove(client, container_id))
        await collect(stream, ["destroy"])
    gone = await pool.run("alice", lambda client: observe.observe(client, container_id))
    assert gone is None
    gc.collect()
