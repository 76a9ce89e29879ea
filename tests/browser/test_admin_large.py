"""The admin page of a large site: 200 devices and 500 requests, in Chromium.

The service, its scheduler and its pages are the real ones; the engine and the Hub's login are not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import jupyterhub._data
import pytest
from playwright.sync_api import Browser, expect
from tornado.web import StaticFileHandler

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import GPURequest, ServerKey
from jupyterhub_gpuspawner.service.hub_user import HubUser
from tests.unit.service_world import World, do_not_wait

from .visitor import Visitor

DEVICES, REQUESTS = 200, 500
ADMIN = {"name": "root", "kind": "user", "admin": True, "scopes": ["access:services!service=gpus"]}
#: counts what is added, removed and changed below the map and the line
WATCH = """
() => {
  window.changes = [];
  const watch = new MutationObserver((found) => window.changes.push(
    ...found.map((one) => one.target.closest?.("[data-key]")?.dataset.key ?? one.target.nodeName)));
  for (const id of ["map-body", "line-body"])
    watch.observe(document.getElementById(id), {childList: true, subtree: true, attributes: true});
  for (const one of document.querySelectorAll(".gpus-device, #line-body tr")) one.mark = true;
}
"""


class Site:
    """A service in a thread of its own: Playwright's loop has this one."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, simulate=DEVICES)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])

    def __enter__(self) -> Site:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)
        self._loop.close()

    async def _run(self) -> None:
        async with self.world.running():
            static = {"path": f"{jupyterhub._data.DATA_FILES_PATH}/static"}
            web: Any = self.world.server.request_callback
            web.add_handlers(".*", [("/hub/static/(.*)", StaticFileHandler, static)])
            self._ready.set()
            await self._end.wait()

    def do(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run it there."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(60)

    async def ask(self, number: int) -> None:
        assert self.world.desk.actor is not None
        await self.world.desk.actor.post(
            events.Submitted(
                entry_id=f"e{number}",
                key=ServerKey(hub="hub", user=f"user-{number:03d}"),
                request=GPURequest(count=DEVICES if number else 1),
                boot_id="boot-1",
            )
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    do_not_wait(monkeypatch)

    async def identify(self: HubUser) -> dict[str, Any]:
        return ADMIN

    monkeypatch.setattr(HubUser, "identify", identify)
    monkeypatch.setenv("JUPYTERHUB_OAUTH_ACCESS_SCOPES", '["access:services!service=gpus"]')
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "t" * 32)
    monkeypatch.setenv("JUPYTERHUB_CLIENT_ID", "service-gpus")
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/services/gpus/")
    with Site(tmp_path) as made:
        yield made


def test_only_what_has_changed_is_touched_on_a_full_page(
    site: Site, chromium: Browser, tmp_path: Path
) -> None:
    async def fill() -> None:
        for number in range(REQUESTS + 1):
            await site.ask(number)

    site.do(fill)
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="dark", locale="zh-CN"
    )
    root = Visitor(context, "root", tmp_path)
    page = root.page
    page.goto(f"{site.world.url}admin")
    expect(page.locator(".gpus-device")).to_have_count(DEVICES)
    expect(page.locator("#line-body tr")).to_have_count(REQUESTS)
    # what the benchmark of the pages reads, which says how soon that is
    drawn = page.evaluate("performance.getEntriesByName('gpus-drawn').length")
    assert drawn == 1
    expect(page.get_by_role("heading", name="GPU 管理")).to_be_visible()
    expect(page.locator("#audit-body tr")).to_have_count(1)
    root.picture("admin-large", height=900)
    assert root.faults() == []

    # somebody has a button under the finger while the page changes
    page.locator("#line-body tr button").nth(20).focus()
    page.evaluate(WATCH)
    first = page.locator(".gpus-device").nth(150).get_attribute("data-device")
    site.do(lambda: site.world.fetch(f"api/devices/{first}/admin", {"admin": "cordoned"}))
    expect(page.locator(".gpus-device").nth(150)).to_have_attribute("data-state", "kept")
    # what each request waits for may have changed with it, the machine's sums have; no more
    changed = set(page.evaluate("window.changes"))
    devices = {name for name in changed if name.startswith("SIMULATED")}
    assert devices == {first}
    kept = "[...document.querySelectorAll('.gpus-device, #line-body tr')].every((one) => one.mark)"
    assert page.evaluate(kept), "what was there was made anew"
    assert page.evaluate("document.activeElement.closest('tr') !== null"), "the focus was lost"
    assert root.alerts == []
    context.close()
