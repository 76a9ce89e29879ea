"""Somebody uses ``docker`` by hand while the Hub runs: removed, paused, killed, images, volumes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.cases import Bench, Case
from tests.faults.stories import tell, well

REMOVED = "stopped: the container is gone; somebody removed it"
KILLED = "stopped unexpectedly (exit code 137)"
NO_IMAGE = "The image of your server is not there. Please tell your administrator."


async def ended(case: Case) -> str:
    """Wait until the Hub knows that the server ended; how it ended, in the user's words."""
    spawner = case.person.spawner

    async def told() -> bool:
        return await spawner.poll() is not None

    await case.until("the Hub hears of the end", told)
    assert spawner.last_end is not None
    return str(spawner.last_end.text)


@pytest.mark.parametrize(
    ("by_hand", "words"),
    [
        # Docker kills it first: which of the two is seen is a matter of moments
        (lambda container: container.remove(force=True), (REMOVED, KILLED)),
        (lambda container: container.kill(), (KILLED,)),
        (lambda container: container.stop(timeout=5), ("stopped by itself (exit code 0)",)),
    ],
    ids=["rm -f", "kill", "stop"],
)
def test_a_server_that_was_ended_by_hand_is_told_and_its_gpu_is_free(
    bench: Bench, by_hand: Any, words: tuple[str, ...]
) -> None:
    async def story() -> None:
        alice = Case(bench, "alice")
        assert await alice.person.start() == ""
        (container,) = await alice.containers()
        await asyncio.to_thread(by_hand, container)
        assert await ended(alice) in words
        await alice.nothing_left()
        assert await alice.person.start() == "", "and can start again"
        await well(alice)

    tell(bench, story)


def test_a_paused_server_keeps_its_gpu_and_runs_on(bench: Bench) -> None:
    async def story() -> None:
        alice = Case(bench, "alice")
        assert await alice.person.start() == ""
        held = await alice.leased()
        (container,) = await alice.containers()
        await asyncio.to_thread(container.pause)
        looks = await looked(bench)
        await alice.until("the service looked twice", lambda: has_looked(bench, looks + 2))
        assert await alice.person.poll() is None
        assert await alice.leased() == held
        await asyncio.to_thread(container.unpause)
        assert await alice.person.poll() is None
        assert await alice.leased() == held
        await well(alice)

    tell(bench, story)


async def looked(bench: Bench) -> float:
    """How often the service has compared everything, by its own metrics."""
    return float(await asyncio.to_thread(bench.service.metric, "gpus_reconcile_seconds_count"))


async def has_looked(bench: Bench, times: float) -> bool:
    return await looked(bench) >= times


def test_a_paused_server_can_be_stopped(bench: Bench) -> None:
    async def story() -> None:
        alice = Case(bench, "alice")
        assert await alice.person.start() == ""
        (container,) = await alice.containers()
        await asyncio.to_thread(container.pause)
        await well(alice)

    tell(bench, story)


def test_an_image_that_is_deleted_between_form_and_start_is_a_clear_refusal(bench: Bench) -> None:
    async def story() -> None:
        image = "faults-doomed:1"
        bench.client.images.get(bench.image).tag(image)
        alice = Case(bench, "alice", image=image)
        await alice.person.spawner.render_options_form()
        bench.client.images.remove(image)
        words = await alice.person.start()
        assert words == f"The image {image} can't be fetched. Please tell your administrator."
        await well(alice)

    tell(bench, story)


def test_an_image_that_is_deleted_while_its_user_waits_gives_the_gpu_back(bench: Bench) -> None:
    async def story() -> None:
        image = "faults-doomed:2"
        bench.client.images.get(bench.image).tag(image)
        alice = Case(bench, "alice", image=image)
        # after the look for the image, before the container
        rule = alice.socket.arm("GET /volumes", "slow", delay=3.0)
        start = asyncio.create_task(alice.person.start())
        await asyncio.to_thread(rule.fired.wait, 20)
        bench.client.images.remove(image)
        assert await start == NO_IMAGE
        await well(alice)

    tell(bench, story)


def test_a_home_that_is_deleted_is_made_anew_and_one_in_use_can_not_be(bench: Bench) -> None:
    async def story() -> None:
        alice = Case(bench, "alice")
        assert await alice.person.start() == ""
        (home,) = homes(bench, alice)
        with pytest.raises(Exception, match="volume is in use"):
            home.remove(force=True)
        await alice.person.stop()
        await alice.nothing_left()
        home.remove()
        assert await alice.person.start() == ""
        assert [again.name for again in homes(bench, alice)] == [home.name]
        await well(alice)

    tell(bench, story)


def homes(bench: Bench, case: Case) -> list[Any]:
    chosen = [f"jupyterhub-gpuspawner.user={case.person.name}", "jupyterhub-gpuspawner.kind=home"]
    return list(bench.client.volumes.list(filters={"label": chosen}))
