"""What an admin sees: the Hub's own admin page, and the scheduler's page."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from deploy.quickstart.trial import wait_for

from .conftest import PHONE, running


def test_the_hubs_admin_page_shows_profile_and_devices_leads_to_ours_and_stops(hub, visit):
    running(hub, "dave", "gpu")
    (device,) = hub.busy()
    index = device.rpartition("-")[2]
    admin = visit("admin")
    admin.login(hub, admin=True)
    page = admin.page
    admin.go("/hub/admin#/?state=active")
    row = page.locator("tr.user-row", has_text="dave")
    expect(row.get_by_role("button", name="Stop Server")).to_be_visible()
    expect(row.locator("td").nth(4)).to_have_text("gpu")
    held = row.locator(".gpus-held")
    expect(held).to_have_text(f"gpu: SIMULATED GPU {index} on testbed")
    admin.picture("hub-admin", height=400)
    # the Hub's own details of a server
    row.get_by_test_id("dave-collapse-button").click()
    details = page.get_by_test_id("dave-collapse")
    expect(details).to_contain_text(f"testbed: SIMULATED GPU {index} ({device})")
    admin.go("/hub/admin")
    expect(held).not_to_be_empty()
    row.get_by_role("button", name="Stop Server").click()
    expect(row.get_by_role("button", name="Start Server")).to_be_visible()
    expect(held).to_have_text("")
    wait_for("a free GPU", 60, lambda: not hub.busy())
    page.get_by_role("link", name="GPU administration").click()
    expect(page.get_by_role("heading", name="GPU administration")).to_be_visible()
    assert admin.complaints == []


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


#: as an input of that kind has it, and whether it is in the week after this one
TOMORROW = """
() => {
  const day = new Date(Date.now() + 864e5);
  return [day.toLocaleDateString("sv"), day.getDay() === 1];
}
"""


def act(page, text, confirm=None, **fields):
    """Press a button of the admin page and answer what it asks."""
    page.get_by_role("button", name=text, exact=True).first.click()
    if confirm is not None:
        dialog = page.get_by_role("dialog")
        for label, value in fields.items():
            dialog.get_by_label(re.compile(label)).fill(value)
        dialog.get_by_role("button", name=confirm, exact=True).click()


def usage_is_shown(page):
    """As table, chart and file."""
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#usage-body")).to_contain_text("olga")
    expect(page.locator("#usage-chart svg")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert "olga" in download.value.path().read_text()


def fits_a_phone(admin):
    """The page as it is, on another screen."""
    large = admin.page.viewport_size
    admin.page.set_viewport_size(PHONE["viewport"])
    admin.picture("phone-admin")
    assert admin.fits()
    admin.page.set_viewport_size(large)


def test_an_admin_sees_the_machines_live_and_acts_on_them(hub, visit):
    admin = visit("admin", viewport={"width": 1200, "height": 900})
    admin.login(hub, admin=True)
    page = admin.page
    admin.go("/services/gpus/")
    page.get_by_role("link", name="Administration").click()
    devices = page.locator(".gpus-device")
    expect(devices).to_have_count(2)
    expect(devices.first).to_contain_text("free")

    # a server that starts shows without a reload
    page.evaluate("window.mark = true")
    running(hub, "olga", "gpu")
    expect(devices.first).to_contain_text("olga")
    expect(page.locator("#servers-body")).to_contain_text("olga")
    assert page.evaluate("window.mark"), "the page was loaded anew"

    act(page, "Cordon: testbed, GPU 1", "Cordon", Why="the fan is loud")
    expect(devices.nth(1)).to_contain_text("cordoned by admin: the fan is loud")
    expect(page.locator("#audit-body")).to_contain_text("set cordoned by admin: the fan is loud")

    second = visit("pia")
    second.login(hub)
    second.start("One GPU")
    line = page.locator("#line-body tr", has_text="pia")
    expect(line).to_be_visible()
    act(page, "Priority: pia", "Set", Priority="7")
    expect(line).to_contain_text("7")

    page.get_by_role("button", name="Book GPUs").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("What for").fill("Exam <b>")
    dialog.get_by_label("GPUs").select_option(index=1)
    dialog.get_by_label("Groups").fill("big")
    day, monday = page.evaluate(TOMORROW)
    dialog.get_by_label("From").fill(f"{day}T10:00")
    dialog.get_by_label("To", exact=True).fill(f"{day}T12:00")
    dialog.get_by_role("button", name="Book", exact=True).click()
    expect(page.locator("#audit-body")).to_contain_text("booked 1 GPU for big by admin (Exam <b>)")
    if monday:
        page.get_by_role("button", name="Week after").click()
    expect(page.locator(".gpus-booking")).to_contain_text("Exam <b>")

    usage_is_shown(page)
    admin.picture("admin-gpus")
    assert admin.faults() == []
    assert admin.fits()
    fits_a_phone(admin)

    act(page, "Uncordon: testbed, GPU 1")
    expect(devices.nth(1)).not_to_contain_text("the fan is loud")
    act(page, "Remove: Exam <b>", "Remove")
    expect(page.locator(".gpus-booking")).to_have_count(0)
    act(page, "Evict: olga", "Evict", Message="the lab closes")
    expect(page.locator("#servers-body")).not_to_contain_text("olga")
    expect(page.locator("#audit-body")).to_contain_text("evicted by admin: the lab closes")


def test_who_is_no_admin_does_not_come_to_the_admin_page(hub, visit):
    user = visit("quinn")
    user.login(hub)
    assert user.go("/services/gpus/admin").status == 403
    user.go("/services/gpus/")
    expect(user.page.get_by_role("link", name="Administration")).to_have_count(0)


def test_a_groups_leader_sees_the_group_and_nobody_else(hub, visit):
    running(hub, "rosa", "gpu")
    running(hub, "ruth", "gpu")
    dora = visit("dora")
    dora.login(hub)
    page = dora.page
    dora.go("/services/gpus/")
    page.get_by_role("link", name="My groups").click()
    expect(page.get_by_role("heading", name="My groups")).to_be_visible()
    expect(page.locator("#servers-body tr")).to_have_count(1)
    expect(page.locator("#servers-body")).to_contain_text("rosa")
    expect(page.locator(".gpus-device[data-state=busy]")).to_have_count(2)
    group = page.locator("#groups-body tr")
    expect(group).to_have_count(1)
    expect(group).to_contain_text(re.compile(r"physics.*of 100", re.DOTALL))
    expect(group.get_by_role("progressbar", name="Budget of physics")).to_be_visible()
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#usage-body")).to_contain_text("rosa")
    dora.picture("my-groups")
    assert "ruth" not in dora.text()
    assert page.locator("button[data-act]").count() == 0
    # before axe, which writes styles into the page
    assert dora.complaints == []
    assert dora.faults() == []
