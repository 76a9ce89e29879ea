"""What happens when the ledger does not take a change: nothing, and everybody is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import (
    DoubleClaim,
    LedgerError,
    LedgerFenced,
    LedgerFull,
    LedgerLocked,
    LedgerUnknown,
)
from jupyterhub_gpuspawner.scheduler.decisions import Decision, LeaseStored, Noted
from jupyterhub_gpuspawner.service import actor
from tests.unit.service_world import FakeLedger, Stream, World, do_not_wait

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    do_not_wait(monkeypatch)
    monkeypatch.setattr(actor, "RETRY_MOST", 0.01)
    return World(tmp_path)


def leases(world: World) -> list[str]:
    return [item.lease.id for item in world.ledger.decisions() if isinstance(item, LeaseStored)]


async def test_a_full_disk_grants_nothing_keeps_the_place_and_says_why(world: World) -> None:
    async with world.running():
        await world.run("alice", 2)
        async with world.ask("bob") as bob, world.ask("carol") as carol:
            entry = (await bob.line())["entry"]
            await carol.line()
            before = leases(world)
            world.ledger.broken = LedgerFull("no space left on device")
            # the end of alice's server would be a grant for bob
            world.engine.containers.clear()
            world.events.send("destroy", "0" * 64)
            world.desk.reconciler.nudge()  # type: ignore[union-attr]
            line = await bob.until(reason="ledger_unavailable")
            assert line["event"] == "queued"
            assert world.desk.status().phase.value == "read_only"
            assert leases(world) == before

            world.ledger.broken = None
            granted = await bob.until(event="granted")
            assert granted["lease"]["id"] == entry
            await carol.until(event="granted")
        assert world.desk.status().phase.value == "serving"


async def test_a_request_in_trouble_is_put_in_line_when_the_ledger_is_back(world: World) -> None:
    async with world.running():
        world.ledger.broken = LedgerLocked("a backup holds it")
        async with world.ask("alice") as alice, world.ask("bob") as bob:
            await alice.until(reason="ledger_unavailable")
            await bob.until(reason="ledger_unavailable")
            world.ledger.broken = None
            await alice.until(event="granted")
            await bob.until(event="granted")


async def test_calls_in_trouble_are_answered_503_with_the_reason(world: World) -> None:
    async with world.running():
        lease = await world.grant("alice")
        world.ledger.broken = LedgerFull("no space left on device")
        status, answer = await world.post(f"leases/{lease['id']}/bind", {"container_id": "c" * 64})
        assert (status, answer["reason"]) == (503, "ledger_unavailable")
        response = await world.fetch("api/internal/summary")
        assert response.code == 503
        assert (await world.fetch("api/health")).code == 200


async def test_a_decision_is_told_after_it_is_stored(world: World) -> None:
    note, order = Noted(kind="test", text="a fact"), list[str]()
    commit = world.ledger.commit

    def stored(decisions: Sequence[Decision], now: float) -> None:
        commit(decisions, now)
        order.extend("stored" for decision in decisions if decision == note)

    async with world.running():
        world.ledger.commit = stored  # type: ignore[method-assign]
        actor = world.desk.actor
        assert actor is not None
        actor.listeners.append(
            lambda state, decisions: order.extend("heard" for d in decisions if d == note)
        )
        await actor.post_then(note, lambda state: order.append("answered"))
    assert order == ["stored", "answered", "heard"]


async def test_a_commit_whose_answer_was_lost_is_found_again(world: World) -> None:
    async with world.running():
        world.ledger.lost = LedgerUnknown("the answer was lost")
        async with world.ask("alice", 2) as alice:
            line = await alice.until(event="granted")
        assert set(leases(world)) == {line["lease"]["id"]}
        assert await world.states() == ["busy", "busy"]


async def test_a_double_claim_is_not_granted_and_the_state_is_read_again(world: World) -> None:
    async with world.running():
        world.ledger.broken = DoubleClaim("claimed already")
        async with world.ask("alice") as alice:
            await alice.until(reason="ledger_unavailable")
            assert leases(world) == []
            world.ledger.broken = None
            await alice.until(event="granted")


async def test_a_ledger_that_can_not_be_read_is_tried_until_it_can(world: World) -> None:
    async with world.running():
        world.ledger.unreadable = LedgerError("disk I/O error")
        world.ledger.broken = LedgerError("disk I/O error")
        async with world.ask("alice") as alice:
            await alice.until(reason="ledger_unavailable")
            world.ledger.broken = None
            assert world.desk.status().phase.value == "read_only"
            world.ledger.unreadable = None
            await alice.until(event="granted")


async def test_a_younger_scheduler_ends_this_one(world: World) -> None:
    async with world.running():
        world.ledger.broken = LedgerFenced("epoch 1 is not the current one")
        async with world.ask("alice") as alice:
            await alice.until(reason="ledger_unavailable")
        assert world.fenced
        assert leases(world) == []


async def test_a_ledger_that_another_process_holds_is_waited_for(world: World) -> None:
    locked = True

    def open_ledger() -> FakeLedger:
        if locked:
            raise LedgerLocked("in use by process 1")
        return world.ledger

    world.open_ledger = open_ledger
    async with world.running(wait=False), world.ask("alice") as alice:
        line = await alice.until(reason="ledger_unavailable")
        assert line["event"] == "queued"
        health = await world.fetch("api/health")
        assert b'"starting"' in health.body
        locked = False
        await alice.until(event="granted")


async def test_a_bug_in_an_event_is_not_stored_and_does_not_end_the_service(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        owner = world.desk.actor
        assert owner is not None

        def broken(state: object) -> None:
            raise AssertionError("a bug")

        with pytest.raises(LedgerError, match="a bug"):
            await owner.post(broken)  # type: ignore[arg-type]
        assert (await world.grant("alice"))["devices"]


async def test_changes_that_come_together_are_stored_together(world: World) -> None:
    async with world.running(), AsyncExitStack() as stack:
        owner = world.desk.actor
        assert owner is not None
        before = world.ledger.commits
        async with owner._quiet:  # as while a commit is on its way to the disk
            streams = [
                await stack.enter_async_context(Impatient(world, {"user": f"user{number}"}))
                for number in range(20)
            ]
            await world.until(lambda: owner._queue.qsize() >= 19)
        lines = await asyncio.gather(*(stream.line() for stream in streams))
        assert len({line["entry"] for line in lines}) == 20
        assert world.ledger.commits - before <= 3


class Impatient(Stream):
    """Does not wait for the answer's head."""

    async def __aenter__(self) -> Impatient:
        await self.send()
        return self

    async def line(self) -> dict[str, Any]:
        if not self.begun:
            await self.begin()
        return await super().line()


async def test_nobody_sees_what_is_not_stored_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    commit = world.ledger.commit

    def slow(*arguments: Any) -> None:
        entered.set()
        release.wait(8)
        commit(*arguments)

    async with world.running():
        monkeypatch.setattr(world.ledger, "commit", slow)
        asking = asyncio.ensure_future(world.grant("alice"))
        assert await asyncio.to_thread(entered.wait, 8)
        reading = asyncio.ensure_future(world.desk.read(lambda state: len(state.tables.leases)))
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
        release.set()
        assert await reading == 1
        await asking
