"""One start of one server, from the lease to a server that answers: the two-phase start.

Create the container; record its id with the lease (refused where the lease is over); start that
id; probe. A failed or cancelled launch cleans up behind itself: the intent first, then the
container, then the report. It runs in a task of its own, because the Hub gives a cancelled start
one second.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import docker
import docker.errors

from .client import Granted
from .docker_spec import build_spec
from .ending import tell_ended
from .engine import containers
from .engine.containers import ContainerSpec, ExitReport
from .engine.faults import lost
from .engine.networks import says_no_network
from .errors import (
    EngineConflict,
    EngineError,
    GPUSpawnerError,
    SchedulerUnavailable,
)
from .hub_metrics import STARTS, Laps
from .probe import answers
from .scheduler.models import Reason

#: seconds between two probes of a server that starts
PROBE_PAUSE = 0.05
#: seconds between two looks at the container of a server that starts, while no event vouches
#: for it, and while one does
LOOK_PAUSE, RARE_LOOK_PAUSE = 1.0, 10.0
#: seconds between two tries to record the container, first and at most
BIND_FIRST, BIND_MOST = 0.2, 2.0

#: by pool, not by its id: ids are used again
_turns: WeakKeyDictionary[Any, asyncio.Semaphore] = WeakKeyDictionary()


class ContainerVerbs:
    """What a spawner does its work with. A spawner for another engine has others."""

    #: create, start, stop, remove, look at, report: :mod:`.engine.containers` or its like
    verbs: Any = containers

    async def build_spec(self, granted: Granted) -> ContainerSpec:
        """What to create for a lease."""
        spawner: Any = self
        return await build_spec(spawner, granted, spawner.kernel_limits)

    async def user_network(self, ledger: str) -> str | None:
        """Have the network that the user's servers share; its name, or None without one."""
        return None

    async def start_companions(self, granted: Granted) -> None:
        """Start what the profile has beside the server."""

    async def await_started(self, container_id: str) -> None:
        """Return when the process runs. A container's does, once the engine said so."""


