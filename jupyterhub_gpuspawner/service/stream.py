"""Server-sent events for open pages: ``GET events/PAGE``. What they say is made in :mod:`.live`."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from ..errors import LedgerError
from . import waiting
from .live import Listener, Topic
from .page_handlers import HubPage

if TYPE_CHECKING:
    from .desk import Desk

#: seconds after which a page has to connect again: a session that has ended is noticed then
LIFE = 600.0
#: milliseconds until a browser connects again, at least and at most: not all at once
RETRY = (500, 3000)


class StreamHandler(HubPage):
    """The stream of one kind of page."""

    def initialize(self, desk: Desk, topics: tuple[Topic, ...]) -> None:  # type: ignore[override]
        super().initialize(desk)
        self._topics = topics
        self._gone = asyncio.Event()

    def check_xsrf_cookie(self) -> None:
        """It only reads, and another site's page can't read the answer."""

    async def get(self) -> None:
        """Send events until the page is closed."""
        if self.request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise HTTPError(403)
        user = await self.identify()
        if user is None:
            raise HTTPError(403)
        viewer = self.caller_of(user).viewer
        if any(topic.admin for topic in self._topics) and not viewer.leads:
            raise HTTPError(403)
        if self.desk.live.full(viewer):
            raise HTTPError(503, reason="Too many pages are open")
        with contextlib.suppress(LedgerError):
            await self.desk.recall(viewer.name)
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        # a proxy of nginx's kind would keep events back
        self.set_header("X-Accel-Buffering", "no")
        self.write(f"retry: {random.randint(*RETRY)}\n\n")
        with contextlib.suppress(StreamClosedError):
            await self.flush()
        listener = Listener(
            viewer=viewer, words=self.words, topics=self._topics, sink=_Sink(self.request)
        )
        self.desk.live.join(listener)
        try:
            await waiting.happens(self._gone, LIFE)
        finally:
            self.desk.live.leave(listener)

    def on_connection_close(self) -> None:
        self._gone.set()


class _Sink:
    """The connection of a page. Past Tornado's handler: what it does for each write adds up."""

    def __init__(self, request: Any) -> None:
        self._connection = request.connection

    def busy(self) -> bool:
        stream = self._connection.stream
        return bool(stream.closed() or stream.writing())

    def send(self, data: bytes) -> None:
        # who is not there any more is told nothing; the handler hears of it
        self._connection.write(data).add_done_callback(_looked_at)


def _looked_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def routes(prefix: str, desk: Desk, pages: Mapping[str, tuple[Topic, ...]]) -> list[Any]:
    """The routes under ``prefix``: name of a page -> its topics."""
    return [
        (f"{prefix}events/{name}", StreamHandler, {"desk": desk, "topics": topics})
        for name, topics in pages.items()
    ]
