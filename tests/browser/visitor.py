"""A person at a browser: what they do, in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import axe_playwright_python
from playwright.sync_api import Error

from deploy.quickstart.trial import TrialHub

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Dialog

#: milliseconds for one step
STEP = 60_000
#: milliseconds for a server to be ready, and for JupyterLab to be there
LAB = 120_000


#: how Chromium says that it dropped what it was at because the machine's networks changed
_UNSTEADY = re.compile(
    "ERR_NETWORK_CHANGED|Failed to fetch|interrupted by another navigation|context was destroyed"
)


#: how a page says that a script of its did not come
_NO_SCRIPT = "requirejs.org/docs/errors.html#scripterror"
#: why it then is no fault of the page
_DROPPED = re.compile("ERR_NETWORK_CHANGED|ERR_ABORTED")


def steady(act: Callable[[], Any]) -> Any:
    """Do it again where Chromium gave up because a network came or went, as Docker's do."""
    for _ in range(5):
        try:
            return act()
        except Error as error:
            if not _UNSTEADY.search(str(error)):
                raise
    return act()


class Visitor:
    """One user with a browser context (cookies, storage) of their own.

    Parameters
    ----------
    context:
        Playwright's browser context, its base URL being the Hub's.
    name:
        User name.
    pictures:
        Folder for screenshots.
    """

    def __init__(self, context: BrowserContext, name: str, pictures: Path) -> None:
        self.context = context
        self.name = name
        self.page = context.new_page()
        self.page.set_default_timeout(STEP)
        #: texts of the dialog boxes that a page opened; must stay empty
        self.alerts: list[str] = []
        self._errors: list[str] = []
        #: whether Chromium dropped a request because the machine's networks or the page changed
        self._dropped = False
        self.page.on("dialog", self._dismiss)
        self.page.on("pageerror", lambda error: self._errors.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("requestfailed", self._failed)
        self._pictures = pictures

    def _dismiss(self, dialog: Dialog) -> None:
        if dialog.type == "beforeunload":
            dialog.accept()
            return
        self.alerts.append(dialog.message)
        dialog.dismiss()

    def _hear(self, message: Any) -> None:
        # not what the machine's networks did, which come and go with others' containers
        if message.type == "error" and "ERR_NETWORK_CHANGED" not in message.text:
            self._errors.append(message.text)

    def _failed(self, request: Any) -> None:
        self._dropped = self._dropped or bool(_DROPPED.search(request.failure or ""))

    @property
    def complaints(self) -> list[str]:
        """Errors on the browser's console: failed scripts, what a policy blocked."""
        return [text for text in self._errors if not (self._dropped and _NO_SCRIPT in text)]

    # -- steps -----------------------------------------------------------------------------

    def go(self, path: str) -> Any:
        """Open a page; the answer."""
        return steady(lambda: self.page.goto(path))

    def login(self, hub: TrialHub, admin: bool = False) -> None:
        """Log in through the login page, and arrive at the Hub's home."""
        self.go("/hub/login?next=%2Fhub%2Fhome")
        self.page.get_by_label("Username:").fill(self.name)
        self.page.locator("#password_input").fill(hub.admin_password if admin else hub.password)
        self.page.locator("#login_submit").click()
        self.page.wait_for_url("**/hub/home")

    def open_form(self) -> None:
        """The spawn form."""
        self.go(f"/hub/spawn/{quote(self.name, safe='')}")
        self.page.locator("#spawn_form").wait_for()

    def choose(self, profile: str) -> None:
        """Choose a profile by its title: a click anywhere on its card."""
        radio = self.page.get_by_role("radio", name=profile)
        self.page.locator(f"label[for={radio.get_attribute('id')}]").click()
        assert radio.is_checked(), f"a click on the card does not choose {profile}"

    def start(self, profile: str) -> None:
        """From the form to the pending page."""
        self.open_form()
        self.choose(profile)
        self.page.get_by_role("button", name="Start").click()

    def wait_for_lab(self) -> None:
        """Wait until JupyterLab shows its launcher."""
        self.page.wait_for_url("**/lab**", timeout=LAB)
        self.page.locator(".jp-Launcher-body").wait_for(timeout=LAB)

    def stop_from_home(self) -> None:
        """The button on the Hub's home page."""
        self.go("/hub/home")
        self.page.locator("#stop").click()
        self.page.locator("#stop").wait_for(state="hidden")

    # -- looking -----------------------------------------------------------------------------

    def picture(self, name: str, height: int | None = None) -> Path:
        """A screenshot: the upper ``height`` pixels, else the whole page."""
        path = self._pictures / f"{name}.png"
        width = self.page.viewport_size["width"] if self.page.viewport_size else 0
        clip = {"x": 0, "y": 0, "width": width, "height": height} if height else None
        self.page.screenshot(
            path=path, clip=clip, full_page=clip is None, animations="disabled", caret="hide"
        )
        return path

    def text(self) -> str:
        """What the page shows, without markup."""
        return self.page.locator("body").inner_text()

    def fits(self) -> bool:
        """Whether the page is not wider than the window."""
        wide = "document.scrollingElement.scrollWidth <= window.innerWidth"
        return bool(self.page.evaluate(wide))

    def faults(self, only: str | None = None) -> list[str]:
        """What keeps people with a screen reader or weak eyes out, as axe-core sees it.

        ``only``: inside of it; the Hub's own frame around our parts is not ours.
        """
        folder = Path(axe_playwright_python.__file__).parent
        self.page.evaluate((folder / "axe.min.js").read_text(encoding="utf-8"))
        run = "(only) => axe.run(only || document, {resultTypes: ['violations']})"
        found = self.page.evaluate(run, only)
        return [
            f"{one['impact']} {one['id']}: {node['html'][:200]}: {node['failureSummary'][:300]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    def describe(self) -> str:
        """For the report of a failed test."""
        try:
            path = self.picture(f"failed-{abs(hash(self.name))}")
            return f"{self.page.url}\n{self.text()}\n(picture: {path})\n{self._errors}"
        except Exception as error:  # noqa: BLE001 (must not hide the failure itself)
            return f"{self.page.url}: {error}"
