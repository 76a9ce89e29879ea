"""The page and the metrics: what is shown, to whom, and that names can't break out."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from jupyterhub_gpuspawner.client import Warned
from jupyterhub_gpuspawner.errors import LedgerFull
from jupyterhub_gpuspawner.scheduler.events import NodeReported
from jupyterhub_gpuspawner.scheduler.models import DeviceStatus, Health
from jupyterhub_gpuspawner.scheduler.state import SchedulerState
from jupyterhub_gpuspawner.service import app, pages, runtime, waiting
from jupyterhub_gpuspawner.service.metrics import Metrics
from tests.unit import service_world
from tests.unit.service_world import FakeLedger, World, do_not_wait

# real sockets, files or processes
pytestmark = pytest.mark.slow

NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    do_not_wait(monkeypatch)
    return World(tmp_path, simulate=3)


@pytest.fixture
def log_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Be this user, as far as the Hub is concerned."""

    def be(user: dict[str, Any] | None) -> None:
        async def identify(self: pages.HubPage) -> dict[str, Any] | None:
            return user

        monkeypatch.setattr(pages.HubPage, "identify", identify)

    return be


async def soup(world: World) -> BeautifulSoup:
    response = await world.fetch("", token=None)
    assert response.code == 200
    return BeautifulSoup(response.body, "html.parser")


def rows(page: BeautifulSoup, table: str) -> list[str]:
    return [" ".join(row.get_text(" ").split()) for row in page.select(f"#{table} tbody tr")]


def cards(page: BeautifulSoup) -> list[str]:
    """The servers on the page."""
    return [card.get_text().strip() for card in page.select(".gpus-server h2")]


def test_links_lead_to_the_hub_where_the_service_has_a_host_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_HUB_URL", "https://gpus.example.org/hub/")
    page = BeautifulSoup(pages.render("error.html", nonce="n", title="x"), "html.parser")
    links = {link["href"] for link in page.select("nav a, main a")}
    assert links == {"https://gpus.example.org/hub/home", "/services/gpus/"}
    # files come from the page's own host, which is all that its policy allows
    assert page.select_one("link[rel=stylesheet]")["href"].startswith("/hub/static/")
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_HUB_URL", "")
    page = BeautifulSoup(pages.render("error.html", nonce="n", title="x"), "html.parser")
    assert page.select_one("a.navbar-brand")["href"] == "/hub/home"


