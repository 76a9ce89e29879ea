"""A scheduler that this Hub does not start: in a container of its own, or a unit of systemd.

It is told what the Hub tells the services that it starts: where it is, and a token. What it
can't be told is which Hub process lives: each one says so itself, as soon as it starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from .client import SchedulerClient
from .errors import ConfigError, GPUSpawnerError

log = logging.getLogger(__name__)

#: environment variable with the token that such a scheduler has at the Hub
HUB_TOKEN = "GPUS_HUB_TOKEN"
_SHORTEST = 16
#: seconds between two tries to reach the scheduler: first, and at most
RETRY_FIRST, RETRY_MOST = 0.5, 10.0

#: tasks that say hello (the event loop keeps no reference)
_HELLOS: set[asyncio.Task[None]] = set()


def origin(url: str) -> str:
    """``http://scheduler:8750`` of an address of the scheduler, with or without a path."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise ConfigError(
            f"GPUSpawnerMixin.scheduler_url is {url!r}; want such as 'http://scheduler:8750'"
        )
    return f"{parts.scheme}://{parts.netloc}"


def hub_token() -> str:
    """The token that the scheduler has at the Hub. ``ConfigError`` without a good one."""
    token = os.environ.get(HUB_TOKEN, "").strip()
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"{HUB_TOKEN}: a scheduler that the Hub does not start (scheduler_url) needs a token "
            f"for the Hub, at least {_SHORTEST} ASCII characters; give both the same"
        )
    return token


def service_entry() -> dict[str, Any]:
    """What the Hub's list of services says of it, beside what all schedulers have."""
    return {"api_token": hub_token()}


def announce(url: str, token: str) -> None:
    """Tell the scheduler that this Hub process is the one now, until it has heard.

    Only where a Hub starts: other commands, such as ``jupyterhub token``, read the same
    configuration without an event loop.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    task = loop.create_task(_say_hello(SchedulerClient(url, token)), name="hello, scheduler")
    _HELLOS.add(task)
    task.add_done_callback(_HELLOS.discard)


async def _say_hello(client: SchedulerClient) -> None:
    pause = RETRY_FIRST
    try:
        while True:
            try:
                await client.hello()
                return
            except GPUSpawnerError as error:
                log.debug("the scheduler does not know this Hub yet: %s", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_MOST)
    finally:
        await client.close()
