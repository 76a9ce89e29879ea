"""The page at ``/services/gpus/``, and ``/metrics``. For people and programs known to the Hub.

Its one form has a server kept that nobody uses. The one script is the Hub's own
switch between light and dark; it has a nonce, so that nothing else of the Hub's address runs.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jupyterhub.services.auth import HubOAuthCallbackHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from .. import __version__, units
from ..errors import LedgerError, RefusedError
from ..scheduler import events
from .headers import protect
from .hub_user import HubUser, need_hub
from .openapi import ID
from .options import PREFIX
from .page_data import Viewer, page_data
from .web import bearer, has_token
from .words import clock_time

if TYPE_CHECKING:
    from ..scheduler.state import SchedulerState
    from .desk import Desk

HERE = Path(__file__).parent
#: seconds the page waits for the state: a hanging disk must not hang the page
READ_LIMIT = 5.0
#: seconds between two reloads of the page
RELOAD = 10
templates = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
)
templates.filters["memory"] = units.format_memory
templates.filters["duration"] = units.format_duration
templates.filters["clock_time"] = clock_time


class HubPage(HubUser, RequestHandler):
    """A page that knows its user."""

    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def set_default_headers(self) -> None:
        self.nonce = secrets.token_urlsafe(16)
        protect(self, self.nonce)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        title = f"{status_code} {self._reason}"
        self.finish(render("error.html", nonce=self.nonce, title=title))


class GPUsPage(HubPage):
    """Devices, leases and the queue."""

    async def get(self) -> None:
        user = await self.identify()
        if user is None:
            self.redirect(self.get_login_url())
            return
        viewer = Viewer(name=str(user["name"]), admin=bool(user.get("admin")))
        status = self.desk.status()
        data = None
        # where this fails the page says the phase and the reason
        with suppress(LedgerError, asyncio.TimeoutError):
            data = await asyncio.wait_for(self.desk.show(viewer, page_data), READ_LIMIT)
        # only where there is a form: it sets a cookie
        may_keep = data is not None and any(lease["idle"] for lease in data["leases"])
        xsrf = self.xsrf_token.decode() if may_keep else ""
        values = {"viewer": viewer, "xsrf": xsrf, "status": status, "data": data, "reload": RELOAD}
        self.finish(render("gpus.html", nonce=self.nonce, **values))


class KeepPage(HubPage):
    """The button *Keep it*: leaves a server alone for a while although nobody uses it."""

    async def post(self, lease: str) -> None:
        # also looks at the XSRF token of the form
        user = await self.identify()
        if user is None:
            raise HTTPError(403)
        viewer = Viewer(name=str(user["name"]), admin=bool(user.get("admin")))

        def owned(state: SchedulerState) -> bool:
            found = state.tables.leases.get(lease)
            return found is not None and viewer.owns(found.key)

        with suppress(LedgerError, RefusedError, asyncio.TimeoutError):
            if await asyncio.wait_for(self.desk.read(owned), READ_LIMIT):
                await asyncio.wait_for(self.desk.post(events.KeepAsked(lease_id=lease)), READ_LIMIT)
        # the page says how it is now, whatever became of it
        self.redirect(os.environ.get("JUPYTERHUB_SERVICE_PREFIX", PREFIX), status=303)


class MetricsPage(HubPage):
    """Prometheus' text. For the service token, admins, and tokens with ``read:metrics``."""

    async def get(self) -> None:
        if not has_token(self, self.desk.token) and not await self._may_read():
            raise HTTPError(403)
        metrics = self.desk.metrics
        metrics.up.set(self.desk.status().reason is None)
        try:
            now, waiters = self.desk.now(), len(self.desk.waiters)
            measure: Callable[[Any], None] = lambda state: metrics.measure(  # noqa: E731
                state, waiters, now
            )
            await asyncio.wait_for(self.desk.read(measure), READ_LIMIT)
        except (LedgerError, asyncio.TimeoutError):
            pass  # the counters are right all the same
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(metrics.registry))

    async def _may_read(self) -> bool:
        token = bearer(self)
        if not token:
            user = await self.identify()
            return user is not None and bool(user.get("admin"))
        # A token counts by its own scopes, not by its owner's rights; and one for metrics needs
        # no right to open the pages.
        owner = await self.of_token(token)
        return owner is not None and "read:metrics" in owner.get("scopes", ())


class Callback(HubOAuthCallbackHandler):
    """The end of the login at the Hub."""

    def set_default_headers(self) -> None:
        protect(self)

    async def prepare(self) -> None:
        need_hub()
        await self.hub_auth.get_user(self, sync=False)


class Style(StaticFileHandler):
    """The style sheet. Not private, so a browser may keep it."""

    def set_default_headers(self) -> None:
        protect(self)

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "public, max-age=300")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/plain")
        self.finish(f"{status_code}")


def render(name: str, *, nonce: str, **values: Any) -> str:
    """A page of ours, on the Hub's style sheet. ``nonce``: the one in the page's policy."""
    base = os.environ.get("JUPYTERHUB_BASE_URL", "/")
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX", PREFIX)
    # Its files come by this page's own host, which is all that the policy allows. Its pages are at
    # the Hub's, which is another where services have host names of their own.
    hub_url = f"{base}hub/"
    hub_pages = os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL") or hub_url
    return templates.get_template(name).render(
        hub_url=hub_url,
        hub_pages=hub_pages,
        prefix=prefix,
        version=__version__,
        nonce=nonce,
        **values,
    )


def routes(prefix: str, desk: Desk) -> list[Any]:
    """The routes under ``prefix``."""
    with_desk = {"desk": desk}
    return [
        (re.escape(prefix), GPUsPage, with_desk),
        (f"{prefix}keep/({ID})", KeepPage, with_desk),
        (f"{prefix}metrics", MetricsPage, with_desk),
        (f"{prefix}oauth_callback", Callback),
        (f"{prefix}static/(gpus\\.css)", Style, {"path": str(HERE / "static")}),
    ]
