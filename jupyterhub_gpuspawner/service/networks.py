"""Takes away users' networks that nobody needs any more, those of a crash among them.

Spawners only make them. Whoever removes one too early only costs a start another create: a
container finds its network by name when it starts, and the spawner makes it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import docker.errors

from ..engine.networks import UserNetwork
from ..errors import EngineError, LedgerError
from ..scheduler.state import SchedulerState
from .actor import Actor
from .engine_view import EngineView
from .words import safe

log = logging.getLogger("gpus.networks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Upkeep:
    """How often networks are looked at, and how long they are kept; seconds."""

    #: between two looks
    interval: float = 30.0
    #: from the first look that finds a network unused until it goes
    grace: float = 60.0


class NetworkKeeper:
    """Looks at the networks of one ledger on one engine."""

    def __init__(
        self, actor: Actor, engine: EngineView, upkeep: Upkeep, clock: Callable[[], float]
    ) -> None:
        self._actor = actor
        self._engine = engine
        self._upkeep = upkeep
        self._clock = clock
        #: network -> when it was first seen unused
        self._unused: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._look()
            except (EngineError, LedgerError, docker.errors.NotFound) as error:
                # the comparison of containers says so too; nothing hangs on a network
                log.debug("networks: not looked at: %s", error)
            await asyncio.sleep(self._upkeep.interval)

    async def _look(self) -> None:
        found = await self._engine.networks()
        # the ledger is read after the engine was: who was granted meanwhile keeps theirs
        users = await self._actor.read(_users)
        now = self._clock()
        self._unused = still_unused(found, users, self._unused, now)
        for network in found:
            if now - self._unused.get(network.network_id, now) >= self._upkeep.grace:
                await self._remove(network)

    async def _remove(self, network: UserNetwork) -> None:
        if await self._engine.remove_network(network.network_id):
            log.info("network %s of %s: removed", network.name, safe(network.user))
        self._unused.pop(network.network_id, None)


def still_unused(
    found: Iterable[UserNetwork],
    users: frozenset[str],
    before: dict[str, float],
    now: float,
) -> dict[str, float]:
    """Since when each network is unused: no container on it, nothing of its user's on record."""
    return {
        network.network_id: before.get(network.network_id, now)
        for network in found
        if not network.used and network.user not in users
    }


def _users(state: SchedulerState) -> frozenset[str]:
    """Who has a live lease or waits for one."""
    leases = (lease.key.user for lease in state.tables.leases.values())
    entries = (entry.key.user for entry in state.tables.entries.values())
    return frozenset((*leases, *entries))
