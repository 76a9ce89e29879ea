"""The admin page of 200 devices and 500 requests in headless Chromium: how soon it is there.

The service is the one of :mod:`.live_service`, in a process of its own.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.lib.live_pages import ARGUMENTS, Service

DEVICES, REQUESTS = 200, 500
#: seconds for anything that has to come
LIMIT = 60.0
#: what the page says of itself when all that it came with is on the screen
DRAWN = "() => performance.getEntriesByName('gpus-drawn')[0]?.startTime"
#: marks what is there, so that what is made anew is known; [devices, requests]
MARK = """
() => {
  const found = [".gpus-device", "#line-body tr"].map((what) => document.querySelectorAll(what));
  for (const rows of found) for (const row of rows) row.mark = true;
  window.changed = 0;
  new MutationObserver(() => (window.changed ||= Date.now())).observe(
    document.getElementById("map-body"), {subtree: true, childList: true, attributes: true});
  return found.map((rows) => rows.length);
}
"""
ANEW = """
() => [...document.querySelectorAll(".gpus-device, #line-body tr")].some((row) => !row.mark)
"""


def measure(chromium: str, loads: int = 5) -> dict[str, Any]:
    """Seconds from the click to the screen, and from a change to the screen."""
    from playwright.sync_api import sync_playwright

    drawn, told = [], []
    service = Service(f"--devices={DEVICES}", f"--waiting={REQUESTS}")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            for _ in range(loads):
                # nothing is in its cache
                context = browser.new_context(extra_http_headers={"X-User": "root"})
                page = context.new_page()
                page.goto(f"{service.url}admin")
                drawn.append(_until(page, DRAWN) / 1000)
                told.append(_change(service, page))
                context.close()
            browser.close()
    finally:
        service.close()
    return {
        "large_page_s": round(statistics.median(drawn), 3),
        "large_page_most_s": round(max(drawn), 3),
        "large_update_s": round(statistics.median(told), 3),
    }


def _change(service: Service, page: Any) -> float:
    """Seconds from a change to the screen. RuntimeError where rows are made anew for it."""
    if (found := page.evaluate(MARK)) != [DEVICES, REQUESTS]:
        raise RuntimeError(f"the page shows {found} devices and requests")
    # what its stream says at first is over
    page.wait_for_timeout(2000)
    page.evaluate("() => (window.changed = 0)")
    at = service.change()
    changed = _until(page, "() => window.changed") / 1000
    if page.evaluate(ANEW):
        raise RuntimeError("devices or requests that were there are made anew: that flickers")
    return changed - at


def _until(page: Any, script: str) -> float:
    """What a script gives as soon as it gives anything; the page's policy allows no other way."""
    until = time.monotonic() + LIMIT
    while not (found := page.evaluate(script)):
        if time.monotonic() > until:
            raise RuntimeError(f"not there after {LIMIT:g} s: {script}")
        page.wait_for_timeout(20)
    return float(found)
