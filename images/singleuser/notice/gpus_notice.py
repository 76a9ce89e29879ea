"""What the Hub says is to become of this server, for the JupyterLab that it serves.

A Jupyter Server extension. The Hub tells with ``PUT gpus/notice`` what will happen, again and
again while that is a stop; it gets its answer late, at once when the user presses *Keep it*.
JupyterLab asks ``GET gpus/notice``, and keeps with ``POST gpus/keep``, which answers what the
Hub said then. Nobody else is asked. What the Hub does not say again is forgotten.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError, authenticated

#: seconds for which an answer to the Hub is held back, and after which a warning is forgotten
HELD, FRESH = 20.0, 120.0
#: seconds a click on *Keep it* waits for what comes of it
PATIENCE = 15.0
NOTHING: dict[str, Any] = {"stop_at": None, "idle": False, "kept_until": None}


class Notice:
    """What was told, and who waits for what."""

    def __init__(self) -> None:
        self._told = NOTHING
        self._at = -math.inf
        #: somebody pressed the button, and the Hub does not know it yet
        self._asked = asyncio.Event()
        #: set when the Hub has spoken after a click
        self._heard: set[asyncio.Event] = set()

    def now(self) -> dict[str, Any]:
        """What is to become of the server."""
        return self._told if time.monotonic() - self._at < FRESH else NOTHING

    async def tell(self, told: dict[str, Any]) -> bool:
        """Remember it; whether the user wants the server kept."""
        self._told, self._at = told, time.monotonic()
        if not self._asked.is_set():
            # its answer to a click
            for heard in self._heard:
                heard.set()
            if told["stop_at"] is None:
                return False
        await _happens(self._asked, HELD)
        asked = self._asked.is_set()
        self._asked.clear()
        return asked

    async def keep(self) -> bool:
        """Tell the Hub, and wait for its answer; whether there was one in time."""
        heard = asyncio.Event()
        self._heard.add(heard)
        self._asked.set()
        try:
            return await _happens(heard, PATIENCE)
        finally:
            self._heard.discard(heard)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True


def told(body: Any) -> dict[str, Any]:
    """What the Hub says, checked. ``ValueError``. Pure."""
    if not isinstance(body, dict):
        raise ValueError("no object")
    found = {name: body.get(name) for name in NOTHING}
    for name in ("stop_at", "kept_until"):
        value = found[name]
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError(f"{name} is no number of seconds")
    return {**found, "idle": found["idle"] is True}


class _Handler(APIHandler):
    # looking at a message is no use of the server
    _track_activity = False

    def initialize(self, notice: Notice) -> None:  # type: ignore[override]
        self.notice = notice


class NoticeHandler(_Handler):
    """``gpus/notice``."""

    @authenticated
    async def get(self) -> None:
        self.finish(json.dumps(self.notice.now()))

    @authenticated
    async def put(self) -> None:
        try:
            body = told(self.get_json_body())
        except ValueError as error:
            raise HTTPError(400, str(error)) from None
        self.finish(json.dumps({"keep": await self.notice.tell(body)}))


class KeepHandler(_Handler):
    """``gpus/keep``."""

    @authenticated
    async def post(self) -> None:
        answered = await self.notice.keep()
        self.finish(json.dumps({"answered": answered, **self.notice.now()}))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "gpus_notice"}]


def _load_jupyter_server_extension(app: Any) -> None:
    base, notice = app.web_app.settings["base_url"], Notice()
    routes = [("notice", NoticeHandler), ("keep", KeepHandler)]
    app.web_app.add_handlers(
        ".*$",
        [
            (url_path_join(base, "gpus", name), handler, {"notice": notice})
            for name, handler in routes
        ],
    )
