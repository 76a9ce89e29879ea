"""Docker's events as hints to look, for one ledger's servers.

The stream may lose events (a reconnect, a full buffer), so each connection starts with
:class:`Reconnected`: the reader lists once and knows everything again. An event may come twice.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any

import docker
import requests
from docker.types import CancellableStream

from . import labels
from .connect import connect
from .labels import Kind

#: what we want to hear of
ACTIONS = ("start", "die", "destroy", "oom")
#: seconds before the first try to connect again, doubled each time up to the last
FIRST_PAUSE, LAST_PAUSE = 0.2, 10.0
#: events that wait for the reader before they are replaced by one ``Reconnected``
LARGEST_BACKLOG = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerEvent:
    """Something happened to a container; look at it."""

    #: start, die, destroy or oom
    action: str
    container_id: str
    labels: Mapping[str, str]
    #: of a ``die``; None = not told
    exit_code: int | None
    #: POSIX seconds by the engine's clock
    time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconnected:
    """Events may have been lost before this point: list once."""

    #: why, for the log: ``connected`` or ``backlog``
    why: str = "connected"
    #: POSIX seconds since when the engine was not heard; None = it was heard all the time
    lost_at: float | None = field(default=None, compare=False)


Item = ContainerEvent | Reconnected


class EngineEvents:
    """An async iterator over the events of one ledger's servers, until :meth:`close`.

    A thread reads the stream and connects again after an error, with growing pauses.

    Parameters
    ----------
    ledger_id:
        Whose servers.
    base_url, options:
        See :func:`~.connect.client_options`.
    silence:
        Seconds without an event after which the connection is made anew. It may be dead without
        a sign; on a quiet engine this costs the reader one list.
    """

    def __init__(
        self,
        ledger_id: str,
        base_url: str | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        silence: float = 60.0,
        connect_timeout: float = 10.0,
    ) -> None:
        self.ledger_id = ledger_id
        self.base_url = base_url
        self.options = dict(options or {})
        self.silence = silence
        self.connect_timeout = connect_timeout
        #: the last error, for health pages; empty = connected
        self.trouble = "not connected yet"
        self._items: asyncio.Queue[Item | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._response: requests.Response | None = None
        self._lost_at: float | None = None

    async def __aenter__(self) -> EngineEvents:
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Item]:
        self._begin()
        return self

    async def __anext__(self) -> Item:
        item = await self._items.get()
        if item is None:
            self._items.put_nowait(None)  # whoever asks again hears the same
            raise StopAsyncIteration
        return item

    async def close(self, timeout: float = 5.0) -> None:
        """End the iteration and the thread. May be repeated."""
        self._stop.set()
        self._hang_up()
        self._items.put_nowait(None)
        thread = self._thread
        if thread is not None:
            # A thread that is still connecting ends by itself within connect_timeout.
            await asyncio.to_thread(thread.join, timeout)

    def filters(self) -> dict[str, list[str]]:
        """What the engine is asked for."""
        selectors = labels.selectors(self.ledger_id, Kind.SERVER)
        return {"type": ["container"], "event": list(ACTIONS), "label": selectors}

    def read(self, response: requests.Response) -> Iterator[Item]:
        """Read the stream's items. ValueError for a broken one."""
        return parse_stream(response)

    def _begin(self) -> None:
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._read, name="engine-events", daemon=True)
            self._thread.start()

    def _hang_up(self) -> None:
        """Wake the thread out of its read."""
        with self._lock:
            response, self._response = self._response, None
        if response is not None:
            with suppress(OSError, AttributeError):
                CancellableStream(iter(()), response).close()

    def _read(self) -> None:
        """Connect, read until an error, pause, again. Runs in the thread."""
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            try:
                self._read_one_connection()
            except Exception as error:  # noqa: BLE001 - a dead thread leaves the reader waiting
                connected, self.trouble = not self.trouble, f"{type(error).__name__}: {error}"
            else:
                connected = True
            pause = FIRST_PAUSE if connected else min(2 * pause, LAST_PAUSE)
            self._stop.wait(pause)

    def _read_one_connection(self) -> None:
        client = connect(self.base_url, self.connect_timeout, self.options)
        try:
            with self._open(client) as response:
                self.trouble = ""
                self._hand_over(Reconnected(lost_at=self._lost_at))
                try:
                    for event in self.read(response):
                        self._hand_over(event)
                finally:
                    self._lost_at = time.time()
        finally:
            with self._lock:
                self._response = None
            client.close()

    def _open(self, client: docker.DockerClient) -> requests.Response:
        """Ask for the stream. Raises docker's errors unless the engine agrees."""
        api = client.api
        # The engine answers before it listens: "since" brings what happens in between.
        ping = api.get(api._url("/_ping", versioned_api=False), timeout=self.connect_timeout)
        since = parsedate_to_datetime(ping.headers["Date"]).timestamp() - 1
        response: requests.Response = api.get(
            api._url("/events"),
            params={"filters": json.dumps(self.filters()), "since": int(since)},
            stream=True,
            timeout=(self.connect_timeout, self.silence),
        )
        with self._lock:
            self._response = response
        if self._stop.is_set():  # closed while we connected
            self._hang_up()
        api._raise_for_status(response)
        return response

    def _hand_over(self, item: Item) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody reads
                self._loop.call_soon_threadsafe(self._put, item)

    def _put(self, item: Item) -> None:
        """Queue an item; with a reader that does not keep up, "list once" replaces them all."""
        if self._stop.is_set():
            return
        if self._items.qsize() >= LARGEST_BACKLOG:
            while not self._items.empty():
                self._items.get_nowait()
            item = Reconnected(why="backlog")
        self._items.put_nowait(item)


def parse_stream(response: requests.Response) -> Iterator[Item]:
    """Read events from an answer, one JSON object a line. ValueError for a broken one."""
    for line in response.iter_lines():
        if line:
            event = parse_event(json.loads(line))
            if event is not None:
                yield event


def parse_event(data: Mapping[str, Any]) -> ContainerEvent | None:
    """Read one event; None if it is not one that we asked for. ValueError if it is broken."""
    if data.get("Type") != "container" or data.get("Action") not in ACTIONS:
        return None
    try:
        actor: Mapping[str, Any] = data["Actor"]
        attributes: dict[str, str] = dict(actor.get("Attributes") or {})
        code = attributes.get("exitCode")
        nanoseconds = data.get("timeNano")
        when = float(data["time"]) if nanoseconds is None else float(nanoseconds) / 1e9
        return ContainerEvent(
            action=str(data["Action"]),
            container_id=str(actor["ID"]),
            labels=attributes,
            exit_code=None if code is None else int(code),
            time=when,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an event of Docker is broken: {error!r}") from error