class Launch:
    """A start in progress.

    Parameters
    ----------
    spawner:
        The ``GPUDockerSpawner`` that starts.
    granted:
        Its lease.
    """

    def __init__(self, spawner: Any, granted: Granted) -> None:
        self._spawner = spawner
        self._granted = granted
        self._log = spawner.log
        self._name = spawner._log_name
        self._ended = False
        #: how the container ended by itself
        self._report: ExitReport | None = None

    async def run(self) -> str:
        """Returns the server's URL. Whatever goes wrong, nothing of the start stays."""
        spawner, laps = self._spawner, Laps()
        try:
            turn = _turn(spawner)
            if turn.locked():
                spawner.say(35, "Other servers start at the moment; yours follows")
            async with turn:
                laps.lap("turn")
                spawner.say(40, "Creating the container")
                spec = await spawner.build_spec(self._granted)
                # from here on it is found by its name, should we not learn its id
                container_id = await self._create(spec)
                spawner.object_id = container_id
                laps.lap("create")
                await self._bind(container_id)
                laps.lap("record")
                spawner.say(60, "Starting the server")
                self._watch(container_id)
                await self._start(container_id)
                await spawner.await_started(container_id)
                laps.lap("start")
            spawner.own(spawner.hint(spawner.scheduler.running(self._granted.lease)))
            spawner.own(spawner.start_companions(self._granted))
            url = await self._wait_until_up(container_id)
            laps.lap("answer")
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            STARTS.labels("cancelled" if cancelled else "failed").inc()
            await self._to_the_end(self._clean_up(error))
            raise _as_ours(error) from error
        STARTS.labels("ready").inc()
        spawner.follow(container_id)
        spawner.say(95, "The server answers")
        return url

    async def _create(self, spec: ContainerSpec) -> str:
        """Create the container; return its id. A free name is not looked up first."""
        spawner = self._spawner
        try:
            container_id: str = await spawner.engine(spawner.verbs.create, spec)
        except EngineConflict:
            await self._clear_the_name()
            container_id = await spawner.engine(spawner.verbs.create, spec)
        return container_id

    async def _clear_the_name(self) -> None:
        """Remove what an earlier start of this very server left; never anything else."""
        spawner, granted = self._spawner, self._granted
        found = await spawner.engine(spawner.verbs.name_taken, spawner.object_name)
        if found is None:
            return
        who = found.identity
        wanted = (granted.ledger, spawner.user.name, spawner.name)
        if who is None or (who.ledger, who.user, who.server) != wanted or found.live:
            raise EngineConflict(
                f"{self._name}: container name {spawner.object_name} is taken by "
                f"{found.container_id[:12]} ({found.state}); left as it is",
                "Something else on the machine has your server's name. "
                "Please tell an administrator.",
            )
        if who.lease != granted.lease or found.started:
            await spawner.engine(spawner.verbs.remove, found.container_id)

    async def _bind(self, container_id: str) -> None:
        """Record the container with the lease: from here on it may hold the GPUs."""
        pause = BIND_FIRST
        while True:
            try:
                return await self._spawner.scheduler.bind(self._granted.lease, container_id)
            except SchedulerUnavailable as error:
                # bound or not: unknown. Asking again is harmless, start_timeout ends it.
                self._log.warning("%s: bind: %s", self._name, error)
                self._spawner.say(50, "Waiting for the scheduler to answer")
            await asyncio.sleep(pause)
            pause = min(2 * pause, BIND_MOST)

    async def _start(self, container_id: str) -> None:
        """Start it. The network may be gone again: it was unused until now."""
        spawner, granted = self._spawner, self._granted
        try:
            await spawner.engine(spawner.verbs.start_new, container_id)
        except docker.errors.NotFound as error:
            if not says_no_network(error) or not await spawner.user_network(granted.ledger):
                raise
            self._log.info("%s: its network was removed, and is made again", self._name)
            await spawner.engine(spawner.verbs.start_new, container_id)

    async def _wait_until_up(self, container_id: str) -> str:
        """Probe the server every 50 ms, and look whether its container still lives."""
        spawner = self._spawner
        host, port = await spawner.get_ip_and_port()
        path = f"{spawner.server.base_url}api"
        loop = asyncio.get_running_loop()
        next_look = loop.time() + LOOK_PAUSE
        while not await answers(host, int(port), path, tls=spawner.internal_ssl):
            if self._ended or loop.time() >= next_look:
                self._watch(container_id)
                seen = await spawner.engine(spawner.verbs.observe, container_id)
                if seen is None or not seen.live:
                    self._report = await spawner.engine(spawner.verbs.exit_report, container_id)
                    raise spawner.ending.death(self._report)
                vouched = spawner.sees_alive(container_id)
                next_look = loop.time() + (RARE_LOOK_PAUSE if vouched else LOOK_PAUSE)
            await asyncio.sleep(PROBE_PAUSE)
        return str(spawner.url_of(host, port))

    def _watch(self, container_id: str) -> None:
        """Hear from the engine's events when the container ends: then it is looked at."""
        self._ended = False

        async def tell() -> None:
            self._ended = True

        self._spawner.follow(container_id, tell)

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for ``work`` although this start is cancelled meanwhile, once or more."""
        task = self._spawner.own(work)
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])

    async def _clean_up(self, error: BaseException) -> None:
        """Nothing of it may stay, and the GPUs are given back."""
        spawner, lease = self._spawner, self._granted.lease
        cancelled = isinstance(error, asyncio.CancelledError)
        reason = Reason.CANCELLED if cancelled else Reason.EXITED
        note = error.user_message if isinstance(error, GPUSpawnerError) else ""
        spawner.unfollow(spawner.object_id)
        await spawner.want_gone(lease, reason.value)
        try:
            # a create that was cancelled went on in its thread: its container has our name
            found = await spawner.engine(spawner.verbs.name_taken, spawner.object_name)
            if found is not None and found.identity is not None and found.identity.lease == lease:
                await spawner.engine(spawner.verbs.remove, found.container_id)
        except (EngineError, docker.errors.DockerException) as failed:
            # the intent is stored: the scheduler removes it when the engine is back
            self._log.warning("%s: left to the scheduler: %s", self._name, failed)
        spawner.object_id = ""
        await spawner.hint(tell_ended(spawner.scheduler, lease, reason, note, self._report))


def _turn(spawner: Any) -> asyncio.Semaphore:
    """Limits how many containers are made and started at the same time.

    An engine that starts twenty at once has all of them ready at the end; one that starts as
    many as it has cores has the first ready at once, and the last no later. The engine's cores
    are taken to be as many as the Hub's.
    """
    pool = spawner.pool
    if pool not in _turns:
        _turns[pool] = asyncio.Semaphore(min(spawner.engine_threads, max(2, os.cpu_count() or 2)))
    return _turns[pool]


def _as_ours(error: BaseException) -> BaseException:
    """A Docker error that came through as it is, in our words."""
    return lost(error) if isinstance(error, docker.errors.NotFound) else error
