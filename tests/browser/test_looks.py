"""How the pages look on a phone and in the dark, and that no user text becomes markup."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .conftest import PHONE, running

#: a legal user name
EVIL = "<img src=x onerror=alert(1)>"

#: brightness 0 (black) to 255 of an element's text and of what is behind it
BRIGHTNESS = """
(selector) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  let element = document.querySelector(selector);
  const text = parse(getComputedStyle(element).color);
  let ground = [0, 0, 0, 0];
  for (; element && (ground.length === 4 && ground[3] === 0); element = element.parentElement)
    ground = parse(getComputedStyle(element).backgroundColor);
  const grey = (c) => 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2];
  return [grey(text), grey(ground)];
}
"""


def brightness(page, selector):
    """(text, ground) of an element, 0 = black, 255 = white."""
    return page.evaluate(BRIGHTNESS, selector)


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_each_page_of_a_user_fits_a_phone(hub, visit, language):
    running(hub, f"ilse-{language.lower()}", "gpu2")
    ivan = visit("ivan", locale=language, **PHONE)
    page = ivan.page
    ivan.login(hub)
    ivan.open_form()
    ivan.choose("Two GPUs")
    expect(page.locator("#gpus-models")).to_contain_text("0")
    ivan.picture(f"phone-form-{language}")
    assert ivan.fits(), "the form"
    ivan.start("One GPU")
    expect(page.locator("#gpus-position")).to_contain_text("1")
    page.locator("#gpus-change summary").click()
    ivan.picture(f"phone-waiting-{language}")
    assert ivan.fits(), "the waiting page"
    ivan.go("/services/gpus/")
    expect(page.locator("#devices")).to_be_visible()
    expect(page.locator(".gpus-waits")).to_be_visible()
    ivan.picture(f"phone-gpus-{language}")
    assert ivan.fits(), "my servers"
    ivan.go("/services/gpus/admin")
    expect(page.get_by_role("heading")).to_contain_text("403")
    assert ivan.fits(), "an error"


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_pages_follow_the_colours_of_the_system(hub, visit, scheme):
    judy = visit("judy", color_scheme=scheme)
    judy.login(hub)
    judy.open_form()
    judy.picture(f"{scheme}-form")
    pairs = [brightness(judy.page, s) for s in ("body", ".gpus-profile label", ".gpus-option")]
    judy.go("/services/gpus/")
    expect(judy.page.locator("#devices")).to_be_visible()
    judy.picture(f"{scheme}-gpus")
    pairs += [brightness(judy.page, s) for s in ("body", "h1", "#devices td", "nav a.nav-link")]
    for text, ground in pairs:
        assert (text > ground + 100) if scheme == "dark" else (text < ground - 100), pairs


def test_the_theme_chosen_at_the_hub_holds_on_the_gpus_page(hub, visit):
    kim = visit("kim")
    kim.login(hub)
    kim.page.locator("#dark-theme-toggle").click()
    kim.go("/services/gpus/")
    text, ground = brightness(kim.page, "h1")
    assert text > ground + 100


def test_a_user_name_with_markup_stays_text_everywhere(hub, visit):
    running(hub, "yuri", "gpu2")
    evil, admin = visit(EVIL), visit("admin")
    evil.login(hub)
    evil.start("One GPU")
    # it waits, so that the page stays
    expect(evil.page.locator("#gpus-position")).to_contain_text("position 1")
    evil.picture("markup-pending")
    assert evil.page.locator("img[src=x]").count() == 0
    evil.go("/services/gpus/")
    expect(evil.page.locator(".gpus-waits")).to_contain_text(EVIL)
    admin.login(hub, admin=True)
    for path in ("/hub/admin", "/services/gpus/", "/services/gpus/admin"):
        admin.go(path)
        expect(admin.page.get_by_text(EVIL).first).to_be_visible()
        assert admin.page.locator("img[src=x]").count() == 0
    assert evil.page.locator("img[src=x]").count() == 0
