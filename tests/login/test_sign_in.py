"""Signing in through an OpenID provider: who is let in, as whom, and what they may then."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import expect

from deploy.quickstart.trial import wait_for
from tests.browser.visitor import STEP
from tests.hub.conftest import tracebacks

#: what a request above the limit of a group is answered with
TOO_MANY = "You may hold fewer GPUs than the 2 you asked for."

# a loaded machine needs longer than Playwright's 5 s for a page of the provider's
expect.set_options(timeout=STEP)


def test_a_member_of_a_group_signs_in_and_starts_the_profile_of_the_group(hub, provider, somebody):
    ann = somebody("ann", "/lab/gpu")
    ann.sign_in()
    expect(ann.page).to_have_url(f"{hub.public}/hub/home")
    status, me = ann.api("GET", "/user")
    assert (status, me["name"], me["groups"], me["admin"]) == (200, "ann", ["research"], False)
    assert "Two GPUs" in ann.form()
    assert ann.api("POST", "/users/ann/server", {"profile": "gpu2"})[0] in (201, 202)
    wait_for("the server", 120, lambda: ann.api("GET", "/users/ann")[1]["servers"][""]["ready"])
    assert len(hub.busy()) == 2

    # her server and the page of GPUs are at host names of their own, where the Hub's cookie is not
    ann.go("/user/ann/")
    own = urlsplit(hub.public)._replace(netloc=f"ann.{urlsplit(hub.public).netloc}")
    assert ann.page.url.startswith(f"{own.geturl()}/user/ann/")
    cookies = ann.page.context.cookies(own.geturl())
    assert "jupyterhub-hub-login" not in {cookie["name"] for cookie in cookies}
    ann.go("/hub/home")
    # the Hub's menu leaves the port out, which is right for a site's 443
    link = ann.page.locator("a.dropdown-item", has_text="gpus").get_attribute("href")
    ann.go(f"https://{urlsplit(link).hostname}:{own.port}/services/gpus/")
    assert "SIMULATED" in ann.text() and "ann" in ann.text()
    home = ann.page.get_by_role("link", name="Home").get_attribute("href")
    assert home == f"{hub.public}/hub/home"

    # the group goes; what the Hub has stored of the last start opens nothing
    provider.knows("ann", "/lab/course")
    ann.go("/hub/home")
    assert ann.api("DELETE", "/users/ann/server")[0] in (202, 204)
    wait_for("the end of the server", 60, lambda: not hub.busy())
    ann.sign_in()
    assert ann.api("GET", "/user")[1]["groups"] == ["students"]
    status, answer = ann.api("POST", "/users/ann/server")
    assert status == 400
    assert answer["message"] == 'Profile "gpu2" is not open to your groups.'
    assert "Two GPUs" not in ann.form()


def test_who_is_not_in_the_group_of_a_profile_gets_it_by_no_door(hub, somebody):
    bob = somebody("bob", "/lab/course")
    bob.sign_in()
    form = bob.form()
    assert "One GPU" in form and "Two GPUs" not in form
    bob.go("/hub/spawn/bob?profile=gpu2")
    expect(bob.page.locator(".spawn-error-msg")).to_contain_text("is not open to your groups")
    status, answer = bob.api("POST", "/users/bob/server", {"profile": "gpu2"})
    assert status == 400
    assert answer["message"] == 'Profile "gpu2" is not open to your groups.'
    # and the limit of the group counts
    status, answer = bob.api("POST", "/users/bob/server", {"profile": "pair"})
    assert (status, answer["message"]) == (409, TOO_MANY)


def test_who_is_in_no_group_of_the_list_is_refused_and_gets_no_account(hub, somebody):
    eve = somebody("eve", "/lab/else")
    eve.sign_in()
    expect(eve.page.locator("h1")).to_contain_text("403")
    assert "this Hub does not let you in" in eve.text()
    head = somebody("head", "/lab/heads", "/lab/else")
    head.sign_in()
    assert head.api("GET", "/users/eve")[0] == 404


def test_a_new_group_counts_from_the_next_login_and_the_last_one_lost_ends_the_session(
    hub, provider, somebody
):
    carol = somebody("carol", "/lab/course")
    carol.sign_in()
    assert "Two GPUs" not in carol.form()
    provider.knows("carol", "/lab/gpu")
    carol.sign_in()
    assert "Two GPUs" in carol.form()
    # with a key the Hub asks again before a start, so that a lost group counts at once
    provider.knows("carol", "/lab/course")
    status, answer = carol.api("POST", "/users/carol/server", {"profile": "gpu2"})
    assert status == 400
    assert answer["message"] == 'Profile "gpu2" is not open to your groups.'
    # she opens the login again in the same browser, where she is still signed in
    provider.knows("carol")
    carol.go("/hub/oauth_login")
    expect(carol.page.locator("h1")).to_contain_text("403")
    carol.go("/hub/home")
    expect(carol.page.get_by_role("button", name="Sign in with the lab's login")).to_be_visible()


def test_admin_rights_come_and_go_with_a_group(hub, provider, somebody):
    fred = somebody("fred", "/lab/heads")
    fred.sign_in()
    _, me = fred.api("GET", "/user")
    assert (me["admin"], me["groups"]) == (True, ["heads", "research"])
    assert fred.go("/hub/admin").status == 200
    provider.knows("fred", "/lab/gpu")
    fred.sign_in()
    assert fred.api("GET", "/user")[1]["admin"] is False
    assert fred.go("/hub/admin").status == 403


def test_a_provider_that_is_away_is_a_readable_page_and_costs_nobody_anything(
    hub, provider, somebody
):
    gina, hans = somebody("gina", "/lab/course"), somebody("hans", "/lab/course")
    gina.sign_in()
    provider.stop()
    try:
        hans.go("/hub/oauth_login")
        expect(hans.page.locator("h1")).to_contain_text("503")
        assert "the lab's login does not answer, so nobody can sign in right now" in hans.text()
        # who is signed in goes on, with the groups that were known
        assert "One GPU" in gina.form()
        status, answer = gina.api("POST", "/users/gina/server", {"profile": "pair"})
        assert (status, answer["message"]) == (409, TOO_MANY)
    finally:
        provider.start()
    hans.sign_in()
    expect(hans.page).to_have_url(f"{hub.public}/hub/home")


def test_a_secret_that_the_provider_does_not_take_is_a_readable_page_and_mended_loses_nothing(
    hub, provider, somebody
):
    jan = somebody("jan", "/lab/course")
    right = provider.client_secret
    provider.stop()
    # renewed there, and not at the Hub
    provider.client_secret = "another-one-0123456789"
    provider.start()
    try:
        jan.sign_in()
        expect(jan.page.locator("h1")).to_contain_text("502")
        assert "the client id or secret of this Hub may be wrong" in jan.text()
    finally:
        provider.stop()
        provider.client_secret = right
        provider.start()
    jan.sign_in()
    expect(jan.page).to_have_url(f"{hub.public}/hub/home")


def test_who_gives_up_at_the_provider_reads_so(hub, somebody):
    ida = somebody("ida", "/lab/course")
    ida.go("/hub/oauth_login")
    ida.page.get_by_text("[ Cancel ]").click()
    expect(ida.page.locator("h1")).to_contain_text("400")
    assert "OAuth error: End-User aborted interaction" in ida.text()


def test_nothing_of_all_this_leaves_a_traceback_or_a_secret_in_the_log(hub, provider):
    log = hub.log()
    assert [text for text in tracebacks(hub) if "provider_login" in text] == []
    assert "Uncaught exception" not in log
    assert provider.client_secret not in log
