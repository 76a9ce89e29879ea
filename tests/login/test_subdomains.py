"""Each user's server at a host name of its own (GPUS_SUBDOMAINS), in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from deploy.quickstart.trial import Site, TrialHub, wait_for
from tests.browser.visitor import Visitor
from tests.hubs import run_hub

from .conftest import make_hub

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.fixture
def apart(engine: Any, docker_client: Any, stub_image: str) -> Iterator[TrialHub]:
    """A Hub with a password, and a host name for each user. Chromium finds all on loopback."""
    made = make_hub(engine, stub_image, Site(host="gpus.localhost"))
    made.more(GPUS_PUBLIC_URL=made.public, GPUS_SUBDOMAINS="yes")
    with run_hub(made, docker_client) as hub:
        yield hub


def test_a_server_is_at_a_host_name_of_its_own_and_the_page_of_gpus_still_works(
    apart: TrialHub, chromium: Browser, tmp_path: Path
) -> None:
    context = chromium.new_context(base_url=apart.public)
    ann = Visitor(context, "ann", tmp_path)
    ann.login(apart)
    ann.page.goto("/hub/spawn/ann?profile=gpu")
    ann.page.wait_for_url("**/user/ann/**", timeout=60_000)
    port = urlsplit(apart.public).port
    assert urlsplit(ann.page.url).netloc == f"ann.gpus.localhost:{port}"
    ann.page.goto("/hub/home")
    # the Hub's menu leaves the port out, which is right for a site's 443
    where = ann.page.locator("a.dropdown-item", has_text="gpus").get_attribute("href")
    assert where is not None and urlsplit(where).path == "/services/gpus/"
    ann.page.goto(f"http://{urlsplit(where).hostname}:{port}/services/gpus/")
    expect(ann.page.locator("body")).to_contain_text("SIMULATED")
    expect(ann.page.locator("body")).to_contain_text("ann")
    assert ann.complaints == []
    ann.page.get_by_role("link", name="Home").click()
    ann.page.wait_for_url(f"{apart.public}/hub/home")
    # the cookie of the Hub stays with the Hub
    names = {c["name"] for c in context.cookies(f"http://ann.gpus.localhost:{port}/")}
    assert "jupyterhub-hub-login" not in names
    ann.stop_from_home()
    wait_for("free GPUs", 60, lambda: not apart.busy())
    context.close()
