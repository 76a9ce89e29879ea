"""What all pages share: who looks, in which language, the frame, the files.

A page is a template on ``base.html``, which has the Hub's look. It is complete without a script;
``live.js`` replaces parts of it as the stream of its page brings them (:mod:`.stream`). The
policy lets no script run but those that have the page's nonce.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from .. import __version__, i18n, units
from .access import Caller, caller_of
from .headers import protect
from .hub_user import HubUser
from .options import PREFIX
from .page_data import Viewer
from .words import clock_time

if TYPE_CHECKING:
    from .desk import Desk

HERE = Path(__file__).parent
#: seconds a page waits for the state: a hanging disk must not hang the page
READ_LIMIT = 5.0
#: where a row of a table goes on in the next line
IN_A_ROW = re.compile("\n(?=<td|</td>|</tr>)")
templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
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

    @property
    def words(self) -> i18n.Words:
        """The texts in the language of the site, or of the browser."""
        return i18n.choose(self.request.headers.get("Accept-Language", ""), self.desk.language)

    async def need_viewer(self) -> Viewer | None:
        """Who looks; None where the browser was sent to the login. 403 for what only reads."""
        user = await self.identify()
        if user is None:
            if self.request.method != "GET":
                raise HTTPError(403)
            self.redirect(self.get_login_url())
            return None
        return self.caller_of(user).viewer

    def caller_of(self, user: dict[str, Any]) -> Caller:
        """What somebody with a session may do. 403 for who may not come here."""
        caller = caller_of(user, self.hub_auth.access_scopes, token=False)
        if caller is None:
            raise HTTPError(403)
        return caller

    def show(self, name: str, viewer: Viewer, **values: Any) -> None:
        """Answer with a page for somebody who is logged in."""
        self.set_header("Vary", "Accept-Language")
        xsrf = self.xsrf_token.decode()
        status = self.desk.status()
        self.finish(
            render(
                name,
                nonce=self.nonce,
                words=self.words,
                viewer=viewer,
                xsrf=xsrf,
                status=status,
                **values,
            )
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        title = f"{status_code} {self._reason}"
        self.finish(render("error.html", nonce=self.nonce, words=self.words, title=title))


class Files(StaticFileHandler):
    """Style sheet and scripts. Not private, so a browser may keep them."""

    def set_default_headers(self) -> None:
        protect(self)

    def set_extra_headers(self, path: str) -> None:
        # a script must be as new as the page that it belongs to
        keep = "public, max-age=300" if path.endswith(".css") else "no-cache"
        self.set_header("Cache-Control", keep)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.set_header("Content-Type", "text/plain")
        self.finish(f"{status_code}")


def part(name: str, words: i18n.Words, **values: Any) -> str:
    """A part of a page, ``templates/parts/NAME.html``: in the page at first, then by the stream."""
    html = templates.get_template(f"parts/{name}.html").render(
        _=words,
        many=words.many,
        length=lambda seconds: spell(words, seconds),
        prefix=_prefix(),
        **values,
    )
    # It goes to every open page: without the template's indentation it is half as long. A row of a
    # table is one line, so that what has changed can be told by lines.
    lines = "\n".join(filter(None, map(str.strip, html.splitlines())))
    return IN_A_ROW.sub("", lines)


def spell(words: i18n.Words, seconds: float) -> str:
    """A length of time in words, such as ``4 h``."""
    number, _, unit = units.format_duration(seconds).partition(" ")
    return words(f"{{n}} {unit}", n=number)


def render(name: str, *, nonce: str, words: i18n.Words | None = None, **values: Any) -> str:
    """A page of ours, on the Hub's style sheet. ``nonce``: the one in the page's policy."""
    words = words or i18n.words_of(i18n.ENGLISH)
    base = os.environ.get("JUPYTERHUB_BASE_URL", "/")
    # Its files come by this page's own host, which is all that the policy allows. Its pages are at
    # the Hub's, which is another where services have host names of their own.
    hub_url = f"{base}hub/"
    hub_pages = os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL") or hub_url
    return templates.get_template(name).render(
        hub_url=hub_url,
        hub_pages=hub_pages,
        prefix=_prefix(),
        version=__version__,
        nonce=nonce,
        _=words,
        many=words.many,
        lang=words.tag,
        words_json=script_data(words.catalogue),
        **values,
    )


def script_data(value: Any) -> Markup:
    """JSON in a ``<script type="application/json">``: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # every character that means something in HTML is written as \\u


def _prefix() -> str:
    return os.environ.get("JUPYTERHUB_SERVICE_PREFIX", PREFIX)
