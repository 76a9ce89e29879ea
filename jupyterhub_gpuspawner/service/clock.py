"""The service's clock: it goes on evenly when somebody moves the machine's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("gpus.clock")

#: seconds by which the machine's clock may differ before it counts as moved: less is drift
TOLERANCE = 5.0


class SteadyClock:
    """POSIX seconds, for deadlines and for what people read.

    It follows the machine's clock, which drifts and is corrected all the time. But where that is
    moved by more than :data:`TOLERANCE` at once (by hand, after a suspend, by a late time server),
    it goes on as if nothing had been, until the service starts again: else a clock moved forward
    would end starts that are under way, and one moved back would hold GPUs for as long.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()
        self._moved = 0

    def __call__(self) -> float:
        """The time now."""
        now = self._steady() + self._offset
        drift = self._wall() - now
        if abs(drift) <= TOLERANCE:
            self._offset += drift
            now += drift
            drift = 0.0
        moved = round(drift)
        if abs(moved - self._moved) > TOLERANCE:
            self._moved = moved
            log.warning(
                "the machine's clock was moved, by %+d s from the time that the service goes by; "
                "deadlines count on, times shown are right again after its next start",
                moved,
            )
        return now
