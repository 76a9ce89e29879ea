"""How a spawner reaches the scheduler service, and the work that outlives a spawn."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Coroutine
from pathlib import Path
from typing import Any

from traitlets import Unicode
from traitlets.config import Configurable

from .client import SchedulerClient
from .errors import ConfigError, GPUSpawnerError, SchedulerUnavailable
from .i18n import Words, choose
from .kinds import FilePath, HttpURL

#: seconds that a report to the scheduler may take; it is a hint, reconcile finds the truth
REPORT_PATIENCE = 3.0

#: seconds between two tries to have an intent stored: first, and at most
INSIST_FIRST, INSIST_MOST = 1.0, 10.0

#: environment variable with the service token, instead of the file
TOKEN_VARIABLE = "GPUS_SERVICE_TOKEN"

_clients: dict[tuple[str, str], SchedulerClient] = {}

#: tasks that outlive the spawner object that began them (the event loop keeps no reference)
_OWNED: set[asyncio.Task[Any]] = set()


class SchedulerLink(Configurable):
    """The scheduler's client, and hints to it."""

    log: logging.Logger
    _log_name: str

    scheduler_url = HttpURL(
        config=True,
        help="""
        Where the scheduler service answers.

        Empty (the default): ``setup(c)`` has the Hub start a scheduler, and sets this. Set it
        yourself where the scheduler runs on its own, in a container or as a unit of systemd,
        e.g. ``"http://scheduler:8750"``: then the Hub starts none and ``c.GPUScheduler`` is not
        read. Such a scheduler needs ``GPUS_SERVICE_TOKEN`` and ``GPUS_HUB_TOKEN``, the same as
        the Hub has, and ``GPUS_HUB_API_URL``. See ``docs/howto/compose.md``.

        .. versionadded:: 0.1
        """,
    )

    token_file = FilePath(
        config=True,
        help="""
        File with the token of the scheduler service.

        ``setup(c)`` sets it and makes the file (mode 0600). The token stays the same over
        restarts. The environment variable ``GPUS_SERVICE_TOKEN`` wins over the file.

        .. versionadded:: 0.1
        """,
    )

    language = Unicode(
        config=True,
        help="""
        The language of the spawn form and of the waiting page, such as ``"zh_CN"``.

        ``setup(c)`` sets it to what ``c.GPUScheduler.language`` says. Empty: as each user's
        browser asks.

        .. versionadded:: 0.1
        """,
    )

    @property
    def scheduler(self) -> SchedulerClient:
        """The client of the scheduler service, one for all spawners of this Hub."""
        if not self.scheduler_url or not self.token_file:
            raise ConfigError(
                "no scheduler: call setup(c) at the end of jupyterhub_config.py, or set "
                "scheduler_url and token_file",
                "This Hub is not set up to give out GPUs. Please tell an administrator.",
            )
        key = (self.scheduler_url, self.token_file)
        if key not in _clients:
            _clients[key] = SchedulerClient(self.scheduler_url, self._token())
        return _clients[key]

    @property
    def gpus_service(self) -> str:
        """Path of the service's pages beside the Hub's, for its templates; "" = unknown."""
        base = str(getattr(getattr(self, "hub", None), "base_url", "") or "")
        return f"{base.removesuffix('hub/')}services/gpus/" if base.endswith("hub/") else ""

    @property
    def words(self) -> Words:
        """The texts in the language of who looks at the form."""
        request = getattr(getattr(self, "handler", None), "request", None)
        return choose(request.headers.get("Accept-Language", "") if request else "", self.language)

    def _token(self) -> str:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token:
            return token
        try:
            return Path(self.token_file).read_text().strip()
        except OSError as error:
            raise ConfigError(
                f"can't read the service token: {error}",
                "The Hub can't talk to its scheduler. Please tell an administrator.",
            ) from error

    def own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` to its end, whatever happens to the spawn that began it."""
        task = asyncio.ensure_future(work)
        _OWNED.add(task)
        task.add_done_callback(self._owned_is_done)
        return task

    def _owned_is_done(self, task: asyncio.Task[Any]) -> None:
        _OWNED.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # whoever waits for it raises it; if nobody does, it must not vanish
            self.log.debug("%s: %r", self._log_name, task.exception())

    async def hint(self, report: Awaitable[Any]) -> bool:
        """Tell the scheduler; it finds out by itself where this does not reach it.

        False where nothing is known about the report.
        """
        try:
            await asyncio.wait_for(report, REPORT_PATIENCE)
        except (GPUSpawnerError, asyncio.TimeoutError) as error:
            self.log.warning("%s: report to the scheduler: %s", self._log_name, error or "late")
            return not isinstance(error, (SchedulerUnavailable, asyncio.TimeoutError))
        return True

    async def want_gone(self, lease: str, reason: str) -> bool:
        """Have the scheduler store that a server shall go; False where it does not answer yet.

        Then it is told as soon as it does: an engine that fails as well may have left a running
        container, which nobody else would ever stop.
        """
        if await self.hint(self.scheduler.stopping(lease, reason)):
            return True
        self.own(self._insist(lease, reason))
        return False

    async def _insist(self, lease: str, reason: str) -> None:
        pause = INSIST_FIRST
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, INSIST_MOST)
            try:
                await self.scheduler.stopping(lease, reason)
            except SchedulerUnavailable as error:
                self.log.debug("%s: lease %s: %s", self._log_name, lease, error)
            except GPUSpawnerError as error:
                # an answer: the lease is over
                self.log.info("%s: lease %s: %s", self._log_name, lease, error)
                return
            else:
                self.log.info(
                    "%s: the scheduler knows now that lease %s ends", self._log_name, lease
                )
                return