async def test_a_server_may_take_longer_to_stop_than_a_page_waits_for_the_ledger(
    world: World, log_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[tuple[str, str]] = []

    async def hub_stop(user: str, server: str) -> bool:
        await asyncio.sleep(0.01)
        stopped.append((user, server))
        return True

    log_in({"name": "alice"})
    monkeypatch.setattr(pages.ActPage, "check_xsrf_cookie", lambda self: None)
    async with world.running():
        lease, _ = await world.run("alice", 1)
        world.desk.hub_stop = hub_stop
        monkeypatch.setattr(pages, "READ_LIMIT", 0.0)
        json_please = {"Content-Type": "application/json"}
        slow = await world.fetch(f"extend/{lease['id']}", {}, headers=json_please)
        assert slow.code == 503
        answer = await world.fetch(f"stop/{lease['id']}", {}, headers=json_please)
        assert (answer.code, stopped) == (200, [("alice", "")])


async def test_a_user_sees_devices_own_servers_and_no_other_name(world: World, log_in: Any) -> None:
    log_in({"name": "alice"})
    async with world.running():
        await world.run("alice", 1)
        await world.run("bob", 1)
        async with world.ask("carol", 3) as carol:
            await carol.line()
            page = await soup(world)
    devices = rows(page, "devices")
    assert len(devices) == 3
    assert all("SIMULATED" in row for row in devices)
    assert [row["data-state"] for row in page.select("#devices tbody tr")] == [
        *("busy", "busy", "free")
    ]
    assert "bob" not in page.get_text()
    assert "carol" not in page.get_text()
    assert cards(page) == ["alice"]
    assert [row[:4] for row in rows(page, "queue")] == ["1 3 "]


async def test_whoever_uses_a_gpu_that_failed_is_told(world: World, log_in: Any) -> None:
    log_in({"name": "alice"})
    async with world.running():
        await world.run("alice", 1)
        actor = world.desk.actor
        assert actor is not None

        def lost(state: SchedulerState) -> NodeReported:
            node = next(iter(state.tables.nodes.values()))
            status = DeviceStatus(health=Health.BAD, note="fell off the bus")
            devices = tuple((one, status) for one in state.tables.devices.values())
            return NodeReported(node=node, devices=devices)

        await actor.post(lost)
        row = " ".join((await soup(world)).select_one(".gpus-server").get_text(" ").split())
    assert "GPU 0: The GPU does not work properly at the moment. (fell off the bus)" in row
    assert "Save your work" in row


async def test_an_admin_sees_all_names_and_no_name_becomes_markup(
    world: World, log_in: Any
) -> None:
    log_in({"name": NASTY, "admin": True})
    async with world.running():
        await world.run(NASTY, 2)
        async with world.ask("bob/", 3, server=NASTY, profile=NASTY) as bob:
            await bob.line()
            response = await world.fetch("", token=None)
    page = BeautifulSoup(response.body, "html.parser")
    assert NASTY in page.get_text()
    assert not [tag for tag in page.find_all("img") if "onerror" in tag.attrs]
    # every script is a file, let in by the policy's nonce; the texts in this language are data
    scripts = [tag for tag in page.find_all("script") if tag.get("type") != "application/json"]
    assert len(scripts) == 2 and all(tag.get("nonce") and not tag.string for tag in scripts)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_the_page_says_what_is_wrong_when_the_ledger_is_full(
    world: World, log_in: Any
) -> None:
    log_in({"name": "alice"})
    async with world.running():
        world.ledger.broken = LedgerFull("no space left on device")
        async with world.ask("alice") as alice:
            await alice.until(reason="ledger_unavailable")
            page = await soup(world)
    phase = page.select_one("#phase")
    assert phase is not None
    assert phase["data-reason"] == "ledger_unavailable"
    assert phase["data-phase"] == "read_only"


async def test_the_page_is_there_before_the_ledger_is(world: World, log_in: Any) -> None:
    def open_ledger() -> FakeLedger:
        raise LedgerFull("no space left on device")

    log_in({"name": "alice"})
    world.open_ledger = open_ledger
    async with world.running(wait=False):
        page = await soup(world)
    assert page.select_one("#phase") is not None
    assert page.select_one("#devices") is None


async def test_without_a_hub_the_page_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    async with world.running():
        assert (await world.fetch("", token=None)).code == 503


async def test_metrics_are_for_the_service_token_admins_and_their_scope(
    world: World, log_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {
        "page": {"name": "root", "admin": True, "scopes": ["access:services"]},
        "metrics": {"name": "alice", "scopes": ["read:metrics"]},
    }

    async def of_token(self: pages.HubPage, token: str) -> dict[str, Any] | None:
        return tokens.get(token)

    monkeypatch.setattr(pages.HubPage, "of_token", of_token)
    async with world.running():
        for user, code in (
            (None, 403),
            ({"name": "alice", "scopes": ["self"]}, 403),
            ({"name": "root", "admin": True}, 200),
        ):
            log_in(user)
            assert (await world.fetch("metrics", token=None)).code == code
        # a token's own scopes count, whatever its owner may do
        for token, code in (("unknown", 403), ("page", 403), ("metrics", 200)):
            assert (await world.fetch("metrics", token=token)).code == code
        assert (await world.fetch("metrics")).code == 200


async def test_metrics_count_grants_refusals_and_devices(world: World) -> None:
    async with world.running():
        lease, container = await world.run("alice", 2)
        async with world.ask("bob", 9) as bob:
            await bob.until(event="refused")
        text = (await world.fetch("metrics")).body.decode()
        for line in (
            "gpus_grants_total 1.0",
            'gpus_refusals_total{reason="impossible"} 1.0',
            'gpus_devices{mode="exclusive",model="SIMULATED GPU",node="n1",'
            'reason="device_busy",simulated="true",state="busy"} 2.0',
            'gpus_devices{mode="exclusive",model="SIMULATED GPU",node="n1",'
            'reason="",simulated="true",state="free"} 1.0',
            'gpus_nodes{node="n1",reason="",state="up"} 1.0',
            'gpus_start_phase_seconds_count{phase="create"} 1.0',
            'gpus_start_phase_seconds_count{phase="start"} 1.0',
            "gpus_queue_length 0.0",
            "gpus_queue_oldest_seconds 0.0",
            "gpus_serving 1.0",
        ):
            assert line in text, line
        assert 'UUID="SIMULATED-n1-0"' in text
        # not removed: a comparison that comes first would call it vanished
        world.engine.die(container)
        await world.post(f"leases/{lease['id']}/ended", {"reason": "stopped"})
        text = (await world.fetch("metrics")).body.decode()
        assert 'gpus_leases_ended_total{reason="stopped"} 1.0' in text
        assert "UUID=" not in text


async def test_metrics_name_nobody_unless_the_site_wants_it(world: World) -> None:
    async with world.running():
        lease, _ = await world.run("alice", 1)
        text = (await world.fetch("metrics")).body.decode()
        mark = f'UUID="SIMULATED-n1-0",lease="{lease["id"]}",node="n1",server="",state="running"'
        assert f'{mark},user=""}} 1.0' in text
        assert "alice" not in text
        world.desk.metrics = Metrics(show_users=True)
        text = (await world.fetch("metrics")).body.decode()
        assert f'{mark},user="alice"}} 1.0' in text


async def test_metrics_tell_for_how_long_the_longest_waiting_waits(world: World) -> None:
    async with world.running():
        await world.run("alice", 3)
        async with world.ask("bob", 1) as bob:
            await bob.until(event="queued")
            before = (await world.fetch("metrics")).body.decode()
            world.clock.now += 120
            after = (await world.fetch("metrics")).body.decode()
    seconds = [
        float(re.findall(r"^gpus_queue_oldest_seconds (\S+)$", text, re.MULTILINE)[0])
        for text in (before, after)
    ]
    assert seconds[1] - seconds[0] == 120


async def test_the_style_sheet_and_nothing_else_is_served(world: World) -> None:
    async with world.running():
        assert (await world.fetch("static/gpus.css", token=None)).code == 200
        for path in ("static/../app.py", "static/gpus.html", "static/"):
            assert (await world.fetch(path, token=None)).code == 404


@pytest.mark.parametrize(
    "path",
    ["", "metrics", "static/gpus.css", "static/x", "api/health", "api/internal/summary", "no"],
)
async def test_no_answer_may_be_framed_sniffed_or_kept(
    world: World, log_in: Any, path: str
) -> None:
    log_in({"name": "alice"})
    async with world.running():
        answers = [await world.fetch(path, token=None), await world.fetch(path, b"", token=None)]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert "Server" not in answer.headers
        shared = path == "static/gpus.css" and answer.code == 200
        assert answer.headers["Cache-Control"] == ("public, max-age=300" if shared else "no-store")


async def test_health_tells_phase_and_version(world: World) -> None:
    async with world.running():
        answer = json.loads((await world.fetch("api/health", token=None)).body)
    assert answer["ok"] is True
    assert (answer["phase"], answer["reason"]) == ("serving", None)
    assert answer["version"]


async def test_the_api_answers_while_the_pages_are_still_imported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_world, "add_routes", app.add_api)
    async with world.running():
        assert (await world.fetch("api/internal/summary")).code == 200
        assert (await world.fetch("api/health")).code == 200


async def test_who_asks_for_a_page_early_gets_it_when_it_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def api_first(web: Any, prefix: str, desk: Any) -> None:
        app.add_api(web, prefix, desk)
        made.append(web)

    waits = asyncio.Event()
    happens = waiting.happens

    async def seen(event: asyncio.Event, limit: float) -> bool:
        waits.set()
        return await happens(event, limit)

    monkeypatch.setattr(service_world, "add_routes", api_first)
    async with world.running():
        monkeypatch.setattr(waiting, "happens", seen)
        asked = asyncio.ensure_future(world.fetch("metrics", token=None))
        await asyncio.wait_for(waits.wait(), 10)
        assert not asked.done()
        app.add_pages(made[0], service_world.PREFIX, world.desk)
        answer = await asked
        assert (answer.code, answer.headers["Location"]) == (302, f"{service_world.PREFIX}metrics")


async def test_an_early_request_is_not_led_to_another_host(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_world, "add_routes", app.add_api)
    async with world.running():
        host = world.url.removesuffix(service_world.PREFIX)
        answer = await world.http.fetch(
            f"{host}//evil.example{service_world.PREFIX}", follow_redirects=False
        )
        assert (answer.code, answer.body) == (200, b"The scheduler is starting.")


async def test_who_is_warned_reads_when_the_server_will_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_in: Any
) -> None:
    monkeypatch.setattr(runtime, "TICK", 0.01)
    world = World(tmp_path, simulate=1, reclaim_warning="30m")
    log_in({"name": "alice"})
    async with world.running():
        async with world.ask("alice", request={"count": 1, "length": 3600.0}) as stream:
            lease = (await stream.until(event="granted"))["lease"]["id"]
        container = world.engine.create(lease, "alice", devices=["SIMULATED-n1-0"])
        await world.post(f"leases/{lease}/bind", {"container_id": container})
        world.engine.start(container)
        await world.post(f"leases/{lease}/running")
        async with world.ask("bob") as stream:
            await stream.until(event="queued")
            world.clock.now += 3600.0
            await world.until(lambda: any('"warned": true' in row for row in world.ledger.rows))
            page = await soup(world)
    # 1_000_000 s + 1 h + 30 min
    assert "it will be stopped at 15:16 UTC" in page.get_text()


