"""What a user does: log in, choose, wait in the queue, work, stop."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from deploy.quickstart.trial import wait_for

from .conftest import running


def test_from_the_login_page_to_a_cell_that_sees_its_gpu(hub, visit):
    alice = visit("alice")
    alice.login(hub)
    alice.open_form()
    page = alice.page
    cards = page.locator(".gpus-profile")
    expect(cards).to_have_count(3)
    one = cards.filter(has=page.get_by_role("radio", name="One GPU"))
    expect(one).to_contain_text("2 of 2 free now")
    expect(one).to_contain_text("SIMULATED")
    expect(one.get_by_label("How long do you need it?")).to_be_visible()
    alice.choose("No GPU")
    expect(one.get_by_label("How long do you need it?")).to_be_hidden()
    expect(page.get_by_text("does not wait for a GPU", exact=True)).to_be_visible()
    alice.choose("One GPU")
    alice.picture("spawn-form")
    assert alice.complaints == []
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#progress-log")).to_contain_text("Granted on testbed: SIMULATED GPU")
    alice.wait_for_lab()
    page.locator(".jp-LauncherCard[title*=Python]").first.click()
    # a cell that is run before the kernel is connected does nothing
    status = page.locator(".jp-StatusBar-Widget")
    expect(status).to_contain_text("Python 3 (ipykernel) | Idle", timeout=60_000)
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    page.keyboard.type("!ls /run/gpus")
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-OutputArea-output").first
    expect(output).to_have_text("SIMULATED-testbed-0", timeout=30_000)
    expect(page.get_by_text("official Jupyter news")).to_have_count(0)
    alice.picture("lab", height=480)


def test_who_comes_second_sees_the_place_and_is_granted_when_the_first_stops(hub, visit):
    running(hub, "bob", "gpu2")
    first, second = visit("bob"), visit("carol")
    first.login(hub)
    second.login(hub)
    second.open_form()
    expect(second.page.locator(".gpus-form")).to_contain_text(
        "0 of 2 free now: your server would wait"
    )
    second.start("One GPU")
    message = second.page.locator("#progress-message")
    expect(message).to_have_text(re.compile("position 1 in the queue: All suitable SIMULATED GPUs"))
    first.stop_from_home()
    second.wait_for_lab()
    assert len(hub.busy()) == 1


def test_who_waits_can_give_up_on_the_pending_page(hub, visit):
    running(hub, "laura", "gpu2")
    mallory = visit("mallory")
    mallory.login(hub)
    mallory.start("One GPU")
    expect(mallory.page.locator("#progress-message")).to_contain_text("position 1")
    mallory.page.get_by_role("button", name="Cancel the request").click()
    mallory.page.wait_for_url("**/hub/home", timeout=30_000)
    expect(mallory.page.locator("#start")).to_have_text(re.compile("Start"))
    wait_for("an empty queue", 30, lambda: hub.summary()["queue"] == 0)
    assert len(hub.busy()) == 2


def test_a_choice_that_can_never_start_is_refused_with_the_reason(hub, visit):
    grace = visit("grace")
    grace.login(hub)
    grace.open_form()
    expect(grace.page.locator(".gpus-form")).to_contain_text("only 2 of this kind here")
    # a link with the choice in it goes past the form
    grace.go("/hub/spawn/grace?profile=gpu8")
    why = "no node has 8 GPUs; the largest has 2"
    expect(grace.page.locator(".spawn-error-msg")).to_contain_text(why)
    grace.picture("refused")
    # who comes by the server's address reads it as well
    grace.go("/user/grace/")
    expect(grace.page.get_by_role("heading", name="Spawn failed")).to_be_visible()
    expect(grace.page.locator("body")).to_contain_text(why)
    grace.picture("failed-page")


def test_a_profile_that_is_not_for_the_user_is_refused_from_a_link_too(hub, visit):
    heidi = visit("heidi")
    heidi.login(hub)
    heidi.open_form()
    expect(heidi.page.get_by_text("Eight GPUs")).to_have_count(0)
    heidi.go("/hub/spawn/heidi?profile=gpu8")
    expect(heidi.page.locator(".spawn-error-msg")).to_contain_text("gpu8")
    heidi.picture("not-for-you")
