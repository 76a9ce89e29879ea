"""Containers that shall go: stopped, removed, and proven gone, beside everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import docker.errors

from ..errors import EngineError, LedgerError
from ..scheduler.events import ContainerGone, StopHung
from ..scheduler.models import Reason
from . import waiting
from .actor import Actor
from .engine_view import WorldView
from .metrics import Metrics
from .reconcile import Remove

log = logging.getLogger("gpus.removals")


class Removals:
    """One task for each container that is being removed."""

    def __init__(
        self,
        actor: Actor,
        engine: WorldView,
        metrics: Metrics,
        clock: Callable[[], float],
        hung: float,
    ) -> None:
        self._actor = actor
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        #: seconds of failing tries after which a stop counts as hung
        self._hung_after = hung
        #: container -> when its removal was first tried
        self._began: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, step: Remove) -> None:
        """Start to remove a container, unless that is going on. What fails is tried again."""
        if step.container_id not in self._tasks:
            task = asyncio.create_task(self._remove(step), name=f"remove {step.container_id[:12]}")
            self._tasks[step.container_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(step.container_id, None))

    async def close(self) -> None:
        """Wait for nobody. What was begun at the engine goes on there, and may be repeated."""
        await waiting.end(self._tasks.values())

    async def prove(self, lease: str, container_id: str, reason: Reason, note: str) -> bool:
        """Give the lease's devices back if the engine says that the container is gone."""
        if await self._engine.look_at(container_id) is not None:
            return False
        await self._actor.post(
            ContainerGone(lease_id=lease, container_id=container_id, reason=reason, note=note)
        )
        return True

    async def _remove(self, step: Remove) -> None:
        container = step.container_id
        began = self._began.setdefault(container, self._clock())
        try:
            if step.lease is None:
                log.warning("container %s: removed, %s", container[:12], step.why)
                await self._engine.discard(container)
            else:
                await self._engine.remove(container)
                await self.prove(step.lease, container, Reason.STOPPED, step.why)
            self._began.pop(container, None)
        except (EngineError, LedgerError, docker.errors.NotFound) as error:
            # the lease keeps its devices until the next try succeeds
            self._metrics.engine_errors.inc()
            log.error("container %s: not removed: %s", container[:12], error)
            if step.lease is not None and self._clock() - began > self._hung_after:
                await self._hung(step.lease, container)

    async def _hung(self, lease: str, container_id: str) -> None:
        """The stop does not end. Where the engine itself is well, the devices are not."""
        try:
            seen = await self._engine.look_at(container_id)
            if seen is not None and seen.certain:
                note = f"container {container_id[:12]} can't be stopped; reboot the machine"
                await self._actor.post(StopHung(lease_id=lease, note=note))
        except (EngineError, LedgerError) as error:
            log.debug("container %s: not looked at: %s", container_id[:12], error)
