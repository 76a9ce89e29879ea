"""The API for people's programs: who sees what, what admins may do, and what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.service.access import caller_of
from jupyterhub_gpuspawner.service.hub_user import HubUser
from jupyterhub_gpuspawner.service.scopes import ADMIN, CUSTOM_SCOPES, READ
from tests.unit.service_world import World, do_not_wait

# real sockets, files or processes
pytestmark = pytest.mark.slow

ACCESS = ("access:services!service=gpus",)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    do_not_wait(monkeypatch)
    return World(tmp_path, simulate=3)


@pytest.fixture
def log_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Be this user in a session."""

    def be(name: str, *scopes: str, admin: bool = False) -> None:
        user = {"name": name, "kind": "user", "admin": admin, "scopes": [*ACCESS, *scopes]}

        async def identify(self: HubUser) -> dict[str, Any]:
            return user

        monkeypatch.setattr(HubUser, "identify", identify)

    return be


async def get(world: World, path: str, **options: Any) -> tuple[int, Any]:
    response = await world.fetch(f"api/{path}", **options)
    return response.code, json.loads(response.body)


async def items(world: World, path: str) -> list[dict[str, Any]]:
    code, answer = await get(world, path, token=None)
    assert code == 200, answer
    found: list[dict[str, Any]] = answer["items"]
    return found


# -- who -----------------------------------------------------------------------------------------


def user(*scopes: str, **more: Any) -> dict[str, Any]:
    return {"name": "alice", "kind": "user", "admin": False, "scopes": list(scopes), **more}


@pytest.mark.parametrize(
    ("model", "token", "rights"),
    [
        (user(*ACCESS), False, (False, False)),
        (user(*ACCESS), True, (False, False)),
        (user("read:users:name!user"), True, None),
        (user("read:users:name!user", admin=True), True, None),
        # a session of an admin may all; a token of one, what its scopes say
        (user(*ACCESS, admin=True), False, (True, True)),
        (user(*ACCESS, admin=True), True, (False, False)),
        (user(READ), True, (True, False)),
        (user(*ACCESS, READ), False, (True, False)),
        (user(ADMIN), True, (True, True)),
    ],
)
def test_a_token_counts_by_its_scopes_and_a_session_by_its_user(
    model: dict[str, Any], token: bool, rights: tuple[bool, bool] | None
) -> None:
    caller = caller_of(model, ACCESS, token=token)
    assert (None if caller is None else (caller.viewer.admin, caller.acts)) == rights


def test_a_service_does_not_pass_for_the_user_of_its_name() -> None:
    caller = caller_of(user(*ACCESS, kind="service"), ACCESS, token=True)
    assert caller is not None
    assert (caller.viewer.name, caller.name) == ("", "service alice")


def test_who_may_act_may_see() -> None:
    assert CUSTOM_SCOPES[ADMIN]["subscopes"] == [READ]


# -- seeing --------------------------------------------------------------------------------------


async def test_a_user_sees_the_own_part_and_no_other_name(world: World, log_in: Any) -> None:
    log_in("alice")
    async with world.running():
        await world.run("alice", 1)
        await world.run("bob", 1)
        async with world.ask("alice", 2, server="second") as mine, world.ask("carol", 3) as carol:
            await mine.line()
            await carol.line()
            devices, leases = await items(world, "devices"), await items(world, "leases")
            queue = await items(world, "queue")
            code, refused = await get(world, "journal", token=None)
    assert [row["used_by"] for row in devices] == ["alice", "in use", ""]
    assert [row["server"] for row in leases] == ["alice"]
    assert sorted((row["server"], bool(row["id"]), row["gpus"]) for row in queue) == [
        ("", False, 3),
        ("alice/second", True, 2),
    ]
    assert [row["expected_at"] is None for row in queue] == [not row["server"] for row in queue]
    assert (code, refused["reason"]) == (403, "forbidden")
    assert READ in refused["message"]


async def test_who_may_see_all_sees_names_and_the_journal(world: World, log_in: Any) -> None:
    log_in("lead", READ)
    async with world.running():
        await world.run("bob", 1)
        leases = await items(world, "leases")
        code, journal = await get(world, "journal?limit=1000", token=None)
    assert [row["server"] for row in leases] == ["bob"]
    assert code == 200
    assert journal["next"] is None
    assert [row["seq"] for row in journal["items"]] == sorted(
        row["seq"] for row in journal["items"]
    )
    assert any("bob" in json.dumps(row["decision"]) for row in journal["items"])


