"""What users see while they choose, wait and work: by keyboard, screen reader, in two languages."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import expect

from deploy.quickstart.trial import wait_for

from .conftest import PHONE, running, stopped
from .visitor import LAB

EVIL = "<img src=x onerror=alert(2)>"


def position(visitor: Any) -> Any:
    return visitor.page.locator("#gpus-position")


def test_who_waits_sees_the_place_changes_the_request_and_keeps_it(hub, visit):
    running(hub, "uma", "gpu2")
    quinn, wanda, uma = visit("quinn"), visit("wanda"), visit("uma")
    for one in (quinn, wanda, uma):
        one.login(hub)
    quinn.start("Two GPUs")
    expect(position(quinn)).to_have_text("Waiting for a GPU: position 1")
    wanda.start("One GPU")
    expect(position(wanda)).to_have_text("Waiting for a GPU: position 2")
    card = wanda.page.locator("#gpus-waiting")
    expect(card).to_contain_text("1 request is ahead of yours (of 1 other user, for 2 GPUs)")
    expect(card).to_contain_text("GPUs are in use")
    expect(card.locator("#gpus-expected")).to_contain_text(re.compile("expected to start at"))
    wanda.picture("waiting", height=640)
    assert wanda.faults("#gpus-waiting") == []
    assert "quinn" not in wanda.text() and "uma" not in wanda.text()

    # asks for less: keeps the place
    quinn.page.locator("#gpus-change summary").click()
    quinn.choose("One GPU")
    quinn.picture("waiting-change")
    quinn.page.get_by_role("button", name="Ask for this instead").click()
    wait_for("the change", 60, lambda: line(hub) == [("quinn", 1), ("wanda", 1)])
    expect(quinn.page.locator("#gpus-change")).not_to_have_attribute("open", "")
    expect(position(quinn)).to_have_text("Waiting for a GPU: position 1")
    expect(position(wanda)).to_have_text("Waiting for a GPU: position 2")

    # a closed tab loses nothing
    quinn.go("about:blank")
    quinn.go("/hub/spawn-pending/quinn")
    expect(position(quinn)).to_have_text("Waiting for a GPU: position 1")

    wanda.page.get_by_role("button", name="Cancel the request").click()
    wanda.page.wait_for_url("**/hub/home")

    # the first one stops from "My servers", and the next one is there
    uma.go("/services/gpus/")
    stop = uma.page.locator(".gpus-server form[action*='/stop/'] button")
    stop.click()
    expect(stop).to_contain_text("Stop the server?")
    stop.click()
    expect(uma.page.locator(".gpus-server")).to_have_count(0)
    expect(uma.page.locator("#ended")).to_contain_text("The server was stopped.")
    quinn.page.wait_for_url("**/user/quinn/**", timeout=LAB)
    assert uma.complaints == []


def test_after_a_restart_of_the_hub_the_waiting_page_is_back_with_the_same_place(hub, visit):
    running(hub, "tess", "gpu2")
    first, second = visit("theo"), visit("una")
    for place, one in enumerate((first, second), start=1):
        one.login(hub)
        one.start("One GPU")
        expect(position(one)).to_have_text(f"Waiting for a GPU: position {place}")
    hub.kill()
    hub.start()
    # each is put in line again by the scheduler; nobody touches a page
    wait_for("the line", 120, lambda: line(hub) == [("theo", 1), ("una", 1)])
    stopped(hub, "tess")
    for one in (first, second):
        one.page.wait_for_url("**/user/**", timeout=LAB)


def line(hub: Any) -> list[tuple[str, int]]:
    """(server, GPUs) of who waits, in order, as an admin sees it."""
    admin = hub.person("admin", admin=True)
    admin.page("/services/gpus/")  # logs in there
    rows = json.loads(admin.page("/services/gpus/api/queue"))["items"]
    return [(row["server"], row["gpus"]) for row in rows]


def test_a_named_server_that_waits_is_cancelled_and_the_default_one_lives(hub, visit):
    running(hub, "yann", "cpu")
    running(hub, "xena", "gpu2")
    yann = visit("yann")
    yann.login(hub)
    yann.go("/hub/spawn/yann/torch")
    yann.choose("One GPU")
    yann.page.get_by_role("button", name="Start").click()
    expect(position(yann)).to_have_text("Waiting for a GPU: position 1")
    yann.page.get_by_role("button", name="Cancel the request").click()
    yann.page.wait_for_url("**/hub/home")
    wait_for("an empty queue", 60, lambda: hub.summary()["queue"] == 0)
    servers = hub.person("yann").api("GET", "/users/yann").json()["servers"]
    assert servers[""]["ready"]


def test_the_form_is_live_and_says_why_a_choice_can_not_be_had(hub, visit):
    nora = visit("nora")
    nora.login(hub)
    page = nora.page
    # the first login at the service gets lost; the page tries it again
    page.route("**/services/gpus/hello", lambda route: route.abort(), times=1)
    nora.open_form()
    one = page.locator(".gpus-profile").filter(has=page.get_by_role("radio", name="One GPU"))
    expect(one).to_contain_text("2 of 2 free now")
    nora.page.evaluate("window.still = true")
    running(hub, "omar", "gpu2")
    expect(one.locator(".gpus-outlook")).to_contain_text("0 of 2 free now")
    expect(one.locator(".gpus-outlook")).to_contain_text("expected at")
    expect(page.locator("#gpus-models")).to_contain_text("0 of 2")
    assert page.evaluate("window.still") is True
    nora.choose("One GPU")
    expect(page.locator(".gpus-chosen")).to_contain_text("your server would wait")
    nora.picture("spawn-form")
    assert nora.faults(".gpus-form") == []
    assert "omar" not in nora.text()


def test_my_servers_are_shown_live_and_accessible(hub, visit):
    zoe = visit("zoe")
    zoe.login(hub)
    zoe.go("/services/gpus/")
    expect(zoe.page.get_by_text("You have no server with us now.")).to_be_visible()
    # what is going on elsewhere arrives without a reload
    zoe.page.evaluate("window.still = true")
    running(hub, "zoe", "gpu")
    card = zoe.page.locator(".gpus-server")
    expect(card).to_contain_text("SIMULATED")
    expect(card.get_by_text("running")).to_be_visible(timeout=30_000)
    expect(card).to_contain_text("of memory")
    expect(card.get_by_role("img", name="Memory:")).to_be_visible(timeout=15_000)
    # four hours are charged at the grant
    budget = zoe.page.get_by_role("progressbar", name="Used of the budget")
    expect(budget).to_be_visible()
    assert float(budget.get_attribute("value")) == pytest.approx(4, abs=0.1)
    expect(zoe.page.locator("#use")).to_contain_text(re.compile(r"4(\.\d+)? of your 20 GPU hours"))
    expect(zoe.page.locator("#devices [data-state=busy]")).to_have_count(1)
    assert zoe.page.evaluate("window.still") is True
    zoe.picture("my-servers")
    # before axe, which writes styles into the page
    assert zoe.complaints == []
    assert zoe.faults() == []
    # by keyboard alone: the first stop is the way past the navigation
    zoe.page.keyboard.press("Tab")
    expect(zoe.page.get_by_role("link", name="Skip to the content")).to_be_focused()
    # for longer, which the page shows without a reload; that the link goes moves no button away
    left = card.locator("time[data-until]")
    before = float(left.get_attribute("data-until"))
    card.get_by_role("button", name="Keep it for 4 h from now").click()
    wait_for("a later end", 60, lambda: float(left.get_attribute("data-until")) > before)
    assert zoe.page.evaluate("window.still") is True


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_in_chinese_on_a_phone(hub, visit, scheme):
    lin = visit("lin", locale="zh-CN", color_scheme=scheme, **PHONE)
    lin.login(hub)
    running(hub, "lin", "gpu")
    lin.go("/services/gpus/")
    expect(lin.page.get_by_role("heading", name="我的服务器")).to_be_visible()
    expect(lin.page.locator(".gpus-server")).to_contain_text("剩余时间")
    lin.picture(f"phone-chinese-{scheme}")
    assert lin.fits()
    assert lin.faults() == []


def test_markup_in_a_name_stays_text_while_pages_change(hub, visit):
    evil = visit(EVIL)
    evil.login(hub)
    evil.go("/services/gpus/")
    running(hub, EVIL, "gpu")
    expect(evil.page.locator(".gpus-server")).to_contain_text(EVIL)
    assert evil.page.locator("img[src=x]").count() == 0
    assert evil.complaints == []
