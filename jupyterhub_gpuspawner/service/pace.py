"""How often one user may ask: a token bucket for each. Pure; the time is an argument."""

from __future__ import annotations

import math

#: users whose buckets are kept; more of them are rid of full buckets first
REMEMBERED = 4096


class Pace:
    """Token buckets by user name.

    Parameters
    ----------
    per_minute:
        Tokens that come back in a minute; 0 = no bound.
    burst:
        Tokens that a bucket holds, and begins with.
    """

    def __init__(self, per_minute: float = 0.0, burst: int = 1) -> None:
        self._rate = per_minute / 60.0
        self._burst = float(burst)
        #: user -> (tokens, POSIX or monotonic seconds when there were as many)
        self._buckets: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, user: str, now: float) -> int:
        """Take a token at time ``now`` (seconds): 0, or whole seconds until there is one."""
        if not self._rate:
            return 0
        if len(self._buckets) >= REMEMBERED:
            self._forget_full(now)
        tokens = self._tokens(user, now)
        if tokens < 1.0:
            # nothing is taken: who asks too often does not push the end of it away
            return max(1, math.ceil((1.0 - tokens) / self._rate))
        self._buckets[user] = (tokens - 1.0, now)
        return 0

    def _tokens(self, user: str, now: float) -> float:
        tokens, since = self._buckets.get(user, (self._burst, now))
        # a clock that is set back gives nothing and takes nothing
        return min(self._burst, tokens + max(0.0, now - since) * self._rate)

    def _forget_full(self, now: float) -> None:
        """A full bucket says nothing: a new one is as full."""
        full = [user for user in self._buckets if self._tokens(user, now) >= self._burst]
        for user in full:
            del self._buckets[user]