async def test_why_it_waits_and_why_these_gpus_is_told_to_its_user(
    world: World, log_in: Any
) -> None:
    log_in("alice")
    async with world.running():
        lease, _ = await world.run("alice", 2)
        other, _ = await world.run("bob", 1)
        async with world.ask("alice", 1, server="second") as mine, world.ask("bob", 2) as his:
            entry = (await mine.line())["entry"]
            strange = (await his.line())["entry"]
            code, waits = await get(world, f"explain/{entry}", token=None)
            _, got = await get(world, f"explain/{lease['id']}", token=None)
            refused = [
                await get(world, f"explain/{id}", token=None) for id in (strange, other["id"])
            ]
    assert (code, waits["state"], waits["position"]) in ((200, "waiting", 1), (200, "waiting", 2))
    assert waits["reason"] == waits["nodes"][0]["reason"] == "waiting_for_devices"
    assert waits["words"][1].endswith(
        "0 of 3 suitable GPUs are free. All suitable GPUs are in use."
    )
    assert (got["state"], got["devices"]) == ("granted", [d["id"] for d in lease["devices"]])
    assert (got["nodes"][0]["free"], got["nodes"][0]["chosen"]) == (3, True)
    assert got["words"][1].endswith("3 of 3 suitable GPUs were free. It was chosen.")
    assert {code for code, _ in refused} == {404}


async def test_an_old_lease_is_explained_from_the_journal(world: World, log_in: Any) -> None:
    log_in("lead", READ)
    async with world.running():
        lease, container = await world.run("alice", 1)
        world.engine.die(container)
        await world.post(f"leases/{lease['id']}/ended", {"reason": "stopped"})
        assert await get(world, "leases") == (200, {"items": [], "total": 0})
        code, found = await get(world, f"explain/{lease['id']}", token=None)
        missing, _ = await get(world, "explain/nobodys", token=None)
    assert (code, found["server"], missing) == (200, "alice", 404)


async def test_a_list_comes_in_parts(world: World, log_in: Any) -> None:
    log_in("alice")
    async with world.running():
        whole = await items(world, "devices")
        parts = [await get(world, f"devices?limit=2&offset={k}", token=None) for k in (0, 2, 4)]
    assert [len(answer["items"]) for _, answer in parts] == [2, 1, 0]
    assert [row for _, answer in parts for row in answer["items"]] == whole
    assert {answer["total"] for _, answer in parts} == {3}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=", "offset=-1", "limit=²", "colour=red"]
)
async def test_a_wrong_query_is_400_and_names_what_is_wrong(
    world: World, log_in: Any, query: str
) -> None:
    log_in("alice")
    async with world.running():
        # as it would come from a program that does not escape
        path = "devices?" + query.replace("²", "%C2%B2")
        code, answer = await get(world, path, token=None)
    assert (code, answer["reason"]) == (400, "bad_request")
    assert query.partition("=")[0] in answer["message"]


async def test_admins_see_which_images_a_machine_is_pulling(world: World, log_in: Any) -> None:
    async with world.running():
        name = (await get(world, "nodes"))[1]["items"][0]["name"]
        world.desk.reconciler.pulls = {name: (("team/lab:1", "pulling"),)}
        _, answer = await get(world, "nodes")
        assert answer["items"][0]["pulls"] == [{"image": "team/lab:1", "state": "pulling"}]
        log_in("alice")
        assert (await items(world, "nodes"))[0]["pulls"] == []


# -- acting --------------------------------------------------------------------------------------


async def test_a_cordoned_device_is_granted_to_nobody_until_it_is_opened(world: World) -> None:
    async with world.running():
        _, answer = await get(world, "devices")
        first = answer["items"][0]["id"]
        body = {"admin": "cordoned", "note": "the fan is loud"}
        assert await get(world, f"devices/{first}/admin", body=body) == (200, {"ok": True})
        _, answer = await get(world, "devices")
        row = answer["items"][0]
        assert (row["state"], row["reason"]) == ("unavailable", "device_cordoned")
        assert row["note"] == "cordoned by service token: the fan is loud"
        async with world.ask("alice", 3) as alice:
            assert (await alice.line())["event"] == "queued"
            opened = await get(world, f"devices/{first}/admin", body={"admin": "open"})
            assert opened == (200, {"ok": True})
            await alice.until(event="granted")
        _, journal = await get(world, "journal?limit=1000")
    said = [row["decision"].get("text", "") for row in journal["items"]]
    assert "set cordoned by service token: the fan is loud" in said
    assert "set open by service token" in said


