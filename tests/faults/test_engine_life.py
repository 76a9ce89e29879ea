"""The engine goes away and comes back, with and without its containers."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cases import Bench, Case
from tests.faults.conftest import MakeService, copy_image
from tests.faults.stories import auditor_of, tell, well
from tests.faults.words import SILENT
from tests.testbed.engine import Engine

#: what those who wait read
KEPT = "Docker does not answer at the moment. Your place is kept."
#: deadlines of the service that pass while the engine is away: ten minutes in small
SMALL = {"bind_deadline": 3, "start_deadline": 5, "exited_grace": 5, "engine_timeout": 2}


@pytest.fixture(scope="module")
def second(engine: Engine, docker_client: Any, stub_image: str) -> Iterator[Engine]:
    """An engine that these tests may stop: nobody else's servers suffer."""
    second = Engine(f"{engine.name}-life", devices=4)
    second.start()
    client = second.client(timeout=600)
    copy_image(docker_client, client, stub_image)
    client.close()
    yield second
    second.stop()


@pytest.fixture
def own(
    second: Engine, stub_image: str, make_service: MakeService, tmp_path: Path
) -> Iterator[Bench]:
    """A service with four GPUs on that engine."""
    service = make_service(second, "life", simulate=4, reconcile_interval=0.5, **SMALL)
    service.start()
    service.wait_serving()
    client = second.client()
    yield Bench(
        service=service, client=client, engine=second.socket, folder=tmp_path, image=stub_image
    )
    service.end()
    client.close()
    second.settings = {}
    second.thaw()
    second.restart()
    second.wipe()


def test_while_docker_hangs_users_press_start_and_stop_and_nothing_is_given_back_too_early(
    second: Engine, own: Bench
) -> None:
    async def story() -> None:
        alice, bob, carol = (
            Case(own, name, engine_timeout=3) for name in ("alice", "bob", "carol")
        )
        assert await alice.person.start() == ""
        assert await carol.person.start() == ""
        held = await carol.leased()
        lines: list[str] = []
        waiting = asyncio.create_task(asyncio.to_thread(_read_all, own, "dave", 4, lines))
        await carol.until("dave waits", lambda: _has(lines, ""))
        second.freeze()
        try:
            assert await bob.person.start() == SILENT
            await alice.person.stop()
            assert await carol.person.poll() is None, "nothing is known, so nothing has ended"
            await carol.until("those who wait read why", lambda: _has(lines, KEPT))
            # until all deadlines have passed, twice
            await asyncio.sleep(2 * max(SMALL.values()))
            assert await alice.leased(), "whether her server ended is not known"
            assert await carol.leased() == held
            assert await bob.person.start() == SILENT
        finally:
            second.thaw()
        await alice.nothing_left()
        await bob.nothing_left()
        assert await carol.leased() == held
        await carol.person.stop()
        await carol.nothing_left()
        await asyncio.wait_for(waiting, 60)
        assert lines[-1] == "granted"
        await well(alice, bob, carol)

    tell(own, story)


def _read_all(bench: Bench, user: str, count: int, lines: list[str]) -> None:
    """Wait in line; what is read. The lease is given back at once."""
    with bench.service.ask(user, count) as stream:
        for line in stream:
            lines.append(str(line.get("message") or line["event"]))
    lease = line["lease"]["id"]
    bench.service.post(f"leases/{lease}/stopping", {"reason": "cancelled"})


