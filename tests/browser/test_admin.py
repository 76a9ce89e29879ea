"""What an admin sees: the Hub's own admin page, and the scheduler's page."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from deploy.quickstart.trial import wait_for

from .conftest import running


def test_the_admin_page_shows_user_profile_and_server_and_stops_it(hub, visit):
    running(hub, "dave", "gpu")
    admin = visit("admin")
    admin.login(hub, admin=True)
    page = admin.page
    admin.go("/hub/admin")
    row = page.locator("tr.user-row", has_text="dave")
    expect(row.get_by_role("button", name="Stop Server")).to_be_visible()
    expect(row.locator("td").nth(4)).to_have_text("gpu")
    admin.picture("admin", height=600)
    row.get_by_role("button", name="Stop Server").click()
    expect(row.get_by_role("button", name="Start Server")).to_be_visible()
    wait_for("a free GPU", 20, lambda: not hub.busy())


def test_the_gpus_page_shows_devices_and_to_each_user_the_own_lease(hub, visit):
    running(hub, "erin", "gpu2")
    erin, frank, admin = visit("erin"), visit("frank"), visit("admin")
    erin.login(hub)
    frank.login(hub)
    frank.start("One GPU")
    expect(frank.page.locator("#progress-message")).to_contain_text("position 1")

    erin.go("/hub/home")
    erin.page.get_by_role("button", name="Services").click()
    erin.page.get_by_role("link", name="gpus").click()
    devices = erin.page.locator("#devices tbody tr")
    expect(devices).to_have_count(2)
    for k in range(2):
        expect(devices.nth(k)).to_contain_text("SIMULATED")
        expect(devices.nth(k)).to_contain_text("in use")
    expect(erin.page.locator(".gpus-server")).to_have_text(
        re.compile(r"erin.*0: .*1: .*gpu2.*4 GiB", re.DOTALL)
    )
    expect(erin.page.locator("#queue tbody tr")).to_have_count(1)
    assert "frank" not in erin.text()
    erin.picture("gpus-page")
    assert erin.complaints == []

    frank.go("/services/gpus/")
    expect(frank.page.locator(".gpus-waits")).to_contain_text("frank")
    assert "erin" not in frank.text()

    admin.login(hub, admin=True)
    admin.go("/services/gpus/")
    expect(admin.page.locator("#servers")).to_contain_text("erin")
    expect(admin.page.locator("#queue")).to_contain_text("frank")
    admin.picture("gpus-page-admin")
