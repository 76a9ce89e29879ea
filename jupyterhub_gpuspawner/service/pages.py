"""The pages for users below ``/services/gpus/``, and ``/metrics``."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jupyterhub.services.auth import HubOAuthCallbackHandler
from markupsafe import Markup
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from tornado.web import HTTPError

from ..errors import LedgerError, NotThereError, RefusedError
from ..i18n import Words, choose
from ..scheduler import events
from ..scheduler.models import Lease
from ..scheduler.state import SchedulerState
from . import admin_page, stream
from .headers import protect
from .hub_user import need_hub
from .live import Topic
from .mine import free, mine, standing, use
from .openapi import ID
from .options import PREFIX
from .page_data import View, Viewer, page_data
from .page_handlers import HERE, READ_LIMIT, Files, HubPage, part, render
from .web import bearer, has_token

if TYPE_CHECKING:
    from .desk import Desk

__all__ = ["HubPage", "render", "routes"]

#: seconds for a stop: longer than a call of the Hub may take, which answers when the server has
#: ended, or after ten
STOP_LIMIT = 40.0


def mine_data(view: View, words: Words) -> dict[str, Any]:
    """The viewer's own servers and requests, with the addresses of their pages."""
    data = mine(view, words)
    user, hub = view.viewer.name, view.once("hub", _hub_url)
    who = quote(user, safe="")
    for one in [*data["servers"], *data["waiting"], *data["ended"]]:
        name = quote(one["name"], safe="")
        one["server"] = f"{user}/{one['name']}" if one["name"] else user
        one["url"] = f"{hub.removesuffix('hub/')}user/{who}/{name}{'/' if name else ''}"
        one["pending_url"] = f"{hub}spawn-pending/{who}{'/' if name else ''}{name}"
    return {**data, "hub_pages": hub}


def _hub_url() -> str:
    base = os.environ.get("JUPYTERHUB_BASE_URL", "/")
    return os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL") or f"{base}hub/"


def mine_part(data: dict[str, Any], words: Words, xsrf: str = "") -> str:
    """The same as HTML."""
    return part("mine", words, **data, xsrf=xsrf)


def gpus_data(view: View, words: Words) -> dict[str, Any]:
    """All devices and the queue; whose they are only for admins."""
    return {**page_data(view), "viewer": view.viewer}


def gpus_part(data: dict[str, Any], words: Words) -> str:
    """The same as HTML."""
    return part("gpus", words, **data)


#: name of a page -> what its stream tells
STREAMS: dict[str, tuple[Topic, ...]] = {
    "form": (Topic(name="free", look=free), Topic(name="me", look=standing, own=True)),
    "waiting": (Topic(name="waiting", look=mine, own=True),),
    "gpus": (
        Topic(name="mine", look=mine_data, render=mine_part, own=True),
        Topic(name="gpus", look=gpus_data, render=gpus_part),
        Topic(name="use", look=use, own=True),
    ),
    "admin": admin_page.STREAM,
    "servers": admin_page.SERVERS,
}


class GPUsPage(HubPage):
    """My servers, and what there is."""

    async def get(self) -> None:
        viewer = await self.need_viewer()
        if viewer is None:
            return
        xsrf = self.xsrf_token.decode()

        def look(view: View) -> dict[str, Markup]:
            # the parts are templates of their own, which have escaped what is in them
            nobody = view.seen_by(Viewer(name="", admin=viewer.admin))
            return {
                "mine": Markup(mine_part(mine_data(view, self.words), self.words, xsrf)),
                "gpus": Markup(gpus_part(gpus_data(nobody, self.words), self.words)),
            }

        parts = None
        # where this fails the page says the phase and the reason
        with suppress(LedgerError, asyncio.TimeoutError):
            await asyncio.wait_for(self.desk.recall(viewer.name), READ_LIMIT)
            parts = await asyncio.wait_for(self.desk.show(viewer, look), READ_LIMIT)
        self.show("gpus.html", viewer, parts=parts)


class HelloPage(HubPage):
    """For our parts of the Hub's pages: who comes here is logged in at the service afterwards."""

    async def get(self) -> None:
        if await self.need_viewer() is not None:
            self.set_status(204)
            self.finish()


class WordsPage(HubPage):
    """The texts of the scripts, for our parts of the Hub's pages. Nobody's secret."""

    def get(self) -> None:
        language = self.desk.language or self.get_query_argument("language", "")
        words = choose(self.request.headers.get("Accept-Language", ""), language[:20])
        self.set_header("Vary", "Accept-Language")
        self.finish({"language": words.tag, "texts": words.catalogue})


class ActPage(HubPage):
    """A button of a page: keep, extend or stop a server, or cancel a request, of one's own."""

    async def post(self, what: str, name: str) -> None:
        # also looks at the XSRF token
        viewer = await self.need_viewer()
        assert viewer is not None, "a POST is not sent to the login"
        status, message = 200, ""
        limit = STOP_LIMIT if what == "stop" else READ_LIMIT
        try:
            await asyncio.wait_for(self._act(what, name, viewer), limit)
        except NotThereError as error:
            status, message = 404, error.user_message
        except RefusedError as error:
            status, message = 409, error.user_message
        except LedgerError as error:
            status, message = 503, error.user_message
        except asyncio.TimeoutError:
            status, message = 503, "The scheduler did not answer in time."
        if "json" in self.request.headers.get("Content-Type", ""):
            self.set_status(status)
            self.finish({"message": self.words(message)})
        else:
            # the page says how it is now, whatever became of it
            self.redirect(os.environ.get("JUPYTERHUB_SERVICE_PREFIX", PREFIX), status=303)

    async def _act(self, what: str, name: str, viewer: Viewer) -> None:
        if what == "cancel":
            entry = await self.desk.read(lambda state: state.tables.entries.get(name))
            if entry is None or not viewer.owns(entry.key):
                raise NotThereError("You have no such request in the queue.")
            await self.desk.cancel(name)
            return
        lease = await self.desk.read(lambda state: _own(state, name, viewer))
        if what == "stop":
            await self.desk.stop_server(lease)
        elif what == "extend":
            ends_at = self.desk.now() + (lease.request.length or 0.0)
            await self.desk.post(events.ExtensionAsked(lease_id=name, ends_at=ends_at))
        else:
            await self.desk.post(events.KeepAsked(lease_id=name))


def _own(state: SchedulerState, lease_id: str, viewer: Viewer) -> Lease:
    lease = state.tables.leases.get(lease_id)
    if lease is None or not viewer.owns(lease.key):
        raise NotThereError("You have no such server.")
    return lease


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


def routes(prefix: str, desk: Desk) -> list[Any]:
    """The routes under ``prefix``."""
    with_desk = {"desk": desk}
    return [
        (re.escape(prefix), GPUsPage, with_desk),
        (f"{prefix}admin", admin_page.AdminPage, with_desk),
        (f"{prefix}(cancel|extend|keep|stop)/({ID})", ActPage, with_desk),
        (f"{prefix}hello", HelloPage, with_desk),
        (f"{prefix}words", WordsPage, with_desk),
        *stream.routes(prefix, desk, STREAMS),
        (f"{prefix}metrics", MetricsPage, with_desk),
        (f"{prefix}oauth_callback", Callback),
        (f"{prefix}static/([a-z]+\\.(?:css|js))", Files, {"path": str(HERE / "static")}),
    ]
