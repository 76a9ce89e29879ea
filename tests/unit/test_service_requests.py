"""Requests over the real API: waiting, granting, coming back, cancelling."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.client import Ask, End, Granted, Queued
from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.scheduler.models import GPURequest, Lease, Reason
from jupyterhub_gpuspawner.service import runtime
from jupyterhub_gpuspawner.service.pace import Pace
from tests.unit.service_world import LEDGER, World

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(runtime, "TICK", 0.01)
    return World(tmp_path)


async def test_a_free_device_is_granted_at_once(world: World) -> None:
    async with world.running(), world.ask("alice") as stream:
        line = await stream.until(event="granted")
        assert line["lease"]["devices"][0]["id"] == "SIMULATED-n1-0"
        assert line["lease"]["devices"][0]["simulated"] is True
        assert (line["lease"]["node"], line["lease"]["ledger"]) == ("n1", LEDGER)
        assert line["lease"]["injection"] == "bind"
        assert await stream.ended()


async def test_a_server_without_gpu_gets_a_lease_too(world: World) -> None:
    async with world.running():
        assert (await world.grant("alice", 0))["devices"] == []


async def test_who_asks_too_often_is_told_when_to_ask_again(world: World) -> None:
    world.pace = Pace(per_minute=1, burst=2)
    async with world.running():
        assert (await world.grant("alice"))["devices"]
        assert (await world.grant("alice"))["devices"]
        response = await world.fetch("api/internal/requests", {"user": "alice"})
        assert response.code == 429
        wait = int(response.headers["Retry-After"])
        assert 50 <= wait <= 60
        answer = json.loads(response.body)
        assert answer["reason"] == "too_many_requests"
        assert answer["message"].endswith(f"Try again in {wait} s.")
        assert (await world.grant("bob", 0))["devices"] == []
        client = world.client()
        ask = Ask(user="alice", server="", groups=(), profile="", request=GPURequest())
        with pytest.raises(RefusedError) as refused:
            async for _ in client.request(ask):
                pass
        await client.close()
    assert refused.value.reason == "too_many_requests"
    assert refused.value.retry_after is not None


async def test_who_waits_and_reconnects_too_often_keeps_the_place(world: World) -> None:
    world.pace = Pace(per_minute=60, burst=1)
    async with world.running():
        await world.run("dan", 2)
        client = world.client()
        ask = Ask(user="alice", server="", groups=(), profile="", request=GPURequest(count=1))
        async with aclosing(client.request(ask)) as events:
            assert isinstance(await anext(events), Queued)
            await world.server.close_all_connections()
            # the next connection is one too many, and is made a second later
            seen = [await anext(events), await anext(events)]
        await client.close()
    assert [event.position for event in seen] == [0, 1]  # type: ignore[union-attr]


async def test_who_waits_sees_the_position_and_is_granted_when_a_server_ends(world: World) -> None:
    async with world.running():
        lease, container = await world.run("alice", 2)
        async with world.ask("bob") as bob, world.ask("carol") as carol:
            assert (await bob.line())["position"] == 1
            line = await carol.line()
            assert (line["position"], line["ahead"]) == (2, 1)
            assert "1 request is ahead" in line["message"]
            world.engine.containers.pop(container)
            world.events.send("destroy", container)
            assert (await bob.until(event="granted"))["lease"]["id"] != lease["id"]
            await carol.until(event="granted")


async def test_the_spawner_s_client_understands_every_line(world: World) -> None:
    async with world.running():
        _, container = await world.run("alice", 2)
        client = world.client()
        ask = Ask(user="bob", server="", groups=(), profile="", request=GPURequest(count=1))
        seen = []
        async for event in client.request(ask):
            seen.append(event)
            if isinstance(event, Queued):
                world.engine.containers.pop(container, None)
                world.events.send("destroy", container)
        assert isinstance(seen[0], Queued)
        assert isinstance(seen[-1], Granted)
        await client.bind(seen[-1].lease, "c" * 64)
        await client.running(seen[-1].lease)
        await client.stopping(seen[-1].lease, "stopped")
        ended = await client.ended(
            seen[-1].lease, reason="stopped", note="", exit_code=0, oom=False
        )
        assert ended == End(released=True)
        assert (await client.summary())["free"] == {"SIMULATED GPU": 2}
        await client.close()


async def test_the_client_hears_a_refusal_as_one(world: World) -> None:
    async with world.running():
        client = world.client()
        ask = Ask(user="bob", server="", groups=(), profile="", request=GPURequest(count=3))
        with pytest.raises(RefusedError) as refused:
            async for _ in client.request(ask):
                pass
        assert refused.value.reason == "impossible"
        assert "3" in refused.value.user_message
        await client.close()


async def test_the_same_server_asked_again_keeps_its_place(world: World) -> None:
    async with world.running():
        await world.run("alice", 2)
        async with world.ask("bob") as bob:
            entry = (await bob.line())["entry"]
        async with world.ask("carol") as carol:
            await carol.until(position=2)
            async with world.ask("bob") as again:
                line = await again.until(position=1)
                assert line["entry"] == entry


async def test_a_second_connection_takes_the_place_of_the_first(world: World) -> None:
    async with world.running():
        _, container = await world.run("alice", 2)
        async with world.ask("bob") as first:
            entry = (await first.line())["entry"]
            async with world.ask("bob") as second:
                assert (await second.line())["entry"] == entry
                assert await first.ended()
                # the end of the first did not detach the second
                world.engine.containers.pop(container)
                world.events.send("destroy", container)
                await second.until(event="granted")


async def test_a_cut_connection_is_no_cancel_but_ends_after_its_grace(world: World) -> None:
    async with world.running():
        await world.run("alice", 2)
        async with world.ask("bob") as bob:
            await bob.line()
        await world.until(lambda: len(world.desk.waiters) == 0)
        async with world.ask("carol") as carol:
            await carol.until(position=2)
            world.clock.now += world.options.detach_grace + 1
            await carol.until(position=1)


async def test_a_cancel_ends_the_stream_and_the_place_and_may_be_repeated(world: World) -> None:
    async with world.running():
        await world.run("alice", 2)
        async with world.ask("bob") as bob:
            entry = (await bob.line())["entry"]
            assert await world.post(f"requests/{entry}/cancel") == (200, {})
            assert (await bob.until(event="refused"))["reason"] == "cancelled"
            assert await bob.ended()
        assert await world.post(f"requests/{entry}/cancel") == (200, {})
        assert await world.post("requests/unknown/cancel") == (200, {})


async def test_a_cancel_after_the_grant_gives_the_devices_back(world: World) -> None:
    async with world.running():
        lease = await world.grant("alice", 2)
        assert await world.states() == ["busy", "busy"]
        await world.post(f"requests/{lease['id']}/cancel")
        assert await world.states() == ["free", "free"]


async def test_an_id_of_the_caller_is_used_once_and_never_for_somebody_else(world: World) -> None:
    own = "0" * 32
    async with world.running():
        async with world.ask("alice", id=own) as alice:
            assert (await alice.until(event="granted"))["lease"]["id"] == own
        async with world.ask("mallory", id=own) as mallory:
            assert (await mallory.until(event="granted"))["lease"]["id"] != own


async def test_a_kill_between_grant_and_reply_gives_the_same_lease_again(world: World) -> None:
    async with world.running():
        lease = await world.grant("alice", 1)
    async with world.running():
        again = await world.grant("alice", 1)
        assert again == lease
        assert await world.states() == ["busy", "free"]


async def test_a_grant_that_nobody_uses_is_taken_back(world: World) -> None:
    async with world.running():
        await world.grant("alice", 2)
        async with world.ask("bob") as bob:
            await bob.line()
            world.clock.now += world.options.bind_deadline + 1
            await bob.until(event="granted")


async def test_a_grant_that_its_spawn_never_heard_of_is_free_again_soon(world: World) -> None:
    async with world.running():
        lost, heard = await world.grant("alice"), await world.grant("bob")
        assert await world.post(f"leases/{heard['id']}/taken") == (200, {})
        assert await world.states() == ["busy", "busy"]
        world.clock.now += world.options.detach_grace + 1
        async with world.ask("carol") as carol:
            line = await carol.until(event="granted")
        assert line["lease"]["devices"] == lost["devices"]
        assert await world.post(f"leases/{heard['id']}/bind", {"container_id": "c" * 64}) == (
            200,
            {},
        )
        status, body = await world.post(f"leases/{lost['id']}/bind", {"container_id": "d" * 64})
        assert (status, body["reason"]) == (409, "stopped")


async def test_the_queue_survives_a_kill_in_order(world: World) -> None:
    async with world.running():
        await world.run("alice", 2)
        async with world.ask("bob") as bob, world.ask("carol") as carol:
            await bob.line()
            await carol.line()
    async with world.running(), world.ask("carol") as carol:
        await carol.until(position=2)
        async with world.ask("bob") as bob:
            await bob.until(position=1)


async def test_nothing_changes_so_a_line_comes_to_keep_the_connection_alive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyterhub_gpuspawner.service import api_internal

    monkeypatch.setattr(api_internal, "KEEP_ALIVE", 0.01)
    async with world.running():
        await world.run("alice", 2)
        async with world.ask("bob") as bob:
            first = await bob.until(reason="waiting_for_devices")
            assert await bob.line() == first == await bob.line()


async def test_a_machine_a_pool_and_named_gpus_may_be_asked_for(tmp_path: Path) -> None:
    world = World(tmp_path, node_pools={"lab": ["n*"]})
    async with world.running():
        client = world.client()
        wanted = GPURequest(count=1, node="n1", pool="lab", devices=("SIMULATED-n1-1",))
        ask = Ask(user="root", server="", groups=(), profile="", request=wanted, admin=True)
        async with aclosing(client.request(ask)) as answers:
            async for answer in answers:
                if isinstance(answer, Granted):
                    assert [device.id for device in answer.devices] == ["SIMULATED-n1-1"]
        for other, reason in (
            (replace(ask, user="eve", admin=False), "admin_only"),
            (replace(ask, user="bob", request=replace(wanted, pool="x")), "impossible"),
        ):
            with pytest.raises(RefusedError) as refused:
                async for _ in client.request(other):
                    pass
            assert refused.value.reason == reason
        rows = json.loads((await world.fetch("api/internal/summary")).body)["devices"]
        assert [(row["capability"], row["pools"]) for row in rows] == [(None, ["lab"])] * 2
        await client.close()


async def test_an_admins_booking_keeps_gpus_until_it_is_cancelled(world: World) -> None:
    async with world.running():
        now = world.clock()
        wanted = {"nodes": ["n1"], "groups": ["course"], "starts_at": now, "ends_at": now + 3600}
        answer = await world.fetch("api/internal/bookings", {"id": "exam", **wanted})
        assert json.loads(answer.body) == {"id": "exam"}
        again = await world.fetch("api/internal/bookings", wanted)
        assert (again.code, json.loads(again.body)["reason"]) == (409, "booking_refused")
        for body in ({**wanted, "nodes": ["x"]}, {"starts_at": now}):
            assert (await world.fetch("api/internal/bookings", body)).code == 400
        listed = json.loads((await world.fetch("api/internal/bookings")).body)["bookings"]
        assert [(b["id"], b["devices"]) for b in listed] == [
            ("exam", ["SIMULATED-n1-0", "SIMULATED-n1-1"])
        ]
        rows = json.loads((await world.fetch("api/internal/summary")).body)["devices"]
        assert [len(row["booked"]) for row in rows] == [1, 1]
        async with world.ask("alice") as stream:
            line = await stream.until(event="queued")
            assert line["reason"] == "device_reserved"
            assert line["message"] == "The SIMULATED GPU is reserved."
            assert (await world.fetch("api/internal/bookings/exam/cancel", {})).code == 200
            assert (await stream.until(event="granted"))["lease"]["node"] == "n1"


async def test_a_server_past_its_length_goes_for_somebody_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "TICK", 0.01)
    world = World(tmp_path, simulate=1, reclaim_warning="30m")
    async with world.running():
        async with world.ask("alice", request={"count": 1, "length": 3600.0}) as stream:
            lease = (await stream.until(event="granted"))["lease"]["id"]
        container = world.engine.create(lease, "alice", devices=["SIMULATED-n1-0"])
        await world.post(f"leases/{lease}/bind", {"container_id": container})
        world.engine.start(container)
        await world.post(f"leases/{lease}/running")
        longer = {"ends_at": world.clock.now + 3600.0}
        assert await world.post(f"leases/{lease}/extend", longer) == (200, {})
        async with world.ask("bob") as stream:
            await stream.until(event="queued")
            code, refusal = await world.post(
                f"leases/{lease}/extend", {"ends_at": world.clock.now + 3600.5}
            )
            assert (code, refusal["reason"]) == (409, "too_long")
            world.clock.now += 3600.0
            await world.until(lambda: any(v.id == lease and v.warned for v in stored(world)))
            assert world.engine.removed == []
            world.clock.now += 1800.0
            await stream.until(event="granted")
        assert world.engine.removed == [container]
        over = {v.reason for v in stored(world) if v.id == lease and not v.live}
        assert over == {Reason.RECLAIMED}


def stored(world: World) -> list[Lease]:
    return [d.lease for d in world.ledger.decisions() if isinstance(d, LeaseStored)]
