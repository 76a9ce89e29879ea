"""Warnings, from the scheduler into the user's own JupyterLab; and *Keep it* back.

The Hub carries both, because it reaches scheduler and server wherever they are; servers need no
way to the scheduler, and browsers ask nobody but their own server. One question for all servers
of this Hub says which are warned. Each of these is told with a call that it answers late: when
its user presses *Keep it*. An image without our extension answers 404, which is the end of it.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import aiohttp
from traitlets import Float

from .activity import ANSWER, LARGEST, ActivityTraits, server_tls
from .client import SchedulerClient, Warned
from .errors import GPUSpawnerError

#: seconds for which a server may hold an answer back
HELD = 20.0
NOTHING = Warned()


class Warnings:
    """What the scheduler last said, for all spawners of a client; and the task that asks it."""

    def __init__(self, client: SchedulerClient, interval: float) -> None:
        self._client = client
        self._interval = interval
        self._known: dict[str, Warned] = {}
        self._looking: asyncio.Task[None] | None = None
        #: lease -> its server's spawner
        self._listeners: dict[str, WarningTraits] = {}

    def listen(self, spawner: WarningTraits) -> None:
        """Tell the spawner's server, until it has ended. May be repeated."""
        spawner_: Any = spawner
        self._listeners[spawner_.lease_id] = spawner
        if self._looking is None or self._looking.done():
            self._looking = spawner_.own(self._look_on())

    def of(self, lease: str) -> Warned:
        """What is to become of a server, as far as is known."""
        return self._known.get(lease, NOTHING)

    async def look(self) -> None:
        """Ask now. GPUSpawnerError."""
        self._known = await self._client.warned()

    async def _look_on(self) -> None:
        while self._listeners:
            # it is asked again; whoever waits for a GPU says what is wrong with it
            with suppress(GPUSpawnerError):
                await self.look()
            for lease, spawner in list(self._listeners.items()):
                if not spawner.tell(lease, self.of(lease)):
                    del self._listeners[lease]
            await asyncio.sleep(self._interval)


_warnings: dict[int, tuple[SchedulerClient, Warnings]] = {}


class WarningTraits(ActivityTraits):
    """The part of a spawner that tells its server of a warning."""

    warning_interval = Float(
        0.0,
        min=0.0,
        config=True,
        help="""
        Seconds between two looks for servers that are to be stopped.

        Their users then see a message in JupyterLab, where the image has our extension. One
        small question to the scheduler, however many servers run. 0 (the default) = JupyterLab
        shows nothing; ``setup(c)`` sets 30.

        .. versionadded:: 0.1
        """,
    )

    _telling: asyncio.Task[None] | None = None
    #: what the server knows
    _told = NOTHING

    def listen_for_warnings(self) -> None:
        """Tell the server of each warning from now on, until it has ended. May be repeated."""
        spawner: Any = self
        if not self.warning_interval or not spawner.lease_id:
            return
        client = spawner.scheduler
        if id(client) not in _warnings:
            _warnings[id(client)] = (client, Warnings(client, self.warning_interval))
        self._warnings = _warnings[id(client)][1]
        self._warnings.listen(self)

    def tell(self, lease: str, warned: Warned) -> bool:
        """Begin to tell the server; False where it is over."""
        spawner: Any = self
        if spawner.lease_id != lease or not spawner.object_id:
            return False
        telling = self._telling is not None and not self._telling.done()
        if not telling and (warned.stop_at is not None or warned != self._told):
            self._telling = spawner.own(self._tell_on(lease))
        return True

    async def _tell_on(self, lease: str) -> None:
        """Tell it until there is nothing to tell, or it does not listen."""
        spawner: Any = self
        while spawner.lease_id == lease and spawner.object_id:
            warned = self._warnings.of(lease)
            try:
                keep = await tell(
                    f"{spawner.server.url}gpus/notice",
                    self._server_pass(),
                    warned,
                    server_tls(spawner),
                )
            except (Deaf, AttributeError, OSError) as error:
                spawner.log.debug("%s: not told of a warning: %s", spawner._log_name, error)
                return
            self._told = warned
            if keep:
                await spawner.hint(spawner.scheduler.keep(lease))
                await spawner.hint(self._warnings.look())
            elif warned.stop_at is None:
                return


class Deaf(Exception):
    """The server does not listen to warnings."""


async def tell(url: str, token: str, warned: Warned, tls: Any = False) -> bool:
    """Tell a server; True where its user wants it kept. Raises ``Deaf``.

    While it is warned the server answers late, after up to :data:`HELD` seconds.
    """
    limits = aiohttp.ClientTimeout(total=HELD + ANSWER)
    headers = {"Authorization": f"token {token}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=limits, headers=headers) as http,
            http.put(url, json=warned.body(), ssl=tls, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise Deaf(f"{url}: answered {response.status}")
            answer = json.loads(await response.content.read(LARGEST))
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
        raise Deaf(f"{url}: {error!r}") from error
    return isinstance(answer, dict) and answer.get("keep") is True