async def test_who_does_not_use_a_server_reads_it_and_has_it_kept_by_a_button(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_in: Any
) -> None:
    monkeypatch.setattr(runtime, "TICK", 0.01)
    idle = {"idle_timeout": 60, "idle_min_runtime": 1, "idle_warning": "30m"}
    world = World(tmp_path, simulate=1, **idle)
    log_in({"name": "alice"})
    async with world.running():
        async with world.ask("alice", request={"count": 1}) as stream:
            lease = (await stream.until(event="granted"))["lease"]["id"]
        container = world.engine.create(lease, "alice", devices=["SIMULATED-n1-0"])
        await world.post(f"leases/{lease}/bind", {"container_id": container})
        world.engine.start(container)
        await world.post(f"leases/{lease}/running")
        await world.post(f"leases/{lease}/activity", {"idle_for": 600, "groups": []})
        world.clock.now += 120.0
        await world.until(lambda: any('"idle": true' in row for row in world.ledger.rows))
        client = world.client()
        assert await client.warned() == {lease: Warned(stop_at=world.clock.now + 1800, idle=True)}
        page = await soup(world)
        assert "Nobody uses it: it will be stopped at" in page.get_text()
        form = page.select_one("form[action*=keep]")
        assert form is not None
        assert form["method"] == "post" and form.find("input")["name"] == "_xsrf"
        address = world.url.removesuffix(service_world.PREFIX) + form["action"]
        call: dict[str, Any] = {"method": "POST", "body": "", "follow_redirects": False}
        log_in({"name": "bob"})
        before = len(world.ledger.rows)
        await world.http.fetch(address, raise_error=False, **call)
        assert len(world.ledger.rows) == before, "it is not his"
        log_in({"name": "alice"})
        answer = await world.http.fetch(address, raise_error=False, **call)
        assert (answer.code, answer.headers["Location"]) == (303, service_world.PREFIX)
        page = await soup(world)
        assert "Kept until" in page.get_text() and not page.select("form[action*=keep]")
        await client.keep(lease)
        assert await client.warned() == {lease: Warned(kept_until=world.clock.now + 8 * 3600)}
        await client.close()


