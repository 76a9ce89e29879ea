"""How much a user or group may hold. Limits delay or refuse a grant; they never stop a server."""

from __future__ import annotations

from .fairshare import Group
from .models import Limits, QueueEntry, Reason
from .tables import Tables


def user_limit(limits: Limits, user: str) -> int | None:
    """The limit of one user in GPUs, None = unlimited."""
    return limits.users.get(user, limits.per_user)


def never_allowed(limits: Limits, entry: QueueEntry) -> Reason | None:
    """Why the request is above a limit even when its owner holds nothing."""
    own = user_limit(limits, entry.key.user)
    if own is not None and entry.request.count > own:
        return Reason.ABOVE_USER_LIMIT
    caps = (limits.groups[group] for group in entry.groups if group in limits.groups)
    if any(entry.request.count > cap for cap in caps):
        return Reason.ABOVE_GROUP_LIMIT
    return None


def above_share(group: Group, count: int, anyway: bool = False) -> bool:
    """Whether ``count`` more GPUs are above what a group, or what it is part of, may hold.

    ``anyway``: even if it held nothing.
    """
    for part, cap in group.capped:  # noqa: SIM110 - a generator takes twice as long
        if count + (0 if anyway else part.held) > cap:
            return True
    return False


def not_now(limits: Limits, entry: QueueEntry, tables: Tables) -> Reason | None:
    """Why a request for GPUs has to wait for its owner's, or the owner's group's, other servers."""
    count = entry.request.count
    own = user_limit(limits, entry.key.user)
    if own is not None and tables.held_by_user(entry.key) + count > own:
        return Reason.USER_LIMIT
    for group in entry.groups if limits.groups else ():
        cap = limits.groups.get(group)
        if cap is not None and tables.held_by_group(entry.key.hub, group) + count > cap:
            return Reason.GROUP_LIMIT
    return None
