"""Which servers run, for all pollers at once: events, and one list per interval.

The stock way asks the engine for each server every 30 s, and hears of a death up to 30 s late.
Here one list serves all servers, and an event tells whoever follows a container at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import docker
import docker.errors

from ..errors import EngineError
from . import labels
from .events import ContainerEvent, EngineEvents, Reconnected
from .labels import Kind
from .observe import seconds
from .pool import EnginePool

log = logging.getLogger(__name__)

#: states in which a server's process lives
LIVE = frozenset({"running", "paused", "restarting"})
#: states whose end is still to come: a container is followed from before its start on
WAITED_FOR = LIVE | {"created"}

#: seconds before and after the engine was away in which a container's end counts as its doing: a
#: daemon that is stopped ends containers first, within its shutdown-timeout (15 s by default)
AWAY_BEFORE, AWAY_AFTER = 15.0, 1.0
#: seconds without the engine below which it has not been away: a daemon takes longer to start
AWAY_LEAST = 1.0
#: ends of which it may yet turn out that the engine was about to go
ENDS_KEPT = 1000
#: seconds until a list that failed is tried again
RETRY = 2.0

Follower = Callable[[], Awaitable[object]]


class EngineWatch:
    """A picture of one ledger's server containers, never older than two intervals.

    Parameters
    ----------
    pool:
        Threads for the list calls.
    ledger_id:
        Whose servers.
    interval:
        Seconds between lists while no event comes.
    clock:
        Monotonic seconds.
    """

    def __init__(
        self,
        pool: EnginePool,
        ledger_id: str,
        interval: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._ledger_id = ledger_id
        self._interval = interval
        self._clock = clock
        self._states: dict[str, str] = {}
        self._seen_at: float | None = None
        self._followers: dict[str, Follower] = {}
        #: when to list next
        self._due_at = clock() + interval
        #: when the engine was not heard last, POSIX seconds: from, to
        self._away = (0.0, 0.0)
        #: ends that were told meanwhile: when, and who wants to know
        self._ends: deque[tuple[str, Callable[[], None]]] = deque(maxlen=ENDS_KEPT)
        self._task: asyncio.Task[None] | None = None
        #: followers at work: the event loop keeps no reference
        self._told: set[asyncio.Future[object]] = set()

    def start(self) -> None:
        """Begin to watch. May be repeated."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._watch())

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def is_live(self, container_id: str) -> bool | None:
        """True = it runs. False and None prove nothing: look at the container itself."""
        if self._seen_at is None or self._clock() - self._seen_at > 2 * self._interval:
            return None
        return self._states.get(container_id) in LIVE

    def if_away(self, finished_at: str, tell: Callable[[], None]) -> None:
        """Call ``tell`` if the engine was away, as in a restart, at a time that it told us.

        At once if that is known; else as soon as it turns out.
        """
        if self._was_away(finished_at):
            tell()
        else:
            self._ends.append((finished_at, tell))

    def _was_lost(self, lost_at: float) -> None:
        """The engine is back; a connection that broke and was made again at once is no news."""
        if time.time() - lost_at < AWAY_LEAST:
            return
        self._away = (lost_at - AWAY_BEFORE, time.time() + AWAY_AFTER)
        ends, self._ends = list(self._ends), deque(maxlen=ENDS_KEPT)
        for finished_at, tell in ends:
            if self._was_away(finished_at):
                tell()

    def _was_away(self, finished_at: str) -> bool:
        begin, end = self._away
        return begin <= seconds(finished_at) <= end

    def follow(self, container_id: str, follower: Follower) -> None:
        """Call ``follower`` once when the container ends; at once if it is known to have ended."""
        self._followers[container_id] = follower
        if self._states.get(container_id, "running") not in WAITED_FOR:
            self._tell(container_id)

    def unfollow(self, container_id: str) -> None:
        """Call nobody for this container any more."""
        self._followers.pop(container_id, None)

    def events(self) -> EngineEvents:
        """The engine's events."""
        return EngineEvents(
            self._ledger_id, self._pool.base_url, self._pool.options, silence=2 * self._interval
        )

    async def _watch(self) -> None:
        async with self.events() as events:
            news = asyncio.ensure_future(events.__anext__())
            try:
                while True:
                    # since the last list: a stream of events must not put it off for ever
                    wait = max(0.0, self._due_at - self._clock())
                    # Not wait_for: before Python 3.12 it loses a cancel that comes with an event.
                    await asyncio.wait([news], timeout=wait)
                    if not news.done():
                        await self._list()
                        continue
                    try:
                        item = news.result()
                    except StopAsyncIteration:
                        return
                    news = asyncio.ensure_future(events.__anext__())
                    if isinstance(item, Reconnected):
                        if item.lost_at is not None:
                            self._was_lost(item.lost_at)
                        await self._list()
                    else:
                        self._take(item)
            finally:
                news.cancel()

    async def _list(self) -> None:
        """Look at all servers. An error leaves the picture as it is: it only grows old."""
        asked_at = self._clock()
        self._due_at = asked_at + self._interval
        # one that is followed from now on may be younger than the list
        followed = list(self._followers)
        try:
            self._states = await self._pool.run(f"list {self._ledger_id}", self._list_states)
        except (EngineError, docker.errors.DockerException) as error:
            log.warning("the engine's containers can't be listed: %s", error)
            # until it works each poll asks for its own container: soon again
            self._due_at = self._clock() + min(RETRY, self._interval)
            return
        self._seen_at = asked_at
        for container_id in followed:
            if self._states.get(container_id) not in WAITED_FOR:
                self._tell(container_id)

    def _list_states(self, client: docker.DockerClient) -> dict[str, str]:
        selectors = labels.selectors(self._ledger_id, Kind.SERVER)
        rows = cast(
            "list[dict[str, Any]]", client.api.containers(all=True, filters={"label": selectors})
        )
        return {str(row["Id"]): _state(row) for row in rows}

    def _take(self, event: ContainerEvent) -> None:
        if event.action == "start":
            self._states[event.container_id] = "running"
        elif event.action in ("die", "destroy"):
            self._states[event.container_id] = "exited"
            self._tell(event.container_id)

    def _tell(self, container_id: str) -> None:
        follower = self._followers.pop(container_id, None)
        if follower is not None:
            task = asyncio.ensure_future(follower())
            self._told.add(task)
            task.add_done_callback(self._report)

    def _report(self, task: asyncio.Future[object]) -> None:
        self._told.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a server's end could not be handled", exc_info=task.exception())


def _state(row: Mapping[str, Any]) -> str:
    return str(row.get("State") or "unknown").lower()
