"""What open pages are told as it happens, to whom, and how often it is worked out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jupyterhub_gpuspawner.errors import LedgerFull
from jupyterhub_gpuspawner.i18n import Words, words_of
from jupyterhub_gpuspawner.service import live, pages
from jupyterhub_gpuspawner.service.live import Listener, Topic
from jupyterhub_gpuspawner.service.page_data import View, Viewer
from tests.unit.service_world import World, do_not_wait

# real sockets
pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    do_not_wait(monkeypatch)
    monkeypatch.setattr(live, "GAP", 0.01)
    return World(tmp_path, simulate=3)


class Page:
    """An open page: what it was sent."""

    def __init__(self, world: World, name: str, *topics: Topic, **more: Any) -> None:
        self.slow = False
        self.text = b""
        self.listener = Listener(
            viewer=Viewer(name=name, admin=more.get("admin", False)),
            words=words_of(more.get("language", "en")),
            topics=topics,
            sink=self,
        )
        world.desk.live.join(self.listener)

    def busy(self) -> bool:
        return self.slow

    def send(self, data: bytes) -> None:
        self.text += data

    def events(self, name: str) -> list[Any]:
        return list(events(self.text.decode(), name))


def events(text: str, wanted: str) -> Iterator[Any]:
    """The data of a stream's events of one name."""
    for block in text.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in block.splitlines())
        if lines.get("event") == wanted:
            yield json.loads(lines["data"])


class Counting:
    """A topic that remembers for whom it was made."""

    def __init__(self, own: bool = False) -> None:
        self.made: list[tuple[str, bool, str]] = []
        self.topic = Topic(name="count", look=self.look, own=own)

    def look(self, view: View, words: Words) -> Any:
        self.made.append((view.viewer.name, view.viewer.admin, words.language))
        return {"free": sum(row["state"] == "free" for row in view.devices())}


async def test_what_all_see_is_made_once_for_all_of_them(world: World) -> None:
    count = Counting()
    async with world.running():
        open_pages = [Page(world, f"user{n}", count.topic) for n in range(50)]
        open_pages += [Page(world, "root", count.topic, admin=True, language="zh_CN")]
        await world.until(lambda: all(page.events("count") for page in open_pages))
        before, snapshots = len(count.made), world.desk.live.snapshots
        await world.grant("alice", 1)
        await world.until(lambda: all(len(page.events("count")) == 2 for page in open_pages))
        made = count.made[before:]
        assert made.count(("", False, "en")) <= world.desk.live.snapshots - snapshots
        assert {who[0] for who in made} == {""}, "a part for all was made with somebody's name"
    assert all(page.events("count") == [{"free": 3}, {"free": 2}] for page in open_pages)


async def test_each_is_told_the_own_and_nothing_that_did_not_change(world: World) -> None:
    count = Counting(own=True)
    async with world.running():
        alice, bob = Page(world, "alice", count.topic), Page(world, "bob", count.topic)
        await world.until(lambda: alice.events("count") and bob.events("count"))
        for _ in range(2):
            snapshots = world.desk.live.snapshots
            world.desk.live.changed()
            await world.until(lambda before=snapshots: world.desk.live.snapshots > before)
        assert (len(alice.events("count")), len(bob.events("count"))) == (1, 1)
    assert {who[0] for who in count.made} == {"alice", "bob"}


async def test_who_reads_slowly_gets_the_newest_and_holds_nobody_up(world: World) -> None:
    count = Counting()
    async with world.running():
        quick, slow = Page(world, "quick", count.topic), Page(world, "slow", count.topic)
        await world.until(lambda: quick.events("count") and slow.events("count"))
        slow.slow = True
        for user, free in (("alice", 2), ("bob", 1)):
            await world.grant(user, 1)
            await world.until(lambda free=free: quick.events("count")[-1] == {"free": free})
        assert slow.events("count") == [{"free": 3}]
        slow.slow = False
        world.desk.live.changed()
        await world.until(lambda: slow.events("count") == [{"free": 3}, {"free": 1}])


def shown(page: Page) -> str:
    """What it shows of all GPUs after its events: all of the part, then its changes."""
    lines: list[str] = []
    for one in page.events("gpus"):
        if isinstance(one, str):
            lines = one.split("\n")
        else:
            for at, gone, fresh in one["changes"]:
                lines[at : at + gone] = fresh
    return "\n".join(lines)


