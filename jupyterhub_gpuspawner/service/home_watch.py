"""Measures homes once in a while, so that users of large ones can be told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..engine.homes import Home
from ..errors import EngineError
from ..units import format_memory
from .words import safe

log = logging.getLogger("gpus.homes")


class HomeWatch:
    """Which homes are above a size.

    Parameters
    ----------
    measure:
        Gives all homes of this installation. EngineError.
    limit:
        Bytes that a home may have without a word.
    interval:
        Seconds between two measurements.
    changed:
        Called when what is known of somebody's home has changed.
    """

    def __init__(
        self,
        measure: Callable[[], Awaitable[list[Home]]],
        limit: int,
        interval: float,
        changed: Callable[[], None],
    ) -> None:
        self._measure = measure
        self._limit = limit
        self._interval = interval
        self._changed = changed
        #: user -> bytes of the home, where it is above the limit
        self._large: dict[str, int] = {}

    def of(self, user: str) -> dict[str, int] | None:
        """What is to be said to a user; None = nothing."""
        size = self._large.get(user)
        return None if size is None else {"bytes": size, "limit": self._limit}

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                await self.look()
            except EngineError as error:
                # what was known stays
                log.warning("homes were not measured: %s", error)
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Measure once. EngineError."""
        homes = await self._measure()
        # somebody else may have had the name before: the home that was made last is the user's
        latest = {home.user: home for home in sorted(homes, key=lambda home: home.created)}
        large = {
            user: home.size
            for user, home in latest.items()
            if home.size is not None and home.size > self._limit
        }
        for user in sorted(large.keys() - self._large.keys()):
            size, limit = format_memory(large[user]), format_memory(self._limit)
            log.warning("%s: the home has %s, more than %s", safe(user), size, limit)
        if large != self._large:
            self._large = large
            self._changed()