ACCESS = "access:services!service=gpus"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("user", "code", "acts"),
    [
        ({"name": "root", "admin": True, "scopes": [ACCESS]}, 200, True),
        ({"name": "lea", "admin": False, "scopes": [ACCESS, "custom:gpus:read"]}, 200, False),
        ({"name": "ops", "admin": False, "scopes": [ACCESS, "custom:gpus:admin"]}, 200, True),
        ({"name": "ann", "admin": False, "scopes": [ACCESS]}, 403, False),
        (
            {"name": "pi", "admin": False, "scopes": [ACCESS, "custom:gpus:read!group=lab"]},
            200,
            False,
        ),
    ],
)
async def test_the_admin_page_is_for_who_may_see_all_or_a_groups(
    world: World,
    log_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    user: dict[str, Any],
    code: int,
    acts: bool,
) -> None:
    monkeypatch.setenv("JUPYTERHUB_OAUTH_ACCESS_SCOPES", json.dumps([ACCESS]))
    log_in(user)
    async with world.running():
        await world.run(EVIL)
        answer = await world.fetch("admin", token=None)
        closed = await world.fetch("events/admin", token=None) if code == 403 else None
    assert answer.code == code
    page = BeautifulSoup(answer.body, "html.parser")
    if code == 403:
        assert closed is not None and closed.code == 403
        return
    assert page.find("img", src="x") is None
    told = json.loads(page.select_one("#admin-data").string or "")
    leads = user["name"] == "pi"
    assert [row["server"] for row in told["servers"]] == ([] if leads else [EVIL])
    assert (page.select_one("#audit") is None) == leads
    assert (told["acts"], page.select_one("#book") is not None) == (acts, acts)