async def test_of_what_all_see_only_the_lines_that_changed_are_sent_again(world: World) -> None:
    (topic,) = (one for one in pages.STREAMS["gpus"] if one.name == "gpus")
    async with world.running():
        quick, slow = Page(world, "quick", topic), Page(world, "slow", topic)
        await world.until(lambda: quick.events("gpus") and slow.events("gpus"))
        slow.slow = True
        await world.grant("alice", 1)
        await world.until(lambda: "2 of 3 free" in shown(quick))
        async with world.ask("bob", 3) as line:
            await line.until(event="queued")
            await world.until(lambda: "1 request waits" in shown(quick))
            slow.slow = False
            late = Page(world, "late", topic)
            await world.until(lambda: shown(late) == shown(quick) == shown(slow))
    whole, *changes = quick.events("gpus")
    assert isinstance(whole, str) and changes and all(isinstance(one, dict) for one in changes)
    assert [type(one) for one in slow.events("gpus")] == [str, str], "it missed what came before"
    assert len(quick.text) < 2 * len(whole)


def test_who_else_looks_sees_the_same_state_with_all_that_belongs_to_it() -> None:
    things: dict[str, Any] = {one.name: object() for one in fields(View)}
    view = View(**things).seen_by(Viewer(name="ann"))
    assert view.viewer == Viewer(name="ann")
    assert {name for name in things if getattr(view, name) is not things[name]} == {"viewer"}


async def test_a_page_that_can_not_be_made_leaves_the_others_alone(world: World) -> None:
    broken = True

    def look(view: View, words: Words) -> str:
        if broken:
            raise ValueError("a bug")
        return "well"

    async with world.running():
        page = Page(world, "alice", Topic(name="odd", look=look))
        await world.until(lambda: page.events("status"))
        broken = False
        world.desk.live.changed()
        await world.until(lambda: page.events("odd") == ["well"])


async def test_trouble_with_the_ledger_is_told_and_its_end(world: World) -> None:
    async with world.running():
        page = Page(world, "alice", Counting().topic)
        await world.until(lambda: page.events("status"))
        world.ledger.broken = LedgerFull("no space left on device")
        async with world.ask("bob") as bob:
            await bob.until(reason="ledger_unavailable")
        await world.until(lambda: page.events("status")[-1]["phase"] == "read_only")
        world.ledger.broken = None
        await world.until(lambda: page.events("status")[-1]["phase"] == "serving")


async def test_nothing_is_worked_out_while_nobody_looks(world: World) -> None:
    async with world.running():
        page = Page(world, "alice", Counting().topic)
        await world.until(lambda: page.events("count"))
        world.desk.live.leave(page.listener)
        world.desk.live.changed()
        assert world.desk.live._task is not None
        await asyncio.wait_for(world.desk.live._task, 8)


# -- over HTTP -------------------------------------------------------------------------------


@pytest.fixture
def log_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Be this user, as far as the Hub is concerned."""

    def be(user: dict[str, Any] | None) -> None:
        async def identify(self: pages.HubPage) -> dict[str, Any] | None:
            return user

        monkeypatch.setattr(pages.HubPage, "identify", identify)

    return be


async def test_a_page_hears_of_its_own_servers_and_never_a_name_of_others(
    world: World, log_in: Any
) -> None:
    log_in({"name": "alice"})
    text = ""
    async with world.running(), aiohttp.ClientSession() as browser:
        await world.run("bob", 1)
        async with browser.get(f"{world.url}events/gpus") as stream:
            mark = "You have no server"
            while mark:
                text += (await asyncio.wait_for(stream.content.readany(), 8)).decode()
                if any(mark in html for html in events(text, "mine")):
                    if mark == "You have no server":
                        await world.run("alice", 1)
                        mark = 'data-state="running"'
                    else:
                        mark = ""
            assert len(world.desk.live) == 1
        await world.until(lambda: len(world.desk.live) == 0)
    assert text.startswith("retry: ")
    assert list(events(text, "beat"))
    assert "bob" not in text


@pytest.mark.parametrize(
    ("user", "headers", "code"),
    [
        (None, {}, 403),
        ({"name": "alice"}, {"Sec-Fetch-Site": "cross-site"}, 403),
        ({"name": "alice"}, {"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_strangers_and_other_sites_pages_hear_nothing(
    world: World, log_in: Any, user: Any, headers: dict[str, str], code: int
) -> None:
    log_in(user)
    async with world.running():
        request = world.http.fetch(
            f"{world.url}events/gpus", headers=headers, raise_error=False, follow_redirects=False
        )
        assert (await request).code == code
        assert len(world.desk.live) == 0


async def test_one_user_can_not_use_up_all_streams(
    world: World, log_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_OF_USER", 2)
    async with world.running():
        for _ in range(2):
            Page(world, "mallory", Counting().topic)
        log_in({"name": "mallory"})
        assert (await world.fetch("events/gpus", token=None)).code == 503
        assert not world.desk.live.full(Viewer(name="alice"))