async def _has(lines: list[str], text: str) -> bool:
    return any(text in line for line in list(lines))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_without_live_restore_ends_servers_and_their_users_read_why(
    second: Engine, own: Bench, how: str
) -> None:
    async def story() -> None:
        cases = [Case(own, "alice"), Case(own, "bob")]
        for case in cases:
            assert await case.person.start() == ""
        if how == "kill":
            second.kill9()
        await asyncio.to_thread(second.restart)
        for case in cases:
            spawner = case.person.spawner

            async def told(spawner: Any = spawner) -> bool:
                return await spawner.poll() is not None

            async def why(spawner: Any = spawner) -> bool:
                return "when Docker was stopped or restarted" in spawner.last_end.text

            await case.until("the Hub hears of the end", told)
            await case.until("it turns out why", why)
            await case.person.stop()
            await case.nothing_left()
            assert await case.person.start() == "", "and can start again"
        await well(*cases)

    tell(own, story)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_with_live_restore_servers_run_on_and_keep_their_gpus(
    second: Engine, own: Bench, how: str
) -> None:
    second.settings = {"live-restore": True}
    second.restart()
    own.service.wait_serving()
    auditor = auditor_of(own)

    async def story() -> None:
        alice, bob = Case(own, "alice"), Case(own, "bob")
        assert await alice.person.start() == ""
        (before,) = await alice.containers()
        held = await alice.leased()
        auditor.protect("alice")
        url = f"{alice.person.spawner.server.url}api"
        # as an upgrade does: the daemon is away for a while
        second.kill9() if how == "kill" else await asyncio.to_thread(second.shut_down)
        assert (await asyncio.to_thread(urllib.request.urlopen, url, timeout=10)).status == 200
        assert await alice.person.poll() is None
        assert await bob.person.start() == SILENT
        await bob.until("the service knows", lambda: _is_not_serving(own))
        assert await alice.leased() == held
        await asyncio.to_thread(second.restart)
        await asyncio.to_thread(own.service.wait_serving, 60)
        (after,) = await alice.containers()
        assert (after.id, after.status) == (before.id, "running")
        assert await alice.leased() == held
        assert await alice.person.poll() is None
        assert await bob.person.start() == ""
        assert not set(await bob.leased()) & set(held)
        auditor.release("alice")
        await well(alice, bob)

    tell(own, story, auditor)


async def _is_not_serving(bench: Bench) -> bool:
    return not await asyncio.to_thread(bench.service.serving)


@pytest.mark.parametrize("act", ["stop", "failed start"])
def test_what_is_ended_while_engine_and_scheduler_are_away_is_made_good_when_they_are_back(
    second: Engine, own: Bench, act: str
) -> None:
    async def story() -> None:
        alice = Case(own, "alice", engine_timeout=3)
        if act == "stop":
            assert await alice.person.start() == ""
            second.freeze()
            own.service.pause()
            await alice.person.stop()
        else:
            # its container runs, and then nobody answers any more
            rule = alice.socket.arm("GET /containers/{id}/json", "refused")
            start = asyncio.create_task(alice.person.start())
            await asyncio.to_thread(rule.fired.wait, 20)
            own.service.pause()
            assert await start == SILENT
            alice.socket.heal()
        second.thaw()
        own.service.resume()
        # nobody presses anything: the Hub tells the scheduler, which ends the server
        await alice.nothing_left()
        assert alice.outcome.problems == []
        assert await alice.person.start() == ""
        await well(alice)

    tell(own, story)


def test_a_create_that_takes_longer_than_the_lease_waits_is_refused_and_removed(
    own: Bench,
) -> None:
    async def story() -> None:
        alice = Case(own, "alice")
        alice.socket.arm("POST /containers/create", "slow", delay=6.0)
        words = await alice.person.start()
        assert words == "The GPUs were given back before the server started. Start it again."
        await well(alice)

    tell(own, story)


def test_a_create_that_takes_30_seconds_is_waited_for(
    second: Engine, stub_image: str, own: Bench, make_service: MakeService, tmp_path: Path
) -> None:
    """The one case at its full length, with the time-outs that an admin has by default."""
    own.service.end()
    own.service.change(bind_deadline=120, engine_timeout=30)
    own.service.start()
    own.service.wait_serving()

    async def story() -> None:
        alice = Case(own, "alice", engine_timeout=60)
        alice.socket.arm("POST /containers/create", "slow", delay=30.0)
        assert await alice.person.start() == ""
        await well(alice)

    tell(own, story)
