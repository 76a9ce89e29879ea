"""Who a server belongs to, as the scheduler's key."""

from __future__ import annotations

from ..scheduler.models import ServerKey

#: one ledger serves one Hub (several hubs on one ledger are no goal)
HUB = "hub"


def key(user: str, server: str) -> ServerKey:
    """The key of a user's server; ``server`` is empty for the default one."""
    return ServerKey(hub=HUB, user=user, server=server)
