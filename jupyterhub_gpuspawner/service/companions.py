"""Removes the companions of servers that are over, those of a crash among them.

Spawners only start them. One is removed as soon as the ledger says that its server shall go, or
knows no such server after it was compared with the engine: what was started by a spawn that was
cancelled or killed is found here at the next look. Nothing waits for it, and it proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import docker.errors

from ..engine.companions import CompanionSeen
from ..errors import EngineError, LedgerError
from ..scheduler.models import Target
from ..scheduler.state import SchedulerState
from . import waiting
from .actor import Actor
from .engine_view import EngineView
from .words import safe

log = logging.getLogger("gpus.companions")


class CompanionKeeper:
    """Looks at the companions of one ledger on one engine."""

    def __init__(self, actor: Actor, engine: EngineView, node: str, interval: float) -> None:
        self._actor = actor
        self._engine = engine
        self._node = node
        self._interval = interval
        self._wake = asyncio.Event()

    def nudge(self) -> None:
        """A server ends: look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self._look()
            except (EngineError, LedgerError, docker.errors.NotFound) as error:
                # the comparison of containers says so too; nothing hangs on a companion
                log.debug("companions: not looked at: %s", error)
            await waiting.happens(self._wake, self._interval)

    async def _look(self) -> None:
        found = await self._engine.companions()
        if not found:
            return
        # the ledger is read after the engine was: a lease is there before its companions are
        leases = await self._actor.read(lambda state: staying(state, self._node))
        for companion in () if leases is None else left_alone(found, leases):
            await self._remove(companion)

    async def _remove(self, companion: CompanionSeen) -> None:
        try:
            await self._engine.remove_companion(companion.container_id)
        except (EngineError, docker.errors.NotFound) as error:
            # the others go all the same; this one at a later look
            log.warning("%s: not removed: %s", safe(companion.name), error)
        else:
            log.info("%s: removed", safe(companion.name))


def staying(state: SchedulerState, node: str) -> frozenset[str] | None:
    """Leases whose servers shall run; None = not known before the first comparison. Pure."""
    if not state.is_ready(node):
        return None
    live = (lease.id for lease in state.tables.leases.values() if lease.target is Target.RUN)
    # an adopted server may have "<its lease>@<its container>"
    return frozenset(id.partition("@")[0] for id in live)


def left_alone(found: Iterable[CompanionSeen], leases: frozenset[str]) -> list[CompanionSeen]:
    """Companions whose server is over. Pure."""
    return [one for one in found if one.lease not in leases]
