"""A user called like a tag goes through every page in a real browser, and stays text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser.conftest import CHROMIUM_ARGUMENTS
from tests.browser.visitor import Visitor

EVIL = "<img src=x onerror=alert(1)>"
#: scripts of other forms, as the name of a server for people
SHOWN = "<svg onload=alert(2)></svg>"


@pytest.fixture(scope="module")
def open_browser(hub, tmp_path_factory) -> Iterator:
    """Opens a browser for a user."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    from playwright.sync_api import sync_playwright

    folder: Path = tmp_path_factory.mktemp("pictures")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM_ARGUMENTS)

        def open_for(name: str) -> Visitor:
            return Visitor(browser.new_context(base_url=hub.base), name, folder)

        yield open_for
        browser.close()


def harmless(visitor: Visitor, address: str) -> None:
    """No dialog was opened and no element was made of a name."""
    made = visitor.page.evaluate(
        "document.querySelectorAll('img[src=\"x\"], [onerror], svg[onload]').length"
    )
    assert made == 0, address
    assert visitor.alerts == [], address


def test_a_name_with_markup_stays_text_on_every_page(hub, open_browser):
    evil, admin = open_browser(EVIL), open_browser("admin")
    evil.login(hub)
    user = quote(EVIL, safe="")
    rogue = hub.person(EVIL)
    rogue.api("PUT", f"/users/{user}/servers/named", json={"display_name": SHOWN})
    # a profile of the form is refused by a text that repeats what was asked for
    pages = [
        "/hub/home",
        f"/hub/spawn/{user}",
        f"/hub/spawn/{user}/named",
        f"/hub/spawn/{user}?profile={user}",
        f"/hub/spawn/{user}?profile=plain&{user}={user}",
        f"/hub/spawn/{user}?profile=many",
        f"/hub/spawn/{user}?profile=choice&size={user}",
        f"/hub/spawn/{user}?profile=dies",
        f"/hub/spawn-pending/{user}",
        f"/hub/spawn/{user}",
        f"/user/{user}/lab",
        "/hub/token",
        "/services/gpus/",
        f"/services/gpus/{user}",
        f"/services/gpus/?{user}",
        f"/services/gpus/oauth_callback?error={user}",
        f"/hub/{user}",
        f"/hub/login?next={user}",
    ]
    for address in pages:
        evil.go(address)
        evil.page.wait_for_load_state("load")
        harmless(evil, address)
    # waiting, with the name in the queue and in the list of leases
    hub.person(EVIL).ask({"profile": "gpu"})
    evil.go(f"/hub/spawn-pending/{user}")
    harmless(evil, "pending")
    hub.person(EVIL).wait(limit=120)
    evil.go("/services/gpus/")
    assert EVIL in evil.text()
    harmless(evil, "GPUs")
    admin.login(hub, admin=True)
    for address in ("/hub/admin", "/services/gpus/", f"/hub/spawn/{user}"):
        admin.go(address)
        admin.page.wait_for_load_state("networkidle")
        harmless(admin, address)
    admin.go("/services/gpus/")
    assert EVIL in admin.text()
    blocked = [text for text in [*evil.complaints, *admin.complaints] if "Content Security" in text]
    assert blocked == [], "a page of ours breaks its own policy"
    hub.person(EVIL).stop()
