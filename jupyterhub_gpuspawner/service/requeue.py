"""After a restart of the Hub: ask it to start the waiting servers again, in their order.

A POST with an empty body re-uses the options that the Hub has stored, and is harmless where
the server is pending already. What waits keeps its place in the ledger meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from ..errors import LedgerError
from ..scheduler.models import EntryState, LeaseState, QueueEntry
from ..scheduler.state import SchedulerState
from .words import safe

if TYPE_CHECKING:
    from .desk import Desk

log = logging.getLogger("gpus.requeue")

#: seconds between two looks, and before the same server is asked for again: first and at most
LOOK = 0.5
RETRY_FIRST, RETRY_MOST = 0.5, 60.0
#: seconds until a started server has to show itself before the Hub is asked again
SHOW = 30.0
#: refusals of one entry after which the others no longer wait for it: a minute, by then
PATIENCE = 7


class Answer(enum.Enum):
    """What the Hub said to "start this server"."""

    #: it starts, or was starting already: the spawn comes and takes its place
    STARTED = "started"
    #: the user or the server does not exist any more
    GONE = "gone"
    #: it can't now, and perhaps never will without the user: keep the place
    KEEP = "keep"
    #: the Hub did not answer, or has no time: ask again
    AGAIN = "again"


#: asks the Hub to start (user, server)
HubStarter = Callable[[str, str], Awaitable[Answer]]


def meaning(status: int) -> Answer:
    """What an HTTP status of ``POST /users/:name/server(s)/:server`` means. Pure."""
    if status in (201, 202):
        return Answer.STARTED
    if status == 404:
        return Answer.GONE
    if status in (400, 409):
        # 400: running already, or the options or the login are no longer good
        return Answer.KEEP
    return Answer.AGAIN


class HubAPI:
    """The Hub's REST API. One token, one address; both come from the Hub's environment."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._http: AsyncHTTPClient = SimpleAsyncHTTPClient(force_instance=True, max_clients=4)

    @classmethod
    def from_environment(cls) -> HubAPI | None:
        """The API as a managed service is told; None without a Hub."""
        url = os.environ.get("JUPYTERHUB_API_URL", "")
        token = os.environ.get("JUPYTERHUB_API_TOKEN", "")
        return cls(url, token) if url and token else None

    async def start(self, user: str, server: str) -> Answer:
        """Ask for one server."""
        try:
            return meaning(await self._call("POST", user, server))
        except (OSError, HTTPClientError):
            return Answer.AGAIN

    async def stop(self, user: str, server: str) -> bool:
        """Ask for the end of one; whether the Hub takes it, or it has ended already."""
        try:
            return await self._call("DELETE", user, server) in (202, 204, 404)
        except (OSError, HTTPClientError):
            return False

    async def _call(self, method: str, user: str, server: str) -> int:
        path = f"/users/{quote(user, safe='')}/server"
        if server:
            path += f"s/{quote(server, safe='')}"
        request = HTTPRequest(
            self._url + path,
            method=method,
            body="" if method == "POST" else None,
            headers={"Authorization": f"token {self._token}"},
            connect_timeout=5.0,
            request_timeout=30.0,
            follow_redirects=False,
        )
        return (await self._http.fetch(request, raise_error=False)).code

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


def left_behind(
    state: SchedulerState, boot_id: str, attached: Callable[[str], bool]
) -> list[QueueEntry]:
    """Entries of an earlier Hub process that nobody waits for, in order. Pure."""
    found = [
        entry
        for entry in state.tables.entries.values()
        if entry.boot_id != boot_id and _open(state, entry) and not attached(entry.id)
    ]
    return sorted(found, key=lambda entry: entry.seq)


def _open(state: SchedulerState, entry: QueueEntry) -> bool:
    """Whether it waits, or was granted and not used."""
    if entry.state is EntryState.QUEUED:
        return True
    lease = state.tables.leases.get(entry.id)
    granted = entry.state is EntryState.GRANTED
    return granted and lease is not None and lease.state is LeaseState.RESERVED


@dataclass(kw_only=True, slots=True)
class _Asked:
    """What became of one entry so far."""

    #: not again before this time, by the loop's clock
    due: float = 0.0
    delay: float = 0.0
    #: answers in a row that said "not now"
    refused: int = 0
    #: the last answer, so that it is said once
    last: Answer | None = None


class Requeue:
    """Looks for entries of dead Hub processes and brings them back one after the other."""

    def __init__(self, desk: Desk, start: HubStarter) -> None:
        self._desk = desk
        self._start = start
        self._asked: dict[str, _Asked] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except LedgerError as error:
                log.debug("not looked: %s", error)
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Ask for each entry that is left behind and due, oldest first."""
        boot_id = self._desk.boot_id
        if not boot_id:
            return  # it is not known which Hub lives, so not who is left behind
        seats = self._desk.waiters
        entries = await self._desk.read(
            lambda state: left_behind(state, boot_id, lambda id: seats.find(id) is not None)
        )
        self._asked = {entry.id: self._asked.get(entry.id) or _Asked() for entry in entries}
        for entry in entries:
            asked = self._asked[entry.id]
            if asyncio.get_running_loop().time() >= asked.due:
                await self._ask(entry, asked)
            if 0 < asked.refused <= PATIENCE:
                return  # the Hub has no time: the others would only come out of order

    async def _ask(self, entry: QueueEntry, asked: _Asked) -> None:
        answer = await self._start(entry.key.user, entry.key.server)
        who = safe(entry.key)
        asked.refused = asked.refused + 1 if answer is Answer.AGAIN else 0
        asked.delay = min(max(2 * asked.delay, RETRY_FIRST), RETRY_MOST)
        if answer is Answer.STARTED:
            log.info("%s: waits again after the Hub's restart", who)
            asked.delay = max(asked.delay, SHOW)
        elif answer is Answer.GONE:
            log.info("%s: the Hub does not know it any more, request cancelled", who)
            await self._desk.cancel(entry.id)
        elif answer is Answer.KEEP:
            if asked.last is not answer:
                log.warning("%s: the Hub can't start it without its user, its place is kept", who)
            asked.delay = RETRY_MOST
        asked.last = answer
        asked.due = asyncio.get_running_loop().time() + asked.delay