async def test_a_cordoned_machine_is_granted_to_nobody(world: World) -> None:
    async with world.running():
        _, answer = await get(world, "nodes")
        name = answer["items"][0]["name"]
        await get(world, f"nodes/{name}/admin", body={"admin": "draining"})
        _, answer = await get(world, "nodes")
        assert answer["items"][0]["reason"] == "node_cordoned"
        async with world.ask("alice", 1) as alice:
            assert (await alice.line())["event"] == "queued"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("nodes/nobodys/lost", {}, 404),
        ("nodes/nobodys/lost", {"empty": "perhaps"}, 400),
        ("devices/GPU-nobodys/admin", {"admin": "open"}, 404),
        ("nodes/nobodys/admin", {"admin": "open"}, 404),
        ("devices/GPU-nobodys/admin", {"admin": "broken"}, 400),
        ("devices/GPU-nobodys/admin", {"admin": "open", "note": "two\nlines"}, 400),
        ("devices/GPU-nobodys/admin", {"admin": "open", "more": 1}, 400),
        ("devices/GPU-nobodys/admin", b"{", 400),
        ("devices/GPU-nobodys/admin", b"\xff", 400),
        ("queue/nobodys/cancel", {}, 404),
    ],
)
async def test_a_wrong_wish_is_refused_and_changes_nothing(
    world: World, path: str, body: Any, code: int
) -> None:
    async with world.running():
        before = len(world.ledger.rows)
        got, answer = await get(world, path, body=body)
        assert got == code, answer
        assert set(answer) == {"reason", "message"}
        assert len(world.ledger.rows) == before


async def test_a_user_cancels_the_own_request_only(world: World, log_in: Any) -> None:
    async with world.running():
        await world.run("bob", 3)
        async with world.ask("alice") as alice, world.ask("carol") as carol:
            (mine, others) = (await alice.line())["entry"], (await carol.line())["entry"]
            log_in("alice")
            refused = await get(world, f"queue/{others}/cancel", body={}, token=None)
            assert refused[0] == 404
            assert await get(world, f"queue/{mine}/cancel", body={}, token=None) == (
                200,
                {"ok": True},
            )
            await alice.until(event="refused", reason="cancelled")
            # an admin cancels anybody's
            assert (await get(world, f"queue/{others}/cancel", body={}))[0] == 200
            await carol.until(event="refused", reason="cancelled")


async def test_an_evicted_server_is_stopped_and_the_hub_is_told_why(world: World) -> None:
    async with world.running():
        lease, container = await world.run("bob", 2)
        path = f"leases/{lease['id']}/evict"
        assert await get(world, path, body={"message": "the lab closes"}) == (200, {"ok": True})
        await world.until(lambda: container not in world.engine.containers)
        await world.until_states("free", "free", "free")
        told = await world.post(f"leases/{lease['id']}/ended", {"reason": "vanished"})
        why = "stopped by an administrator: the lab closes"
        assert told == (200, {"released": True, "why": why})
        assert (await get(world, path, body={}))[0] == 404
        _, journal = await get(world, "journal?limit=1000")
    said = [row["decision"].get("text", "") for row in journal["items"]]
    assert "evicted by service token: the lab closes" in said


async def test_who_may_not_act_is_told_the_scope(world: World, log_in: Any) -> None:
    log_in("lead", READ)
    async with world.running():
        code, answer = await get(
            world, "devices/GPU-nobodys/admin", body={"admin": "open"}, token=None
        )
    assert code == 403
    assert ADMIN in answer["message"]


async def test_the_spawner_need_not_know_the_base_url_of_the_hub(world: World) -> None:
    world.prefix = "/lab/services/gpus/"
    async with world.running():
        await world.run("alice")
        devices = await get(world, "devices")
        world.url = world.url.replace("/services/", "/lab/services/")
        assert await get(world, "devices") == devices


# -- what it says of itself ----------------------------------------------------------------------


async def test_the_document_describes_the_answers_as_they_are(world: World) -> None:
    # not above: its import takes three seconds
    import jsonschema

    async with world.running():
        lease, _ = await world.run("bob", 1)
        world.clock.now += 60
        booked = {"nodes": ["n1"], "users": ["eve"], "starts_at": 2e6, "ends_at": 3e6}
        assert (await get(world, "bookings", body=booked))[0] == 200
        async with world.ask("alice", 3, groups=["lab"]) as alice:
            await alice.line()
            _, document = await get(world, "openapi.json", token=None)
            for path, methods in document["paths"].items():
                if "get" in methods and path != "/usage.csv":
                    code, answer = await get(world, path.strip("/").format(id=lease["id"]))
                    assert code == 200
                    content = methods["get"]["responses"]["200"]["content"]
                    schema = {**content["application/json"]["schema"], **document}
                    jsonschema.Draft202012Validator(schema).validate(answer)
                    assert answer.get("items") or answer["words"], path
