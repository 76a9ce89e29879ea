"""The user of a server that is to be stopped is told in JupyterLab, and may have it kept there."""

from __future__ import annotations

import re

import requests
from playwright.sync_api import expect

from deploy.quickstart.trial import wait_for

from .conftest import running


def test_the_user_of_an_idle_server_is_told_in_jupyterlab_and_keeps_it(hub, visit):
    running(hub, "nina", "gpu")
    nina = visit("nina")
    nina.login(hub)
    wait_for("the warning", 120, lambda: lease_of(hub)["stop_at"])
    nina.go("/user/nina/lab")
    nina.wait_for_lab()
    message = nina.page.locator(".Toastify__toast")
    expect(message).to_contain_text(
        re.compile(r"will be stopped at \d+:\d\d.* because nobody uses it"), timeout=60_000
    )
    nina.picture("notice")
    message.get_by_role("button", name="Keep it").click()
    kept = message.filter(has_text="This server is kept until")
    expect(kept).to_contain_text("used or not")
    lease = lease_of(hub)
    assert lease["stop_at"] is None and not lease["idle"]
    assert lease["kept_until"] > lease["granted_at"] + 7 * 3600
    expect(message.filter(has_text="will be stopped")).to_have_count(0)


def test_who_is_past_a_length_while_somebody_waits_is_told_in_jupyterlab(hub, visit):
    running(hub, "otto", "brief")
    otto = visit("otto")
    otto.login(hub)
    # the other GPU, and one who waits for one
    running(hub, "peter", "gpu")
    assert hub.person("quinn").ask({"profile": "gpu"}).status_code == 200
    wait_for("the warning", 120, lambda: lease_of(hub, "otto")["stop_at"])
    otto.go("/user/otto/lab")
    otto.wait_for_lab()
    message = otto.page.locator(".Toastify__toast")
    expect(message).to_contain_text(
        re.compile(r"will be stopped at \d+:\d\d.*: it is past its length, and others wait"),
    )
    # it can't be kept: that is the others' turn
    expect(message.get_by_role("button", name="Keep it")).to_have_count(0)
    # nobody waits any more: the message goes
    hub.person("quinn").cancel()
    expect(message.filter(has_text="will be stopped")).to_have_count(0)
    assert lease_of(hub, "otto")["stop_at"] is None


def lease_of(hub, name="nina"):
    """The lease of a user's server, as an admin's program sees it."""
    token = (hub.state / "gpus" / "service-token").read_text().strip()
    web = requests.Session()
    web.trust_env = False  # no proxy of this machine's
    answer = web.get(
        f"{hub.service}/api/leases", headers={"Authorization": f"token {token}"}, timeout=20
    )
    answer.raise_for_status()
    (lease,) = [one for one in answer.json()["items"] if one["server"] == name]
    return lease
