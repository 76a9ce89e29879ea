"""What a user does on a server: asked of the server itself, told to the scheduler.

The Hub's own ``last_activity`` will not do: an open browser keeps it young, and a kernel that
computes in silence does not. So the server is asked for its kernels and terminals, with its own
token, and with the mark that keeps the question itself from counting as activity.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from jupyterhub.utils import make_ssl_context
from traitlets import Float
from traitlets.config import Configurable

#: seconds a server may take; a busy one takes long
ANSWER = 10.0
#: the most bytes of an answer
LARGEST = 1 << 20
#: seconds a token for the questions is good
TOKEN_LIFE = 86400
#: states of a kernel in which it does nothing
QUIET = frozenset({"idle", "dead"})


class Unknown(Exception):
    """The server did not say what its user does."""


def idle_for(status: Any, kernels: Any, terminals: Any, now: datetime) -> float:
    """Seconds since a kernel or terminal was used, or since the start of a server without. Pure.

    Parameters
    ----------
    status, kernels, terminals:
        What ``api/status``, ``api/kernels`` and ``api/terminals`` answered.
    now:
        The time by the server's own clock.

    Raises
    ------
    Unknown
        They are no such answers.
    """
    if not isinstance(kernels, list) or not isinstance(terminals, list):
        raise Unknown("kernels and terminals are no lists")
    try:
        used = [_time(status["started"]), *(_used(item, now) for item in kernels + terminals)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unknown(f"an odd answer: {error!r}") from error
    return max((now - max(used)).total_seconds(), 0.0)


def _used(item: Any, now: datetime) -> datetime:
    """When a kernel or terminal was used. A terminal has no state, only a time."""
    return _time(item["last_activity"]) if item.get("execution_state", "idle") in QUIET else now


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


class ActivityTraits(Configurable):
    """The part of a spawner that asks its server, once in a while."""

    activity_interval = Float(
        0.0,
        min=0.0,
        config=True,
        help="""
        Seconds between two questions to a server about what its user does.

        Servers are asked for their kernels and terminals, for
        ``GPUScheduler.idle_timeout``. What is older than five minutes counts as not known, so
        give less. 0 (the default) = not asked; ``setup(c)`` sets 60 where an idle time-out is
        set.

        .. versionadded:: 0.1
        """,
    )

    _asking: asyncio.Task[None] | None = None
    #: for the questions, and until when it is good by the loop's clock
    _pass: tuple[str, float] = ("", 0.0)

    def ask_for_activity(self) -> None:
        """Ask from now on, until the server has ended. May be repeated."""
        spawner: Any = self
        asked = self._asking is not None and not self._asking.done()
        if self.activity_interval and spawner.lease_id and not asked:
            self._asking = spawner.own(self._ask_on(spawner.lease_id))

    async def _ask_on(self, lease: str) -> None:
        spawner: Any = self
        while spawner.lease_id == lease and spawner.object_id:
            seconds = await self._ask()
            await spawner.hint(spawner.scheduler.activity(lease, seconds, spawner._groups))
            await asyncio.sleep(self.activity_interval)

    async def _ask(self) -> float | None:
        """Seconds since the server was used; None = it did not say."""
        spawner: Any = self
        try:
            return await ask(f"{spawner.server.url}api/", self._server_pass(), server_tls(spawner))
        except (Unknown, AttributeError, OSError) as error:
            spawner.log.debug("%s: activity: not known: %s", spawner._log_name, error)
            return None

    def _server_pass(self) -> str:
        """A token of the Hub that opens this server and nothing else.

        The server's own is not known after a restart of the Hub.
        """
        spawner: Any = self
        now = asyncio.get_running_loop().time()
        if self._pass[1] < now:
            token = spawner.user.new_api_token(
                note="asks whether the server is in use",
                expires_in=TOKEN_LIFE,
                scopes=[f"access:servers!server={spawner.user.name}/{spawner.name}"],
            )
            self._pass = (token, now + TOKEN_LIFE / 2)
        return self._pass[0]


def server_tls(spawner: Any) -> Any:
    """What a connection to the server needs: its TLS, or that it has none."""
    settings = spawner.user.settings
    if not spawner.internal_ssl:
        return False
    return make_ssl_context(
        settings.get("internal_ssl_key"),
        settings.get("internal_ssl_cert"),
        cafile=settings.get("internal_ssl_ca"),
    )


async def ask(api: str, token: str, tls: Any = False) -> float:
    """Seconds since the server whose API is at ``api`` was used. Raises ``Unknown``."""
    limits = aiohttp.ClientTimeout(total=ANSWER)
    headers = {"Authorization": f"token {token}"}
    answers, times = [], []
    try:
        async with aiohttp.ClientSession(timeout=limits, headers=headers) as http:
            for what in ("status", "kernels", "terminals"):
                url = f"{api}{what}?no_track_activity=1"
                async with http.get(url, ssl=tls, allow_redirects=False) as response:
                    answers.append(await _read(what, response))
                    times.append(parsedate_to_datetime(response.headers["Date"]))
    except (aiohttp.ClientError, asyncio.TimeoutError, KeyError, ValueError, TypeError) as error:
        raise Unknown(f"{api}: {error!r}") from error
    status, kernels, terminals = answers
    return idle_for(status, kernels, terminals, max(times))


async def _read(what: str, response: aiohttp.ClientResponse) -> Any:
    if response.status == 404 and what == "terminals":
        return []  # a server without terminals
    if response.status != 200:
        raise Unknown(f"{what}: answered {response.status}")
    data = await response.content.read(LARGEST)
    return json.loads(data)
