"""What a user does: log in, choose, wait in the queue, work, stop."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from deploy.quickstart.trial import wait_for

from .conftest import running
from .visitor import LAB


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
    expect(status).to_contain_text("Python 3 (ipykernel) | Idle", timeout=LAB)
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    page.keyboard.type("!ls /run/gpus")
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-OutputArea-output").first
    expect(output).to_have_text("SIMULATED-testbed-0")
    expect(page.get_by_text("official Jupyter news")).to_have_count(0)
    alice.picture("lab", height=480)


def tab_to(page, place):
    """Press Tab until it has the focus."""
    for _ in range(60):
        if place.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {place}")


def test_a_server_is_started_by_keyboard_alone(hub, visit):
    vera = visit("vera")
    vera.login(hub)
    page = vera.page
    vera.go("/hub/spawn/vera")
    one, two = (page.get_by_role("radio", name=name) for name in ("One GPU", "Two GPUs"))
    tab_to(page, one)
    page.keyboard.press("ArrowDown")
    expect(two).to_be_checked()
    page.keyboard.press("ArrowUp")
    expect(one).to_be_checked()
    length = page.get_by_label("How long do you need it?")
    tab_to(page, length)
    page.keyboard.press("ArrowUp")
    expect(length).to_have_value("1h")
    vera.picture("keyboard")
    tab_to(page, page.get_by_role("button", name="Start"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/user/vera/**", timeout=LAB)
    assert len(hub.busy()) == 1


#: a browser's notifications, which say what they were made with
NOTIFY = """
window.Notification = class {
  static permission = "default";
  static async requestPermission() { return (Notification.permission = "granted"); }
  constructor(title, options) { window.gpusTold(title, options.body); }
};
"""


def test_who_comes_second_sees_the_place_and_is_granted_when_the_first_stops(hub, visit):
    running(hub, "bob", "gpu2")
    first, second = visit("bob"), visit("carol")
    told = []
    second.context.expose_function("gpusTold", lambda *words: told.append(words))
    second.context.add_init_script(NOTIFY)
    first.login(hub)
    second.login(hub)
    second.open_form()
    expect(second.page.locator(".gpus-form")).to_contain_text(
        "0 of 2 free now: your server would wait"
    )
    second.start("One GPU")
    message = second.page.locator("#progress-message")
    expect(message).to_have_text(re.compile("position 1 in the queue: All suitable SIMULATED GPUs"))
    ask = second.page.get_by_role("button", name="Notify me when it starts")
    ask.click()
    expect(ask).to_have_count(0)
    first.stop_from_home()
    second.wait_for_lab()
    assert len(hub.busy()) == 1
    (index,) = (device.rpartition("-")[2] for device in hub.busy())
    what = f"Your server is granted: GPU {index} on testbed"
    assert told == [("Your server is starting", what)]


def test_who_waits_can_give_up_on_the_pending_page(hub, visit):
    running(hub, "laura", "gpu2")
    mallory = visit("mallory")
    mallory.login(hub)
    mallory.start("One GPU")
    expect(mallory.page.locator("#progress-message")).to_contain_text("position 1")
    mallory.page.get_by_role("button", name="Cancel the request").click()
    mallory.page.wait_for_url("**/hub/home")
    expect(mallory.page.locator("#start")).to_have_text(re.compile("Start"))
    wait_for("an empty queue", 60, lambda: hub.summary()["queue"] == 0)
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
